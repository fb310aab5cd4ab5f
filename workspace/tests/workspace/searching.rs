//! Searching and listing what is large, hostile, or ignored.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use agentwire::exec::ExecHandler;
use agentwire::proto::{
    GrepArgs, GrepUnionResult, LsArgs, PiFindExecArgs, PiGrepExecArgs, PiLsExecArgs, grep_result,
    grep_union_result, ls_result, pi_find_exec_result, pi_grep_exec_result, pi_ls_exec_result,
};
use agentwire_workspace::{Limits, Workspace};

use crate::support::{Tool, call, folder, open};

async fn grep(workspace: &Workspace, args: GrepArgs) -> Result<GrepUnionResult, String> {
    match workspace.grep(&call(), args).await.unwrap().result {
        Some(grep_result::Result::Success(success)) => {
            Ok(success.workspace_results.into_values().next().unwrap())
        }
        Some(grep_result::Result::Error(error)) => Err(error.error),
        None => panic!("an empty answer"),
    }
}

fn pattern(pattern: &str) -> GrepArgs {
    GrepArgs { pattern: pattern.into(), ..GrepArgs::default() }
}

/// A directory of 100,000 entries: listed and searched with bounded answers, in bounded time.
#[tokio::test]
async fn a_directory_with_a_hundred_thousand_entries() {
    const ENTRIES: usize = 100_000;
    let shm = std::path::Path::new("/dev/shm");
    let folder = match tempfile::tempdir_in(shm) {
        Ok(folder) => folder,
        Err(_) => tempfile::tempdir().unwrap(),
    };
    let crowd = folder.path().join("crowd");
    fs::create_dir(&crowd).unwrap();
    // One file under many names where the file system lets it: that is faster to make.
    let (mut one, mut names) = (crowd.join("f000000.txt"), 0_u32);
    File::create(&one).unwrap();
    for number in 1..ENTRIES {
        let next = crowd.join(format!("f{number:06}.txt"));
        if names == 30_000 || fs::hard_link(&one, &next).is_err() {
            File::create(&next).unwrap();
            (one, names) = (next, 0);
        }
        names += 1;
    }
    let workspace = open(folder.path(), &[]);
    let begun = Instant::now();

    let listed = workspace.ls(&call(), LsArgs { path: "crowd".into(), ..LsArgs::default() }).await;
    let Some(ls_result::Result::Success(listed)) = listed.unwrap().result else { panic!() };
    let tree = listed.directory_tree_root.unwrap();
    assert_eq!(tree.num_files, i32::try_from(ENTRIES).unwrap());
    assert_eq!(tree.full_subtree_extension_counts[".txt"], tree.num_files);
    assert_eq!((tree.children_files.len(), tree.children_were_processed), (2_000, false));
    assert_eq!(tree.children_files[1].name, "f000001.txt", "the first in order");

    let args = PiLsExecArgs { path: Some("crowd".into()), ..PiLsExecArgs::default() };
    let Some(pi_ls_exec_result::Result::Success(listed)) =
        workspace.pi_ls(&call(), args).await.unwrap().result
    else {
        panic!()
    };
    assert_eq!(listed.entry_limit_reached, Some(500));
    assert_eq!(listed.truncation.unwrap().total_lines, u32::try_from(ENTRIES).unwrap());

    let args = PiFindExecArgs { pattern: "f0999*.txt".into(), ..PiFindExecArgs::default() };
    let Some(pi_find_exec_result::Result::Success(found)) =
        workspace.pi_find(&call(), args).await.unwrap().result
    else {
        panic!()
    };
    assert_eq!(found.output.lines().count(), 100);

    let glob = GrepArgs { glob: Some("**/*.txt".into()), ..GrepArgs::default() };
    let Some(grep_union_result::Result::Files(files)) =
        grep(&workspace, glob).await.unwrap().result
    else {
        panic!()
    };
    assert_eq!(files.total_files, i32::try_from(ENTRIES).unwrap());
    assert!(files.files.len() == 2_000 && files.client_truncated);
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
}

/// Patterns that other engines take for ever over, and some that take gigabytes to compile.
#[tokio::test]
async fn catastrophic_patterns_end() {
    let folder = folder();
    fs::write(folder.path().join("as"), "a".repeat(100_000) + "!\n").unwrap();
    let workspace = open(folder.path(), &[]);
    let begun = Instant::now();
    for text in ["(a+)+$", "(a|a)*b", "(a*)*c", "^(([a-z])+.)+[A-Z]([a-z])+$"] {
        grep(&workspace, pattern(text)).await.unwrap();
    }
    for text in [
        "a{1000}{1000}{10}".to_owned(),
        "(\\w{200}){200}".to_owned(),
        "(".repeat(1_000) + &")".repeat(1_000),
        "x|".repeat(10_000),
        "[".into(),
        "*".into(),
    ] {
        let refusal = grep(&workspace, pattern(&text)).await.unwrap_err();
        assert!(refusal.contains("pattern"), "{refusal}");
        let args = PiGrepExecArgs { pattern: text, ..PiGrepExecArgs::default() };
        let answer = workspace.pi_grep(&call(), args).await.unwrap().result;
        assert!(matches!(answer, Some(pi_grep_exec_result::Result::Error(_))), "{answer:?}");
    }
    let long = "{a,b}".repeat(2_000);
    let glob = GrepArgs { glob: Some(long.clone()), ..pattern("a") };
    assert!(grep(&workspace, glob).await.is_err());
    let find = PiFindExecArgs { pattern: long.clone(), ..PiFindExecArgs::default() };
    let found = workspace.pi_find(&call(), find).await.unwrap().result;
    assert!(matches!(found, Some(pi_find_exec_result::Result::Error(_))), "{found:?}");
    for ignore in [vec![long], vec!["a".to_owned(); 1_000]] {
        let args = LsArgs { path: ".".into(), ignore, ..LsArgs::default() };
        let listed = workspace.ls(&call(), args).await.unwrap().result;
        assert!(matches!(listed, Some(ls_result::Result::Error(_))), "{listed:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn huge_lines_are_cut_and_line_ends_are_not_part_of_them() {
    let folder = folder();
    let path = folder.path();
    fs::write(
        path.join("long"),
        format!("{}needle{}\nnext\n", "ä".repeat(9_000), "b".repeat(9_000)),
    )
    .unwrap();
    fs::write(path.join("dos"), "needle\r\nneedle two\r\n").unwrap();
    let workspace = open(path, &[]);
    let Some(grep_union_result::Result::Content(found)) =
        grep(&workspace, pattern("needle")).await.unwrap().result
    else {
        panic!()
    };
    let lines: Vec<_> = found.matches.iter().flat_map(|file| &file.matches).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((lines[0].content.as_str(), lines[0].content_truncated), ("needle", false));
    assert!(lines[2].content_truncated && lines[2].content.len() <= 2_000);
    // `$` stands before a carriage return too.
    let Some(grep_union_result::Result::Count(found)) =
        grep(&workspace, GrepArgs { output_mode: Some("count".into()), ..pattern("needle$") })
            .await
            .unwrap()
            .result
    else {
        panic!()
    };
    assert_eq!((found.total_files, found.total_matches), (1, 1));
}

/// One line of 32 MiB: more than a search holds. The others files are searched all the same.
#[tokio::test]
async fn a_line_that_does_not_fit_ends_its_file_and_not_the_search() {
    let folder = folder();
    fs::write(folder.path().join("a-line"), vec![b'x'; 32 << 20]).unwrap();
    let workspace = open(folder.path(), &[]);
    let Some(grep_union_result::Result::Content(found)) =
        grep(&workspace, pattern("two")).await.unwrap().result
    else {
        panic!()
    };
    assert_eq!(found.total_matched_lines, 2);
    assert!(found.ripgrep_truncated, "not all was searched, and that is told");
}

/// An answer is bounded in bytes, whatever makes it long: lines, or the paths of the files.
#[tokio::test]
async fn answers_are_bounded_in_bytes() {
    let folder = folder();
    let mut deep = folder.path().to_owned();
    for _ in 0..5 {
        deep.push("d".repeat(250));
    }
    fs::create_dir_all(&deep).unwrap();
    for number in 0..300 {
        fs::write(deep.join(format!("{number:0250}")), "needle\n").unwrap();
    }
    let mut limits = Limits::default();
    limits.answer_bytes = 64 << 10;
    let workspace = Workspace::builder(folder.path()).limits(limits).build().unwrap();
    for mode in ["content", "files_with_matches", "count"] {
        let args = GrepArgs { output_mode: Some(mode.into()), ..pattern("needle") };
        let found = format!("{:?}", grep(&workspace, args).await.unwrap());
        assert!(found.len() < 3 * (64 << 10), "{mode}: {} bytes", found.len());
        assert!(found.contains("client_truncated: true"), "{mode}");
    }
    for tool in [Tool::PiGrep, Tool::PiFind, Tool::Ls] {
        let seen = tool.run(&workspace, ".").await.unwrap();
        assert!(seen.len() < 4 * (64 << 10), "{tool:?}: {} bytes", seen.len());
    }
}

#[tokio::test]
async fn what_patterns_and_searches_may_take_can_be_set() {
    let folder = folder();
    fs::write(folder.path().join("long.txt"), "x".repeat(100_000) + "needle\n").unwrap();
    let with = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        Workspace::builder(folder.path()).limits(limits).build().unwrap()
    };
    let short = with(|limits| limits.pattern_bytes = 5);
    let refusal = grep(&short, pattern("needle")).await.unwrap_err();
    assert!(refusal.contains("at most 5 bytes"), "{refusal}");
    let glob = GrepArgs { glob: Some("*.text".into()), ..pattern("need") };
    assert!(grep(&short, glob).await.unwrap_err().contains("at most 5 bytes"));

    let heavy = pattern("(needle|[a-z]{3}){200}");
    let memory = with(|limits| limits.pattern_memory = 10_000);
    assert!(grep(&memory, heavy.clone()).await.unwrap_err().contains("not a valid pattern"));
    assert!(grep(&with(|_| {}), heavy).await.is_ok());

    let found = async |workspace: &Workspace| {
        format!("{:?}", grep(workspace, pattern("needle")).await.unwrap()).contains("long.txt")
    };
    assert!(found(&with(|_| {})).await);
    assert!(!found(&with(|limits| limits.search_bytes = 50_000)).await, "a line beyond the limit");

    let listed = async |workspace: &Workspace, globs: usize| {
        let ignore = (0..globs).map(|n| format!("*.{n}")).collect();
        let args = LsArgs { path: ".".into(), ignore, ..LsArgs::default() };
        matches!(
            workspace.ls(&call(), args).await.unwrap().result,
            Some(ls_result::Result::Success(_))
        )
    };
    let two = with(|limits| limits.globs = 2);
    assert!(listed(&two, 2).await && !listed(&two, 3).await);
    assert!(listed(&with(|_| {}), 256).await && !listed(&with(|_| {}), 257).await);
}

#[tokio::test]
async fn what_is_ignored_is_not_found() {
    let folder = folder();
    let path = folder.path();
    fs::create_dir_all(path.join("target/deep")).unwrap();
    fs::create_dir_all(path.join(".git")).unwrap();
    fs::write(path.join("target/deep/t.txt"), "two\n").unwrap();
    fs::write(path.join(".git/config"), "two\n").unwrap();
    fs::write(path.join(".gitignore"), "/target\n*.log\n!keep.log\n[bad\n").unwrap();
    fs::write(path.join("x.log"), "two\n").unwrap();
    fs::write(path.join("keep.log"), "two\n").unwrap();
    fs::write(path.join("sub/.ignore"), "b.*\n").unwrap();
    let workspace = open(path, &[]);
    for tool in [Tool::Ls, Tool::Grep, Tool::Glob, Tool::PiGrep, Tool::PiFind] {
        let seen = tool.run(&workspace, ".").await.unwrap();
        assert!(seen.contains("keep.log") && seen.contains("a.txt"), "{tool:?}: {seen}");
        for hidden in ["x.log", "t.txt", "b.txt", "config"] {
            assert!(!seen.contains(hidden), "{tool:?} shows {hidden}: {seen}");
        }
    }
    // Asked for by name it is there.
    let seen = Tool::Grep.run(&workspace, "x.log").await.unwrap();
    assert!(seen.contains("two"), "{seen}");
}

#[tokio::test]
async fn a_search_answers_in_its_time_with_what_it_has() {
    let folder = folder();
    for number in 0..2_000 {
        fs::write(folder.path().join(format!("{number:04}")), "two\n".repeat(50)).unwrap();
    }
    let mut limits = Limits::default();
    limits.file_time = Duration::from_millis(1);
    let workspace = Workspace::builder(folder.path()).limits(limits).build().unwrap();
    let begun = Instant::now();
    // Either what it has, said to be not all, or that time was up: no silence.
    match grep(&workspace, pattern("two")).await {
        Ok(found) => assert!(format!("{found:?}").contains("ripgrep_truncated: true")),
        Err(refusal) => assert!(refusal.contains("time limit"), "{refusal}"),
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
}

/// Ignore rules are written by strangers too: a file full of costly ones is read in part.
#[tokio::test]
async fn ignore_rules_that_are_work_by_themselves() {
    let folder = folder();
    let rules: String =
        (0..40_000).map(|number| format!("**/a*b?[x-z]{{c,d}}*{number}*/**/e\n")).collect();
    fs::write(folder.path().join(".gitignore"), "/a.txt\n".to_owned() + &rules).unwrap();
    let workspace = open(folder.path(), &[]);
    let begun = Instant::now();
    let seen = Tool::PiFind.run(&workspace, ".").await.unwrap();
    eprintln!("{:?}", begun.elapsed());
    assert!(seen.contains("b.txt") && !seen.contains("a.txt"), "{seen}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

//! Reading: ranges, files that are larger than memory, binary files, files that change.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use agentwire::exec::ExecHandler;
use agentwire::proto::{
    PiReadExecArgs, PiReadExecSuccess, ReadArgs, ReadSuccess, pi_read_exec_result, read_result,
    read_success,
};
use agentwire_workspace::{Access, Workspace};

use crate::support::{Tool, call, folder, open, read, read_with};

fn range(path: &str, offset: i32, limit: u32) -> ReadArgs {
    let (offset, limit) = (Some(offset), Some(limit));
    ReadArgs { path: path.into(), offset, limit, ..ReadArgs::default() }
}

async fn success(workspace: &Workspace, args: ReadArgs) -> ReadSuccess {
    match workspace.read(&call(), args).await.unwrap().result {
        Some(read_result::Result::Success(success)) => success,
        other => panic!("{other:?}"),
    }
}

fn text(success: &ReadSuccess) -> &str {
    match &success.output {
        Some(read_success::Output::Content(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn lines_are_counted_from_the_start_and_from_the_end() {
    let folder = folder();
    let lines: String = (1..=100).map(|number| format!("line {number}\n")).collect();
    fs::write(folder.path().join("long"), &lines).unwrap();
    fs::write(folder.path().join("open"), lines.trim_end()).unwrap();
    fs::write(folder.path().join("empty"), "").unwrap();
    let workspace = open(folder.path(), &[]);
    for file in ["long", "open"] {
        for (offset, limit, expected) in [
            (1, 1, "line 1\n"),
            (0, 1, "line 1\n"),
            (99, 1, "line 99\n"),
            (-2, 1, "line 99\n"),
            (-100, 1, "line 1\n"),
            (-500, 1, "line 1\n"),
            (101, 5, ""),
        ] {
            let got = success(&workspace, range(file, offset, limit)).await;
            assert_eq!(text(&got), expected, "{file} {offset} {limit}");
            assert_eq!((got.total_lines, got.truncated), (100, false), "{file} {offset} {limit}");
            assert!(got.range_applied || offset == 0);
        }
        let last = success(&workspace, range(file, 100, 5)).await;
        assert_eq!(text(&last).trim_end(), "line 100");
        let last = success(&workspace, range(file, -1, 0)).await;
        assert_eq!(text(&last).trim_end(), "line 100");
    }
    let empty = success(&workspace, ReadArgs { path: "empty".into(), ..ReadArgs::default() }).await;
    assert_eq!((text(&empty), empty.total_lines, empty.file_size), ("", 0, 0));
}

/// Bytes come back as they are: carriage returns are part of a line, other encodings are shown as
/// far as they can be.
#[tokio::test]
async fn line_ends_and_encodings_are_kept() {
    let folder = folder();
    fs::write(folder.path().join("dos"), "a\r\nb\r\n").unwrap();
    fs::write(folder.path().join("latin"), b"caf\xe9\n").unwrap();
    fs::write(folder.path().join("bom"), "\u{feff}a\n").unwrap();
    let workspace = open(folder.path(), &[]);
    assert_eq!(read(&workspace, "dos").await.unwrap(), "a\r\nb\r\n");
    assert_eq!(text(&success(&workspace, range("dos", 2, 1)).await), "b\r\n");
    assert_eq!(read(&workspace, "latin").await.unwrap(), "caf\u{fffd}\n");
    assert_eq!(read(&workspace, "bom").await.unwrap(), "\u{feff}a\n");
}

#[tokio::test]
async fn a_long_file_keeps_its_head_and_its_tail() {
    let folder = folder();
    let mut file = File::create(folder.path().join("long")).unwrap();
    for number in 0..100_000 {
        writeln!(file, "line number {number}").unwrap();
    }
    drop(file);
    let workspace = open(folder.path(), &[]);
    let got = success(&workspace, ReadArgs { path: "long".into(), ..ReadArgs::default() }).await;
    let kept = text(&got);
    assert!(kept.starts_with("line number 0\n") && kept.ends_with("line number 99999\n"));
    assert!(kept.contains("characters left out") && kept.len() < 270_000, "{}", kept.len());
    assert!(got.truncated && got.total_lines == 100_000);
    // The second family gets the head, and is told where to go on.
    let pi = pi_read(&workspace, "long").await.unwrap();
    assert!(pi.output.starts_with("line number 0\n") && pi.output.contains("go on with offset"));
    assert_eq!(pi.truncation.unwrap().total_lines, 100_000);
}

async fn pi_read(workspace: &Workspace, path: &str) -> Result<PiReadExecSuccess, String> {
    let args = PiReadExecArgs { path: path.into(), ..PiReadExecArgs::default() };
    match workspace.pi_read(&call(), args).await.unwrap().result {
        Some(pi_read_exec_result::Result::Success(success)) => Ok(success),
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test]
async fn a_binary_file_is_given_whole_or_not_at_all() {
    let folder = folder();
    let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    fs::write(folder.path().join("binary"), &bytes).unwrap();
    sparse(&folder.path().join("large"), 9 << 20, b"\0", b"");
    let workspace = open(folder.path(), &[Access::Write]);
    let got = success(&workspace, ReadArgs { path: "binary".into(), ..ReadArgs::default() }).await;
    assert_eq!(got.output, Some(read_success::Output::Data(bytes.clone().into())));
    assert_eq!((got.total_lines, got.file_size, got.truncated), (0, 10_000, false));
    let refusal = read(&workspace, "large").await.unwrap_err();
    assert!(refusal.contains("InvalidFile") && refusal.contains("binary"), "{refusal}");
    let refusal = read_with(&workspace, range("binary", 1, 1)).await.unwrap_err();
    assert!(refusal.contains("has no lines"), "{refusal}");
    assert!(pi_read(&workspace, "binary").await.unwrap_err().contains("binary"));
    // No search finds anything in it, and no edit damages it.
    fs::write(folder.path().join("only"), b"two\0two\n").unwrap();
    for tool in [Tool::Grep, Tool::PiGrep] {
        let seen = tool.run(&workspace, "only").await.unwrap();
        assert!(!seen.contains("two"), "{tool:?}: {seen}");
    }
    assert!(Tool::PiEdit.run(&workspace, "only").await.unwrap_err().contains("binary"));
    assert_eq!(fs::read(folder.path().join("only")).unwrap(), b"two\0two\n");
}

/// A file of `length` bytes that takes no room, with a beginning and an end.
fn sparse(path: &Path, length: u64, head: &[u8], tail: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(length).unwrap();
    file.write_all_at(head, 0).unwrap();
    file.write_all_at(tail, length - tail.len() as u64).unwrap();
}

/// What this process has had in memory at most, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
    kib << 10
}

/// 10 GiB, in memory for a thousandth of it, and in the time that the first 256 MiB take.
#[tokio::test]
async fn a_file_of_ten_gibibytes() {
    const LENGTH: u64 = 10 << 30;
    let folder = folder();
    let head: String = (1..=2_000).map(|number| format!("first {number}\n")).collect();
    let tail: String = (1..=2_000).map(|number| format!("\nlast {number}")).collect();
    let path = folder.path().join("huge");
    sparse(&path, LENGTH, head.as_bytes(), tail.as_bytes());
    let (workspace, begun) = (open(folder.path(), &[Access::Write]), Instant::now());

    let all = success(&workspace, ReadArgs { path: "huge".into(), ..ReadArgs::default() }).await;
    assert!(text(&all).starts_with("first 1\n") && text(&all).ends_with("last 2000"));
    assert!(text(&all).contains("bytes left out") && all.truncated);
    assert_eq!(all.file_size, i64::try_from(LENGTH).unwrap());
    let few = success(&workspace, range("huge", 2, 2)).await;
    assert_eq!((text(&few), few.truncated), ("first 2\nfirst 3\n", false));
    let last = success(&workspace, range("huge", -2, 1)).await;
    assert_eq!(text(&last), "last 1999\n");
    let beyond = read_with(&workspace, range("huge", 1_000_000, 1)).await.unwrap_err();
    assert!(beyond.contains("negative offset"), "{beyond}");
    let pi = pi_read(&workspace, "huge").await.unwrap();
    assert!(pi.output.starts_with("first 1\n") && pi.truncation.is_some());
    // Neither held in memory to be searched, nor to be edited or deleted.
    let seen = Tool::Grep.run(&workspace, "huge").await.unwrap();
    assert!(seen.contains("first 1\"") && seen.contains("ripgrep_truncated: true"), "{seen}");
    let refusal = Tool::PiEdit.run(&workspace, "huge").await.unwrap_err();
    assert!(refusal.contains("limit for an edit"), "{refusal}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    Tool::Delete.run(&workspace, "huge").await.unwrap();
    assert!(!path.exists());
    // All tests of this binary together, far below the file.
    assert!(peak() < 2 << 30, "{} bytes", peak());
}

/// A log that grows, a file that is cut, and one that is exchanged, read again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_others_change_is_one_state_of_it_or_an_answer_that_says_so() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let folder = folder();
    let path = folder.path().join("live");
    fs::write(&path, "a\n").unwrap();
    let workspace = open(folder.path(), &[]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let line = "a".repeat(99) + "\n";
            for round in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                match round % 50 {
                    // Exchanged for another file, with other letters.
                    49 => {
                        fs::write(folder.path().join("next"), "b\n".repeat(50)).unwrap();
                        fs::rename(folder.path().join("next"), &path).unwrap();
                        fs::write(&path, "a\n").unwrap();
                    }
                    24 => File::options().write(true).open(&path).unwrap().set_len(2).unwrap(),
                    _ => {
                        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                        file.write_all(line.repeat(20).as_bytes()).unwrap();
                    }
                }
            }
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for _ in 0..300 {
                    match read(&workspace, "live").await {
                        Ok(text) => assert!(!(text.contains('a') && text.contains('b'))),
                        Err(refusal) => {
                            assert!(refusal.contains("somebody else changed it"), "{refusal}");
                        }
                    }
                }
            });
        });
        stop.store(true, Ordering::Relaxed);
    });
}

//! The handler as a run uses it: what is served, what is refused, and that no path leads out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on")]

use std::fs;
use std::path::Path;

use agentwire::exec::{ExecCall, ExecHandler};
use agentwire::proto::{
    DeleteArgs, GrepArgs, LsArgs, PiEditExecArgs, PiEditReplacement, ReadArgs, ShellArgs,
    WriteArgs, delete_result, grep_result, ls_result, pi_edit_exec_result, read_result,
    read_success, shell_result, write_result,
};
use agentwire_workspace::{Access, Decision, Workspace};

fn call() -> ExecCall {
    ExecCall { id: 1, exec_id: "e".into() }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "one\ntwo\nthree\n").unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/b.txt"), "two more\n").unwrap();
    folder
}

fn open(folder: &Path, access: &[Access]) -> Workspace {
    let builder = Workspace::builder(folder);
    access.iter().fold(builder, |builder, access| builder.allow(*access)).build().unwrap()
}

async fn read(workspace: &Workspace, path: &str) -> Result<String, String> {
    let args = ReadArgs { path: path.into(), ..ReadArgs::default() };
    match workspace.read(&call(), args).await.map(|result| result.result) {
        Ok(Some(read_result::Result::Success(success))) => match success.output {
            Some(read_success::Output::Content(text)) => Ok(text),
            other => Err(format!("{other:?}")),
        },
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test]
async fn files_are_read_listed_and_searched_without_being_asked_for_more() {
    let folder = folder();
    let workspace = open(folder.path(), &[]);
    assert!(read(&workspace, "a.txt").await.unwrap().contains("two"));
    let shown = format!("{}/sub/b.txt", workspace.shown_root());
    assert!(read(&workspace, &shown).await.unwrap().contains("two more"));

    let listed = workspace.ls(&call(), LsArgs { path: ".".into(), ..LsArgs::default() }).await;
    let Some(ls_result::Result::Success(success)) = listed.unwrap().result else { panic!() };
    let root = success.directory_tree_root.unwrap();
    assert_eq!(root.children_files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["a.txt"]);
    assert_eq!(root.children_dirs.len(), 1);

    let args = GrepArgs { pattern: "two".into(), ..GrepArgs::default() };
    let Some(grep_result::Result::Success(found)) =
        workspace.grep(&call(), args).await.unwrap().result
    else {
        panic!()
    };
    assert!(format!("{found:?}").contains("b.txt"));
}

#[tokio::test]
async fn no_path_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "outside content").unwrap();
    let folder = folder();
    let target = outside.path().join("secret");
    std::os::unix::fs::symlink(&target, folder.path().join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("dir")).unwrap();
    let workspace = open(folder.path(), &[Access::Write]);
    let up = format!("../{}/secret", outside.path().file_name().unwrap().to_str().unwrap());
    for path in ["link", "dir/secret", &up, target.to_str().unwrap(), "sub/../../etc/passwd"] {
        let error = read(&workspace, path).await.unwrap_err();
        assert!(!error.contains("outside content"), "{path}: {error}");
        let args = WriteArgs { path: path.into(), file_text: "x".into(), ..WriteArgs::default() };
        let _refused = workspace.write(&call(), args).await;
        assert_eq!(fs::read_to_string(&target).unwrap(), "outside content", "{path}");
    }
}

#[tokio::test]
async fn nothing_is_changed_unless_it_was_allowed() {
    let folder = folder();
    let workspace = open(folder.path(), &[]);
    let args = WriteArgs { path: "new".into(), file_text: "x".into(), ..WriteArgs::default() };
    let written = workspace.write(&call(), args).await.map(|result| result.result);
    assert!(!matches!(written, Ok(Some(write_result::Result::Success(_)))), "{written:?}");
    let shell = ShellArgs { command: "touch new".into(), ..ShellArgs::default() };
    let ran = workspace.shell(&call(), shell).await.map(|result| result.result);
    assert!(!matches!(ran, Ok(Some(shell_result::Result::Success(_)))));
    let args = DeleteArgs { path: "a.txt".into(), ..DeleteArgs::default() };
    let deleted = workspace.delete(&call(), args).await.map(|result| result.result);
    assert!(!matches!(deleted, Ok(Some(delete_result::Result::Success(_)))));
    assert!(!folder.path().join("new").exists() && folder.path().join("a.txt").exists());
}

#[tokio::test]
async fn files_are_written_edited_and_deleted_when_that_is_allowed() {
    let folder = folder();
    let workspace = open(folder.path(), &[Access::Write]);
    let args =
        WriteArgs { path: "deep/new.txt".into(), file_text: "hi\n".into(), ..WriteArgs::default() };
    let written = workspace.write(&call(), args).await.unwrap().result;
    assert!(matches!(written, Some(write_result::Result::Success(_))), "{written:?}");
    assert_eq!(fs::read_to_string(folder.path().join("deep/new.txt")).unwrap(), "hi\n");

    let edit = |old: &str, new: &str| PiEditExecArgs {
        path: "a.txt".into(),
        edits: vec![PiEditReplacement { old_text: old.into(), new_text: new.into() }],
    };
    let edited = workspace.pi_edit(&call(), edit("two", "2")).await.unwrap().result;
    assert!(matches!(edited, Some(pi_edit_exec_result::Result::Success(_))), "{edited:?}");
    let missing = workspace.pi_edit(&call(), edit("absent", "x")).await.unwrap().result;
    assert!(matches!(missing, Some(pi_edit_exec_result::Result::Error(_))), "{missing:?}");
    assert_eq!(fs::read_to_string(folder.path().join("a.txt")).unwrap(), "one\n2\nthree\n");

    let args = DeleteArgs { path: "a.txt".into(), ..DeleteArgs::default() };
    let deleted = workspace.delete(&call(), args).await.unwrap().result;
    assert!(matches!(deleted, Some(delete_result::Result::Success(_))), "{deleted:?}");
    assert!(!folder.path().join("a.txt").exists());
}

#[tokio::test]
async fn a_command_runs_in_the_root_and_its_end_is_told() {
    let folder = folder();
    let workspace = open(folder.path(), &[Access::Shell]);
    let run = |command: &str| ShellArgs { command: command.into(), ..ShellArgs::default() };
    let done = workspace.shell(&call(), run("cat a.txt; echo bad >&2")).await.unwrap().result;
    let Some(shell_result::Result::Success(success)) = done else { panic!("{done:?}") };
    assert!(success.stdout.contains("three") && success.stderr.contains("bad"));
    let failed = workspace.shell(&call(), run("exit 3")).await.unwrap().result;
    let Some(shell_result::Result::Failure(failure)) = failed else { panic!("{failed:?}") };
    assert_eq!(failure.exit_code, 3);
}

#[tokio::test]
async fn a_command_that_ignores_the_polite_signal_is_ended_with_all_it_started() {
    let folder = folder();
    let workspace = open(folder.path(), &[Access::Shell]);
    let command = "trap '' TERM; (trap '' TERM; sleep 600) & echo $! > child; wait; sleep 600";
    let args = ShellArgs { command: command.into(), timeout: 300, ..ShellArgs::default() };
    let ended = workspace.shell(&call(), args).await.unwrap().result;
    let Some(shell_result::Result::Failure(failure)) = ended else { panic!("{ended:?}") };
    assert!(failure.aborted && failure.signal == "SIGKILL", "{failure:?}");
    let child = fs::read_to_string(folder.path().join("child")).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "still there: {stat}");
}

#[tokio::test]
async fn what_a_person_denies_is_not_done() {
    let folder = folder();
    let workspace = Workspace::builder(folder.path())
        .allow(Access::Write)
        .approve(|request| async move {
            match request.access {
                Access::Read => Decision::Allow,
                _ => Decision::Deny,
            }
        })
        .build()
        .unwrap();
    assert!(read(&workspace, "a.txt").await.is_ok());
    let args = WriteArgs { path: "a.txt".into(), file_text: "x".into(), ..WriteArgs::default() };
    let written = workspace.write(&call(), args).await.map(|result| result.result);
    assert!(!matches!(written, Ok(Some(write_result::Result::Success(_)))), "{written:?}");
    assert!(read(&workspace, "a.txt").await.unwrap().contains("three"));
}

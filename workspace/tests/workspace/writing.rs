//! Writing: whole files or nothing, what is protected, who else writes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use agentwire::exec::ExecHandler;
use agentwire::proto::{
    PiEditExecArgs, PiEditReplacement, WriteArgs, pi_edit_exec_result, write_result,
};
use agentwire_workspace::{Access, Limits, Workspace};

use crate::support::{Tool, call, folder, open};

async fn write(workspace: &Workspace, path: &str, bytes: &[u8]) -> write_result::Result {
    let file_bytes = bytes.to_vec().into();
    let args = WriteArgs { path: path.into(), file_bytes, ..WriteArgs::default() };
    workspace.write(&call(), args).await.unwrap().result.unwrap()
}

async fn edit(workspace: &Workspace, path: &str, edits: &[(&str, &str)]) -> Result<String, String> {
    let edits = edits
        .iter()
        .map(|(old, new)| PiEditReplacement { old_text: (*old).into(), new_text: (*new).into() });
    let args = PiEditExecArgs { path: path.into(), edits: edits.collect() };
    match workspace.pi_edit(&call(), args).await.unwrap().result {
        Some(pi_edit_exec_result::Result::Success(success)) => Ok(success.diff),
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test]
async fn permissions_stay_and_nothing_is_left_behind() {
    let folder = folder();
    let path = folder.path().join("a.txt");
    for mode in [0o600, 0o755, 0o640] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let workspace = open(folder.path(), &[Access::Write]);
        let written = write(&workspace, "a.txt", b"new \0 bytes").await;
        assert!(matches!(written, write_result::Result::Success(_)), "{written:?}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
    }
    assert_eq!(fs::read(&path).unwrap(), b"new \0 bytes");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "a temporary file is left");
}

#[tokio::test]
async fn what_is_read_only_or_too_large_stays_as_it_is() {
    let folder = folder();
    let path = folder.path().join("a.txt");
    let mut limits = Limits::default();
    limits.write_bytes = 10;
    let workspace =
        Workspace::builder(folder.path()).allow(Access::Write).limits(limits).build().unwrap();
    let written = write(&workspace, "new", b"eleven bytes").await;
    assert!(matches!(written, write_result::Result::Error(_)), "{written:?}");
    assert!(edit(&workspace, "a.txt", &[("two", "2")]).await.unwrap_err().contains("limit"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    let written = write(&workspace, "a.txt", b"x").await;
    let write_result::Result::PermissionDenied(denied) = written else { panic!("{written:?}") };
    assert!(denied.is_readonly && denied.error.contains("read-only"));
    assert_eq!(fs::read_to_string(path).unwrap(), "one\ntwo\nthree\n");
    assert!(!folder.path().join("new").exists());
}

/// Hooks and settings of git are commands: writing there would be a way to a shell.
#[tokio::test]
async fn nothing_of_git_is_written_by_any_path() {
    let folder = folder();
    fs::create_dir_all(folder.path().join(".git/hooks")).unwrap();
    fs::write(folder.path().join(".git/config"), "two\n").unwrap();
    symlink(".git", folder.path().join("innocent")).unwrap();
    symlink(".git/config", folder.path().join("settings.txt")).unwrap();
    let workspace = open(folder.path(), &[Access::Write]);
    for path in [
        ".git/config",
        ".GIT/config",
        "sub/../.git/config",
        "innocent/config",
        "innocent/hooks/post-checkout",
        "settings.txt",
        "sub/.git",
        "sub/.git/hooks/new",
    ] {
        for tool in [Tool::Write, Tool::PiWrite, Tool::PiEdit, Tool::Delete] {
            // The link itself is not in there.
            if tool == Tool::Delete && path == "settings.txt" {
                continue;
            }
            assert!(tool.run(&workspace, path).await.is_err(), "{tool:?} of {path}");
        }
    }
    assert_eq!(fs::read_to_string(folder.path().join(".git/config")).unwrap(), "two\n");
    assert_eq!(fs::read_dir(folder.path().join(".git/hooks")).unwrap().count(), 0);
}

#[tokio::test]
async fn edits_apply_together_or_not_at_all() {
    let folder = folder();
    let path = folder.path().join("a.txt");
    let workspace = open(folder.path(), &[Access::Write]);
    for (edits, why) in [
        (vec![("one", "1"), ("absent", "x")], "not in the file"),
        (vec![("e", "x")], "more than once"),
        (vec![("one\ntwo", "x"), ("two\nthree", "y")], "overlap"),
        (vec![("", "x")], "empty"),
        (vec![("one", "one")], "nothing would change"),
        (vec![], "1 to"),
    ] {
        let refusal = edit(&workspace, "a.txt", &edits).await.unwrap_err();
        assert!(refusal.contains(why), "{refusal}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
    }
    let diff = edit(&workspace, "a.txt", &[("three", "3"), ("one", "1")]).await.unwrap();
    assert!(diff.contains("-one\n+1\n") && diff.contains("-three\n+3\n"), "{diff}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\ntwo\n3\n");
}

/// Line ends match in either form, and what is put in takes the form that is there.
#[tokio::test]
async fn line_ends_of_a_file_are_kept() {
    let folder = folder();
    let path = folder.path().join("dos.txt");
    fs::write(&path, "one\r\ntwo\r\nthree\r\n").unwrap();
    let workspace = open(folder.path(), &[Access::Write]);
    edit(&workspace, "dos.txt", &[("one\ntwo\n", "1\n2\nmore\n")]).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\r\n2\r\nmore\r\nthree\r\n");
    fs::write(&path, b"caf\xe9 two\n").unwrap();
    let refusal = edit(&workspace, "dos.txt", &[("two", "2")]).await.unwrap_err();
    assert!(refusal.contains("not UTF-8"), "{refusal}");
    assert_eq!(fs::read(&path).unwrap(), b"caf\xe9 two\n");
}

/// Two edits of one file at the same time: both are in it, or one is told to look again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_edit_is_lost() {
    let folder = folder();
    let path = folder.path().join("many.txt");
    let lines: String = (0..20).map(|number| format!("line <{number}>\n")).collect();
    fs::write(&path, lines).unwrap();
    let workspace = std::sync::Arc::new(open(folder.path(), &[Access::Write]));
    let mut tasks = Vec::new();
    for number in 0..20 {
        let workspace = std::sync::Arc::clone(&workspace);
        tasks.push(tokio::spawn(async move {
            let (old, new) = (format!("<{number}>"), format!("[{number}]"));
            edit(&workspace, "many.txt", &[(&old, &new)]).await
        }));
    }
    let mut done = Vec::new();
    for (number, task) in tasks.into_iter().enumerate() {
        match task.await.unwrap() {
            Ok(_) => done.push(number),
            Err(refusal) => assert!(refusal.contains("somebody else changed it"), "{refusal}"),
        }
    }
    let text = fs::read_to_string(&path).unwrap();
    for number in 0..20 {
        assert_eq!(text.contains(&format!("[{number}]")), done.contains(&number), "{number}");
    }
    assert!(!done.is_empty());
}

/// Dropped in the middle, a write has happened or has not, and leaves nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_dropped_is_whole_or_not_there() {
    let folder = folder();
    let path = folder.path().join("a.txt");
    let workspace = open(folder.path(), &[Access::Write]);
    let new = vec![b'n'; 4 << 20];
    for round in 0..40_u32 {
        fs::write(&path, "old").unwrap();
        let dropped = tokio::time::timeout(
            std::time::Duration::from_micros(u64::from(round) * 150),
            write(&workspace, "a.txt", &new),
        );
        let _either = dropped.await;
        // One that comes behind it waits until the first has stopped.
        write(&workspace, "sub/b.txt", b"x").await;
        let found = fs::read(&path).unwrap();
        assert!(found == b"old" || found == new, "{} bytes", found.len());
    }
    crate::support::until("no temporary file is left", || {
        fs::read_dir(folder.path()).unwrap().count() == 2
    })
    .await;
}

//! The handler as a run uses it, by topic; here: what is served, and what is refused by default.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on")]
#![allow(clippy::disallowed_methods, reason = "hang guards over real files and processes")]

mod approval;
mod escapes;
mod output;
mod processes;
mod reading;
mod searching;
mod special;
mod support;
mod wire;
mod writing;

use std::fs;

use agentwire::exec::ExecHandler;
use agentwire::proto::{
    DeleteArgs, GrepArgs, LsArgs, PiEditExecArgs, PiEditReplacement, ShellArgs, WriteArgs,
    delete_result, grep_result, ls_result, pi_edit_exec_result, shell_result, write_result,
};
use agentwire_workspace::{Access, Workspace};

use support::{Tool, call, folder, open, read};

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

/// Every tool, for a permission that is there and one that is not.
#[tokio::test]
async fn only_reading_is_permitted_by_default() {
    let folder = folder();
    let workspace = open(folder.path(), &[]);
    for tool in Tool::ALL {
        let path = if tool.wants_folder() { "sub" } else { "a.txt" };
        let answer = tool.run(&workspace, path).await;
        assert_eq!(answer.is_ok(), tool.access() == Access::Read, "{tool:?}: {answer:?}");
        if let Err(refusal) = answer {
            let advice = format!("--allow {}", tool.access());
            assert!(refusal.contains(&advice), "{tool:?} does not say what to do: {refusal}");
        }
    }
    assert_eq!(fs::read_to_string(folder.path().join("a.txt")).unwrap(), "one\ntwo\nthree\n");
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

/// What one tool does, all of its kind are permitted; taking reading away takes all of it.
#[tokio::test]
async fn permissions_are_three_and_separate() {
    for access in [Access::Read, Access::Write, Access::Shell] {
        for tool in Tool::ALL {
            // Editing needs reading too.
            if tool == Tool::PiEdit && access != Access::Write {
                continue;
            }
            let folder = folder();
            let builder = Workspace::builder(folder.path()).forbid(Access::Read).allow(access);
            let builder = if tool == Tool::PiEdit { builder.allow(Access::Read) } else { builder };
            let workspace = builder.build().unwrap();
            let path = if tool.wants_folder() { "sub" } else { "a.txt" };
            let answer = tool.run(&workspace, path).await;
            assert_eq!(answer.is_ok(), tool.access() == access, "{access} {tool:?}: {answer:?}");
        }
    }
}

/// What is printed of a workspace in a log tells no value of a variable.
#[test]
fn debug_tells_no_secret() {
    let folder = folder();
    let workspace =
        Workspace::builder(folder.path()).env("SERVICE_TOKEN", "s3cr3t-value").build().unwrap();
    let text = format!("{workspace:?}");
    assert!(text.contains("SERVICE_TOKEN") && !text.contains("s3cr3t-value"), "{text}");
}

//! Commands: what they print, how they start, what they see of our environment.

use std::fs;
use std::time::Duration;

use agentwire::exec::ExecHandler;
use agentwire::proto::{
    PiBashExecArgs, ShellAbortReason, ShellArgs, ShellFailure, ShellSuccess, pi_bash_exec_result,
    shell_result, shell_stream,
};
use agentwire_workspace::{Access, Limits, Workspace};

use crate::support::{Events, call, folder, open};

fn args(command: &str) -> ShellArgs {
    ShellArgs { command: command.into(), ..ShellArgs::default() }
}

async fn success(workspace: &Workspace, command: &str) -> ShellSuccess {
    match workspace.shell(&call(), args(command)).await.unwrap().result {
        Some(shell_result::Result::Success(success)) => success,
        other => panic!("{other:?}"),
    }
}

async fn failure(workspace: &Workspace, args: ShellArgs) -> ShellFailure {
    match workspace.shell(&call(), args).await.unwrap().result {
        Some(shell_result::Result::Failure(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_flood_keeps_its_head_and_its_tail() {
    let folder = folder();
    let workspace = open(folder.path(), &[Access::Shell]);
    let flood = "echo first; yes middle | head -c 20000000; echo; echo last; echo bad >&2";
    let done = success(&workspace, flood).await;
    assert!(done.stdout.starts_with("first\nmiddle\n") && done.stdout.ends_with("\nlast\n"));
    assert!(done.stdout.contains("characters left out") && done.stdout.len() < 270_000);
    let (head, tail) = (done.output_head.unwrap(), done.output_tail.unwrap());
    assert!(head.starts_with("first\n") && tail.contains("last\n") && tail.contains("bad\n"));
    let all = 20_000_000 + "first\n\nlast\nbad\n".len() as u64;
    let kept = (head.chars().count() + tail.chars().count()) as u64;
    assert_eq!(u64::from(done.elided_chars.unwrap()), all - kept);
    assert_eq!(done.stderr, "bad\n", "the other stream is whole");
}

/// A flood without an end is ended by the time limit, with what it said.
#[tokio::test]
async fn a_flood_without_an_end_is_ended() {
    let folder = folder();
    let workspace = open(folder.path(), &[Access::Shell]);
    let ended = failure(&workspace, ShellArgs { timeout: 300, ..args("yes endless") }).await;
    assert!(ended.aborted && ended.stdout.starts_with("endless\n"), "{}", ended.stdout.len());
    assert_eq!(ended.abort_reason, Some(ShellAbortReason::Timeout as i32));
    assert!(ended.stdout.len() < 270_000);
    let bash = PiBashExecArgs { command: "yes endless".into(), timeout: Some(0.3) };
    let Some(pi_bash_exec_result::Result::Error(error)) =
        workspace.pi_bash(&call(), bash).await.unwrap().result
    else {
        panic!()
    };
    assert!(error.error.starts_with("endless\n") && error.error.contains("time limit"));
    assert!(error.truncation.unwrap().truncated);
}

#[tokio::test]
async fn a_stream_has_start_output_and_exit_and_is_bounded() {
    let folder = folder();
    let mut limits = Limits::default();
    (limits.stream_bytes, limits.answer_bytes) = (100_000, 1_000);
    let workspace =
        Workspace::builder(folder.path()).allow(Access::Shell).limits(limits).build().unwrap();
    let mut events = Events::default();
    // A character of two bytes, so that pieces end inside of one.
    let command = "yes ä | head -c 3000000; echo last; echo bad >&2; exit 7";
    workspace.shell_stream(&call(), args(command), &mut events).await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    let last = events.0.len() - 1;
    for (place, event) in events.0.into_iter().enumerate() {
        match event {
            shell_stream::Event::Start(_) => assert_eq!(place, 0),
            shell_stream::Event::Stdout(piece) => out += &piece.data,
            shell_stream::Event::Stderr(piece) => err += &piece.data,
            shell_stream::Event::Exit(exit) => {
                assert_eq!((place, exit.code, exit.aborted), (last, 7, false));
                assert_eq!(exit.cwd, workspace.shown_root());
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(out.starts_with("ä\nä\n") && out.ends_with("last\n") && err == "bad\n");
    assert!(out.contains("characters left out") && out.len() < 102_000, "{}", out.len());
    assert!(!out.contains('\u{fffd}'), "a character was cut in two");
}

#[tokio::test]
async fn output_that_is_not_text_is_shown_as_far_as_it_is() {
    let folder = folder();
    let workspace = open(folder.path(), &[Access::Shell]);
    let done = success(&workspace, "printf 'a\\377b\\000c'").await;
    assert_eq!(done.stdout, "a\u{fffd}b\0c");
}

/// A command sees who the user is and where programs are; no token of ours, no file of ours.
#[tokio::test]
async fn the_environment_and_open_files_do_not_leak() {
    let folder = folder();
    // Held open while the command runs, as a program holds sockets.
    let _held = fs::File::open(folder.path().join("a.txt")).unwrap();
    let workspace = Workspace::builder(folder.path())
        .allow(Access::Shell)
        .env("GIVEN", "on purpose")
        .build()
        .unwrap();
    let done = success(&workspace, "env").await;
    assert!(done.stdout.contains("GIVEN=on purpose\n") && done.stdout.contains("PAGER=cat\n"));
    let names: Vec<_> =
        done.stdout.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    for name in &names {
        let known = agentwire_workspace::INHERITED.contains(name)
            || agentwire_workspace::SET.iter().any(|(set, _)| set == name)
            || ["PWD", "OLDPWD", "SHLVL", "_", "AGENTWIRE_SHELL", "GIVEN"].contains(name);
        assert!(known, "{name} was handed on");
    }
    if cfg!(target_os = "linux") {
        let open = success(&workspace, "ls -l /proc/self/fd").await;
        let root = folder.path().file_name().unwrap().to_str().unwrap();
        assert!(!open.stdout.contains(root), "{}", open.stdout);
    }
    let input = success(&workspace, "cat; test -t 0 || echo none").await;
    assert_eq!(input.stdout, "none\n", "there is nothing to read from");
}

/// `pwd` says where it is as the service knows it, also in a folder that is reached by a link.
#[tokio::test]
async fn a_command_starts_in_the_folder_that_was_named() {
    let folder = folder();
    std::os::unix::fs::symlink("sub", folder.path().join("link")).unwrap();
    let workspace = open(folder.path(), &[Access::Shell]);
    let real = folder.path().canonicalize().unwrap();
    for (asked, is) in [("", real.clone()), ("sub", real.join("sub")), ("link", real.join("sub"))] {
        let args = ShellArgs { working_directory: asked.into(), ..args("pwd; /bin/pwd") };
        let Some(shell_result::Result::Success(done)) =
            workspace.shell(&call(), args).await.unwrap().result
        else {
            panic!("{asked}")
        };
        let is = is.to_str().unwrap();
        assert_eq!(done.stdout, format!("{is}\n{is}\n"));
    }
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let folder = folder();
    let workspace = open(folder.path(), &[Access::Shell]);
    let answer = |args| async {
        format!("{:?}", workspace.shell(&call(), args).await.unwrap().result.unwrap())
    };
    let missing = ShellArgs { working_directory: "absent".into(), ..args("true") };
    let text = answer(missing).await;
    assert!(text.contains("SpawnError") && text.contains("working directory"), "{text}");
    let text = answer(args("echo \0")).await;
    assert!(text.contains("zero byte") && !text.contains("working directory cannot"), "{text}");
    let text = answer(ShellArgs { is_background: true, ..args("true") }).await;
    assert!(text.contains("Rejected") && text.contains("foreground"), "{text}");
    let broken =
        Workspace::builder(folder.path()).allow(Access::Shell).shell("/no/such/shell").build();
    let refused = broken.unwrap().shell(&call(), args("true")).await.unwrap().result.unwrap();
    assert!(format!("{refused:?}").contains("could not be started"), "{refused:?}");
}

/// Of the two limits that the service may name the harder one holds, and never more than ours.
#[tokio::test]
async fn the_shortest_time_limit_holds() {
    let folder = folder();
    let mut limits = Limits::default();
    limits.shell_time_max = Duration::from_millis(300);
    let workspace =
        Workspace::builder(folder.path()).allow(Access::Shell).limits(limits).build().unwrap();
    for (timeout, hard_timeout) in [(0, None), (600_000, None), (600_000, Some(200)), (-5, None)] {
        let ended = failure(&workspace, ShellArgs { timeout, hard_timeout, ..args("sleep 600") });
        assert!(ended.await.aborted, "{timeout} {hard_timeout:?}");
    }
}

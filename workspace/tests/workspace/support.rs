//! Every tool of a workspace under one form, for tests that hold for all of them.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use agentwire::exec::{ExecCall, ExecHandler, ShellSink};
use agentwire::proto::{
    DeleteArgs, GrepArgs, LsArgs, PiEditExecArgs, PiEditReplacement, PiFindExecArgs,
    PiGrepExecArgs, PiLsExecArgs, PiReadExecArgs, PiWriteExecArgs, ReadArgs, ShellArgs, WriteArgs,
    delete_result, grep_result, ls_result, pi_edit_exec_result, pi_find_exec_result,
    pi_grep_exec_result, pi_ls_exec_result, pi_read_exec_result, pi_write_exec_result, read_result,
    read_success, shell_result, shell_stream, write_result,
};
use agentwire_workspace::{Access, Workspace};

pub(crate) fn call() -> ExecCall {
    ExecCall { id: 1, exec_id: "e".into() }
}

pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "one\ntwo\nthree\n").unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/b.txt"), "two more\n").unwrap();
    folder
}

pub(crate) fn open(folder: &Path, access: &[Access]) -> Workspace {
    let builder = Workspace::builder(folder);
    access.iter().fold(builder, |builder, access| builder.allow(*access)).build().unwrap()
}

/// The text of a file, or the refusal.
pub(crate) async fn read(workspace: &Workspace, path: &str) -> Result<String, String> {
    read_with(workspace, ReadArgs { path: path.into(), ..ReadArgs::default() }).await
}

pub(crate) async fn read_with(workspace: &Workspace, args: ReadArgs) -> Result<String, String> {
    match workspace.read(&call(), args).await.map(|result| result.result) {
        Ok(Some(read_result::Result::Success(success))) => match success.output {
            Some(read_success::Output::Content(text)) => Ok(text),
            other => Err(format!("{other:?}")),
        },
        other => Err(format!("{other:?}")),
    }
}

/// Polls until it holds: for what another process does, which nothing else tells of.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Keeps the events of a streaming shell.
#[derive(Default)]
pub(crate) struct Events(pub(crate) Vec<shell_stream::Event>);

impl ShellSink for Events {
    fn send(
        &mut self,
        event: shell_stream::Event,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.0.push(event);
        Box::pin(std::future::ready(()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Read,
    PiRead,
    Ls,
    PiLs,
    Grep,
    Glob,
    PiGrep,
    PiFind,
    Write,
    PiWrite,
    PiEdit,
    Delete,
    Shell,
    ShellStream,
    MiniBash,
}

impl Tool {
    pub(crate) const ALL: [Self; 15] = [
        Self::Read,
        Self::PiRead,
        Self::Ls,
        Self::PiLs,
        Self::Grep,
        Self::Glob,
        Self::PiGrep,
        Self::PiFind,
        Self::Write,
        Self::PiWrite,
        Self::PiEdit,
        Self::Delete,
        Self::Shell,
        Self::ShellStream,
        Self::MiniBash,
    ];

    pub(crate) fn access(self) -> Access {
        match self {
            Self::Read
            | Self::PiRead
            | Self::Ls
            | Self::PiLs
            | Self::Grep
            | Self::Glob
            | Self::PiGrep
            | Self::PiFind => Access::Read,
            Self::Write | Self::PiWrite | Self::PiEdit | Self::Delete => Access::Write,
            Self::Shell | Self::ShellStream | Self::MiniBash => Access::Shell,
        }
    }

    /// It is about a folder, or about a file.
    pub(crate) fn wants_folder(self) -> bool {
        matches!(self, Self::Ls | Self::PiLs | Self::PiFind) || self.access() == Access::Shell
    }

    /// Asks the workspace: reads, lists, searches for `t`, writes `x`, replaces `two`, deletes, or
    /// runs `cat *` there. All that the service would see, as a success or as anything else.
    #[allow(clippy::too_many_lines, reason = "a table")]
    pub(crate) async fn run(self, workspace: &Workspace, path: &str) -> Result<String, String> {
        macro_rules! answer {
            ($method:ident, $args:expr, $result:ident) => {{
                let answer = workspace.$method(&call(), $args).await.unwrap();
                let seen = format!("{answer:?}");
                match answer.result {
                    Some($result::Result::Success(_)) => Ok(seen),
                    Some(_) => Err(seen),
                    None => panic!("{self:?}: an empty answer"),
                }
            }};
        }
        let path = path.to_owned();
        let shell = || ShellArgs {
            command: "pwd; cat ./* 2>/dev/null || true".into(),
            working_directory: path.clone(),
            ..ShellArgs::default()
        };
        match self {
            Self::Read => answer!(read, ReadArgs { path, ..ReadArgs::default() }, read_result),
            Self::PiRead => answer!(
                pi_read,
                PiReadExecArgs { path, ..PiReadExecArgs::default() },
                pi_read_exec_result
            ),
            Self::Ls => answer!(ls, LsArgs { path, ..LsArgs::default() }, ls_result),
            Self::PiLs => answer!(
                pi_ls,
                PiLsExecArgs { path: Some(path), ..PiLsExecArgs::default() },
                pi_ls_exec_result
            ),
            Self::Grep | Self::Glob => {
                let pattern = if self == Self::Grep { "t" } else { "" }.to_owned();
                let args = GrepArgs { pattern, path: Some(path), ..GrepArgs::default() };
                answer!(grep, args, grep_result)
            }
            Self::PiGrep => {
                let path = Some(path);
                let args = PiGrepExecArgs { pattern: "t".into(), path, ..Default::default() };
                answer!(pi_grep, args, pi_grep_exec_result)
            }
            Self::PiFind => {
                let path = Some(path);
                let args = PiFindExecArgs { pattern: "*".into(), path, ..Default::default() };
                answer!(pi_find, args, pi_find_exec_result)
            }
            Self::Write => {
                let args = WriteArgs { path, file_text: "x".into(), ..WriteArgs::default() };
                answer!(write, args, write_result)
            }
            Self::PiWrite => answer!(
                pi_write,
                PiWriteExecArgs { path, content: "x".into() },
                pi_write_exec_result
            ),
            Self::PiEdit => {
                let edit = PiEditReplacement { old_text: "two".into(), new_text: "x".into() };
                let args = PiEditExecArgs { path, edits: vec![edit] };
                answer!(pi_edit, args, pi_edit_exec_result)
            }
            Self::Delete => {
                answer!(delete, DeleteArgs { path, ..DeleteArgs::default() }, delete_result)
            }
            Self::Shell => answer!(shell, shell(), shell_result),
            Self::MiniBash => answer!(mini_swe_agent_bash, shell(), shell_result),
            Self::ShellStream => {
                let mut events = Events::default();
                workspace.shell_stream(&call(), shell(), &mut events).await.unwrap();
                let seen = format!("{:?}", events.0);
                match events.0.last() {
                    Some(shell_stream::Event::Exit(exit)) if exit.code == 0 => Ok(seen),
                    Some(_) => Err(seen),
                    None => panic!("an empty stream"),
                }
            }
        }
    }
}

//! A workspace whose every step is told.

use agentwire::exec::{Effects, ExecCall, ExecHandler, Refusal, Served, ShellSink};
use agentwire::inspect::inspect_as;
use agentwire::proto::exec_server_message::Message as Case;
use agentwire::proto::reflect::MessageInfo;
use agentwire::proto::{
    DeleteArgs, DeleteResult, GrepArgs, GrepResult, LsArgs, LsResult, PiBashExecArgs,
    PiBashExecResult, PiEditExecArgs, PiEditExecResult, PiFindExecArgs, PiFindExecResult,
    PiGrepExecArgs, PiGrepExecResult, PiLsExecArgs, PiLsExecResult, PiReadExecArgs,
    PiReadExecResult, PiWriteExecArgs, PiWriteExecResult, ReadArgs, ReadResult, ShellArgs,
    ShellResult, WriteArgs, WriteResult, shell_stream,
};
use agentwire_workspace::{Commands, Workspace};
use prost::Message;
use serde_json::{Value, json};

use super::tell::{Step, Tell};

/// Serves what the workspace serves, and tells of it.
pub(super) struct Observed {
    workspace: Workspace,
    tell: Tell,
}

impl Observed {
    pub(super) const fn new(workspace: Workspace, tell: Tell) -> Self {
        Self { workspace, tell }
    }

    pub(super) fn shown_root(&self) -> &str {
        self.workspace.shown_root()
    }

    pub(super) fn commands(&self) -> Commands {
        self.workspace.commands()
    }
}

macro_rules! observe {
    ($($method:ident($args:ident) -> $result:ident as $tool:literal, $what:expr;)*) => {$(
        fn $method<'a>(&'a self, call: &'a ExecCall, args: $args) -> Served<'a, $result> {
            let what: fn(&$args) -> String = $what;
            let step = self.tell.begin(call.id, $tool, what(&args));
            Box::pin(async move {
                let answer = self.workspace.$method(call, args).await;
                step.end(&told(stringify!($result), &answer));
                answer
            })
        }
    )*};
}

/// The result as JSON by proto names: one member, named as the case that it has.
fn told<M: Message>(name: &str, answer: &Result<M, Refusal>) -> Value {
    match answer {
        Ok(result) => MessageInfo::named(name)
            .and_then(|info| inspect_as(info, &result.encode_to_vec()).ok())
            .map(|inspected| inspected.value)
            .unwrap_or_default(),
        Err(refusal) => json!({"rejected": {"reason": refusal.to_string()}}),
    }
}

fn at(path: Option<&String>) -> &str {
    path.map(String::as_str).filter(|path| !path.is_empty()).unwrap_or(".")
}

fn search(pattern: &str, path: Option<&String>, glob: Option<&String>) -> String {
    let within = glob.map_or_else(String::new, |glob| format!(" in {glob}"));
    match pattern {
        "" => format!("find files{within} under {}", at(path)),
        pattern => format!("search {} for {pattern}{within}", at(path)),
    }
}

fn run(args: &ShellArgs) -> String {
    format!("run {}", args.command)
}

impl ExecHandler for Observed {
    fn serves(&self, case: &Case) -> bool {
        self.workspace.serves(case)
    }

    fn effects(&self, case: &Case) -> Effects {
        self.workspace.effects(case)
    }

    observe! {
        read(ReadArgs) -> ReadResult as "read_args", |args| format!("read {}", args.path);
        ls(LsArgs) -> LsResult as "ls_args", |args| format!("list {}", at(Some(&args.path)));
        grep(GrepArgs) -> GrepResult as "grep_args",
            |args| search(&args.pattern, args.path.as_ref(), args.glob.as_ref());
        write(WriteArgs) -> WriteResult as "write_args", |args| format!("write {}", args.path);
        delete(DeleteArgs) -> DeleteResult as "delete_args", |args| format!("delete {}", args.path);
        shell(ShellArgs) -> ShellResult as "shell_args", run;
        mini_swe_agent_bash(ShellArgs) -> ShellResult as "mini_swe_agent_bash_args", run;
        pi_read(PiReadExecArgs) -> PiReadExecResult as "pi_read_args",
            |args| format!("read {}", args.path);
        pi_ls(PiLsExecArgs) -> PiLsExecResult as "pi_ls_args",
            |args| format!("list {}", at(args.path.as_ref()));
        pi_grep(PiGrepExecArgs) -> PiGrepExecResult as "pi_grep_args",
            |args| search(&args.pattern, args.path.as_ref(), args.glob.as_ref());
        pi_find(PiFindExecArgs) -> PiFindExecResult as "pi_find_args",
            |args| search("", args.path.as_ref(), Some(&args.pattern));
        pi_write(PiWriteExecArgs) -> PiWriteExecResult as "pi_write_args",
            |args| format!("write {}", args.path);
        pi_edit(PiEditExecArgs) -> PiEditExecResult as "pi_edit_args",
            |args| format!("edit {}", args.path);
        pi_bash(PiBashExecArgs) -> PiBashExecResult as "pi_bash_args",
            |args| format!("run {}", args.command);
    }

    fn shell_stream<'a>(
        &'a self,
        call: &'a ExecCall,
        args: ShellArgs,
        sink: &'a mut dyn ShellSink,
    ) -> Served<'a, ()> {
        let step = self.tell.begin(call.id, "shell_stream_args", run(&args));
        Box::pin(async move {
            let mut sink = ToldSink { sink, step: &step, end: Value::Null };
            let answer = self.workspace.shell_stream(call, args, &mut sink).await;
            let end = std::mem::take(&mut sink.end);
            step.end(&end);
            answer
        })
    }

    fn background_shell_spawn<'a>(
        &'a self,
        call: &'a ExecCall,
        args: agentwire::proto::BackgroundShellSpawnArgs,
    ) -> Served<'a, agentwire::proto::BackgroundShellSpawnResult> {
        self.workspace.background_shell_spawn(call, args)
    }

    fn redacted_read<'a>(&'a self, call: &'a ExecCall, args: ReadArgs) -> Served<'a, ReadResult> {
        self.workspace.redacted_read(call, args)
    }
}

/// Passes events on and tells of them.
struct ToldSink<'a> {
    sink: &'a mut dyn ShellSink,
    step: &'a Step,
    end: Value,
}

impl ShellSink for ToldSink<'_> {
    fn send(
        &mut self,
        event: shell_stream::Event,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        use shell_stream::Event as E;
        match &event {
            E::Stdout(piece) => self.step.output("stdout", &piece.data),
            E::Stderr(piece) => self.step.output("stderr", &piece.data),
            E::Exit(exit) => {
                let case = if exit.code == 0 && !exit.aborted { "success" } else { "failure" };
                self.end = json!({case: {"exit_code": exit.code, "aborted": exit.aborted}});
            }
            E::Rejected(rejected) => self.end = json!({"rejected": {"reason": rejected.reason}}),
            E::PermissionDenied(denied) => {
                self.end = json!({"permission_denied": {"error": denied.error}});
            }
            _ => {}
        }
        self.sink.send(event)
    }
}

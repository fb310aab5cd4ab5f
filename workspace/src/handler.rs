//! The cases of the protocol that a workspace serves.

use agentwire::exec::{Effects, ExecCall, ExecHandler, Refusal, Served, ShellSink};
use agentwire::proto::exec_server_message::Message as Case;
use agentwire::proto::{
    BackgroundShellSpawnArgs, BackgroundShellSpawnResult, DeleteArgs, DeleteResult, GrepArgs,
    GrepResult, LsArgs, LsResult, PiBashExecArgs, PiBashExecResult, PiEditExecArgs,
    PiEditExecResult, PiFindExecArgs, PiFindExecResult, PiGrepExecArgs, PiGrepExecResult,
    PiLsExecArgs, PiLsExecResult, PiReadExecArgs, PiReadExecResult, PiWriteExecArgs,
    PiWriteExecResult, ReadArgs, ReadResult, ShellArgs, ShellResult, WriteArgs, WriteResult,
};

use crate::Workspace;
use crate::tools::Asker;

/// Why a file is not read in the redacted way.
const NO_REDACTION: &str = "nothing here can tell what is a secret in a file, so no file is given \
    as redacted; use the read tool, which gives it as it is";

macro_rules! serve {
    ($($method:ident($args:ident) -> $result:ident by $serve:ident;)*) => {
        $(
            fn $method<'a>(&'a self, call: &'a ExecCall, args: $args) -> Served<'a, $result> {
                Box::pin(async move { Ok(self.$serve(call, args).await) })
            }
        )*
    };
}

impl ExecHandler for Workspace {
    fn serves(&self, case: &Case) -> bool {
        matches!(
            case,
            Case::ReadArgs(_)
                | Case::LsArgs(_)
                | Case::GrepArgs(_)
                | Case::WriteArgs(_)
                | Case::DeleteArgs(_)
                | Case::ShellArgs(_)
                | Case::ShellStreamArgs(_)
                | Case::MiniSweAgentBashArgs(_)
                | Case::PiReadArgs(_)
                | Case::PiBashArgs(_)
                | Case::PiEditArgs(_)
                | Case::PiWriteArgs(_)
                | Case::PiGrepArgs(_)
                | Case::PiFindArgs(_)
                | Case::PiLsArgs(_)
                | Case::BackgroundShellSpawnArgs(_)
                | Case::RedactedReadArgs(_)
        )
    }

    fn effects(&self, case: &Case) -> Effects {
        match case {
            Case::ReadArgs(_)
            | Case::LsArgs(_)
            | Case::GrepArgs(_)
            | Case::PiReadArgs(_)
            | Case::PiGrepArgs(_)
            | Case::PiFindArgs(_)
            | Case::PiLsArgs(_)
            | Case::RedactedReadArgs(_) => Effects::ReadOnly,
            _ => Effects::Changes,
        }
    }

    serve! {
        read(ReadArgs) -> ReadResult by serve_read;
        ls(LsArgs) -> LsResult by serve_ls;
        grep(GrepArgs) -> GrepResult by serve_grep;
        write(WriteArgs) -> WriteResult by serve_write;
        delete(DeleteArgs) -> DeleteResult by serve_delete;
        pi_read(PiReadExecArgs) -> PiReadExecResult by serve_pi_read;
        pi_edit(PiEditExecArgs) -> PiEditExecResult by serve_pi_edit;
        pi_write(PiWriteExecArgs) -> PiWriteExecResult by serve_pi_write;
        pi_grep(PiGrepExecArgs) -> PiGrepExecResult by serve_pi_grep;
        pi_find(PiFindExecArgs) -> PiFindExecResult by serve_pi_find;
        pi_ls(PiLsExecArgs) -> PiLsExecResult by serve_pi_ls;
        pi_bash(PiBashExecArgs) -> PiBashExecResult by serve_pi_bash;
    }

    fn shell<'a>(&'a self, call: &'a ExecCall, args: ShellArgs) -> Served<'a, ShellResult> {
        let asker = Asker { call, tool: "shell_args" };
        Box::pin(async move { Ok(self.serve_shell(asker, args).await) })
    }

    fn mini_swe_agent_bash<'a>(
        &'a self,
        call: &'a ExecCall,
        args: ShellArgs,
    ) -> Served<'a, ShellResult> {
        let asker = Asker { call, tool: "mini_swe_agent_bash_args" };
        Box::pin(async move { Ok(self.serve_shell(asker, args).await) })
    }

    fn shell_stream<'a>(
        &'a self,
        call: &'a ExecCall,
        args: ShellArgs,
        sink: &'a mut dyn ShellSink,
    ) -> Served<'a, ()> {
        let asker = Asker { call, tool: "shell_stream_args" };
        Box::pin(async move {
            self.serve_shell_stream(asker, args, sink).await;
            Ok(())
        })
    }

    fn background_shell_spawn<'a>(
        &'a self,
        _: &'a ExecCall,
        _: BackgroundShellSpawnArgs,
    ) -> Served<'a, BackgroundShellSpawnResult> {
        refuse(crate::command::NO_BACKGROUND)
    }

    fn redacted_read<'a>(&'a self, _: &'a ExecCall, _: ReadArgs) -> Served<'a, ReadResult> {
        refuse(NO_REDACTION)
    }
}

fn refuse<'a, T: Send + 'a>(reason: &'static str) -> Served<'a, T> {
    Box::pin(std::future::ready(Err(Refusal::because(reason))))
}

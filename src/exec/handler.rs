//! The table of exec cases: name, arguments, result, and the method that serves it.

use crate::proto::exec_client_message::Message as Reply;
use crate::proto::exec_server_message::Message as Case;
use crate::proto::{self, ShellArgs};

use super::{Effects, ExecCall, Served, ShellSink, not_served, reply};

/// What came of offering an exec to a handler.
pub enum Dispatch<'a> {
    /// The future of its one result.
    One(Served<'a, Reply>),
    /// Not a case for a handler: tool calls and the request context are the run's own.
    Internal,
}

macro_rules! exec_table {
    ($($(#[$doc:meta])* $method:ident: $case:ident($args:ident) -> $reply:ident($result:ident) as $name:literal;)*) => {
        /// Serves execs. One method for each case of the protocol; each refuses by default.
        ///
        /// Object-safe: `Arc<dyn ExecHandler>` is what a run takes. Methods run side by side, each
        /// on a task of its own; a method that panics becomes a typed error to the service.
        pub trait ExecHandler: Send + Sync {
            /// Whether this case is offered to the methods at all. One that is not is refused at
            /// once, without a task. True by default: the methods decide.
            fn serves(&self, case: &Case) -> bool {
                let _ = case;
                true
            }

            /// What serving this case does to the world. A turn that breaks off is made again only
            /// when nothing changed since the last checkpoint, so say [`Effects::ReadOnly`] where
            /// it is true. By default everything changes something, unless its method refuses.
            fn effects(&self, case: &Case) -> Effects {
                let _ = case;
                Effects::Changes
            }

            $(
                $(#[$doc])*
                fn $method<'a>(
                    &'a self,
                    call: &'a ExecCall,
                    args: proto::$args,
                ) -> Served<'a, proto::$result> {
                    let _ = (call, args);
                    not_served()
                }
            )*

            /// `shell_stream_args`: like a shell, but its output is sent as it comes. The handler
            /// sends start, any number of stdout and stderr, and exit; then returns.
            fn shell_stream<'a>(
                &'a self,
                call: &'a ExecCall,
                args: ShellArgs,
                sink: &'a mut dyn ShellSink,
            ) -> Served<'a, ()> {
                let _ = (call, args, sink);
                not_served()
            }
        }

        /// The name of a case in the schema, for instance `shell_args`.
        pub fn name(case: &Case) -> &'static str {
            match case {
                $(Case::$case(_) => $name,)*
                Case::RequestContextArgs(_) => "request_context_args",
                Case::McpArgs(_) => "mcp_args",
                Case::ShellStreamArgs(_) => "shell_stream_args",
            }
        }

        /// Whether `result` is of the kind that answers the case of this [`name`].
        pub fn answers(name: &str, result: &Reply) -> bool {
            match (name, result) {
                $(($name, Reply::$reply(_)) => true,)*
                _ => false,
            }
        }

        /// Offers an exec to `handler`. `shell_stream_args` is not for this function: it needs a
        /// sink; ask [`ExecHandler::shell_stream`].
        pub fn dispatch<'a>(
            handler: &'a dyn ExecHandler,
            call: &'a ExecCall,
            case: Case,
        ) -> Dispatch<'a> {
            match case {
                $(Case::$case(args) => {
                    let served = handler.$method(call, *args);
                    Dispatch::One(Box::pin(async move {
                        served.await.map(reply(Reply::$reply))
                    }))
                })*
                Case::RequestContextArgs(_) | Case::McpArgs(_) | Case::ShellStreamArgs(_) => {
                    Dispatch::Internal
                }
            }
        }
    };
}

exec_table! {
    /// `shell_args`: run a command and give its whole output.
    shell: ShellArgs(ShellArgs) -> ShellResult(ShellResult) as "shell_args";
    /// `write_args`: write a whole file.
    write: WriteArgs(WriteArgs) -> WriteResult(WriteResult) as "write_args";
    /// `delete_args`: delete one file.
    delete: DeleteArgs(DeleteArgs) -> DeleteResult(DeleteResult) as "delete_args";
    /// `grep_args`: search files for a pattern, or list the files that match a glob.
    grep: GrepArgs(GrepArgs) -> GrepResult(GrepResult) as "grep_args";
    /// `read_args`: read a file or a range of its lines.
    read: ReadArgs(ReadArgs) -> ReadResult(ReadResult) as "read_args";
    /// `ls_args`: list a folder as a tree.
    ls: LsArgs(LsArgs) -> LsResult(LsResult) as "ls_args";
    /// `diagnostics_args`: what a language server says about a file.
    diagnostics: DiagnosticsArgs(DiagnosticsArgs) -> DiagnosticsResult(DiagnosticsResult) as "diagnostics_args";
    /// `background_shell_spawn_args`: start a command and leave it running.
    background_shell_spawn: BackgroundShellSpawnArgs(BackgroundShellSpawnArgs) -> BackgroundShellSpawnResult(BackgroundShellSpawnResult) as "background_shell_spawn_args";
    /// `list_mcp_resources_exec_args`: the resources of the host's MCP servers.
    list_mcp_resources: ListMcpResourcesExecArgs(ListMcpResourcesExecArgs) -> ListMcpResourcesExecResult(ListMcpResourcesExecResult) as "list_mcp_resources_exec_args";
    /// `read_mcp_resource_exec_args`: one resource of an MCP server.
    read_mcp_resource: ReadMcpResourceExecArgs(ReadMcpResourceExecArgs) -> ReadMcpResourceExecResult(ReadMcpResourceExecResult) as "read_mcp_resource_exec_args";
    /// `fetch_args`: fetch a web page.
    fetch: FetchArgs(FetchArgs) -> FetchResult(FetchResult) as "fetch_args";
    /// `record_screen_args`: start, save or discard a recording of the screen.
    record_screen: RecordScreenArgs(RecordScreenArgs) -> RecordScreenResult(RecordScreenResult) as "record_screen_args";
    /// `computer_use_args`: mouse, keyboard and screenshots.
    computer_use: ComputerUseArgs(ComputerUseArgs) -> ComputerUseResult(ComputerUseResult) as "computer_use_args";
    /// `write_shell_stdin_args`: type into a shell that was left running.
    write_shell_stdin: WriteShellStdinArgs(WriteShellStdinArgs) -> WriteShellStdinResult(WriteShellStdinResult) as "write_shell_stdin_args";
    /// `execute_hook_args`: run a hook of the host.
    execute_hook: ExecuteHookArgs(ExecuteHookArgs) -> ExecuteHookResult(ExecuteHookResult) as "execute_hook_args";
    /// `subagent_args`: let a subagent of the host work.
    subagent: SubagentArgs(SubagentArgs) -> SubagentResult(SubagentResult) as "subagent_args";
    /// `redacted_read_args`: read a file with secrets taken out.
    redacted_read: RedactedReadArgs(ReadArgs) -> RedactedReadResult(ReadResult) as "redacted_read_args";
    /// `force_background_shell_args`: leave a running shell to the background.
    force_background_shell: ForceBackgroundShellArgs(ForceBackgroundShellArgs) -> ForceBackgroundShellResult(ForceBackgroundShellResult) as "force_background_shell_args";
    /// `force_background_subagent_args`: leave a running subagent to the background.
    force_background_subagent: ForceBackgroundSubagentArgs(ForceBackgroundSubagentArgs) -> ForceBackgroundSubagentResult(ForceBackgroundSubagentResult) as "force_background_subagent_args";
    /// `mcp_state_exec_args`: the state of the host's MCP servers.
    mcp_state: McpStateExecArgs(McpStateExecArgs) -> McpStateExecResult(McpStateExecResult) as "mcp_state_exec_args";
    /// `subagent_await_args`: wait for a subagent.
    subagent_await: SubagentAwaitArgs(SubagentAwaitArgs) -> SubagentAwaitResult(SubagentAwaitResult) as "subagent_await_args";
    /// `smart_mode_classifier_args`: is this call safe without asking?
    smart_mode_classifier: SmartModeClassifierArgs(SmartModeClassifierArgs) -> SmartModeClassifierResult(SmartModeClassifierResult) as "smart_mode_classifier_args";
    /// `canvas_diagnostics_args`: what is wrong with a canvas file.
    canvas_diagnostics: CanvasDiagnosticsArgs(CanvasDiagnosticsArgs) -> CanvasDiagnosticsResult(CanvasDiagnosticsResult) as "canvas_diagnostics_args";
    /// `shell_allowlist_precheck_args`: may this command run without asking?
    shell_allowlist_precheck: ShellAllowlistPrecheckArgs(ShellAllowlistPrecheckArgs) -> ShellAllowlistPrecheckResult(ShellAllowlistPrecheckResult) as "shell_allowlist_precheck_args";
    /// `mcp_allowlist_precheck_args`: may this tool be called without asking?
    mcp_allowlist_precheck: McpAllowlistPrecheckArgs(McpAllowlistPrecheckArgs) -> McpAllowlistPrecheckResult(McpAllowlistPrecheckResult) as "mcp_allowlist_precheck_args";
    /// `web_fetch_allowlist_precheck_args`: may this page be fetched without asking?
    web_fetch_allowlist_precheck: WebFetchAllowlistPrecheckArgs(WebFetchAllowlistPrecheckArgs) -> WebFetchAllowlistPrecheckResult(WebFetchAllowlistPrecheckResult) as "web_fetch_allowlist_precheck_args";
    /// `git_diff_request`: the changes of a repository.
    git_diff: GitDiffRequest(GetDiffRequest) -> GitDiffResponse(GetDiffResponse) as "git_diff_request";
    /// `pi_read_args`: read a file.
    pi_read: PiReadArgs(PiReadExecArgs) -> PiReadResult(PiReadExecResult) as "pi_read_args";
    /// `pi_bash_args`: run a command.
    pi_bash: PiBashArgs(PiBashExecArgs) -> PiBashResult(PiBashExecResult) as "pi_bash_args";
    /// `pi_edit_args`: replace text in a file.
    pi_edit: PiEditArgs(PiEditExecArgs) -> PiEditResult(PiEditExecResult) as "pi_edit_args";
    /// `pi_write_args`: write a whole file.
    pi_write: PiWriteArgs(PiWriteExecArgs) -> PiWriteResult(PiWriteExecResult) as "pi_write_args";
    /// `pi_grep_args`: search files for a pattern.
    pi_grep: PiGrepArgs(PiGrepExecArgs) -> PiGrepResult(PiGrepExecResult) as "pi_grep_args";
    /// `pi_find_args`: find files by a glob.
    pi_find: PiFindArgs(PiFindExecArgs) -> PiFindResult(PiFindExecResult) as "pi_find_args";
    /// `pi_ls_args`: list a folder.
    pi_ls: PiLsArgs(PiLsExecArgs) -> PiLsResult(PiLsExecResult) as "pi_ls_args";
    /// `mini_swe_agent_bash_args`: run a command.
    mini_swe_agent_bash: MiniSweAgentBashArgs(ShellArgs) -> MiniSweAgentBashResult(ShellResult) as "mini_swe_agent_bash_args";
    /// `conversation_search_args`: search earlier conversations.
    conversation_search: ConversationSearchArgs(ConversationSearchArgs) -> ConversationSearchResult(ConversationSearchResult) as "conversation_search_args";
    /// `agent_store_conflict_args`: settle a conflict of the agent's store.
    agent_store_conflict: AgentStoreConflictArgs(AgentStoreConflictArgs) -> AgentStoreConflictResult(AgentStoreConflictResult) as "agent_store_conflict_args";
}

//! A handler that serves every exec and answers every query, and what it gives.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use agentwire::exec::{self, Ask, Dispatch, Effects, ExecCall, ExecHandler, Served, ShellSink};
use agentwire::proto;
use agentwire::proto::exec_server_message::Message as Exec;
use agentwire::proto::interaction_query::Query;
use agentwire::proto::{
    ExecClientMessage, InteractionResponse, ShellStreamExit, ShellStreamStdout, shell_stream,
};
use agentwire::run::ServeResult;
use agentwire::wire::put_bytes;
use prost::Message;

use super::tables::{self, Case};

/// A message whose first field is set, whatever it is: it says something.
fn something<T: Message + Default>() -> T {
    // A message, a string or a list with one of them; a number, a flag or an enum.
    let first: [&[u8]; 2] = [&[0x0a, 0], &[0x08, 1]];
    let found = first.iter().filter_map(|bytes| T::decode(*bytes).ok());
    found.max_by_key(Message::encoded_len).expect("a field 1")
}

/// What comes of a question before it is answered.
pub(crate) trait Mood: Send + Sync {
    /// Whether an exec is served at all.
    fn serves(&self) -> bool {
        true
    }

    /// What serving does to the world.
    fn effects(&self) -> Effects {
        Effects::Changes
    }

    /// A question came: the answer goes out when this is done, if it is done well.
    fn work(&self) -> Served<'_, ()>;
}

/// Answers at once.
pub(crate) struct Eager;

impl Mood for Eager {
    fn work(&self) -> Served<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

pub(crate) struct Everything<M>(pub(crate) M);

macro_rules! serves {
    ($($method:ident($args:ident) -> $result:ident;)*) => {
        impl<M: Mood> ExecHandler for Everything<M> {
            fn serves(&self, _: &Exec) -> bool {
                self.0.serves()
            }

            fn effects(&self, _: &Exec) -> Effects {
                self.0.effects()
            }

            $(
                fn $method<'a>(&'a self, _: &'a ExecCall, _: proto::$args) -> Served<'a, proto::$result> {
                    let work = self.0.work();
                    Box::pin(async move { work.await.map(|()| something()) })
                }
            )*

            fn shell_stream<'a>(
                &'a self,
                _: &'a ExecCall,
                _: proto::ShellArgs,
                sink: &'a mut dyn ShellSink,
            ) -> Served<'a, ()> {
                Box::pin(async move {
                    let out = ShellStreamStdout { data: "out".into() };
                    sink.send(shell_stream::Event::Stdout(out)).await;
                    self.0.work().await?;
                    sink.send(shell_stream::Event::Exit(ShellStreamExit::default())).await;
                    Ok(())
                })
            }
        }
    };
}

serves! {
    shell(ShellArgs) -> ShellResult;
    write(WriteArgs) -> WriteResult;
    delete(DeleteArgs) -> DeleteResult;
    grep(GrepArgs) -> GrepResult;
    read(ReadArgs) -> ReadResult;
    ls(LsArgs) -> LsResult;
    diagnostics(DiagnosticsArgs) -> DiagnosticsResult;
    background_shell_spawn(BackgroundShellSpawnArgs) -> BackgroundShellSpawnResult;
    list_mcp_resources(ListMcpResourcesExecArgs) -> ListMcpResourcesExecResult;
    read_mcp_resource(ReadMcpResourceExecArgs) -> ReadMcpResourceExecResult;
    fetch(FetchArgs) -> FetchResult;
    record_screen(RecordScreenArgs) -> RecordScreenResult;
    computer_use(ComputerUseArgs) -> ComputerUseResult;
    write_shell_stdin(WriteShellStdinArgs) -> WriteShellStdinResult;
    execute_hook(ExecuteHookArgs) -> ExecuteHookResult;
    subagent(SubagentArgs) -> SubagentResult;
    redacted_read(ReadArgs) -> ReadResult;
    force_background_shell(ForceBackgroundShellArgs) -> ForceBackgroundShellResult;
    force_background_subagent(ForceBackgroundSubagentArgs) -> ForceBackgroundSubagentResult;
    mcp_state(McpStateExecArgs) -> McpStateExecResult;
    subagent_await(SubagentAwaitArgs) -> SubagentAwaitResult;
    smart_mode_classifier(SmartModeClassifierArgs) -> SmartModeClassifierResult;
    canvas_diagnostics(CanvasDiagnosticsArgs) -> CanvasDiagnosticsResult;
    shell_allowlist_precheck(ShellAllowlistPrecheckArgs) -> ShellAllowlistPrecheckResult;
    mcp_allowlist_precheck(McpAllowlistPrecheckArgs) -> McpAllowlistPrecheckResult;
    web_fetch_allowlist_precheck(WebFetchAllowlistPrecheckArgs) -> WebFetchAllowlistPrecheckResult;
    git_diff(GetDiffRequest) -> GetDiffResponse;
    pi_read(PiReadExecArgs) -> PiReadExecResult;
    pi_bash(PiBashExecArgs) -> PiBashExecResult;
    pi_edit(PiEditExecArgs) -> PiEditExecResult;
    pi_write(PiWriteExecArgs) -> PiWriteExecResult;
    pi_grep(PiGrepExecArgs) -> PiGrepExecResult;
    pi_find(PiFindExecArgs) -> PiFindExecResult;
    pi_ls(PiLsExecArgs) -> PiLsExecResult;
    mini_swe_agent_bash(ShellArgs) -> ShellResult;
    conversation_search(ConversationSearchArgs) -> ConversationSearchResult;
    agent_store_conflict(AgentStoreConflictArgs) -> AgentStoreConflictResult;
}

macro_rules! answers {
    ($($method:ident($query:ident) -> $response:ident;)*) => {
        impl<M: Mood> Ask for Everything<M> {
            $(
                fn $method<'a>(&'a self, _: proto::$query) -> Served<'a, proto::$response> {
                    let work = self.0.work();
                    Box::pin(async move { work.await.map(|()| something()) })
                }
            )*
        }
    };
}

answers! {
    web_search(WebSearchRequestQuery) -> WebSearchRequestResponse;
    question(AskQuestionInteractionQuery) -> AskQuestionInteractionResponse;
    switch_mode(SwitchModeRequestQuery) -> SwitchModeRequestResponse;
    exa_search(ExaSearchRequestQuery) -> ExaSearchRequestResponse;
    exa_fetch(ExaFetchRequestQuery) -> ExaFetchRequestResponse;
    create_plan(CreatePlanRequestQuery) -> CreatePlanRequestResponse;
    setup_vm_environment(SetupVmEnvironmentArgs) -> SetupVmEnvironmentResult;
}

#[derive(Default)]
struct Printed(Vec<shell_stream::Event>);

impl ShellSink for Printed {
    fn send(
        &mut self,
        event: shell_stream::Event,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.0.push(event);
        Box::pin(std::future::ready(()))
    }
}

/// The handler waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// What the handler makes of an exec: shell events, and the result.
pub(crate) fn serve(call: &ExecCall, case: Exec) -> (Vec<shell_stream::Event>, ServeResult) {
    if let Exec::ShellStreamArgs(args) = case {
        let mut printed = Printed::default();
        at_once(Everything(Eager).shell_stream(call, *args, &mut printed)).expect("served");
        return (printed.0, ServeResult::ShellDone);
    }
    match exec::dispatch(&Everything(Eager), call, case) {
        Dispatch::One(served) => {
            let reply = at_once(served).expect("every method is written above");
            (Vec::new(), ServeResult::Reply(Box::new(reply)))
        }
        Dispatch::Internal => panic!("{call:?} is not for a handler"),
    }
}

/// What is answered to a query.
pub(crate) fn answer(query: Query) -> ServeResult {
    let response = at_once(exec::put(&Everything(Eager), query));
    ServeResult::Response(Box::new(response.expect("every method is written above")))
}

/// A response to the query of this case, with `content` in it.
fn response(case: &Case, content: &[u8]) -> ServeResult {
    let mut bytes = Vec::new();
    put_bytes(&mut bytes, case.number, content);
    let response = InteractionResponse::decode(&bytes[..]).expect("such a response");
    ServeResult::Response(Box::new(response.result.expect("a case")))
}

/// A good answer to the query of this case.
pub(crate) fn answer_named(case: &Case) -> ServeResult {
    response(case, &[0x0a, 0])
}

/// An answer to the query of this case that says nothing.
pub(crate) fn no_answer(case: &Case) -> ServeResult {
    response(case, &[])
}

/// A result by its name, with `content` in it.
fn named(name: &str, content: &[u8]) -> ServeResult {
    let known = tables::cases("ExecClientMessage", "message");
    let case = known.iter().find(|case| case.name == name).expect("in the tables");
    let mut bytes = Vec::new();
    put_bytes(&mut bytes, case.number, content);
    let reply = ExecClientMessage::decode(&bytes[..]).expect("such a result");
    ServeResult::Reply(Box::new(reply.message.expect("a case")))
}

/// A good result of this name.
pub(crate) fn result(name: &str) -> ServeResult {
    named(name, &[0x0a, 0])
}

/// The empty result of a case. None for those whose empty message means something: a flag that is
/// false.
pub(crate) fn empty(case: &Case) -> Option<ServeResult> {
    let means_something = case.name.ends_with("precheck_args");
    (!means_something).then(|| named(&case.result(), &[]))
}

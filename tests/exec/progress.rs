//! What the service reports of its own doings, as typed events with the caller's ids.

use agentwire::proto::interaction_update::Message as Update;
use agentwire::proto::{
    McpArgs, McpToolCall, PartialToolCallUpdate, ShellOutputDeltaUpdate, ShellStreamExit,
    ShellStreamStderr, ShellStreamStdout, StepCompletedUpdate, StepStartedUpdate, SummaryUpdate,
    ThinkingCompletedUpdate, ToolCall, ToolCallCompletedUpdate, ToolCallStartedUpdate, UserMessage,
    UserMessageAppendedUpdate, shell_output_delta_update, tool_call,
};
use agentwire::run::{Event, Progress};

use crate::rig::{Rig, millis};

/// The service's id of a call: with a character that may not go back.
const FOREIGN: &str = "call_1\nfc_2";

fn ls() -> Option<ToolCall> {
    let args =
        McpArgs { name: "mcp_agentwire_ls".into(), tool_name: "ls".into(), ..Default::default() };
    let call = McpToolCall { args: Some(args), ..Default::default() };
    let tool = Some(tool_call::Tool::McpToolCall(call.into()));
    Some(ToolCall { tool, ..Default::default() })
}

#[test]
fn progress_is_typed_and_its_ids_are_those_of_the_calls() {
    let shell = |event| ShellOutputDeltaUpdate { event: Some(event) };
    let partial = |delta: &str| {
        let (call_id, args_text_delta) = (FOREIGN.into(), delta.into());
        PartialToolCallUpdate { call_id, args_text_delta, ..Default::default() }
    };
    let started =
        ToolCallStartedUpdate { call_id: FOREIGN.into(), tool_call: ls(), ..Default::default() };
    let completed =
        ToolCallCompletedUpdate { call_id: FOREIGN.into(), tool_call: ls(), ..Default::default() };
    let appended = UserMessage { message_id: "m".into(), ..Default::default() };
    let mut rig = Rig::streaming();
    rig.call(1, FOREIGN);
    rig.wait(millis(100));
    let Some(Event::ToolCalls(calls)) = rig.take_events().pop() else { panic!("no call") };
    let id = calls[0].id.clone();
    assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{id}");
    let updates: Vec<Update> = vec![
        Update::ToolCallStarted(started.into()),
        Update::PartialToolCall(partial("{\"a\":").into()),
        Update::PartialToolCall(partial("1}").into()),
        Update::ToolCallCompleted(completed.into()),
        Update::ShellOutputDelta(
            shell(shell_output_delta_update::Event::Stdout(ShellStreamStdout { data: "o".into() }))
                .into(),
        ),
        Update::ShellOutputDelta(
            shell(shell_output_delta_update::Event::Stderr(ShellStreamStderr { data: "e".into() }))
                .into(),
        ),
        Update::ShellOutputDelta(
            shell(shell_output_delta_update::Event::Exit(ShellStreamExit {
                code: 3,
                ..Default::default()
            }))
            .into(),
        ),
        Update::ThinkingCompleted(ThinkingCompletedUpdate { thinking_duration_ms: 1_200 }),
        Update::SummaryStarted(Default::default()),
        Update::Summary(SummaryUpdate { summary: "short".into() }),
        Update::SummaryCompleted(Default::default()),
        Update::StepStarted(StepStartedUpdate { step_id: 4 }),
        Update::StepCompleted(StepCompletedUpdate { step_id: 4, step_duration_ms: 900 }),
        Update::UserMessageAppended(
            UserMessageAppendedUpdate { user_message: Some(appended) }.into(),
        ),
    ];
    for update in updates {
        rig.update(update);
    }
    let arguments = |delta: &str, snapshot: &str| Progress::ToolArguments {
        call_id: id.clone(),
        delta: delta.into(),
        snapshot: snapshot.into(),
    };
    let expected = [
        Progress::ToolStarted { call_id: id.clone(), tool: "ls".into() },
        arguments("{\"a\":", "{\"a\":"),
        arguments("1}", "{\"a\":1}"),
        Progress::ToolCompleted { call_id: id.clone(), tool: "ls".into() },
        Progress::ShellOutput { stderr: false, data: "o".into() },
        Progress::ShellOutput { stderr: true, data: "e".into() },
        Progress::ShellExited { code: 3 },
        Progress::ThinkingCompleted { duration_ms: 1_200 },
        Progress::SummaryStarted,
        Progress::Summary { text: "short".into() },
        Progress::SummaryCompleted,
        Progress::StepStarted { step: 4 },
        Progress::StepCompleted { step: 4, duration_ms: 900 },
        Progress::UserMessageAppended { message_id: "m".into() },
    ];
    assert_eq!(rig.events, expected.map(Event::Progress));
}

//! What the service reports of its own doings: tool calls as they take shape, steps, summaries.
//! Nothing of it has to be answered.

use std::collections::{HashMap, VecDeque};

use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::proto::interaction_update::Message as Update;
use crate::proto::reflect::MessageInfo;
use crate::proto::{PartialToolCallUpdate, ToolCall, shell_output_delta_update, tool_call};
use crate::wire::Reader;

use super::options::Options;
use super::snapshot::{Growing, Snapshot};

/// Something that the service reports of its own doings.
///
/// Call ids are those of [`Event::ToolCalls`](super::Event::ToolCalls) where the call is one of
/// the caller's tools.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "progress", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Progress {
    /// The model began a tool call.
    ToolStarted {
        /// Id of the call.
        call_id: String,
        /// Name of the tool: the caller's own, or the service's (`shell`, `read`).
        tool: String,
    },
    /// The arguments of a call take shape.
    ToolArguments {
        /// Id of the call.
        call_id: String,
        /// What came now.
        delta: String,
        /// What came so far, this piece included: JSON text that is not complete yet, cut at
        /// [`Options::partial_arguments`](super::Options::partial_arguments). It costs something
        /// only when it is read.
        snapshot: Snapshot,
    },
    /// A tool call is done.
    ToolCompleted {
        /// Id of the call.
        call_id: String,
        /// Name of the tool.
        tool: String,
    },
    /// A shell of the service printed something.
    ShellOutput {
        /// Whether it came on standard error.
        stderr: bool,
        /// What it printed.
        data: String,
    },
    /// A shell of the service ended.
    ShellExited {
        /// Its exit code.
        code: u32,
    },
    /// The model thought for this long.
    ThinkingCompleted {
        /// Milliseconds.
        duration_ms: u32,
    },
    /// A message sent into the running turn was taken up.
    UserMessageAppended {
        /// The id it was sent under.
        message_id: String,
    },
    /// The service summarises the conversation to make room.
    SummaryStarted,
    /// The summary, or a piece of it.
    Summary {
        /// Its text.
        text: String,
    },
    /// The summary is done.
    SummaryCompleted,
    /// The model began a step.
    StepStarted {
        /// Number of the step.
        step: u64,
    },
    /// The model ended a step.
    StepCompleted {
        /// Number of the step.
        step: u64,
        /// Milliseconds.
        duration_ms: u64,
    },
}

impl Progress {
    pub(crate) fn weight(&self) -> usize {
        match self {
            // Twice the piece: here, and where the snapshots have it in common. What an event keeps
            // alive beyond that was counted with the events that brought it.
            Self::ToolArguments { call_id, delta, .. } => call_id.len() + 2 * delta.len(),
            Self::ShellOutput { data: text, .. } | Self::Summary { text } => text.len(),
            _ => size_of::<Self>(),
        }
    }
}

impl std::fmt::Debug for Progress {
    /// Kinds, names and sizes: arguments and output are a person's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ToolStarted { call_id, tool } => write!(f, "ToolStarted({call_id}, {tool})"),
            Self::ToolCompleted { call_id, tool } => write!(f, "ToolCompleted({call_id}, {tool})"),
            Self::ToolArguments { call_id, snapshot, .. } => {
                write!(f, "ToolArguments({call_id}, {} bytes)", snapshot.len())
            }
            Self::ShellOutput { stderr, data } => {
                write!(f, "ShellOutput(stderr: {stderr}, {} bytes)", data.len())
            }
            Self::ShellExited { code } => write!(f, "ShellExited({code})"),
            Self::ThinkingCompleted { duration_ms } => {
                write!(f, "ThinkingCompleted({duration_ms} ms)")
            }
            Self::UserMessageAppended { message_id } => {
                write!(f, "UserMessageAppended({message_id})")
            }
            Self::SummaryStarted => f.write_str("SummaryStarted"),
            Self::Summary { text } => write!(f, "Summary({} bytes)", text.len()),
            Self::SummaryCompleted => f.write_str("SummaryCompleted"),
            Self::StepStarted { step } => write!(f, "StepStarted({step})"),
            Self::StepCompleted { step, duration_ms } => {
                write!(f, "StepCompleted({step}, {duration_ms} ms)")
            }
        }
    }
}

/// Puts partial arguments together and names things.
#[derive(Debug)]
pub(super) struct Reporter {
    partial: HashMap<String, Growing>,
    /// Ids of `partial`, the oldest first.
    order: VecDeque<String>,
    max_bytes: usize,
    max_calls: usize,
}

impl Reporter {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            partial: HashMap::new(),
            order: VecDeque::new(),
            max_bytes: options.partial_arguments,
            // The call that is coming in always has its place.
            max_calls: options.partial_calls.max(1),
        }
    }

    /// What an update reports; `None` when it says nothing. `host_id` gives a call id in the form
    /// that the caller knows.
    pub(super) fn report(
        &mut self,
        update: Update,
        host_id: impl Fn(&str) -> String,
    ) -> Option<Progress> {
        Some(match update {
            Update::ToolCallStarted(started) => Progress::ToolStarted {
                call_id: host_id(&started.call_id),
                tool: tool_name(started.tool_call.as_ref()),
            },
            Update::PartialToolCall(partial) => {
                let call_id = host_id(&partial.call_id);
                return self.arguments(call_id, *partial);
            }
            Update::ToolCallCompleted(completed) => {
                let call_id = host_id(&completed.call_id);
                self.forget(&call_id);
                Progress::ToolCompleted { call_id, tool: tool_name(completed.tool_call.as_ref()) }
            }
            Update::ShellOutputDelta(delta) => return shell(delta.event?),
            Update::ThinkingCompleted(completed) => Progress::ThinkingCompleted {
                duration_ms: u32::try_from(completed.thinking_duration_ms).unwrap_or(0),
            },
            Update::UserMessageAppended(appended) => Progress::UserMessageAppended {
                message_id: appended.user_message.map(|m| m.message_id).unwrap_or_default(),
            },
            Update::SummaryStarted(_) => Progress::SummaryStarted,
            Update::Summary(summary) => Progress::Summary { text: summary.summary },
            Update::SummaryCompleted(_) => Progress::SummaryCompleted,
            Update::StepStarted(started) => Progress::StepStarted { step: started.step_id },
            Update::StepCompleted(completed) => Progress::StepCompleted {
                step: completed.step_id,
                duration_ms: u64::try_from(completed.step_duration_ms).unwrap_or(0),
            },
            // The hot ones never come here; a delta of a native tool is for the service's own
            // display.
            _ => return None,
        })
    }

    fn arguments(&mut self, call_id: String, update: PartialToolCallUpdate) -> Option<Progress> {
        let delta = update.args_text_delta;
        if delta.is_empty() {
            return None;
        }
        if !self.partial.contains_key(&call_id) {
            if self.order.len() >= self.max_calls
                && let Some(oldest) = self.order.pop_front()
            {
                self.partial.remove(&oldest);
            }
            self.order.push_back(call_id.clone());
        }
        let so_far = self.partial.entry(call_id.clone()).or_default();
        let snapshot = so_far.push(&delta, self.max_bytes);
        Some(Progress::ToolArguments { call_id, snapshot, delta })
    }

    fn forget(&mut self, call_id: &str) {
        if self.partial.remove(call_id).is_some() {
            self.order.retain(|known| known != call_id);
        }
    }
}

fn shell(event: shell_output_delta_update::Event) -> Option<Progress> {
    use shell_output_delta_update::Event;
    Some(match event {
        Event::Stdout(out) => Progress::ShellOutput { stderr: false, data: out.data },
        Event::Stderr(out) => Progress::ShellOutput { stderr: true, data: out.data },
        Event::Exit(exit) => Progress::ShellExited { code: exit.code },
        Event::Start(_) => return None,
    })
}

/// The caller's name of an MCP tool, else the case's name in the schema without its ending.
fn tool_name(call: Option<&ToolCall>) -> String {
    let Some(tool) = call.and_then(|call| call.tool.as_ref()) else { return String::new() };
    if let tool_call::Tool::McpToolCall(call) = tool
        && let Some(args) = &call.args
    {
        let names = [&args.tool_name, &args.name];
        return names.into_iter().find(|name| !name.is_empty()).cloned().unwrap_or_default();
    }
    let bytes = ToolCall { tool: Some(tool.clone()), ..ToolCall::default() }.encode_to_vec();
    let number = Reader::new(&bytes).tag().map_or(0, |(number, _)| number);
    let field = MessageInfo::named("ToolCall").and_then(|info| info.field(number));
    let name = field.map_or("tool", |field| field.name);
    name.strip_suffix("_tool_call").unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{ReadToolCall, ToolCallCompletedUpdate, ToolCallStartedUpdate};

    fn reporter() -> Reporter {
        Reporter::new(&Options::default())
    }

    fn partial(delta: &str) -> Update {
        Update::PartialToolCall(Box::new(PartialToolCallUpdate {
            call_id: "c".into(),
            args_text_delta: delta.into(),
            ..Default::default()
        }))
    }

    #[test]
    fn partial_arguments_come_as_delta_and_as_snapshot() {
        let mut reporter = reporter();
        let mut report = |update| reporter.report(update, str::to_owned);
        report(partial("{\"a\""));
        let Some(Progress::ToolArguments { delta, snapshot, .. }) = report(partial(":1}")) else {
            panic!()
        };
        assert_eq!((delta.as_str(), snapshot.as_str()), (":1}", "{\"a\":1}"));
        assert_eq!(report(partial("")), None);
    }

    #[test]
    fn what_is_put_together_is_bounded_in_bytes_and_in_calls() {
        let options = Options { partial_arguments: 10, partial_calls: 3, ..Options::default() };
        let mut reporter = Reporter::new(&options);
        let mut last = |delta: &str, call: usize| {
            let progress = reporter.report(partial(delta), |_| call.to_string());
            let Some(Progress::ToolArguments { delta, snapshot, .. }) = progress else { panic!() };
            (delta, snapshot.to_string(), reporter.partial.len())
        };
        assert_eq!(last("12345678", 0), ("12345678".into(), "12345678".into(), 1));
        // The piece is whole in any case.
        assert_eq!(last("9abc", 0), ("9abc".into(), "123456789a".into(), 1));
        for call in 1..=100 {
            assert_eq!(last("x", call).2, 3.min(call + 1));
        }
        assert_eq!(last("y", 100).1, "xy", "the youngest is still put together");
        assert_eq!(last("y", 1).1, "y", "the oldest gave way and begins anew");
    }

    #[test]
    fn a_call_that_is_done_is_forgotten() {
        let mut reporter = reporter();
        reporter.report(partial("x"), str::to_owned);
        let done = ToolCallCompletedUpdate { call_id: "c".into(), ..Default::default() };
        reporter.report(Update::ToolCallCompleted(Box::new(done)), str::to_owned);
        assert!(reporter.partial.is_empty() && reporter.order.is_empty(), "{reporter:?}");
    }

    #[test]
    fn native_tools_are_named_by_the_schema() {
        let started = Update::ToolCallStarted(Box::new(ToolCallStartedUpdate {
            call_id: "c".into(),
            tool_call: Some(ToolCall {
                tool: Some(tool_call::Tool::ReadToolCall(Box::<ReadToolCall>::default())),
                ..Default::default()
            }),
            ..Default::default()
        }));
        let progress = reporter().report(started, str::to_owned);
        assert_eq!(
            progress,
            Some(Progress::ToolStarted { call_id: "c".into(), tool: "read".into() })
        );
    }
}

//! The steps of a script, and what each takes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::form;
use crate::connect::Code;

/// One thing that the server does. In a file it is a table with one member, named as here in
/// snake case (`{ text = "hello" }`), or a bare string where there is nothing to say (`"close"`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Answer text, in deltas.
    Text(Say),
    /// Shown reasoning, in deltas; then `thinking_completed`.
    Thinking(Say),
    /// One token delta. Negative numbers are sent as they are.
    Tokens(i32),
    /// One tool call; waits for its result.
    Call(Call),
    /// Several tool calls at once; waits for all results.
    Calls(Vec<Call>),
    /// Calls the tools that the client offers, one after the other, as a model with a task would:
    /// arguments are made from the schema. Does nothing when there are none.
    UseTools(UseTools),
    /// Looks at the files that the client serves, as a model would: asks for a list (`ls_args`),
    /// then for a file (`read_args`) that the prompt names, a README or the first. What comes back
    /// is among the results. Does nothing when a tool was called before.
    UseWorkspace,
    /// Asks for the request context (rules, tools, environment); waits for it.
    Context,
    /// Fetches the blobs that the prompt is built from, and reads the history out of them.
    History,
    /// Asks for one blob; waits for it.
    GetBlob(GetBlob),
    /// Hands one blob over; waits for the receipt.
    SetBlob(SetBlob),
    /// Asks one exec or one interaction query, known or not.
    Ask(Box<Ask>),
    /// Waits for the answers to all questions still open.
    Answers,
    /// Sends a checkpoint: made from what was said so far, or the one given.
    Checkpoint(Checkpoint),
    /// Sends any interaction update, given as its JSON by proto names:
    /// `{ update = { step_started = { step_id = 1 } } }`.
    Update(Value),
    /// Sends any server message, given as its JSON by proto names. Questions sent this way are
    /// not waited for.
    Send(Value),
    /// Sends `turn_ended`.
    TurnEnd(TurnEnd),
    /// Ends the stream well: end-stream envelope, then the end of the body.
    End,
    /// Ends the stream with an error in the end-stream envelope.
    Error(ErrorStep),
    /// Answers with an HTTP status instead of a stream; only before anything else was sent.
    Status(Status),
    /// Sends the response head now, with these members; only before anything else was sent.
    Head(Head),
    /// Waits this many milliseconds; heartbeats go out meanwhile.
    WaitMs(u64),
    /// Waits until the client does something.
    WaitFor(WaitFor),
    /// Says nothing any more, not even a heartbeat, until the client goes away.
    Silence,
    /// Sends heartbeats and nothing else.
    Heartbeats(Heartbeats),
    /// Sends bytes as they are, right or wrong.
    Bytes(Bytes),
    /// Ends the body without an end-stream envelope.
    Close,
    /// Resets the stream.
    Reset(Reset),
    /// Sends GOAWAY with this HTTP/2 code: with 0 the streams that are open go on and no new one is
    /// taken, with another the connection ends.
    Goaway(u32),
    /// Cuts the connection, whatever else runs on it.
    Cut,
    /// Does the steps again and again.
    Repeat(Repeat),
    /// Does one list of steps or another.
    If(Condition),
}

/// Text in deltas. A bare string stands for the text alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Say {
    /// The text; placeholders such as `{{prompt}}` are replaced.
    pub text: String,
    /// Characters in one delta; default: the script's `delta`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<usize>,
    /// Milliseconds between deltas; default: the script's `pace_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace_ms: Option<u64>,
    /// Whether a token delta follows each text delta. Default yes for text, no for thinking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<bool>,
}

/// A call of a tool that the client offered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Call {
    /// Name of the tool.
    pub tool: String,
    /// Arguments; text placeholders in string values are replaced.
    pub args: Map<String, Value>,
    /// The tool-call id; default `call_`, the number of the turn, `_` and a count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `provider_identifier`; default: that of the offered tool of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Leave out the updates that show a call (started, partial arguments, completed).
    pub quiet: bool,
}

/// How many tools to call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UseTools {
    /// The most calls. Default 3.
    pub max: u32,
}

impl Default for UseTools {
    fn default() -> Self {
        Self { max: 3 }
    }
}

/// A question for one blob. A bare string stands for the id in hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GetBlob {
    /// The blob's id in hexadecimal.
    pub id: String,
}

/// A blob to hand over. A bare string stands for the text alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SetBlob {
    /// The content as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The content in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// The content: this many zero bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zeros: Option<usize>,
    /// The id in hexadecimal; default SHA-256 of the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// A question: exactly one of `exec`, `query`, `exec_field` and `query_field`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ask {
    /// An exec case by its proto name, for instance `shell_args`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<String>,
    /// An interaction query by its proto name, for instance `web_search_request_query`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// An exec case by its field number, known or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_field: Option<u32>,
    /// A query case by its field number, known or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_field: Option<u32>,
    /// Arguments as JSON by proto names; for `exec` and `query`.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub args: Value,
    /// The message of the case in hexadecimal; for the field numbers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hex: String,
    /// The numeric id; default the next free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// The exec id; default `exec-` and the numeric id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_id: Option<String>,
    /// Wait for the answer before the next step. Default yes.
    pub wait: bool,
    /// Abort the exec after this many milliseconds when it is not answered by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_after_ms: Option<u64>,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            exec: None,
            query: None,
            exec_field: None,
            query_field: None,
            args: Value::Null,
            hex: String::new(),
            id: None,
            exec_id: None,
            wait: true,
            abort_after_ms: None,
        }
    }
}

/// A checkpoint. With no state it is made: what the client sent, and this turn on top of it, with
/// its blobs handed over first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// A whole `ConversationStateStructure` as JSON by proto names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Value>,
    /// The bytes of one, in base64, right or wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Tokens in the context; default an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_tokens: Option<u32>,
    /// Size of the context window. Default 200 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}

/// Numbers of `turn_ended`; those not given are left out, as servers did before 2026-08.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TurnEnd {
    /// Fill in what is not given from what was received and sent.
    pub estimate: bool,
    /// Field 1, cache-inclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<i64>,
    /// Field 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<i64>,
    /// Field 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<i64>,
    /// Field 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_tokens: Option<i64>,
    /// Field 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_tokens: Option<i64>,
}

/// An error in the end-stream envelope. A bare string stands for the code.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ErrorStep {
    /// One of the sixteen Connect codes; another text is sent as it is, for tests.
    pub code: String,
    /// The message.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// `details` as they go into the JSON: `type`, `value`, `debug`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Value>,
    /// `metadata` as it goes into the JSON.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// An HTTP answer that is not a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The status, 200 to 599.
    pub status: u16,
    /// Headers beside the content type.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body: a table goes out as JSON, a string as it is.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
}

/// The response head of a stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Head {
    /// The status; default 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Headers to set; an empty value leaves the header out (also `content-type`).
    pub headers: BTreeMap<String, String>,
}

/// What to wait for. A bare string stands for the event alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WaitFor {
    /// What the client does.
    pub event: WaitEvent,
    /// Give up after this many milliseconds and go on. Default: the script's `answer_ms`, and
    /// then the run ends with `deadline_exceeded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// What the client can be waited for to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitEvent {
    /// A client heartbeat.
    Heartbeat,
    /// A heartbeat of a running exec.
    ExecHeartbeat,
    /// A conversation action: a message into the running turn, a cancel.
    Action,
    /// The end of the request body.
    HalfClose,
}

/// Heartbeats and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Heartbeats {
    /// Milliseconds between two. Default 1 000; at least 1.
    pub every_ms: u64,
    /// How many; without it for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self { every_ms: 1_000, count: None }
    }
}

/// Raw bytes: exactly one of `text`, `hex`, `base64` and `zeros`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bytes {
    /// As text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// In hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
    /// In base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// This many zero bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zeros: Option<usize>,
    /// Put them into an envelope with these flags; without it they go out bare.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<u8>,
}

/// How to reset. A bare number or name stands for the code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reset {
    /// The HTTP/2 code: 0 no error, 2 internal, 7 refused, 8 cancel, 11 enhance your calm.
    pub code: u32,
}

/// Steps to do again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// How often; without it for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// What.
    pub steps: Vec<Step>,
}

/// A choice between two lists of steps. Every condition that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Condition {
    /// Whether the client offers tools, in the request or in the request context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<bool>,
    /// Whether there are earlier turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<bool>,
    /// Whether a tool was called and answered in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<bool>,
    /// Whether the last tool result was an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<bool>,
    /// Steps when it holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<Step>,
    /// Steps when it does not.
    #[serde(rename = "else", skip_serializing_if = "Vec::is_empty")]
    pub otherwise: Vec<Step>,
}

impl Step {
    /// Text with the script's own delta size and pace.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Say { text: text.into(), ..Say::default() })
    }

    /// Shown reasoning with the script's own delta size and pace.
    pub fn thinking(text: impl Into<String>) -> Self {
        Self::Thinking(Say { text: text.into(), ..Say::default() })
    }

    /// An error of this code.
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self::Error(ErrorStep {
            code: code.as_str().into(),
            message: message.into(),
            ..ErrorStep::default()
        })
    }

    /// An exec question that is waited for.
    pub fn exec(case: impl Into<String>, args: Value) -> Self {
        Self::Ask(Box::new(Ask { exec: Some(case.into()), args, ..Ask::default() }))
    }

    /// An interaction query that is waited for.
    pub fn query(case: impl Into<String>, args: Value) -> Self {
        Self::Ask(Box::new(Ask { query: Some(case.into()), args, ..Ask::default() }))
    }

    /// A call of a tool.
    pub fn call(tool: impl Into<String>, args: Map<String, Value>) -> Self {
        Self::Call(Call { tool: tool.into(), args, ..Call::default() })
    }

    /// The lists of steps inside this one.
    pub(super) fn inner(&self) -> impl Iterator<Item = &[Self]> {
        let (first, second): (&[Self], &[Self]) = match self {
            Self::Repeat(repeat) => (&repeat.steps, &[]),
            Self::If(condition) => (&condition.then, &condition.otherwise),
            _ => (&[], &[]),
        };
        [first, second].into_iter().filter(|steps| !steps.is_empty())
    }
}

/// Content given in one of several forms.
pub(in crate::server) fn content(
    text: Option<&String>,
    hex: Option<&String>,
    base64: Option<&String>,
    zeros: Option<usize>,
) -> Result<Vec<u8>, String> {
    /// As large as an envelope of the default limit; more is said with `repeat`.
    const MOST: usize = 32 << 20;
    match (text, hex, base64, zeros) {
        (Some(text), None, None, None) => Ok(text.as_bytes().to_vec()),
        (None, Some(hex), None, None) => form::hex(hex),
        (None, None, Some(base64), None) => form::base64(base64),
        (None, None, None, Some(zeros)) if zeros <= MOST => Ok(vec![0; zeros]),
        (None, None, None, Some(_)) => Err(format!("`zeros` above {MOST}")),
        _ => Err("exactly one of `text`, `hex`, `base64` and `zeros` is wanted".into()),
    }
}

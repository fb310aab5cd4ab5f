//! What each message of the service does. Everything that asks is answered here and now, or given
//! to a handler.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;

use crate::codec::hot::{self, CheckpointRef, Delta, Incoming};
use crate::codec::reply;
use crate::context::ToolResult;
use crate::error::Kind;
use crate::exec::ExecCall;
use crate::proto::exec_server_message::Message as Case;
use crate::proto::{ExecServerMessage, InteractionQuery};

use super::core::Core;
use super::event::{CheckpointInfo, Event, EventRef, Notice};
use super::serve::Work;
use super::serving::TOO_MUCH;

/// Where a message's events go at once.
type Emit<'a> = &'a mut dyn FnMut(EventRef<'_>);

impl Core {
    /// The event of a short delta before which nothing has to be said, which is nearly every message.
    /// Nothing else comes of it: nothing is queued, and nothing is over. `None`: it is for
    /// [`Self::message`].
    #[inline(always)]
    pub(super) fn plain_delta<'a>(&mut self, payload: &'a [u8]) -> Option<EventRef<'a>> {
        if self.has_call_to_hand_out() {
            return None;
        }
        let event = match hot::short(payload)? {
            Delta::Text("") | Delta::Thinking("") => return None,
            Delta::Text(text) => EventRef::Text(text),
            Delta::Thinking(text) => EventRef::Thinking(text),
        };
        self.message_completed(true);
        Some(event)
    }

    /// Handles one message. Hot events go straight to `emit`; cold ones are queued and come out
    /// before the next message is decoded.
    pub(super) fn message(&mut self, payload: &[u8], now: Instant, emit: Emit<'_>) {
        let incoming = match hot::decode_within(payload, &self.options.limits) {
            Ok(incoming) => incoming,
            Err(error) => return self.fail(error),
        };
        self.message_completed(!matches!(incoming, Incoming::Heartbeat));
        match incoming {
            Incoming::Text(text) => {
                self.before_content(matches!(text, Cow::Owned(_)), now, emit);
                if !text.is_empty() {
                    emit(EventRef::Text(&text));
                }
            }
            Incoming::Thinking(text) => {
                self.before_content(matches!(text, Cow::Owned(_)), now, emit);
                if !text.is_empty() {
                    emit(EventRef::Thinking(&text));
                }
            }
            Incoming::Tokens(tokens) => {
                let tokens = self.usage.add_output(tokens);
                if tokens > 0 {
                    emit(EventRef::OutputTokens(tokens));
                }
            }
            Incoming::Heartbeat => {}
            cold => self.cold(cold, payload, now),
        }
    }

    /// Content after tool calls means that the batch is complete; replaced bytes are owned up to.
    fn before_content(&mut self, replaced: bool, now: Instant, emit: Emit<'_>) {
        if let Some(event) = self.hand_out(now) {
            emit(EventRef::Other(Box::new(event)));
        }
        if replaced {
            emit(EventRef::Other(Box::new(Event::Notice(Notice::Utf8Replaced))));
        }
    }

    fn cold(&mut self, incoming: Incoming<'_>, payload: &[u8], now: Instant) {
        match incoming {
            Incoming::TurnEnded(t) => {
                if let Some(event) = self.hand_out(now) {
                    self.push(event);
                }
                self.turn_ended([t.input, t.output, t.cache_read, t.cache_write, t.reasoning], now);
                self.push(Event::Usage(self.usage));
            }
            Incoming::Checkpoint(checkpoint) => self.checkpoint(&checkpoint),
            Incoming::GetBlob { id, blob_id } => {
                for part in reply::blob(id, self.conversation.blobs().get(blob_id)) {
                    self.outbox.send(part);
                }
            }
            Incoming::SetBlob { id, blob_id, data } => self.set_blob(id, blob_id, data),
            Incoming::Exec(message, unknown) => self.exec(*message, unknown, payload, now),
            Incoming::ExecControl(Some(id)) => self.abort(id, now),
            Incoming::Query(query, unknown) => self.query(*query, unknown, payload.len(), now),
            Incoming::ExecControl(None) | Incoming::Unknown => self.notice(Notice::Unrecognised),
            Incoming::Update(update) => {
                let calls = self.conversation.calls();
                let host_id = |id: &str| calls.to_host(id).into_owned();
                if let Some(progress) = self.reporter.report(*update, host_id) {
                    self.push(Event::Progress(progress));
                }
            }
            // Handled where it is hot.
            Incoming::Text(_)
            | Incoming::Thinking(_)
            | Incoming::Tokens(_)
            | Incoming::Heartbeat => {}
        }
    }

    fn checkpoint(&mut self, checkpoint: &CheckpointRef<'_>) {
        let CheckpointRef { raw, used_tokens, max_tokens } = checkpoint;
        self.usage.checkpoint(*used_tokens, *max_tokens);
        let info =
            CheckpointInfo { bytes: raw.len(), used_tokens: *used_tokens, max_tokens: *max_tokens };
        match self.conversation.commit(Bytes::copy_from_slice(raw)) {
            Ok(()) => self.push(Event::Checkpoint(info)),
            Err(error) => self.fail(error),
        }
    }

    fn set_blob(&mut self, id: u32, blob_id: &[u8], data: &[u8]) {
        match self.conversation.set_blob(blob_id, data) {
            Ok(stored) => {
                self.outbox.send(reply::blob_stored(id, None));
                if stored.id_mismatch {
                    self.notice(Notice::BlobIdMismatch);
                }
            }
            Err(refused) => {
                let why = refused.to_string();
                self.outbox.send(reply::blob_stored(id, Some(&why)));
                self.notice(Notice::BlobRefused { why });
            }
        }
    }

    fn exec(
        &mut self,
        message: ExecServerMessage,
        unknown: Option<u32>,
        payload: &[u8],
        now: Instant,
    ) {
        let call = ExecCall { id: message.id, exec_id: message.exec_id };
        match message.message {
            Some(Case::McpArgs(_)) => self.tool_call(call, payload, now),
            Some(Case::RequestContextArgs(_)) => {
                let (id, exec_id) = (call.id, &call.exec_id);
                for part in reply::request_context_answer(id, exec_id, &self.tool_context) {
                    self.outbox.send(part);
                }
                self.outbox.send(reply::stream_close(call.id));
            }
            Some(case) => {
                let serves = self.options.serves_exec(&case);
                self.serve_or_refuse(Work::Exec { call, case }, serves, payload.len(), now);
            }
            None => {
                let what = unknown_name("exec", unknown);
                self.outbox.send(reply::throw(call.id, &format!("this client knows no {what}")));
                self.outbox.send(reply::stream_close(call.id));
                self.notice(Notice::Refused { what });
            }
        }
    }

    fn tool_call(&mut self, exec: ExecCall, payload: &[u8], now: Instant) {
        let mut tool_call = match self.conversation.tool_call(payload, self.ids.as_mut()) {
            Ok(tool_call) => tool_call,
            // The model's own doing: it is told, and may call again.
            Err(error) if *error.kind() == Kind::LimitExceeded => {
                return self.refuse_call(&exec, error.message());
            }
            Err(error) => return self.fail(error),
        };
        let bytes = payload.len();
        if self.tools.len() >= self.options.pending_calls || !self.has_room(bytes) {
            return self.refuse_call(&exec, TOO_MUCH);
        }
        if self.tools.contains(&tool_call.id) {
            // Two calls under one id: the caller could not tell their answers apart (H44).
            tool_call.id = self.ids.next_id().to_string();
        }
        self.tools.insert(exec, tool_call, bytes);
        self.work_changed(now);
        self.arm_tool_batch(now);
    }

    /// Answers a tool call with an error that the model reads.
    fn refuse_call(&mut self, exec: &ExecCall, why: &str) {
        // Ids and name of the call are not on the wire, and a text alone always encodes.
        let refusal = ToolResult::error("", "", why);
        if let Ok(envelope) = reply::mcp_result(exec.id, &exec.exec_id, &refusal) {
            self.outbox.send(envelope);
        }
        self.outbox.send(reply::stream_close(exec.id));
        self.notice(Notice::Refused { what: "mcp_args".to_owned() });
    }

    /// The service no longer awaits the result; closing the exec is all that is left to say.
    fn abort(&mut self, id: u32, now: Instant) {
        if self.abort_served(id, now) {
            return;
        }
        let Some(aborted) = self.tools.abort(id) else { return };
        self.outbox.send(reply::stream_close(id));
        self.work_changed(now);
        if aborted.was_handed_out {
            self.push(Event::ToolsAborted(vec![aborted.call_id]));
        }
    }

    fn query(&mut self, query: InteractionQuery, unknown: Option<u32>, bytes: usize, now: Instant) {
        let InteractionQuery { id, query } = query;
        match query {
            Some(query) => {
                let serves = self.options.serves_query(&query);
                self.serve_or_refuse(Work::Query { id, query }, serves, bytes, now);
            }
            None => {
                self.outbox.send(reply::query_unknown(id));
                self.notice(Notice::Refused { what: unknown_name("query", unknown) });
            }
        }
    }
}

fn unknown_name(kind: &str, case: Option<u32>) -> String {
    match case {
        Some(number) => format!("{kind} {number}"),
        None => format!("{kind} without a case"),
    }
}

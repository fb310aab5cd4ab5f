//! What each message of the service does. Everything that asks is answered here and now.

use std::time::Instant;

use bytes::Bytes;

use crate::codec::hot::{self, CheckpointRef, ExecIncoming, Incoming};
use crate::codec::{call, reply};
use crate::context::ToolResult;
use crate::proto::exec_server_message::Message as Exec;
use crate::proto::{InteractionQuery, McpArgs};

use super::core::Core;
use super::event::{CheckpointInfo, Event, EventRef, Notice};
use super::tools::ExecRef;

impl Core {
    /// Handles one message. Hot events go straight to `emit`; cold ones are queued and come out
    /// before the next message is decoded.
    pub(super) fn message(
        &mut self,
        payload: &[u8],
        now: Instant,
        emit: &mut impl FnMut(EventRef<'_>),
    ) {
        let incoming = match hot::decode(payload) {
            Ok(incoming) => incoming,
            Err(error) => return self.fail(error),
        };
        self.message_completed(!matches!(incoming, Incoming::Heartbeat));
        match incoming {
            Incoming::Text(text) => {
                self.before_content(&text, now, emit);
                if !text.is_empty() {
                    emit(EventRef::Text(&text));
                }
            }
            Incoming::Thinking(text) => {
                self.before_content(&text, now, emit);
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
            cold => self.cold(cold, now),
        }
    }

    /// Content after tool calls means that the batch is complete; replaced bytes are owned up to.
    fn before_content(
        &mut self,
        text: &std::borrow::Cow<'_, str>,
        now: Instant,
        emit: &mut impl FnMut(EventRef<'_>),
    ) {
        if let Some(event) = self.hand_out(now) {
            emit(EventRef::Other(event));
        }
        if matches!(text, std::borrow::Cow::Owned(_)) {
            emit(EventRef::Other(Event::Notice(Notice::Utf8Replaced)));
        }
    }

    fn cold(&mut self, incoming: Incoming<'_>, now: Instant) {
        match incoming {
            Incoming::TurnEnded(split) => {
                if let Some(event) = self.hand_out(now) {
                    self.push(event);
                }
                self.turn_ended(split.into(), now);
                self.push(Event::Usage(self.usage));
            }
            Incoming::Checkpoint(checkpoint) => self.checkpoint(&checkpoint),
            Incoming::GetBlob { id, blob_id } => {
                let blob = self.conversation.blobs().get(&blob_id);
                for part in reply::blob(id, blob) {
                    self.outbox.send(part);
                }
            }
            Incoming::SetBlob { id, blob_id, data } => self.set_blob(id, &blob_id, &data),
            Incoming::Exec(exec) => self.exec(*exec, now),
            Incoming::ExecAbort { id } => self.abort(id, now),
            Incoming::Query { query, unknown_case } => self.query(&query, unknown_case),
            Incoming::Unknown => self.notice(Notice::Unrecognised),
            // Progress of tools, steps and summaries: nothing to answer.
            _ => {}
        }
    }

    fn checkpoint(&mut self, checkpoint: &CheckpointRef<'_>) {
        let CheckpointRef { raw, used_tokens, max_tokens } = *checkpoint;
        self.usage.checkpoint(used_tokens, max_tokens);
        self.conversation.commit(Bytes::copy_from_slice(raw));
        self.push(Event::Checkpoint(CheckpointInfo { bytes: raw.len(), used_tokens, max_tokens }));
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

    fn exec(&mut self, incoming: ExecIncoming, now: Instant) {
        let exec = ExecRef { id: incoming.message.id, exec_id: incoming.message.exec_id.clone() };
        match incoming.message.message {
            Some(Exec::McpArgs(args)) => self.tool_call(exec, *args, now),
            Some(Exec::RequestContextArgs(_)) => {
                self.outbox.send(reply::request_context(
                    exec.id,
                    &exec.exec_id,
                    &self.tool_context,
                ));
                self.outbox.send(reply::stream_close(exec.id));
            }
            Some(ref case) => {
                for envelope in reply::refuse_exec(exec.id, &exec.exec_id, case) {
                    self.outbox.send(envelope);
                }
                self.notice(Notice::Refused { what: reply::exec_name(case).to_owned() });
            }
            None => {
                let what = unknown_name("exec", incoming.unknown_case);
                self.outbox.send(reply::throw(exec.id, &format!("this client knows no {what}")));
                self.outbox.send(reply::stream_close(exec.id));
                self.notice(Notice::Refused { what });
            }
        }
    }

    fn tool_call(&mut self, exec: ExecRef, args: McpArgs, now: Instant) {
        let mut tool_call = call::from_mcp_args(args, self.ids.as_mut());
        if self.tools.len() >= self.options.pending_calls {
            let why = "too many tool calls wait for their answers; ask again later";
            let refusal = ToolResult::error(tool_call.id, tool_call.name, why);
            return self.reply_to_call(&exec, &refusal);
        }
        if self.tools.contains(&tool_call.id) {
            // Two calls under one id: the caller could not tell their answers apart (H44).
            tool_call.id = self.ids.next_id().to_string();
        }
        self.tools.insert(exec, tool_call);
        self.tools_changed(now);
        self.arm_tool_batch(now);
    }

    /// Queues the result of a call and closes its exec. Only for results that surely encode.
    fn reply_to_call(&mut self, exec: &ExecRef, result: &ToolResult) {
        if let Ok(envelope) = reply::mcp_result(exec.id, &exec.exec_id, result) {
            self.outbox.send(envelope);
        }
        self.outbox.send(reply::stream_close(exec.id));
    }

    /// The service no longer awaits the result; closing the exec is all that is left to say.
    fn abort(&mut self, id: u32, now: Instant) {
        let Some(aborted) = self.tools.abort(id) else { return };
        self.outbox.send(reply::stream_close(id));
        self.tools_changed(now);
        if aborted.was_handed_out {
            self.push(Event::ToolsAborted(vec![aborted.call_id]));
        }
    }

    fn query(&mut self, query: &InteractionQuery, unknown_case: Option<u32>) {
        self.outbox.send(reply::refuse_query(query));
        let what = match reply::query_name(query) {
            Some(name) => name.to_owned(),
            None => unknown_name("query", unknown_case),
        };
        self.notice(Notice::Refused { what });
    }
}

fn unknown_name(kind: &str, case: Option<u32>) -> String {
    match case {
        Some(number) => format!("{kind} {number}"),
        None => format!("{kind} without a case"),
    }
}

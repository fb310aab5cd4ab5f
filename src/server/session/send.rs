//! What the server says: messages, questions, ends.

use std::time::Instant;

use bytes::{BufMut as _, Bytes};
use prost::Message as _;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::ledger::BlobAsk;
use super::{Output, STREAM_TYPE, Session};
use crate::connect::{self, Code};
use crate::proto::{
    self, AgentServerMessage, InteractionUpdate, agent_server_message, interaction_update,
};
use crate::wire;
use crate::{Error, Result};

/// The smallest message that is worth compressing, in bytes.
const COMPRESS_FROM: usize = 1_024;

/// An error of the end-stream envelope.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EndError {
    /// The code as it goes out; tests send wrong ones too.
    pub code: String,
    /// The message; empty: left out.
    pub message: String,
    /// Entries of `details`: objects with `type`, `value` (base64) and `debug`.
    pub details: Vec<Value>,
    /// Members of `metadata`: names to lists of values.
    pub metadata: Map<String, Value>,
}

impl EndError {
    /// An error of this code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code.as_str().into(), message: message.into(), ..Self::default() }
    }
}

impl Session {
    /// Sends the response head: status 200 and the content type of a stream, with `headers` over
    /// them; an empty value leaves a header out. Does nothing when the head is out already.
    pub fn respond(&mut self, status: u16, headers: &[(String, String)]) {
        if self.head_sent || self.ended {
            return;
        }
        self.head_sent = true;
        let mut all = vec![("content-type".to_owned(), STREAM_TYPE.to_owned())];
        if self.gzip {
            all.push(("connect-content-encoding".into(), "gzip".into()));
        }
        all.retain(|(name, _)| !headers.iter().any(|(given, _)| given == name));
        all.extend(headers.iter().filter(|(_, value)| !value.is_empty()).cloned());
        self.output.push_back(Output::Head { status, headers: all });
    }

    /// Answers with an HTTP status and a body instead of a stream. A response that has begun is
    /// reset instead, since there is no way to take the head back.
    pub fn answer_http(&mut self, status: u16, headers: Vec<(String, String)>, body: Bytes) {
        if self.ended {
            return;
        }
        if self.head_sent {
            return self.reset(2);
        }
        self.head_sent = true;
        self.ended = true;
        let mut all = headers;
        if !all.iter().any(|(name, _)| name == "content-type") && !body.is_empty() {
            all.push(("content-type".into(), "application/json".into()));
        }
        self.output.push_back(Output::Head { status, headers: all });
        if !body.is_empty() {
            self.output.push_back(Output::Send(body));
        }
        self.output.push_back(Output::End { trailers: Vec::new() });
    }

    /// Sends one message, given as its bytes.
    pub fn send_payload(&mut self, payload: &[u8]) {
        if self.gzip && payload.len() >= COMPRESS_FROM {
            self.send_envelope(1, &connect::gzip::compress(payload));
        } else {
            self.send_envelope(0, payload);
        }
    }

    /// Sends one message. Questions are better asked with [`Session::ask_exec`] and its like:
    /// what is sent here is not remembered.
    pub fn send(&mut self, message: &AgentServerMessage) {
        self.send_payload(&message.encode_to_vec());
    }

    /// Sends an interaction update.
    pub fn update(&mut self, update: interaction_update::Message) {
        let update = InteractionUpdate { message: Some(update) };
        let message = agent_server_message::Message::InteractionUpdate(update);
        self.send(&AgentServerMessage { message: Some(message) });
    }

    /// Sends a piece of the answer.
    pub fn text(&mut self, text: impl Into<String>) {
        self.update(interaction_update::Message::TextDelta(proto::TextDeltaUpdate {
            text: text.into(),
        }));
    }

    /// Sends a checkpoint, given as the bytes of a `ConversationStateStructure`.
    pub fn checkpoint(&mut self, state: &[u8]) {
        let mut payload = Vec::with_capacity(state.len() + 8);
        wire::put_bytes(&mut payload, 3, state);
        self.send_payload(&payload);
    }

    /// Sends an envelope with these flags, right or wrong.
    pub fn send_envelope(&mut self, flags: u8, payload: &[u8]) {
        let mut out = Vec::with_capacity(connect::HEADER_LEN + payload.len());
        connect::put_envelope(&mut out, flags, payload);
        self.send_bytes(Bytes::from(out));
    }

    /// Sends bytes of the body as they are, right or wrong. The head goes out before them.
    pub fn send_bytes(&mut self, bytes: Bytes) {
        if self.ended {
            return;
        }
        self.respond(200, &[]);
        let room = self.options.pack;
        if room == 0 || bytes.len() >= room {
            self.flush();
            self.output.push_back(Output::Send(bytes));
            return;
        }
        if self.packed.len() + bytes.len() > room {
            self.flush();
        }
        self.packed.put(bytes);
    }

    /// Asks an exec: the case as its field number, known or not, and the bytes of its message.
    /// Gives the numeric id. `id` and `exec_id` are chosen when not given.
    ///
    /// # Errors
    /// The id is that of an exec which is not closed yet, or too many questions were asked.
    pub fn ask_exec(
        &mut self,
        field: u32,
        args: &[u8],
        id: Option<u32>,
        exec_id: Option<&str>,
        now: Instant,
    ) -> Result<u32> {
        let id = self.question_id(id)?;
        if self.ledger.exec_is_open(id) {
            return Err(Error::invalid(format!("exec {id} is still open")));
        }
        let exec_id = exec_id.map_or_else(|| format!("exec-{id}"), str::to_owned);
        let mut payload = Vec::with_capacity(args.len() + exec_id.len() + 32);
        wire::put_nested(&mut payload, 2, |out| {
            put_id(out, id);
            // Ascending order, as a canonical encoder writes it.
            if field < 15 {
                wire::put_bytes(out, field, args);
            }
            if !exec_id.is_empty() {
                wire::put_str(out, 15, &exec_id);
            }
            if field >= 15 {
                wire::put_bytes(out, field, args);
            }
        });
        self.ledger.ask_exec(id, field, &exec_id, now);
        self.send_payload(&payload);
        Ok(id)
    }

    /// Asks an interaction query: the case as its field number, known or not.
    ///
    /// # Errors
    /// As [`Session::ask_exec`].
    pub fn ask_query(
        &mut self,
        field: u32,
        args: &[u8],
        id: Option<u32>,
        now: Instant,
    ) -> Result<u32> {
        let id = self.question_id(id)?;
        if self.ledger.query_is_open(id) {
            return Err(Error::invalid(format!("query {id} is still open")));
        }
        let mut payload = Vec::with_capacity(args.len() + 24);
        wire::put_nested(&mut payload, 7, |out| {
            put_id(out, id);
            wire::put_bytes(out, field, args);
        });
        self.ledger.ask_query(id, field, now);
        self.send_payload(&payload);
        Ok(id)
    }

    /// Asks for a blob.
    ///
    /// # Errors
    /// Too many questions were asked.
    pub fn get_blob(&mut self, blob_id: &[u8], now: Instant) -> Result<u32> {
        let id = self.question_id(None)?;
        let mut payload = Vec::with_capacity(blob_id.len() + 24);
        wire::put_nested(&mut payload, 4, |out| {
            put_id(out, id);
            wire::put_nested(out, 2, |out| wire::put_bytes(out, 1, blob_id));
        });
        self.ledger.ask_blob(id, BlobAsk::Get(blob_id.to_vec()), now);
        self.send_payload(&payload);
        Ok(id)
    }

    /// Hands a blob over.
    ///
    /// # Errors
    /// Too many questions were asked.
    pub fn set_blob(&mut self, blob_id: &[u8], data: &[u8], now: Instant) -> Result<u32> {
        let id = self.question_id(None)?;
        let mut payload = Vec::with_capacity(blob_id.len() + data.len() + 32);
        wire::put_nested(&mut payload, 4, |out| {
            put_id(out, id);
            wire::put_nested(out, 3, |out| {
                wire::put_bytes(out, 1, blob_id);
                wire::put_bytes(out, 2, data);
            });
        });
        self.ledger.ask_blob(id, BlobAsk::Set, now);
        if Sha256::digest(data).as_slice() != blob_id {
            self.foreign.insert(blob_id.to_vec());
        }
        self.send_payload(&payload);
        Ok(id)
    }

    /// Tells the client to stop an exec; its result is no longer awaited.
    pub fn abort(&mut self, id: u32) {
        self.ledger.abort(id);
        let mut payload = Vec::with_capacity(16);
        wire::put_nested(&mut payload, 5, |out| wire::put_nested(out, 1, |out| put_id(out, id)));
        self.send_payload(&payload);
    }

    /// Ends the stream well: an end-stream envelope without an error, then the end of the body.
    pub fn finish(&mut self) {
        self.end_stream(b"{}");
    }

    /// Ends the stream with an error in the end-stream envelope.
    pub fn end_with(&mut self, error: &EndError) {
        self.end_stream(error.to_json().to_string().as_bytes());
    }

    /// Ends the body without an end-stream envelope.
    pub fn close(&mut self) {
        self.last(Output::End { trailers: Vec::new() });
    }

    /// Resets the stream with this HTTP/2 code.
    pub fn reset(&mut self, code: u32) {
        self.last(Output::Reset(code));
    }

    /// Sends GOAWAY with this HTTP/2 code; with 0 the stream goes on.
    pub fn go_away(&mut self, code: u32) {
        if !self.ended {
            self.flush();
            self.output.push_back(Output::GoAway(code));
        }
    }

    /// Cuts the connection.
    pub fn cut(&mut self) {
        self.last(Output::Cut);
    }

    fn end_stream(&mut self, json: &[u8]) {
        self.send_envelope(2, json);
        self.last(Output::End { trailers: Vec::new() });
    }

    /// The last word of the server.
    fn last(&mut self, output: Output) {
        if self.ended {
            return;
        }
        if matches!(output, Output::End { .. }) {
            self.respond(200, &[]);
        }
        self.flush();
        self.ended = true;
        self.output.push_back(output);
    }

    fn flush(&mut self) {
        if !self.packed.is_empty() {
            self.output.push_back(Output::Send(self.packed.split().freeze()));
        }
    }

    fn question_id(&mut self, wanted: Option<u32>) -> Result<u32> {
        if self.ledger.asked() >= self.options.questions {
            return Err(Error::limit(format!(
                "more than {} questions on one stream",
                self.options.questions
            )));
        }
        Ok(wanted.unwrap_or_else(|| self.ledger.fresh()))
    }
}

impl EndError {
    /// The JSON of the end-stream envelope.
    fn to_json(&self) -> Value {
        let mut error = Map::new();
        error.insert("code".into(), self.code.clone().into());
        if !self.message.is_empty() {
            error.insert("message".into(), self.message.clone().into());
        }
        if !self.details.is_empty() {
            error.insert("details".into(), self.details.clone().into());
        }
        let mut json = Map::new();
        json.insert("error".into(), error.into());
        if !self.metadata.is_empty() {
            json.insert("metadata".into(), self.metadata.clone().into());
        }
        Value::Object(json)
    }

    /// The JSON of a unary error answer: the error itself, without the metadata.
    pub(in crate::server) fn to_unary_json(&self) -> Value {
        self.to_json().get("error").cloned().unwrap_or_default()
    }
}

/// Field 1 of every question: left out when zero, as proto3 has it.
fn put_id(out: &mut Vec<u8>, id: u32) {
    if id != 0 {
        wire::put_uint(out, 1, u64::from(id));
    }
}

//! The unary calls: the whole body in, one message out.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use super::exchange::Options;
use super::player::{Playbook, UnaryCall, name_of};
use super::script::{Model, UnaryReply, form};
use super::session::{EndError, Output, Refusal, RequestHead, admit};
use crate::connect::{self, Code};
use crate::error::Kind;
use crate::proto;
use crate::{Error, Result};

/// Content type of a unary call of protobuf messages.
const UNARY_TYPE: &str = "application/proto";

/// One unary call.
pub(super) struct Unary {
    playbook: Playbook,
    call: UnaryCall,
    body: BytesMut,
    most: usize,
    state: State,
}

enum State {
    /// The request body is awaited.
    Body { until: Instant },
    /// The answer is ready and goes out at this time.
    Answer { at: Instant, answer: Answer },
    /// The answer goes out.
    Sending(Vec<Output>),
    /// No answer will come.
    Silent,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// The call that a path names.
pub(super) fn call_of(path: &str) -> Option<UnaryCall> {
    match path.strip_prefix("/agent.v1.AgentService/")? {
        "GetUsableModels" => Some(UnaryCall::UsableModels),
        "GetDefaultModelForCli" => Some(UnaryCall::DefaultModel),
        "NameAgent" => Some(UnaryCall::NameAgent),
        _ => None,
    }
}

impl Unary {
    /// A call that waits for its body.
    pub(super) fn new(
        playbook: Playbook,
        call: UnaryCall,
        head: &RequestHead,
        options: &Options,
        now: Instant,
    ) -> Result<Self, Refusal> {
        admit(head, UNARY_TYPE, options.session.token.as_ref())?;
        match head.header("content-encoding") {
            None | Some("identity") => {}
            Some(_) => {
                let error =
                    Error::invalid("only identity is understood").with_code(Code::Unimplemented);
                return Err(Refusal::new(error.code().http_status(), error));
            }
        }
        let (most, until) = (options.unary_body, now + options.unary_within);
        Ok(Self { playbook, call, body: BytesMut::new(), most, state: State::Body { until } })
    }

    pub(super) fn handle_body(&mut self, chunk: &[u8]) {
        if !matches!(self.state, State::Body { .. }) {
            return;
        }
        if self.body.len() + chunk.len() > self.most {
            let error = EndError::new(
                Code::ResourceExhausted,
                format!("the request is larger than {} bytes", self.most),
            );
            self.state = State::Sending(Answer::error(&error).outputs());
            return;
        }
        self.body.extend_from_slice(chunk);
    }

    pub(super) fn handle_end(&mut self, now: Instant) {
        if !matches!(self.state, State::Body { .. }) {
            return;
        }
        let playbook = self.playbook.clone();
        let plain = UnaryReply::default();
        let reply = playbook.unary(self.call).unwrap_or(&plain);
        if reply.silence {
            self.state = State::Silent;
            return;
        }
        let answer = self
            .answer(reply)
            .unwrap_or_else(|error| Answer::error(&EndError::new(error.code(), error.message())));
        self.state = State::Answer { at: now + Duration::from_millis(reply.delay_ms), answer };
    }

    pub(super) fn handle_reset(&mut self) {
        self.state = State::Silent;
    }

    pub(super) fn poll_output(&mut self, now: Instant) -> Output {
        match &mut self.state {
            State::Body { until } if now < *until => return Output::Wait(Some(*until)),
            State::Body { .. } => {
                let error = EndError::new(Code::DeadlineExceeded, "the request did not arrive");
                self.state = State::Sending(Answer::error(&error).outputs());
            }
            State::Answer { at, .. } if now < *at => return Output::Wait(Some(*at)),
            State::Answer { answer, .. } => {
                let outputs = std::mem::take(answer).outputs();
                self.state = State::Sending(outputs);
            }
            State::Sending(_) | State::Silent => {}
        }
        match &mut self.state {
            State::Sending(outputs) => outputs.pop().unwrap_or(Output::Wait(None)),
            _ => Output::Wait(None),
        }
    }

    /// Whether the last word is said.
    pub(super) fn is_ended(&self) -> bool {
        matches!(&self.state, State::Sending(outputs) if outputs.is_empty())
    }

    fn answer(&self, reply: &UnaryReply) -> Result<Answer> {
        if let Some(status) = &reply.status {
            let headers = status.headers.clone().into_iter().collect();
            return Ok(Answer {
                status: status.status,
                headers,
                body: Bytes::from(status.bytes()),
            }
            .with_json_type());
        }
        if let Some(error) = &reply.error {
            return Ok(Answer::error(&error.clone().into()));
        }
        let message = match &reply.base64 {
            Some(text) => form::base64(text).map_err(Error::invalid)?,
            None => self.message()?,
        };
        let mut body = message;
        if reply.enveloped {
            let mut out = Vec::with_capacity(body.len() + connect::HEADER_LEN);
            connect::put_envelope(&mut out, 0, &body);
            body = out;
        }
        let headers = vec![("content-type".into(), UNARY_TYPE.into())];
        Ok(Answer { status: 200, headers, body: Bytes::from(body) })
    }

    /// The plain answer.
    fn message(&self) -> Result<Vec<u8>> {
        let script = self.playbook.script();
        let wrong = |_| Error::new(Kind::InvalidRequest, "cannot decode the request");
        Ok(match self.call {
            UnaryCall::UsableModels => {
                proto::GetUsableModelsRequest::decode(&*self.body).map_err(wrong)?;
                let models = script.models.iter().map(details).collect();
                proto::GetUsableModelsResponse { models }.encode_to_vec()
            }
            UnaryCall::DefaultModel => {
                proto::GetDefaultModelForCliRequest::decode(&*self.body).map_err(wrong)?;
                let named = script.models.iter().find(|model| model.id == script.default_model);
                let model = named.or_else(|| script.models.first()).map(details);
                proto::GetDefaultModelForCliResponse { model }.encode_to_vec()
            }
            UnaryCall::NameAgent => {
                let request = proto::NameAgentRequest::decode(&*self.body).map_err(wrong)?;
                let name =
                    script.unary.name.clone().unwrap_or_else(|| name_of(&request.user_message));
                proto::NameAgentResponse { name }.encode_to_vec()
            }
        })
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self { status: 200, headers: Vec::new(), body: Bytes::new() }
    }
}

impl Answer {
    fn error(error: &EndError) -> Self {
        let status = error.code.parse().map_or(500, Code::http_status);
        let body = Bytes::from(error.to_unary_json().to_string());
        Self { status, headers: Vec::new(), body }.with_json_type()
    }

    /// Names the content type of a body that has none.
    fn with_json_type(mut self) -> Self {
        if !self.body.is_empty() && !self.headers.iter().any(|(name, _)| name == "content-type") {
            self.headers.push(("content-type".into(), "application/json".into()));
        }
        self
    }

    /// What the driver is to do, last first.
    fn outputs(self) -> Vec<Output> {
        let mut outputs = vec![Output::End { trailers: Vec::new() }];
        if !self.body.is_empty() {
            outputs.push(Output::Send(self.body));
        }
        outputs.push(Output::Head { status: self.status, headers: self.headers });
        outputs
    }
}

impl fmt::Debug for Unary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unary").field("call", &self.call).finish_non_exhaustive()
    }
}

/// A model as it goes out.
fn details(model: &Model) -> proto::ModelDetails {
    proto::ModelDetails {
        model_id: model.id.clone(),
        thinking_details: model.thinking.then(proto::ThinkingDetails::default),
        display_model_id: model.id.clone(),
        display_name: model.name.clone(),
        display_name_short: model.name.clone(),
        aliases: model.aliases.clone(),
        max_mode: model.max_mode,
        ..Default::default()
    }
}

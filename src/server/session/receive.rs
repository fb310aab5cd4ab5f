//! What the client says: envelopes to events, each answer held against its question.

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::{EndError, Event, Phase, Session, Violation};
use crate::Error;
use crate::codec::budget;
use crate::connect::{Code, Envelope, Limits};
use crate::proto::{
    self, AgentClientMessage, agent_client_message, exec_client_control_message,
    exec_client_message, kv_client_message, shell_stream,
};
use crate::wire::{Reader, WireError};

/// What one envelope is, owned, so that the session can act on it.
enum Received {
    Message(AgentClientMessage, Extra),
    Unknown,
    EndStream,
}

/// What the typed message does not say.
#[derive(Default)]
struct Extra {
    /// Bytes of `run_request.conversation_state`.
    state: Bytes,
    /// The case of an exec result or of a query's answer, as its field number.
    case: Option<u32>,
    /// Whether that case's message is empty.
    empty: bool,
}

impl Session {
    /// Reads envelopes out of a chunk of the body.
    pub(super) fn read(&mut self, mut chunk: &[u8]) {
        while !matches!(self.phase, Phase::Head | Phase::Deaf) {
            let received = match self.decoder.next(&mut chunk) {
                Ok(None) => return,
                Ok(Some(Envelope::Message(payload))) => decode(payload, &self.options.limits),
                Ok(Some(Envelope::EndStream(_))) => Ok(Received::EndStream),
                Err(error) => Err(error),
            };
            match received {
                Ok(Received::Message(message, extra)) => self.accept(message, extra),
                Ok(Received::Unknown) => self.violate(Violation::UnknownMessage),
                Ok(Received::EndStream) => self.violate(Violation::EndStream),
                Err(error) => self.broken(&error),
            }
        }
    }

    /// The body cannot be read on: says so to the client and listens no more.
    pub(super) fn broken(&mut self, error: &Error) {
        self.phase = Phase::Deaf;
        self.violate(Violation::Broken);
        let code = match error.code() {
            Code::Internal => Code::InvalidArgument,
            code => code,
        };
        self.end_with(&EndError::new(code, error.message()));
    }

    fn accept(&mut self, message: AgentClientMessage, extra: Extra) {
        use agent_client_message::Message as M;

        let Some(message) = message.message else { return self.violate(Violation::UnknownMessage) };
        self.phase = match (self.phase, &message) {
            (Phase::First | Phase::Prewarmed, M::RunRequest(_)) => Phase::Running,
            (Phase::First, M::PrewarmRequest(_)) => Phase::Prewarmed,
            (Phase::First, _) => return self.violate(Violation::NotARunRequest),
            (_, M::RunRequest(_) | M::PrewarmRequest(_)) => {
                return self.violate(Violation::SecondRunRequest);
            }
            (phase, _) => phase,
        };
        match message {
            M::RunRequest(request) => self.push(Event::Run { request, state: extra.state }),
            M::PrewarmRequest(request) => self.push(Event::Prewarm(request)),
            M::ExecClientMessage(result) => self.exec_result(result, &extra),
            M::KvClientMessage(answer) => self.blob_answer(*answer),
            M::ConversationAction(action) => self.push(Event::Action(action)),
            M::ExecClientControlMessage(control) => self.exec_control(control),
            M::InteractionResponse(answer) => {
                match self.ledger.query_answered(answer.id, extra.case) {
                    Ok(()) => self.push(Event::Answer(answer)),
                    Err(violation) => self.violate(violation),
                }
            }
            M::ClientHeartbeat(_) => {
                self.heartbeats += 1;
                self.push(Event::Heartbeat);
            }
        }
    }

    fn exec_result(&mut self, result: Box<proto::ExecClientMessage>, extra: &Extra) {
        let id = result.id;
        let last = !is_shell_progress(&result);
        match self.ledger.exec_result(id, &result.exec_id, extra.case, last) {
            Ok(asked) => {
                if extra.empty && !may_be_empty(asked) {
                    self.violate(Violation::EmptyAnswer { id });
                }
                self.push(Event::ExecResult(result));
            }
            Err(violation) => self.violate(violation),
        }
    }

    fn exec_control(&mut self, control: proto::ExecClientControlMessage) {
        use exec_client_control_message::Message as M;

        let (outcome, event) = match control.message {
            Some(M::StreamClose(proto::ExecClientStreamClose { id })) => {
                (self.ledger.exec_closed(id), Event::ExecClosed { id })
            }
            Some(M::Throw(proto::ExecClientThrow { id, error, .. })) => {
                (self.ledger.exec_thrown(id), Event::ExecThrown { id, error })
            }
            Some(M::Heartbeat(proto::ExecClientHeartbeat { id })) => {
                (self.ledger.exec_heartbeat(id), Event::ExecHeartbeat { id })
            }
            None => return self.violate(Violation::UnknownMessage),
        };
        match outcome {
            Ok(()) => self.push(event),
            Err(violation) => self.violate(violation),
        }
    }

    fn blob_answer(&mut self, answer: proto::KvClientMessage) {
        use kv_client_message::Message as M;

        let id = answer.id;
        let Some(result) = answer.message else {
            return self.violate(Violation::EmptyAnswer { id });
        };
        let about = self.ledger.blob_answered(id, matches!(result, M::GetBlobResult(_)));
        let asked = match about {
            Ok(asked) => asked,
            Err(violation) => return self.violate(violation),
        };
        match result {
            M::GetBlobResult(proto::GetBlobResult { blob_data: data }) => {
                let right = match (&data, asked.as_deref()) {
                    // Only an id of 32 bytes can be a hash; a script may ask for others.
                    (Some(data), Some(asked)) if asked.len() == 32 => {
                        self.foreign.contains(asked) || Sha256::digest(data).as_slice() == asked
                    }
                    _ => true,
                };
                if !right {
                    self.violate(Violation::WrongBlob { id });
                }
                self.push(Event::Blob { id, data });
            }
            M::SetBlobResult(proto::SetBlobResult { error }) => {
                self.push(Event::BlobStored { id, error: error.map(|error| error.message) });
            }
        }
    }
}

/// Decodes one client message, and notes what prost does not keep.
fn decode(payload: &[u8], limits: &Limits) -> Result<Received, Error> {
    budget::check("AgentClientMessage", "client message", payload, limits)?;
    let mut extra = Extra::default();
    let mut reader = Reader::new(payload);
    while let Some(field) = reader.field()? {
        match field.number {
            1 => extra.state = member(field.value.bytes()?, 1)?,
            2 => (extra.case, extra.empty) = case(field.value.bytes()?, &[1, 15, 39, 45])?,
            6 => (extra.case, extra.empty) = case(field.value.bytes()?, &[1])?,
            _ => {}
        }
    }
    let message = AgentClientMessage::decode(payload)
        .map_err(|_| Error::protocol("cannot decode the client message"))?;
    match message.message {
        Some(_) => Ok(Received::Message(message, extra)),
        None => Ok(Received::Unknown),
    }
}

/// The bytes of a message field; of several the last one, which is enough for clients that write
/// it once.
fn member(message: &[u8], number: u32) -> Result<Bytes, WireError> {
    let mut reader = Reader::new(message);
    let mut found = Bytes::new();
    while let Some(field) = reader.field()? {
        if field.number == number {
            found = Bytes::copy_from_slice(field.value.bytes()?);
        }
    }
    Ok(found)
}

/// The field number of a oneof's case, given the numbers of the fields beside it, and whether its
/// message is empty. Prost drops a case that it does not know; this does not.
fn case(message: &[u8], beside: &[u32]) -> Result<(Option<u32>, bool), WireError> {
    let mut reader = Reader::new(message);
    let mut found = (None, false);
    while let Some(field) = reader.field()? {
        if !beside.contains(&field.number) {
            found = (Some(field.number), field.value.bytes().is_ok_and(<[u8]>::is_empty));
        }
    }
    Ok(found)
}

/// Whether a result is an event of a shell stream after which more must come.
fn is_shell_progress(result: &proto::ExecClientMessage) -> bool {
    use shell_stream::Event as E;

    let Some(exec_client_message::Message::ShellStream(stream)) = &result.message else {
        return false;
    };
    matches!(stream.event, Some(E::Start(_) | E::Stdout(_) | E::Stderr(_) | E::HookContext(_)))
}

/// Cases whose refusal is all defaults, and so an empty message (issue of the exec channel: 30 and
/// 31 by a status, 41 to 43 by `allowlisted = false`).
const fn may_be_empty(asked: u32) -> bool {
    matches!(asked, 30 | 31 | 41..=43)
}

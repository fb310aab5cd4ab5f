//! The hand-written decoder against the generated one: bodies for the fuzzer, run as property
//! tests too.
#![allow(clippy::panic, reason = "a fuzz body says by a panic that it found something")]

use std::borrow::Cow;

use prost::Message as _;

use super::{Incoming, TurnTokens, decode, walk};
use crate::proto::{
    AgentServerMessage, ConversationStateStructure, agent_server_message as server,
    exec_server_control_message as control, interaction_update as update, kv_server_message as kv,
};

/// Decodes `payload` both ways.
///
/// # Panics
///
/// When one refuses what the other accepts, or they disagree on the value, but for a repaired text.
pub fn differential(payload: &[u8]) {
    let ours = decode(payload);
    let theirs = AgentServerMessage::decode(payload);
    match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => same(ours, theirs),
        (Err(_), Err(_)) => {}
        (Ok(Incoming::Text(Cow::Owned(text)) | Incoming::Thinking(Cow::Owned(text))), Err(_)) => {
            assert!(text.contains('\u{fffd}'), "repaired where there was nothing to repair");
        }
        (Ok(ours), Err(error)) => panic!("only ours accepts: {ours:?}; prost says {error}"),
        (Err(error), Ok(_)) => {
            let is_budget = error.kind() == &crate::error::Kind::LimitExceeded;
            assert!(is_budget, "only prost accepts; ours says {error}");
        }
    }
}

/// Asserts that both decoders saw the same.
fn same(ours: &Incoming<'_>, theirs: &AgentServerMessage) {
    use server::Message as M;
    match (ours, &theirs.message) {
        (Incoming::Unknown, None) => {}
        (ours, Some(M::InteractionUpdate(theirs))) => same_update(ours, theirs.message.as_ref()),
        (Incoming::Checkpoint(ours), Some(M::ConversationCheckpointUpdate(theirs))) => {
            let details = theirs.token_details.as_ref();
            assert_eq!(ours.used_tokens, details.map(|details| details.used_tokens));
            assert_eq!(ours.max_tokens, details.map(|details| details.max_tokens));
            let again = ConversationStateStructure::decode(&*ours.raw);
            assert_eq!(again.as_ref(), Ok(&**theirs));
        }
        (ours, Some(M::KvServerMessage(theirs))) => match (ours, &theirs.message) {
            (Incoming::GetBlob { id, blob_id }, Some(kv::Message::GetBlobArgs(args))) => {
                assert_eq!((*id, *blob_id), (theirs.id, &args.blob_id[..]));
            }
            (Incoming::SetBlob { id, blob_id, data }, Some(kv::Message::SetBlobArgs(args))) => {
                assert_eq!((*id, *blob_id), (theirs.id, &args.blob_id[..]));
                assert_eq!(*data, &args.blob_data[..]);
            }
            (Incoming::Unknown, None) => {}
            (ours, theirs) => panic!("{ours:?} and {theirs:?}"),
        },
        (Incoming::Exec(ours, unknown), Some(M::ExecServerMessage(theirs))) => {
            assert!(ours == theirs && (unknown.is_none() || ours.message.is_none()));
        }
        (Incoming::Query(ours, unknown), Some(M::InteractionQuery(theirs))) => {
            assert!(ours == theirs && (unknown.is_none() || ours.query.is_none()));
        }
        (Incoming::ExecControl(ours), Some(M::ExecServerControlMessage(theirs))) => {
            let control = theirs.message.as_ref();
            assert_eq!(*ours, control.map(|control::Message::Abort(abort)| abort.id));
        }
        (ours, theirs) => panic!("{ours:?} and {theirs:?}"),
    }
}

fn same_update(ours: &Incoming<'_>, theirs: Option<&update::Message>) {
    use update::Message as M;
    match (ours, theirs) {
        (Incoming::Unknown, None) | (Incoming::Heartbeat, Some(M::Heartbeat(_))) => {}
        (Incoming::Text(Cow::Borrowed(ours)), Some(M::TextDelta(theirs))) => {
            assert_eq!(*ours, theirs.text);
        }
        (Incoming::Thinking(Cow::Borrowed(ours)), Some(M::ThinkingDelta(theirs))) => {
            assert_eq!(*ours, theirs.text);
        }
        (Incoming::Tokens(ours), Some(M::TokenDelta(theirs))) => assert_eq!(*ours, theirs.tokens),
        (Incoming::TurnEnded(ours), Some(M::TurnEnded(theirs))) => {
            let theirs = TurnTokens {
                input: theirs.input_tokens,
                output: theirs.output_tokens,
                cache_read: theirs.cache_read_tokens,
                cache_write: theirs.cache_write_tokens,
                reasoning: theirs.reasoning_tokens,
            };
            assert_eq!(**ours, theirs);
        }
        (Incoming::Update(ours), Some(theirs)) => {
            assert!(**ours == *theirs && !walk::is_hot(theirs));
        }
        (ours, theirs) => panic!("{ours:?} and {theirs:?}"),
    }
}

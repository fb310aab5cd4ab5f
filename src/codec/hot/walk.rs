//! The walk behind the fast path: any order of fields, repeated fields, unknown ones.
//!
//! A oneof holds the case that came last; a message that comes twice in a row is merged. So the
//! walk keeps one state for each of the two levels of oneofs and folds every occurrence into it.
//! Cases that prost decodes are only noted; in the end it decodes the whole payload once.

use std::borrow::Cow;

use prost::Message as _;

use super::checkpoint::{self, Tokens};
use super::{CheckpointRef, Incoming, TurnTokens, refused, utf8};
use crate::codec::budget;
use crate::connect::Limits;
use crate::error::{Error, Result};
use crate::proto::{AgentServerMessage, agent_server_message, exec_server_control_message};
use crate::wire::{MAX_DEPTH, Reader, WireError, WireType};

type Wire<T> = std::result::Result<T, WireError>;

/// Which case of `AgentServerMessage.message` stands, and what it holds so far.
enum Case<'a> {
    None,
    Update(Update<'a>),
    Checkpoint(Checkpoint<'a>),
    Kv { id: u32, kv: Kv<'a> },
    Cold,
}

/// Concatenation is the merge. The parts are joined as they come: a second one is rare, and the
/// first alone is not copied.
#[derive(Default)]
struct Checkpoint<'a> {
    raw: Cow<'a, [u8]>,
    tokens: Option<Tokens>,
}

/// Which case of `InteractionUpdate.message` stands.
enum Update<'a> {
    None,
    Text(&'a [u8]),
    Thinking(&'a [u8]),
    Tokens(i32),
    Heartbeat,
    TurnEnded(Box<TurnTokens>),
    Cold,
}

/// Which case of `KvServerMessage.message` stands.
enum Kv<'a> {
    None,
    Get { blob_id: &'a [u8] },
    Set { blob_id: &'a [u8], data: &'a [u8] },
}

/// Whether a case was seen, even one that does not stand, that prost must check.
struct Cold(bool);

pub(super) fn decode<'a>(payload: &'a [u8], limits: &Limits) -> Result<Incoming<'a>> {
    let mut case = Case::None;
    let mut cold = Cold(false);
    walk(payload, &mut case, &mut cold)?;
    if cold.0 {
        let message = by_prost(payload, limits)?;
        if matches!(case, Case::Cold | Case::Update(Update::Cold)) {
            return Ok(convert(message, payload));
        }
    }
    Ok(finish(case))
}

/// A message with one text or thinking delta in it, which holds one text: its tag and that text.
///
/// What the walk keeps of two oneofs is for parts that replace or merge with one another. Where
/// nothing comes twice there is nothing to keep. `None` is anything else, also what is refused: then
/// the walk looks again and says why.
#[inline]
pub(super) fn lone_delta(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (_, update) = lone(payload, |number| number == 1, 7, MAX_DEPTH)?;
    let (case, delta) = lone(update, |number| matches!(number, 1 | 4), 17, MAX_DEPTH - 1)?;
    let (_, text) = lone(delta, |number| number == 1, 1, DEPTH)?;
    Some((case, text))
}

/// The only field of a message that is one of the fields it declares, if it is `wanted` and has
/// a length: its number and content. All declared numbers are up to `declared`.
#[inline(always)]
fn lone(
    message: &[u8],
    wanted: impl Fn(u32) -> bool,
    declared: u32,
    depth: u32,
) -> Option<(u32, &[u8])> {
    let mut found = None;
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        let (number, wire_type) = reader.tag().ok()?;
        if number > declared {
            reader.skip(number, wire_type, depth).ok()?;
        } else if wanted(number) && wire_type == WireType::Len && found.is_none() {
            found = Some((number, reader.bytes().ok()?));
        } else {
            return None;
        }
    }
    found
}

/// Folds every field of the message into `case`.
fn walk<'a>(payload: &'a [u8], case: &mut Case<'a>, cold: &mut Cold) -> Result<()> {
    let mut reader = Reader::new(payload);
    while !reader.is_empty() {
        let (number, wire_type) = reader.tag().map_err(in_message)?;
        if !matches!(number, 1..=5 | 7) {
            reader.skip(number, wire_type, MAX_DEPTH).map_err(in_message)?;
            continue;
        }
        let content = message(&mut reader, wire_type).map_err(in_message)?;
        let part = match number {
            1 => "interaction_update",
            3 => "conversation_checkpoint_update",
            _ => "kv_server_message",
        };
        match number {
            1 => fold_update(case, content, cold),
            3 => fold_checkpoint(case, content),
            4 => fold_kv(case, content),
            _ => leave(case).map(|()| *case = Case::Cold).map(|()| cold.0 = true),
        }
        .map_err(|error| refused(part, error))?;
    }
    Ok(())
}

fn in_message(error: WireError) -> Error {
    refused("message", error)
}

/// The content of a message field.
#[inline]
fn message<'a>(reader: &mut Reader<'a>, wire_type: WireType) -> Wire<&'a [u8]> {
    if wire_type != WireType::Len {
        return Err(WireError::WrongWireType);
    }
    reader.bytes()
}

/// The integer of a varint field.
#[inline]
fn varint(reader: &mut Reader<'_>, wire_type: WireType) -> Wire<u64> {
    if wire_type != WireType::Varint {
        return Err(WireError::WrongWireType);
    }
    reader.varint()
}

/// What stood in the oneof is replaced by another case: a text that does not become the result
/// has no right to be repaired.
#[inline]
fn leave(case: &Case<'_>) -> Wire<()> {
    match case {
        Case::Update(update) => leave_update(update),
        _ => Ok(()),
    }
}

#[inline]
fn leave_update(update: &Update<'_>) -> Wire<()> {
    match update {
        Update::Text(text) | Update::Thinking(text) => strict(text),
        _ => Ok(()),
    }
}

fn strict(text: &[u8]) -> Wire<()> {
    utf8(text).map(drop).ok_or(WireError::InvalidUtf8)
}

/// Folds one occurrence of `interaction_update`.
fn fold_update<'a>(case: &mut Case<'a>, content: &'a [u8], cold: &mut Cold) -> Wire<()> {
    if !matches!(case, Case::Update(_)) {
        *case = Case::Update(Update::None);
    }
    let Case::Update(update) = case else { return Ok(()) };
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        let (number, wire_type) = reader.tag()?;
        if !(1..=17).contains(&number) {
            reader.skip(number, wire_type, MAX_DEPTH - 1)?;
            continue;
        }
        let content = message(&mut reader, wire_type)?;
        match (number, &mut *update) {
            (1, Update::Text(text)) | (4, Update::Thinking(text)) => fold_text(text, content)?,
            (8, Update::Tokens(tokens)) => fold_tokens(tokens, content)?,
            (13, Update::Heartbeat) => fold_nothing(content)?,
            (14, Update::TurnEnded(tokens)) => fold_turn(tokens, content)?,
            (_, update) => {
                leave_update(update)?;
                *update = first(number, content)?;
                cold.0 |= matches!(update, Update::Cold);
            }
        }
    }
    Ok(())
}

/// The first occurrence of a case of `InteractionUpdate`.
fn first<'a>(number: u32, content: &'a [u8]) -> Wire<Update<'a>> {
    Ok(match number {
        1 | 4 => {
            let mut text: &[u8] = &[];
            fold_text(&mut text, content)?;
            if number == 1 { Update::Text(text) } else { Update::Thinking(text) }
        }
        8 => {
            let mut tokens = 0;
            fold_tokens(&mut tokens, content)?;
            Update::Tokens(tokens)
        }
        13 => {
            fold_nothing(content)?;
            Update::Heartbeat
        }
        14 => {
            let mut tokens = Box::default();
            fold_turn(&mut tokens, content)?;
            Update::TurnEnded(tokens)
        }
        _ => Update::Cold,
    })
}

/// The depth that is left inside a message that is two levels down.
const DEPTH: u32 = MAX_DEPTH - 2;

/// `TextDeltaUpdate` and `ThinkingDeltaUpdate`: the last text counts, those before must be valid.
fn fold_text<'a>(text: &mut &'a [u8], content: &'a [u8]) -> Wire<()> {
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, wire_type) => {
                strict(text)?;
                *text = message(&mut reader, wire_type)?;
            }
            (number, wire_type) => reader.skip(number, wire_type, DEPTH)?,
        }
    }
    Ok(())
}

/// `TokenDeltaUpdate`. An `int32` is the low half of its varint.
fn fold_tokens(tokens: &mut i32, content: &[u8]) -> Wire<()> {
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, wire_type) => *tokens = varint(&mut reader, wire_type)? as i32,
            (number, wire_type) => reader.skip(number, wire_type, DEPTH)?,
        }
    }
    Ok(())
}

/// A message without fields of its own.
fn fold_nothing(content: &[u8]) -> Wire<()> {
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        let (number, wire_type) = reader.tag()?;
        reader.skip(number, wire_type, DEPTH)?;
    }
    Ok(())
}

/// `TurnEndedUpdate`.
fn fold_turn(tokens: &mut TurnTokens, content: &[u8]) -> Wire<()> {
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        let (number, wire_type) = reader.tag()?;
        let slot = match number {
            1 => &mut tokens.input,
            2 => &mut tokens.output,
            3 => &mut tokens.cache_read,
            4 => &mut tokens.cache_write,
            5 => &mut tokens.reasoning,
            _ => {
                reader.skip(number, wire_type, DEPTH)?;
                continue;
            }
        };
        *slot = Some(varint(&mut reader, wire_type)? as i64);
    }
    Ok(())
}

/// Folds one occurrence of `conversation_checkpoint_update`.
fn fold_checkpoint<'a>(case: &mut Case<'a>, content: &'a [u8]) -> Wire<()> {
    if !matches!(case, Case::Checkpoint(_)) {
        leave(case)?;
        *case = Case::Checkpoint(Checkpoint::default());
    }
    let Case::Checkpoint(checkpoint) = case else { return Ok(()) };
    if checkpoint.raw.is_empty() {
        checkpoint.raw = Cow::Borrowed(content);
    } else {
        checkpoint.raw.to_mut().extend_from_slice(content);
    }
    checkpoint::check(content, &mut checkpoint.tokens)
}

/// Folds one occurrence of `kv_server_message`.
fn fold_kv<'a>(case: &mut Case<'a>, content: &'a [u8]) -> Wire<()> {
    if !matches!(case, Case::Kv { .. }) {
        leave(case)?;
        *case = Case::Kv { id: 0, kv: Kv::None };
    }
    let Case::Kv { id, kv } = case else { return Ok(()) };
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        let (number, wire_type) = reader.tag()?;
        match number {
            1 => *id = varint(&mut reader, wire_type)? as u32,
            2 => fold_get(kv, message(&mut reader, wire_type)?)?,
            3 => fold_set(kv, message(&mut reader, wire_type)?)?,
            4 => checkpoint::check_span(message(&mut reader, wire_type)?)?,
            _ => reader.skip(number, wire_type, MAX_DEPTH - 1)?,
        }
    }
    Ok(())
}

fn fold_get<'a>(kv: &mut Kv<'a>, content: &'a [u8]) -> Wire<()> {
    let mut id = if let Kv::Get { blob_id } = *kv { blob_id } else { &[] };
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, wire_type) => id = message(&mut reader, wire_type)?,
            (number, wire_type) => reader.skip(number, wire_type, DEPTH)?,
        }
    }
    *kv = Kv::Get { blob_id: id };
    Ok(())
}

fn fold_set<'a>(kv: &mut Kv<'a>, content: &'a [u8]) -> Wire<()> {
    let (mut id, mut bytes) = match *kv {
        Kv::Set { blob_id, data } => (blob_id, data),
        _ => (&[][..], &[][..]),
    };
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, wire_type) => id = message(&mut reader, wire_type)?,
            (2, wire_type) => bytes = message(&mut reader, wire_type)?,
            (number, wire_type) => reader.skip(number, wire_type, DEPTH)?,
        }
    }
    *kv = Kv::Set { blob_id: id, data: bytes };
    Ok(())
}

/// The result of a walk whose last case is one of ours.
fn finish(case: Case<'_>) -> Incoming<'_> {
    let text = |text| utf8(text).map_or_else(|| String::from_utf8_lossy(text), Cow::Borrowed);
    match case {
        Case::Update(Update::Text(bytes)) => Incoming::Text(text(bytes)),
        Case::Update(Update::Thinking(bytes)) => Incoming::Thinking(text(bytes)),
        Case::Update(Update::Tokens(tokens)) => Incoming::Tokens(tokens),
        Case::Update(Update::Heartbeat) => Incoming::Heartbeat,
        Case::Update(Update::TurnEnded(tokens)) => Incoming::TurnEnded(tokens),
        Case::Checkpoint(checkpoint) => Incoming::Checkpoint(CheckpointRef {
            raw: checkpoint.raw,
            used_tokens: checkpoint.tokens.map(|tokens| tokens.used),
            max_tokens: checkpoint.tokens.map(|tokens| tokens.max),
        }),
        Case::Kv { id, kv: Kv::Get { blob_id } } => Incoming::GetBlob { id, blob_id },
        Case::Kv { id, kv: Kv::Set { blob_id, data } } => Incoming::SetBlob { id, blob_id, data },
        Case::None | Case::Cold | Case::Kv { kv: Kv::None, .. } => Incoming::Unknown,
        Case::Update(Update::None | Update::Cold) => Incoming::Unknown,
    }
}

/// The whole payload by the generated decoder, if it does not grow out of proportion.
fn by_prost(payload: &[u8], limits: &Limits) -> Result<AgentServerMessage> {
    budget::check("AgentServerMessage", "server message", payload, limits)?;
    AgentServerMessage::decode(payload)
        .map_err(|error| Error::protocol(format!("cannot decode a server message: {error}")))
}

/// What prost decoded, where the case that stands is one that only it decodes.
fn convert<'a>(message: AgentServerMessage, payload: &[u8]) -> Incoming<'a> {
    use agent_server_message::Message;
    match message.message {
        Some(Message::InteractionUpdate(update)) => match update.message {
            Some(update) => Incoming::Update(Box::new(update)),
            None => Incoming::Unknown,
        },
        Some(Message::ExecServerMessage(exec)) => {
            // `id`, `exec_id`, `span_context` and `accept_hook_additional_contexts` stand beside
            // the case and are none.
            let unknown =
                exec.message.is_none().then(|| last_message(payload, 2, &[1, 15, 19, 55]));
            Incoming::Exec(exec, unknown.flatten())
        }
        Some(Message::InteractionQuery(query)) => {
            let unknown = query.query.is_none().then(|| last_message(payload, 7, &[1]));
            Incoming::Query(query, unknown.flatten())
        }
        Some(Message::ExecServerControlMessage(control)) => {
            use exec_server_control_message::Message::Abort;
            Incoming::ExecControl(control.message.map(|Abort(abort)| abort.id))
        }
        // The walk decodes these itself.
        Some(Message::ConversationCheckpointUpdate(_) | Message::KvServerMessage(_)) | None => {
            Incoming::Unknown
        }
    }
}

/// The number of the last message field inside field `outer` that is not in `beside`.
fn last_message(payload: &[u8], outer: u32, beside: &[u32]) -> Option<u32> {
    let mut found = None;
    let mut reader = Reader::new(payload);
    while let Ok(Some(field)) = reader.field() {
        if field.number != outer {
            continue;
        }
        let mut inner = Reader::new(field.value.bytes().ok()?);
        while let Ok(Some(field)) = inner.field() {
            if field.value.bytes().is_ok() && !beside.contains(&field.number) {
                found = Some(field.number);
            }
        }
    }
    found
}

/// Whether `update` is one of the cases that are decoded by hand.
#[cfg(any(test, feature = "testing"))]
pub(super) const fn is_hot(update: &crate::proto::interaction_update::Message) -> bool {
    use crate::proto::interaction_update::Message as M;
    matches!(
        update,
        M::TextDelta(_)
            | M::ThinkingDelta(_)
            | M::TokenDelta(_)
            | M::Heartbeat(_)
            | M::TurnEnded(_)
    )
}

//! Requests as the reference of 2026-06 makes them, byte for byte (BEHAVIOUR 3).

use std::borrow::Cow;

use uuid::Uuid;

use super::Conversation;
use super::arena::Arena;
use super::blobs::BlobId;
use super::encode::{EncodedRun, FRAMING, Sent};
use super::full::message_size;
use super::turns::{Style, Turn};
use crate::codec::back::Back;
use crate::codec::json::{self, Keys};
use crate::codec::model::{model_details, requested_model};
use crate::codec::prompt::reference_system;
use crate::codec::turn::{
    self, Ids, UserMessage, joined, selected_context, state_tail, user_images, user_text,
    with_images,
};
use crate::codec::{Action, RunRequest};
use crate::context::{AssistantPart, Image, Message};
use crate::error::Result;
use crate::ids::IdSource;

pub(super) fn encode(
    request: &RunRequest,
    conversation: &mut Conversation,
    ids: &mut dyn IdSource,
) -> Result<EncodedRun> {
    let asked = request.conversation_id.as_deref();
    let id = conversation.settle_id(asked, || request.request_id.clone())?;
    let context = &request.context;
    let tools = conversation.tool_context(request, None, Keys::Reference)?;

    let size = match &conversation.checkpoint {
        Some(_) => 0,
        None => context.messages.iter().map(|message| message_size(message) + 256).sum::<usize>(),
    };
    let mut arena = Arena::new(size + FRAMING);
    let system = context.system_prompt.as_deref().unwrap_or_default();
    let system = arena.json(|out| {
        reference_system(out, system);
        Ok(true)
    })?;
    let system = system.unwrap_or_default();
    let selected = arena.message(|out| {
        selected_context(out, &system, &request.naming.client_name);
        Ok(())
    })?;
    let mut blobs = Vec::new();
    let turns = match &conversation.checkpoint {
        Some(_) => Vec::new(),
        None => turns(request, &selected, &mut arena, ids, &mut blobs)?,
    };

    let current = Current::of(request)?;
    let drawn = draw(&current.images, ids);
    let envelope = with_images(&current.images, |images| {
        let user = UserMessage {
            text: &current.text,
            images,
            ids: Ids::Drawn { message: drawn.0, images: &drawn.1 },
            selected_context: &selected,
            naming: &request.naming,
        };
        let mut out = Back::new(turns.len() * 34 + FRAMING);
        requested_model(&mut out, 9, &request.model);
        out.text(5, &id);
        model_details(&mut out, 3, &request.model);
        let mark = out.len();
        let mut late = None;
        match request.action {
            Action::Resume => out.bytes(2, &[]),
            Action::UserMessage => {
                late = Some(user.write(&mut out));
                out.wrap(1, mark);
                out.wrap(1, mark);
            }
        }
        out.wrap(2, mark);
        state(&mut out, conversation, &turns, &system, request);
        out.wrap(1, 0);
        out.envelope();
        let mut envelope = Vec::new();
        let hashes = out.append_to(&mut envelope)?;
        if let Some(late) = late {
            user.settle(&late, &mut envelope, &hashes);
        }
        Ok(envelope)
    })?;

    let before = std::mem::take(&mut conversation.legacy);
    conversation.blobs.retire(before);
    arena.store(&mut conversation.blobs);
    conversation.legacy = blobs;
    let sent = if request.action == Action::Resume { Sent::Resume } else { Sent::UserMessage };
    Ok(EncodedRun { envelope: envelope.into(), tools, conversation_id: id, sent })
}

/// Writes the conversation state: a checkpoint as it came, else one that is built.
fn state<'a>(
    out: &mut Back<'a>,
    conversation: &'a Conversation,
    turns: &[BlobId],
    system: &BlobId,
    request: &RunRequest,
) {
    let mark = out.len();
    match &conversation.checkpoint {
        Some(checkpoint) => out.long(checkpoint.raw()),
        None => {
            state_tail(out, &request.naming.client_name);
            for turn in turns.iter().rev() {
                out.bytes(8, turn);
            }
            out.bytes(1, system);
        }
    }
    out.wrap(1, mark);
}

/// The blobs of all turns before the last message.
fn turns(
    request: &RunRequest,
    selected: &BlobId,
    arena: &mut Arena,
    ids: &mut dyn IdSource,
    blobs: &mut Vec<BlobId>,
) -> Result<Vec<BlobId>> {
    let messages = &request.context.messages;
    let provider = &request.naming.provider_identifier;
    let style = Style { glue_thinking: true, provider, keys: Keys::Reference };
    let (mut found, mut open) = (Vec::new(), None);
    for index in 0..messages.len().saturating_sub(1) {
        found.extend(Turn::absorb(&mut open, messages, index, style));
    }
    found.extend(open);

    let mut turns = Vec::new();
    for mut turn in found {
        let (text, images) = match turn.user.and_then(|user| messages.get(user)).map(|m| &**m) {
            Some(Message::User { content }) => (user_text(content), user_images(content)),
            _ => (Cow::Borrowed(""), Vec::new()),
        };
        if text.is_empty() && images.is_empty() && !turn.has_steps() {
            continue;
        }
        let drawn = draw(&images, ids);
        let user = UserMessage {
            text: &text,
            images: &images,
            ids: Ids::Drawn { message: drawn.0, images: &drawn.1 },
            selected_context: selected,
            naming: &request.naming,
        };
        let user = arena.user(&user)?;
        let steps = turn.step_blobs(messages, style, arena, &mut ToOwned::to_owned)?;
        let request_id = ids.next_id();
        let id = arena.message(|out| {
            turn::turn(out, &user, &steps, request_id);
            Ok(())
        })?;
        blobs.extend([user, id]);
        blobs.extend(steps);
        turns.push(id);
    }
    Ok(turns)
}

/// Draws the ids of a user message and its images in the order of the reference.
fn draw(images: &[&Image], ids: &mut dyn IdSource) -> (Uuid, Vec<Uuid>) {
    (ids.next_id(), images.iter().map(|_| ids.next_id()).collect())
}

/// What the current action says: the text of the last message whatever its role, and its images
/// when it is a user's.
struct Current<'a> {
    text: Cow<'a, str>,
    images: Vec<&'a Image>,
}

impl<'a> Current<'a> {
    fn of(request: &'a RunRequest) -> Result<Self> {
        let (text, images) = match request.context.messages.last().map(|message| &**message) {
            None => (Cow::Borrowed(""), Vec::new()),
            Some(Message::User { content }) => (user_text(content), user_images(content)),
            Some(Message::Assistant { content }) => (assistant_text(content)?, Vec::new()),
            Some(Message::ToolResult(result)) => (joined(&result.content), Vec::new()),
        };
        Ok(Self { text, images })
    }
}

/// Parts of an answer joined with line breaks, calls as `toolCall:<id>:<name>:<json>`.
fn assistant_text(content: &[AssistantPart]) -> Result<Cow<'_, str>> {
    let mut out = Vec::new();
    for (i, part) in content.iter().enumerate() {
        if i > 0 {
            out.push(b'\n');
        }
        match part {
            AssistantPart::Text { text } | AssistantPart::Thinking { thinking: text } => {
                out.extend_from_slice(text.as_bytes());
            }
            AssistantPart::ToolCall(call) => {
                out.extend_from_slice(format!("toolCall:{}:{}:", call.id, call.name).as_bytes());
                json::write(&mut out, &call.arguments, Keys::Reference)?;
            }
        }
    }
    // Made of strings only.
    Ok(Cow::Owned(String::from_utf8_lossy(&out).into_owned()))
}

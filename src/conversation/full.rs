//! Requests that carry the whole history as prompt messages (PROTOCOL 4), and what is kept of one
//! for the next.
//!
//! With a checkpoint of the service its fields are kept and the prompt list alone is replaced by the
//! one made here; without one, turns are made too, for display. Tool calls and results must pair up
//! or providers refuse the whole prompt, so a result without its call gets one of that name, a call
//! that nobody answered gets a result that says so, and of two results for one call the later stands.

use std::sync::Arc;

use sha2::Digest;

use super::arena::Arena;
use super::blobs::{BlobId, BlobStore};
use super::encode::{EncodedRun, FRAMING, Sent};
use super::turns::{Style, Turn};
use super::{CallIds, Conversation, same};
use crate::codec::back::Back;
use crate::codec::json::Keys;
use crate::codec::model::{model_details, requested_model};
use crate::codec::turn::{
    self, Ids, Late, UserMessage, derive, selected_context, state_tail, user_images, user_text,
    uuid_shaped, with_images,
};
use crate::codec::{Action, Naming, RunRequest, ToolContext, prompt};
use crate::context::{AssistantPart, Message, Part, ToolResult, UserContent};
use crate::error::{Error, Result};
use crate::ids::IdSource;

/// Bytes of one blob id as a field of a state: tag, length, hash.
const ENTRY: usize = 34;

/// What is known of the history: everything up to `messages` is encoded already.
#[derive(Clone, Default)]
pub(super) struct Known {
    messages: Vec<Arc<Message>>,
    /// The entries of `root_prompt_messages_json`, but for the system entry, as they are sent.
    prompt: Vec<u8>,
    /// Tool calls since the last user message.
    calls: Vec<Call>,
    /// What turns were made with: another one makes other turns.
    basis: Option<Basis>,
    /// How many of the messages are in turns.
    turned: usize,
    /// The closed turns as fields of a state.
    turns: Vec<u8>,
    open: Option<Turn>,
    open_blob: Option<BlobId>,
}

/// A tool call of the current turn.
#[derive(Debug, Clone)]
struct Call {
    /// Id as the service sees it.
    id: String,
    name: String,
    /// Number of the prompt entry with its result, once there is one.
    result: Option<usize>,
}

/// Everything besides the messages that goes into turns.
#[derive(Clone, PartialEq, Eq)]
struct Basis {
    conversation: String,
    naming: Naming,
    prompt: String,
    system: BlobId,
    selected: BlobId,
}

pub(super) fn encode(
    request: &RunRequest,
    conversation: &mut Conversation,
    ids: &mut dyn IdSource,
) -> Result<EncodedRun> {
    let asked = request.conversation_id.as_deref();
    let id = conversation.settle_id(asked, || ids.next_id().to_string())?;
    let system = request.context.system_prompt.as_deref().unwrap_or_default();
    let rule = request.prompt.rule.then_some(system).filter(|rule| !rule.is_empty());
    let tools = conversation.tool_context(request, rule, Keys::Source)?;

    let mut known = std::mem::take(&mut conversation.full);
    let mut arena = Arena::new(0);
    let written = Writing { request, id: &id, conversation, known: &mut known, arena: &mut arena }
        .write(&tools);
    // After an error `known` may name blobs that were never kept: start over next time.
    let (envelope, sent) = written.inspect_err(|_| conversation.full = Known::default())?;
    arena.store(&mut conversation.blobs);
    conversation.full = known;
    Ok(EncodedRun { envelope, tools, conversation_id: id, sent })
}

/// One request while it is written.
struct Writing<'a> {
    request: &'a RunRequest,
    id: &'a str,
    conversation: &'a mut Conversation,
    known: &'a mut Known,
    arena: &'a mut Arena,
}

impl Writing<'_> {
    fn write(self, tools: &ToolContext) -> Result<(bytes::Bytes, Sent)> {
        let Self { request, id, conversation, known, arena } = self;
        let definitions = tools.definitions();
        let context = if request.carry_context { tools.context() } else { &[][..] };
        let messages = &request.context.messages;
        let as_it_came = request.action == Action::Resume
            && conversation.checkpoint.as_ref().is_some_and(|c| c.covers == messages.len());
        let current = current(request)?;
        let history = messages.get(..messages.len() - usize::from(current.is_some()));
        let history = history.unwrap_or_default();

        let blobs = &mut conversation.blobs;
        known.keep_common(history, blobs);
        *arena = known.arena(history, conversation.checkpoint.is_none());
        known.settle_basis(request, id, arena, blobs)?;
        known.absorb(history, &mut conversation.calls, arena)?;
        let unanswered = known.unanswered(arena)?;
        let checkpoint = conversation.checkpoint.as_ref();
        if checkpoint.is_none() {
            known.make_turns(&mut conversation.calls, arena, blobs)?;
        }

        let text = current.map(user_text).unwrap_or_default();
        let images = current.map(user_images).unwrap_or_default();
        let position = messages.len().saturating_sub(1);
        let envelope = with_images(&images, |images| {
            let current = current.map(|_| UserMessage {
                text: &text,
                images,
                ids: Ids::Derived { conversation: id, position },
                selected_context: known.selected(),
                naming: &request.naming,
            });
            let mut out = Back::new(FRAMING);
            requested_model(&mut out, 9, &request.model);
            if request.prompt.custom && !system(request).is_empty() {
                out.long_bytes(8, system(request).as_bytes());
            }
            out.text(5, id);
            if !definitions.is_empty() {
                out.long_bytes(4, definitions);
            }
            model_details(&mut out, 3, &request.model);
            let late = action(&mut out, current.as_ref(), context);
            let mark = out.len();
            match checkpoint {
                Some(checkpoint) if as_it_came => out.long(checkpoint.raw()),
                Some(checkpoint) => {
                    for range in checkpoint.without_root_prompt().into_iter().rev() {
                        out.long(checkpoint.raw().get(range).unwrap_or_default());
                    }
                    known.prompt_entries(&mut out, request, &unanswered);
                }
                None => {
                    known.turn_entries(&mut out, request);
                    known.prompt_entries(&mut out, request, &unanswered);
                }
            }
            out.wrap(1, mark);
            out.wrap(1, 0);
            out.envelope();
            let mut envelope = Vec::new();
            let hashes = out.append_to(&mut envelope)?;
            if let (Some(current), Some(late)) = (current, late) {
                current.settle(&late, &mut envelope, &hashes);
            }
            Ok(envelope)
        })?;
        let sent = if current.is_some() { Sent::UserMessage } else { Sent::Resume };
        Ok((envelope.into(), sent))
    }
}

fn system(request: &RunRequest) -> &str {
    request.context.system_prompt.as_deref().unwrap_or_default()
}

/// The user message that is to be answered; none when the run goes on from the state.
fn current(request: &RunRequest) -> Result<Option<&UserContent>> {
    match (request.action, request.context.messages.last().map(|message| &**message)) {
        (Action::Resume, _) => Ok(None),
        (Action::UserMessage, None) => Err(Error::invalid("the context has no messages")
            .with_hint("add a user message, or resume from a checkpoint")),
        (Action::UserMessage, Some(Message::User { content })) => {
            let says = !user_text(content).is_empty() || !user_images(content).is_empty();
            Ok(says.then_some(content))
        }
        (Action::UserMessage, Some(_)) => Ok(None),
    }
}

/// Writes `AgentRunRequest.action` (field 2).
fn action<'a>(
    out: &mut Back<'a>,
    current: Option<&UserMessage<'a>>,
    context: &'a [u8],
) -> Option<Late> {
    let mark = out.len();
    if !context.is_empty() {
        out.long_bytes(2, context);
    }
    let message = out.len();
    let late = current.map(|current| {
        let late = current.write(out);
        out.wrap(1, message);
        out.wrap(1, mark);
        late
    });
    if late.is_none() {
        out.wrap(2, mark);
    }
    out.wrap(2, mark);
    late
}

/// About the bytes that a message needs as JSON, where one character in sixteen is escaped (line
/// breaks and quotes are common), and at least what it needs as protobuf with its turn. Room that
/// is not used is not touched either.
pub(super) fn message_size(message: &Message) -> usize {
    let part = |part: &Part| match part {
        Part::Text { text } => text.len() + 32,
        Part::Image(image) => image.data.len() + 96,
    };
    let content = match message {
        Message::User { content: UserContent::Text(text) } => text.len(),
        Message::User { content: UserContent::Parts(parts) } => parts.iter().map(part).sum(),
        Message::ToolResult(result) => result.content.iter().map(part).sum(),
        Message::Assistant { content } => content
            .iter()
            .map(|part| match part {
                AssistantPart::Text { text } => text.len() + 32,
                AssistantPart::Thinking { thinking } => thinking.len() + 32,
                // Arguments would have to be walked to know: most are short.
                AssistantPart::ToolCall(_) => 512,
            })
            .sum(),
    };
    content + content / 16 + 192
}

impl Known {
    /// Drops what is known when the history no longer begins with it.
    fn keep_common(&mut self, history: &[Arc<Message>], blobs: &mut BlobStore) {
        let begins = self.messages.len() <= history.len()
            && self.messages.iter().zip(history).all(|(known, message)| same(known, message));
        if !begins {
            self.forget_turns(blobs);
            blobs.retire(self.prompt.chunks(ENTRY).filter_map(entry_id));
            *self = Self { basis: self.basis.take(), ..Self::default() };
        }
    }

    /// Drops the turns: they are made again where they are needed.
    pub(super) fn forget_turns(&mut self, blobs: &mut BlobStore) {
        blobs.retire(self.turns.chunks(ENTRY).filter_map(entry_id));
        blobs.retire(self.open.iter().flat_map(Turn::blobs).chain(self.open_blob));
        self.turned = 0;
        self.turns.clear();
        self.open = None;
        self.open_blob = None;
    }

    /// Room for the blobs of what is new in the history.
    fn arena(&self, history: &[Arc<Message>], turns: bool) -> Arena {
        let size = |from: usize| {
            history.iter().skip(from).map(|message| message_size(message)).sum::<usize>()
        };
        let turns = if turns { size(self.turned) } else { 0 };
        Arena::new(size(self.messages.len()) + turns + FRAMING)
    }

    /// Makes the blobs of the system prompt, where they are not those of the last request.
    fn settle_basis(
        &mut self,
        request: &RunRequest,
        id: &str,
        arena: &mut Arena,
        blobs: &mut BlobStore,
    ) -> Result<()> {
        if let Some(basis) = &self.basis
            && basis.prompt == system(request)
            && basis.conversation == id
            && basis.naming == request.naming
        {
            return Ok(());
        }
        self.forget_turns(blobs);
        let prompt = system(request).to_owned();
        let system = arena.json(|out| {
            prompt::system(out, &prompt);
            Ok(true)
        })?;
        let system = system.unwrap_or_default();
        let naming = request.naming.clone();
        let selected = arena.message(|out| {
            selected_context(out, &system, &naming.client_name);
            Ok(())
        })?;
        self.basis = Some(Basis { conversation: id.to_owned(), naming, prompt, system, selected });
        Ok(())
    }

    /// Adds the messages that are new to the prompt list.
    fn absorb(
        &mut self,
        history: &[Arc<Message>],
        calls: &mut CallIds,
        arena: &mut Arena,
    ) -> Result<()> {
        for message in history.iter().skip(self.messages.len()) {
            match &**message {
                Message::User { content } => {
                    let missing = self.unanswered(arena)?;
                    self.prompt.extend_from_slice(&missing);
                    self.calls.clear();
                    let id = arena.json(|out| prompt::user(out, content))?;
                    self.push(id);
                }
                Message::Assistant { content } => self.assistant(content, calls, arena)?,
                Message::ToolResult(result) => self.result(result, calls, arena)?,
            }
            self.messages.push(Arc::clone(message));
        }
        Ok(())
    }

    fn assistant(
        &mut self,
        content: &[AssistantPart],
        calls: &mut CallIds,
        arena: &mut Arena,
    ) -> Result<()> {
        let id = arena.json(|out| {
            prompt::assistant(out, content, |call| {
                let id = calls.to_wire(&call.id);
                let name = call.name.clone();
                self.calls.push(Call { id: id.to_string(), name, result: None });
                id
            })
        })?;
        self.push(id);
        Ok(())
    }

    fn result(
        &mut self,
        result: &ToolResult,
        calls: &mut CallIds,
        arena: &mut Arena,
    ) -> Result<()> {
        let id = calls.to_wire(&result.tool_call_id);
        let next = self.prompt.len() / ENTRY;
        let Some(call) = self.calls.iter_mut().rev().find(|call| call.id == id) else {
            let name = result.tool_name.clone();
            let bare = arena.json(|out| prompt::bare_call(out, &id, &name))?;
            self.push(bare);
            let entry = arena.json(|out| prompt::tool(out, &id, &name, result))?;
            self.push(entry);
            self.calls.push(Call { id: id.into_owned(), name, result: Some(next + 1) });
            return Ok(());
        };
        let name = if result.tool_name.is_empty() { &call.name } else { &result.tool_name };
        let entry = arena.json(|out| prompt::tool(out, &id, name, result))?;
        match call.result {
            None => {
                call.result = Some(next);
                self.push(entry);
            }
            Some(before) => {
                let place = self.prompt.chunks_mut(ENTRY).nth(before);
                if let (Some([_, _, hash @ ..]), Some(entry)) = (place, entry) {
                    hash.copy_from_slice(&entry);
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, blob: Option<BlobId>) {
        push_entry(&mut self.prompt, 1, blob);
    }

    /// Entries for the calls that have no result; they hold only as long as none comes.
    fn unanswered(&self, arena: &mut Arena) -> Result<Vec<u8>> {
        let mut entries = Vec::new();
        for call in self.calls.iter().filter(|call| call.result.is_none()) {
            let entry = arena.json(|out| prompt::no_result(out, &call.id, &call.name))?;
            push_entry(&mut entries, 1, entry);
        }
        Ok(entries)
    }

    /// Adds the messages that are in no turn yet, and makes the blobs of all turns.
    fn make_turns(
        &mut self,
        calls: &mut CallIds,
        arena: &mut Arena,
        blobs: &mut BlobStore,
    ) -> Result<()> {
        let Some(basis) = &self.basis else { return Ok(()) };
        let messages = &self.messages;
        let provider = &basis.naming.provider_identifier;
        let style = Style { glue_thinking: false, provider, keys: Keys::Source };
        let mut turn_blob = |turn: &mut Turn, arena: &mut Arena| -> Result<Option<BlobId>> {
            let mut wire_id = |id: &str| calls.to_wire(id).into_owned();
            basis.turn(turn, messages, style, arena, &mut wire_id)
        };
        for index in self.turned..messages.len() {
            if let Some(mut closed) = Turn::absorb(&mut self.open, messages, index, style) {
                let id = turn_blob(&mut closed, arena)?;
                push_entry(&mut self.turns, 8, id);
            }
        }
        self.turned = messages.len();
        let open = match &mut self.open {
            Some(open) => turn_blob(open, arena)?,
            None => None,
        };
        if open != self.open_blob {
            // The turn has grown: nothing names the blob of its earlier state.
            let closed = self.open_blob.filter(|id| !self.turns.ends_with(id));
            blobs.retire(closed);
            self.open_blob = open;
        }
        Ok(())
    }

    /// The id of the blob that user messages name as their context.
    fn selected(&self) -> &[u8] {
        self.basis.as_ref().map_or(&[], |basis| &basis.selected[..])
    }

    /// Writes the prompt list, system entry first.
    fn prompt_entries<'a>(
        &'a self,
        out: &mut Back<'a>,
        request: &RunRequest,
        unanswered: &'a [u8],
    ) {
        out.long(unanswered);
        out.long(&self.prompt);
        if let Some(basis) = self.basis.as_ref().filter(|_| request.prompt.system_entry) {
            out.bytes(1, &basis.system);
        }
    }

    /// Writes the fields of a fresh state from its turns on.
    fn turn_entries<'a>(&'a self, out: &mut Back<'a>, request: &RunRequest) {
        state_tail(out, &request.naming.client_name);
        if let Some(open) = &self.open_blob {
            out.bytes(8, open);
        }
        out.long(&self.turns);
    }
}

impl Basis {
    /// The blob of a turn; none when it says nothing.
    fn turn(
        &self,
        turn: &mut Turn,
        messages: &[Arc<Message>],
        style: Style<'_>,
        arena: &mut Arena,
        wire_id: &mut dyn FnMut(&str) -> String,
    ) -> Result<Option<BlobId>> {
        let empty = UserContent::Text(String::new());
        let content = match turn.user.and_then(|user| messages.get(user)).map(|m| &**m) {
            Some(Message::User { content }) => content,
            _ => &empty,
        };
        let (text, images) = (user_text(content), user_images(content));
        if text.is_empty() && images.is_empty() && !turn.has_steps() {
            return Ok(None);
        }
        let position = turn.start;
        let user = match turn.user_blob {
            Some(user) => user,
            None => {
                let ids = Ids::Derived { conversation: &self.conversation, position };
                let (selected_context, naming) = (&self.selected[..], &self.naming);
                let message =
                    UserMessage { text: &text, images: &images, ids, selected_context, naming };
                arena.user(&message)?
            }
        };
        turn.user_blob = Some(user);
        let steps = turn.step_blobs(messages, style, arena, wire_id)?;
        let id = uuid_shaped(derive("turn", &self.conversation, position).chain_update(user));
        let blob = arena.message(|out| {
            turn::turn(out, &user, &steps, id);
            Ok(())
        })?;
        Ok(Some(blob))
    }
}

fn push_entry(entries: &mut Vec<u8>, field: u8, blob: Option<BlobId>) {
    if let Some(blob) = blob {
        entries.extend_from_slice(&[field << 3 | 2, 32]);
        entries.extend_from_slice(&blob);
    }
}

fn entry_id(entry: &[u8]) -> Option<BlobId> {
    entry.last_chunk().copied()
}

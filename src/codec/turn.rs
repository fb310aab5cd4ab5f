//! User messages, steps and turns: what is said, as the protobuf that blobs hold (BEHAVIOUR 3.3 to
//! 3.6). Every function writes in front of what the writer holds, last field first.

use std::borrow::Cow;

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use super::back::{Back, Misfit};
use super::image::{self, Place};
use super::json::{self, Keys};
use super::request::Naming;
use super::value;
use crate::context::{Image, Part, ToolCall, ToolResult, UserContent};
use crate::error::Result;

/// The agent mode of everything that we send.
const MODE_AGENT: u64 = 1;
/// Characters of a UUID as text.
const UUID_LEN: usize = 36;
/// Hexadecimal digits of an image's hash in its path.
const HASH_LEN: usize = 16;

/// Where the ids of a user message come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ids<'a> {
    /// Drawn before: the message's, then one for each image.
    Drawn { message: Uuid, images: &'a [Uuid] },
    /// From the conversation, the place in it and what is said, so that the same history gives the
    /// same bytes run after run (PROTOCOL 4).
    Derived { conversation: &'a str, position: usize },
}

impl Ids<'_> {
    /// Starts the derivation of an id; what is said goes into it after.
    fn derive(&self, what: &str, index: usize) -> Sha256 {
        let Self::Derived { conversation, position } = *self else { return Sha256::new() };
        derive(what, conversation, position).chain_update((index as u64).to_be_bytes())
    }
}

/// A digest that an id of a message, image or turn at a place in a conversation starts from.
pub(crate) fn derive(what: &str, conversation: &str, position: usize) -> Sha256 {
    Sha256::new()
        .chain_update((conversation.len() as u64).to_be_bytes())
        .chain_update(conversation)
        .chain_update((position as u64).to_be_bytes())
        .chain_update(what)
}

/// The first sixteen bytes of a digest in the shape of a random UUID.
pub(crate) fn uuid_shaped(digest: Sha256) -> Uuid {
    Builder::from_random_bytes(digest.finalize().first_chunk().copied().unwrap_or_default())
        .into_uuid()
}

/// A user message: the current one, or one of the history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UserMessage<'a> {
    pub(crate) text: &'a str,
    pub(crate) images: &'a [&'a Image],
    pub(crate) ids: Ids<'a>,
    pub(crate) selected_context: &'a [u8],
    pub(crate) naming: &'a Naming,
}

/// Where in a written message stands what follows from its images: marks of the writer.
#[derive(Debug, Default)]
pub(crate) struct Late {
    /// The message id as correlation id, and as itself.
    message: [usize; 2],
    /// Of each image, last to first: its id, and its hash in the path.
    images: Vec<[usize; 2]>,
}

impl<'a> UserMessage<'a> {
    /// Writes the fields of `UserMessage`. Images are decoded when the whole is put together, so
    /// what follows from them is put in by [`Self::settle`] then.
    pub(crate) fn write(&self, out: &mut Back<'a>) -> Late {
        let mut late = Late::default();
        let correlation = out.len() + UUID_LEN;
        out.bytes(17, &[0; UUID_LEN]);
        out.bytes(10, self.selected_context);
        out.uint(4, MODE_AGENT);
        let mark = out.len();
        for (index, image) in self.images.iter().enumerate().rev() {
            late.images.push(self.write_image(out, index, image));
        }
        out.wrap(3, mark);
        late.message = [correlation, out.len() + UUID_LEN];
        out.bytes(2, &[0; UUID_LEN]);
        if !self.text.is_empty() {
            out.long_bytes(1, self.text.as_bytes());
        }
        late
    }

    /// Writes one `SelectedImage`.
    fn write_image(&self, out: &mut Back<'a>, index: usize, image: &'a Image) -> [usize; 2] {
        let mark = out.len();
        out.image(image::Text::new(image.data.as_bytes()), index);
        out.wrap(8, mark);
        out.text_unless_empty(7, &image.mime_type);
        let prefix = &self.naming.image_path_prefix;
        let behind = format!("{:HASH_LEN$}-{index}.{}", "", extension(&image.mime_type));
        let hash = out.len() + behind.len();
        out.text(3, &format!("{prefix}{behind}"));
        let id = out.len() + UUID_LEN;
        out.bytes(2, &[0; UUID_LEN]);
        out.wrap(1, mark);
        [id, hash]
    }

    /// Puts in what follows from the hashes of the images; `bytes` ends where the writer began.
    pub(crate) fn settle(&self, late: &Late, bytes: &mut [u8], hashes: &[[u8; 32]]) {
        let mut digest = self.ids.derive("message", self.images.len()).chain_update(self.text);
        let images = late.images.iter().zip(hashes.iter().enumerate().rev());
        for (&[id, path], (index, hash)) in images {
            digest.update(hash);
            let uuid = match self.ids {
                Ids::Drawn { images, .. } => images.get(index).copied().unwrap_or_default(),
                Ids::Derived { .. } => {
                    uuid_shaped(self.ids.derive("image", index).chain_update(hash))
                }
            };
            put_uuid(bytes, id, uuid);
            let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            put(bytes, path, hash.as_bytes());
        }
        let id = match self.ids {
            Ids::Drawn { message, .. } => message,
            Ids::Derived { .. } => uuid_shaped(digest),
        };
        late.message.iter().for_each(|mark| put_uuid(bytes, *mark, id));
    }
}

fn put_uuid(bytes: &mut [u8], mark: usize, id: Uuid) {
    put(bytes, mark, id.hyphenated().encode_lower(&mut [0; UUID_LEN]).as_bytes());
}

/// Overwrites what was written last when the writer was at `mark`.
fn put(bytes: &mut [u8], mark: usize, content: &[u8]) {
    let at = bytes.len().saturating_sub(mark);
    if let Some(place) = bytes.get_mut(at..at + content.len()) {
        place.copy_from_slice(content);
    }
}

/// Writes with the images as they are; where the layout of one was not what it seemed, once more
/// with all separators taken out.
///
/// # Errors
///
/// `InvalidRequest` when an image is not base64.
pub(crate) fn with_images<T>(
    images: &[&Image],
    mut write: impl FnMut(&[&Image]) -> Result<T, Misfit>,
) -> Result<T> {
    if let Ok(written) = write(images) {
        return Ok(written);
    }
    let stripped: Vec<Image> = images.iter().map(|image| image::stripped(image)).collect();
    write(&stripped.iter().collect::<Vec<_>>()).map_err(|Misfit(index)| {
        let mime_type = images.get(index).map_or("", |image| &image.mime_type);
        image::invalid(Place::Selected { index, mime_type })
    })
}

fn extension(mime_type: &str) -> &'static str {
    match mime_type.to_ascii_lowercase().as_str() {
        "image/jpeg" | "image/jpg" => "jpg",
        "image/png" => "png",
        "image/gif" => "gif",
        "image/webp" => "webp",
        _ => "img",
    }
}

/// The text of a user message: its text parts joined with line breaks.
pub(crate) fn user_text(content: &UserContent) -> Cow<'_, str> {
    match content {
        UserContent::Text(text) => Cow::Borrowed(text),
        UserContent::Parts(parts) => joined(parts),
    }
}

/// The images of a user message in order.
pub(crate) fn user_images(content: &UserContent) -> Vec<&Image> {
    let UserContent::Parts(parts) = content else { return Vec::new() };
    parts
        .iter()
        .filter_map(|part| match part {
            Part::Image(image) => Some(image),
            Part::Text { .. } => None,
        })
        .collect()
}

/// The text parts joined with line breaks; images are passed over.
pub(crate) fn joined(parts: &[Part]) -> Cow<'_, str> {
    let mut texts = parts.iter().filter_map(|part| match part {
        Part::Text { text } => Some(text.as_str()),
        Part::Image(_) => None,
    });
    match (texts.next(), texts.next()) {
        (first, None) => Cow::Borrowed(first.unwrap_or_default()),
        (first, Some(second)) => {
            let mut text = [first.unwrap_or_default(), second].join("\n");
            for more in texts {
                text.push('\n');
                text.push_str(more);
            }
            Cow::Owned(text)
        }
    }
}

/// Writes a `ConversationStep` of text (field 1) or thinking (field 3) out of adjacent pieces.
pub(crate) fn text_step<'a>(
    out: &mut Back<'a>,
    field: u32,
    pieces: impl DoubleEndedIterator<Item = &'a str>,
) {
    let mark = out.len();
    for piece in pieces.rev() {
        out.long(piece.as_bytes());
    }
    out.wrap(1, mark);
    out.wrap(field, mark);
}

/// A tool call as it stands in a step or goes back in one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallStep<'a> {
    /// Id as the service may see it.
    pub(crate) id: &'a str,
    pub(crate) call: CallOf<'a>,
    pub(crate) result: Option<&'a ToolResult>,
    pub(crate) provider: &'a str,
    pub(crate) keys: Keys,
}

/// The call of a step, or the name alone where a result came without its call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CallOf<'a> {
    Call(&'a ToolCall),
    Name(&'a str),
}

impl CallStep<'_> {
    /// Writes a `ConversationStep` with this tool call.
    pub(crate) fn write(&self, out: &mut Back<'_>) -> Result<()> {
        let mark = out.len();
        if let Some(result) = self.result {
            let mark = out.len();
            tool_result(out, result)?;
            out.wrap(2, mark);
        }
        self.write_args(out)?;
        out.wrap(15, mark);
        out.wrap(2, mark);
        Ok(())
    }

    /// Writes the `McpArgs` of the call as field 1.
    fn write_args(&self, out: &mut Back<'_>) -> Result<()> {
        let mark = out.len();
        let (name, arguments) = match self.call {
            CallOf::Call(call) => (call.name.as_str(), call.arguments.as_object()),
            CallOf::Name(name) => (name, None),
        };
        let name = if name.is_empty() { "tool" } else { name };
        out.text(5, name);
        out.text_unless_empty(4, self.provider);
        out.text_unless_empty(3, self.id);
        if let Some(arguments) = arguments {
            for (key, argument) in json::members(arguments, self.keys).into_iter().rev() {
                argument_entry(out, key, argument, self.keys)?;
            }
        }
        out.text(1, name);
        out.wrap(1, mark);
        Ok(())
    }
}

/// Writes one entry of `McpArgs.args`; key and value are written even when empty.
fn argument_entry(out: &mut Back<'_>, key: &str, argument: &Value, keys: Keys) -> Result<()> {
    let mark = out.len();
    out.message(2, |out| value::write(out, argument, keys))?;
    out.text(1, key);
    out.wrap(2, mark);
    Ok(())
}

/// Writes the fields of a tool result, which `McpResult` and `McpToolResult` share: text and images
/// when it succeeded, its text alone when it failed (BEHAVIOUR 3.5, 5).
pub(crate) fn tool_result(out: &mut Back<'_>, result: &ToolResult) -> Result<()> {
    let mark = out.len();
    if result.is_error {
        out.text_unless_empty(1, &joined(&result.content));
        out.wrap(2, mark);
        return Ok(());
    }
    if result.content.is_empty() {
        text_item(out, "");
    }
    for (index, part) in result.content.iter().enumerate().rev() {
        match part {
            Part::Text { text } => text_item(out, text),
            Part::Image(image) => {
                let mime_type = &image.mime_type;
                let mark = out.len();
                out.text_unless_empty(2, mime_type);
                let data = out.len();
                image::write(out, &image.data, Place::Mcp { index, mime_type })?;
                out.wrap(1, data);
                out.wrap(2, mark);
                out.wrap(1, mark);
            }
        }
    }
    out.wrap(1, mark);
    Ok(())
}

/// Writes one text item of `McpSuccess.content`.
fn text_item(out: &mut Back<'_>, text: &str) {
    let mark = out.len();
    out.text_unless_empty(1, text);
    out.wrap(1, mark);
    out.wrap(1, mark);
}

/// Bytes that a tool result needs at most, but for a few of framing per part.
pub(crate) fn result_size(result: &ToolResult) -> usize {
    let part = |part: &Part| match part {
        Part::Text { text } => text.len(),
        Part::Image(image) => image::size_hint(&image.data) + image.mime_type.len(),
    };
    result.content.iter().map(|p| part(p) + 32).sum()
}

/// Writes a `ConversationTurnStructure` of one agent turn from the ids of its blobs.
pub(crate) fn turn(out: &mut Back<'_>, user: &[u8], steps: &[[u8; 32]], request_id: Uuid) {
    let mark = out.len();
    out.text(3, request_id.hyphenated().encode_lower(&mut [0; UUID_LEN]));
    for step in steps.iter().rev() {
        out.bytes(2, step);
    }
    out.bytes(1, user);
    out.wrap(1, mark);
}

/// Writes the fields of a `ConversationStateStructure` that stand behind its turns.
pub(crate) fn state_tail(out: &mut Back<'_>, client_name: &str) {
    out.text_unless_empty(22, client_name);
    out.uint(10, MODE_AGENT);
}

/// The blob that `UserMessage.selected_context_blob` names: a state of the system entry and the
/// client name (BEHAVIOUR 3.2).
pub(crate) fn selected_context(out: &mut Back<'_>, system: &[u8], client_name: &str) {
    out.text(22, client_name);
    out.bytes(1, system);
}

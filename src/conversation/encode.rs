//! A run request as the first envelope of a stream, and what the conversation learns from it.

use std::fmt;

use bytes::Bytes;

use super::{Conversation, full, legacy};
use crate::codec::{History, RunRequest, ToolContext};
use crate::error::Result;
use crate::ids::IdSource;

/// Room for everything in a request that is not counted one by one.
pub(super) const FRAMING: usize = 1024;

/// Which action a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// A user message to answer.
    UserMessage,
    /// To go on from the state.
    Resume,
}

/// A run request that is ready to be sent.
#[derive(Clone)]
pub struct EncodedRun {
    /// The complete first envelope: five bytes of header and the `AgentClientMessage`.
    pub envelope: Bytes,
    /// What questions for the request context are answered with, and what refusals name.
    pub tools: ToolContext,
    /// The id the run goes under.
    pub conversation_id: String,
    /// The action in it.
    pub sent: Sent,
}

/// Encodes a run and keeps the blobs that it names in the conversation.
///
/// # Errors
///
/// `InvalidRequest` for ids that cannot be sent (FAULTS M87), images that are not base64 and a
/// context that asks for nothing, `LimitExceeded` for JSON that nests too deep. Nothing of the
/// request is kept then.
pub fn encode_run(
    request: &RunRequest,
    conversation: &mut Conversation,
    ids: &mut dyn IdSource,
) -> Result<EncodedRun> {
    request.check_ids()?;
    let encoded = match request.history {
        History::Full => full::encode(request, conversation, ids),
        History::Legacy => legacy::encode(request, conversation, ids),
    }?;
    conversation.sent = request.context.messages.len();
    Ok(encoded)
}

impl fmt::Debug for EncodedRun {
    /// Sizes only: the envelope holds what people said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedRun")
            .field("envelope_len", &self.envelope.len())
            .field("tools", &self.tools)
            .field("conversation_id", &self.conversation_id)
            .field("sent", &self.sent)
            .finish()
    }
}

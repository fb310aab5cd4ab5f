//! A conversation as a value: checkpoint, blobs, and what is known of the history.
//!
//! A run takes the value and gives it back. What survives a failed run is said by two methods:
//! [`Conversation::commit`] keeps a checkpoint when it is received, [`Conversation::discard`] drops
//! what the service gave (FAULTS M85).

mod arena;
mod blobs;
mod calls;
mod checkpoint;
#[cfg(test)]
mod context_tests;
mod encode;
mod full;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod id;
mod legacy;
mod open;
mod shelf;
mod state;
mod store;
mod store_disk;
#[cfg(test)]
mod tests;
mod turns;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

pub use blobs::{BlobId, BlobLimits, BlobRefused, BlobStore, Stored};
pub use calls::CallIds;
pub use checkpoint::Checkpoint;
pub use encode::{EncodedRun, Sent, encode_run};
pub use open::OpenTurn;
pub use shelf::{BlobBudget, Shelf, ShelfLimits};
pub use store::{ConversationStore, MemoryStore};
pub use store_disk::DiskStore;

use crate::codec::call;
use crate::codec::json::Keys;
use crate::codec::request::check_id;
use crate::codec::{Naming, Offer, RunRequest, ToolContext, ToolRules};
use crate::context::{RequestContext, Tool, ToolCall};
use crate::error::{Error, Result};
use crate::ids::IdSource;

/// What one conversation needs to go on.
///
/// The same value encodes a new turn at the cost of what is new: blobs of messages that are known
/// by pointer or by content are not made again.
#[derive(Clone, Default)]
pub struct Conversation {
    id: Option<String>,
    checkpoint: Option<Checkpoint>,
    blobs: BlobStore,
    calls: CallIds,
    /// Messages of the context that the last request was made of.
    sent: usize,
    full: full::Known,
    /// Blobs that the last request in legacy mode made: the next one makes its own.
    legacy: Vec<BlobId>,
    tools: Option<CachedTools>,
    open: Option<OpenTurn>,
}

/// Encoded tools and what they were encoded from.
#[derive(Clone)]
struct CachedTools {
    tools: Vec<Arc<Tool>>,
    about: Arc<RequestContext>,
    rule: Option<String>,
    naming: Naming,
    rules: ToolRules,
    keys: Keys,
    encoded: ToolContext,
}

impl Conversation {
    /// A conversation without an id: the first request gives it one, its own or a fresh one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The conversation with this id.
    pub fn with_id(id: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..Self::default() }
    }

    /// The conversation of a session (BEHAVIOUR 3.9); without an id when the session id is blank.
    pub fn of_session(session_id: &str) -> Self {
        Self { id: id::of_session(session_id), ..Self::default() }
    }

    /// The same conversation with other limits for blobs of the service. The blobs it has are
    /// dropped: set limits first.
    #[must_use]
    pub fn with_limits(mut self, limits: BlobLimits) -> Self {
        self.blobs = BlobStore::new(limits);
        self.full = full::Known::default();
        self
    }

    /// The same conversation with a part in a budget that others share. As with limits, set it
    /// first.
    #[must_use]
    pub fn with_budget(mut self, budget: &BlobBudget) -> Self {
        self.blobs = std::mem::take(&mut self.blobs).with_budget(budget.clone());
        self.full = full::Known::default();
        self
    }

    /// Bytes of the checkpoint and of all blobs.
    pub fn size(&self) -> usize {
        self.blobs.bytes() + self.checkpoint.as_ref().map_or(0, |c| c.raw().len())
    }

    /// The id, once it has one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The last checkpoint that was committed.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// The turn that was under way when the conversation was kept, if it was not complete. A run on
    /// the same context goes on with it.
    pub fn open_turn(&self) -> Option<&OpenTurn> {
        self.open.as_ref()
    }

    pub(crate) fn set_open_turn(&mut self, open: Option<OpenTurn>) {
        self.open = open;
    }

    /// Takes the open turn out; none when it answers another context.
    pub(crate) fn take_open_turn(&mut self, messages: usize) -> Option<OpenTurn> {
        self.open.take().filter(|open| open.covers() == messages)
    }

    /// The blobs.
    pub fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Keeps a blob of the service ([`BlobStore::set_from_peer`]).
    ///
    /// # Errors
    ///
    /// [`BlobRefused`] for `SetBlobResult.error`; the turn goes on.
    pub fn set_blob(&mut self, id: &[u8], data: &[u8]) -> Result<Stored, BlobRefused> {
        self.blobs.set_from_peer(id, data)
    }

    /// The tool call of a server message, with its id in the form that the host sees
    /// ([`crate::codec::call::tool_call`]). The exec ids are not in it: the answer goes by them.
    ///
    /// # Errors
    ///
    /// Those of [`crate::codec::call::tool_call`].
    pub fn tool_call(&self, payload: &[u8], ids: &mut dyn IdSource) -> Result<ToolCall> {
        let mut call = call::tool_call(payload, ids)?;
        if let Cow::Owned(id) = self.calls.to_host(&call.id) {
            call.id = id;
        }
        Ok(call)
    }

    /// Ids of tool calls in the form of the host and of the service.
    pub fn calls(&self) -> &CallIds {
        &self.calls
    }

    /// Ids of tool calls, to make the form of one.
    pub fn calls_mut(&mut self) -> &mut CallIds {
        &mut self.calls
    }

    /// Keeps a checkpoint as it came; an empty one says nothing and changes nothing (BEHAVIOUR
    /// 3.8).
    ///
    /// # Errors
    ///
    /// `Protocol` when it is not well-formed; the one before stays.
    pub fn commit(&mut self, raw: Bytes) -> Result<()> {
        if raw.is_empty() {
            return Ok(());
        }
        let mut checkpoint = Checkpoint::new(raw)?;
        checkpoint.covers = self.sent;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    /// Drops checkpoint and blobs: the next request rebuilds the state from the history. The id
    /// stays. This is what a stated `not_found` and "Blob not found" ask for (FAULTS M85).
    pub fn discard(&mut self) {
        self.checkpoint = None;
        self.blobs.clear();
        self.full = full::Known::default();
        self.legacy.clear();
        self.sent = 0;
        self.open = None;
    }

    /// Moves the conversation to a fresh id and gives that, state and all: what a
    /// `resource_exhausted` that sticks to an id asks for (PROTOCOL 4). Turns carry ids that follow
    /// from the conversation's, so they are made again.
    pub fn rotate(&mut self, ids: &mut dyn IdSource) -> &str {
        self.full.forget_turns(&mut self.blobs);
        self.id.insert(ids.next_id().to_string())
    }

    /// The id for a request that may name one itself.
    fn settle_id(&mut self, asked: Option<&str>, fresh: impl FnOnce() -> String) -> Result<String> {
        let id = match (asked, self.id.take()) {
            (Some(asked), Some(own)) if asked != own => {
                self.id = Some(own);
                return Err(Error::invalid(
                    "the request names another conversation than the one it is sent in",
                ));
            }
            (Some(asked), _) => asked.to_owned(),
            (None, Some(own)) => own,
            (None, None) => fresh(),
        };
        let checked = check_id("conversation id", &id);
        self.id = Some(id.clone());
        checked.map(|()| id)
    }

    /// The encoded tools and request context, those of the last request where nothing has changed.
    fn tool_context(
        &mut self,
        request: &RunRequest,
        rule: Option<&str>,
        keys: Keys,
    ) -> Result<ToolContext> {
        let RunRequest { context, naming, tool_rules, .. } = request;
        if let Some(cached) = &self.tools
            && cached.rule.as_deref() == rule
            && cached.naming == *naming
            && cached.rules == *tool_rules
            && cached.keys == keys
            && same(&cached.about, &context.about)
            && same_all(&cached.tools, &context.tools)
        {
            return Ok(cached.encoded.clone());
        }
        let (tools, about) = (&context.tools, &context.about);
        let rules = *tool_rules;
        let encoded = ToolContext::encode(&Offer { tools, rule, about, naming, rules, keys })?;
        self.tools = Some(CachedTools {
            tools: tools.clone(),
            about: Arc::clone(about),
            rule: rule.map(ToOwned::to_owned),
            naming: naming.clone(),
            rules,
            keys,
            encoded: encoded.clone(),
        });
        Ok(encoded)
    }
}

/// Whether two values are the same: by pointer, which costs nothing, else by content.
fn same<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn same_all<T: PartialEq>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
}

impl std::fmt::Debug for Conversation {
    /// Id and sizes only: the rest is what people said.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation")
            .field("id", &self.id)
            .field("checkpoint_len", &self.checkpoint.as_ref().map(|c| c.raw().len()))
            .field("blobs", &self.blobs.len())
            .finish_non_exhaustive()
    }
}

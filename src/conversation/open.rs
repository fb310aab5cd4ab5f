//! A turn that is not complete, as it is kept beside its conversation.

use std::fmt;
use std::sync::Arc;

use crate::context::{Message, ToolCall};
use crate::run;

/// What a turn has said and done that is not complete: a restarted process goes on from it.
#[derive(Clone, PartialEq)]
pub struct OpenTurn {
    covers: usize,
    from_history: bool,
    messages: Vec<Arc<Message>>,
}

impl OpenTurn {
    pub(crate) fn new(covers: usize, from_history: bool, messages: Vec<Arc<Message>>) -> Self {
        Self { covers, from_history, messages }
    }

    /// How many messages of the context it answers: a context of as many goes on with it.
    pub fn covers(&self) -> usize {
        self.covers
    }

    /// What was said in it, the tools that were called and what they answered.
    pub fn messages(&self) -> &[Arc<Message>] {
        &self.messages
    }

    /// The tool calls that wait for their answers.
    pub fn pending(&self) -> Vec<ToolCall> {
        run::unanswered(&self.messages)
    }

    /// The service's checkpoint does not know of it: it goes on from these messages.
    pub(crate) fn needs_history(&self) -> bool {
        self.from_history
    }
}

impl fmt::Debug for OpenTurn {
    /// Shapes only: it holds what people said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTurn")
            .field("covers", &self.covers)
            .field("from_history", &self.from_history)
            .field("messages", &self.messages.len())
            .finish()
    }
}

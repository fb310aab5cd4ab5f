//! The tool calls of one model turn, until each has its result.

use std::sync::Arc;

use agentwire::context::{Message, ToolCall, ToolResult};
use serde::{Deserialize, Serialize};

use crate::record::interrupted;

/// Calls in the order of the model.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Batch {
    calls: Vec<Pending>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Pending {
    call: ToolCall,
    state: CallState,
}

#[derive(Clone, Serialize, Deserialize)]
enum CallState {
    Waiting,
    Running,
    Done(ToolResult),
}

impl Batch {
    pub(super) fn new(calls: Vec<ToolCall>) -> Self {
        let pending = |call| Pending { call, state: CallState::Waiting };
        Self { calls: calls.into_iter().map(pending).collect() }
    }

    /// Calls to start now, so that no more than `parallel` run at a time.
    pub(super) fn start(&mut self, parallel: usize) -> Vec<ToolCall> {
        let running = self.calls.iter().filter(|p| matches!(p.state, CallState::Running)).count();
        let room = parallel.max(1).saturating_sub(running);
        let waiting = self.calls.iter_mut().filter(|p| matches!(p.state, CallState::Waiting));
        let start = |pending: &mut Pending| {
            pending.state = CallState::Running;
            pending.call.clone()
        };
        waiting.take(room).map(start).collect()
    }

    /// Takes a result for a call that has none. `None`: nobody waits for it.
    pub(super) fn settle(&mut self, mut result: ToolResult) -> Option<ToolResult> {
        let id = &result.tool_call_id;
        let pending = self.calls.iter_mut().find(|p| p.call.id == *id && !p.is_done())?;
        result.tool_name.clone_from(&pending.call.name);
        pending.state = CallState::Done(result.clone());
        Some(result)
    }

    pub(super) fn awaits(&self, id: &str) -> bool {
        self.calls.iter().any(|p| p.call.id == id && !p.is_done())
    }

    /// Calls without a result, and whether each was started.
    pub(super) fn unanswered(&self) -> Vec<(ToolCall, bool)> {
        let open = self.calls.iter().filter(|p| !p.is_done());
        open.map(|p| (p.call.clone(), matches!(p.state, CallState::Running))).collect()
    }

    pub(super) fn is_done(&self) -> bool {
        self.calls.iter().all(Pending::is_done)
    }

    /// The results, in the order of the calls.
    pub(super) fn into_results(self) -> Vec<ToolResult> {
        let result = |pending: Pending| match pending.state {
            CallState::Done(result) => result,
            CallState::Running => interrupted(&pending.call, true).0,
            CallState::Waiting => interrupted(&pending.call, false).0,
        };
        self.calls.into_iter().map(result).collect()
    }
}

impl Pending {
    fn is_done(&self) -> bool {
        matches!(self.state, CallState::Done(_))
    }
}

/// Results as messages.
pub(super) fn messages(results: &[ToolResult]) -> impl Iterator<Item = Arc<Message>> {
    results.iter().map(|result| Arc::new(Message::ToolResult(result.clone())))
}

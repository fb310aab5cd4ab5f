//! Tool calls of a run that wait for their answers.

use std::collections::VecDeque;
use std::time::Instant;

use super::event::call_weight;
use crate::context::{ToolCall, ToolResult};
use crate::error::{Error, Kind, Result};
use crate::exec::ExecCall;

/// How many answered call ids are remembered, to tell "answered already" from "never asked". No
/// option: of an older one only the words of the error change.
const REMEMBERED: usize = 1_024;

#[derive(Debug)]
struct Pending {
    exec: ExecCall,
    call: ToolCall,
    /// Bytes of the message that brought it.
    bytes: usize,
    handed_out: bool,
    /// When its next heartbeat is due; `None` until the previous write has left.
    heartbeat: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    Answered,
    Aborted,
}

/// The calls that wait, in the order they came.
#[derive(Debug, Default)]
pub(crate) struct ToolTable {
    pending: Vec<Pending>,
    closed: VecDeque<(String, Closed)>,
}

impl ToolTable {
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    #[inline]
    pub(crate) fn has_unannounced(&self) -> bool {
        self.pending.iter().any(|call| !call.handed_out)
    }

    pub(crate) fn contains(&self, call_id: &str) -> bool {
        self.pending.iter().any(|pending| pending.call.id == call_id)
    }

    /// Bytes of the messages that brought the calls that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.pending.iter().map(|pending| pending.bytes).sum()
    }

    pub(crate) fn insert(&mut self, exec: ExecCall, call: ToolCall, bytes: usize) {
        self.pending.push(Pending { exec, call, bytes, handed_out: false, heartbeat: None });
    }

    /// The calls that the caller has not seen yet; from now on it has.
    pub(crate) fn hand_out(&mut self) -> Vec<ToolCall> {
        let fresh = self.pending.iter_mut().filter(|pending| !pending.handed_out);
        fresh
            .map(|pending| {
                pending.handed_out = true;
                pending.call.clone()
            })
            .collect()
    }

    /// Forgets the calls that the caller has not seen, and those whose answer is at hand.
    pub(crate) fn keep_open(&mut self, at_hand: impl Fn(&str) -> bool) {
        self.pending.retain(|pending| pending.handed_out && !at_hand(&pending.call.id));
    }

    /// Notes a call as handed out: it is to be answered whatever stream it came on.
    pub(crate) fn reopen(&mut self, call: ToolCall) {
        let exec = ExecCall { id: 0, exec_id: String::new() };
        let bytes = call_weight(&call);
        self.pending.push(Pending { exec, call, bytes, handed_out: true, heartbeat: None });
    }

    /// The service no longer waits for this exec. The call's id when the caller knows of it.
    pub(crate) fn abort(&mut self, exec_id: u32) -> Option<Aborted> {
        let at = self.pending.iter().position(|pending| pending.exec.id == exec_id)?;
        let pending = self.pending.remove(at);
        self.remember(pending.call.id.clone(), Closed::Aborted);
        Some(Aborted { call_id: pending.call.id, was_handed_out: pending.handed_out })
    }

    /// Checks answers before anything is written: every id was handed out and is still open, none
    /// comes twice, and, if `all`, none is missing.
    ///
    /// Gives the exec of each answer; `None` for a call that the service aborted (its late answer
    /// is dropped).
    pub(crate) fn match_answers(
        &self,
        results: &[ToolResult],
        all: bool,
    ) -> Result<Vec<Option<ExecCall>>> {
        let mut execs = Vec::with_capacity(results.len());
        for (index, result) in results.iter().enumerate() {
            let id = &result.tool_call_id;
            if results.iter().take(index).any(|earlier| earlier.tool_call_id == *id) {
                return Err(refuse(id, "is answered twice"));
            }
            execs.push(self.exec_of(id)?);
        }
        if all {
            self.refuse_missing(results)?;
        }
        Ok(execs)
    }

    fn exec_of(&self, id: &str) -> Result<Option<ExecCall>> {
        let open = |pending: &&Pending| pending.handed_out && pending.call.id == id;
        if let Some(pending) = self.pending.iter().find(open) {
            return Ok(Some(pending.exec.clone()));
        }
        // The service may use an id again: what it last came to counts.
        match self.closed.iter().rev().find(|(closed, _)| closed == id) {
            Some((_, Closed::Aborted)) => Ok(None),
            Some((_, Closed::Answered)) => Err(refuse(id, "was answered already")),
            None => Err(refuse(id, "was never asked")),
        }
    }

    fn refuse_missing(&self, results: &[ToolResult]) -> Result<()> {
        let answered = |id: &str| results.iter().any(|result| result.tool_call_id == id);
        let missing: Vec<&str> = self
            .pending
            .iter()
            .filter(|pending| pending.handed_out && !answered(&pending.call.id))
            .map(|pending| pending.call.id.as_str())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!("no answer for the tool calls {}", shown(&missing)))
            .with_hint("answer all calls of a turn together, or use `answer_some`"))
    }

    /// The answer of this call has been queued; its exec is closed.
    pub(crate) fn close(&mut self, call_id: &str) {
        if let Some(at) = self.pending.iter().position(|pending| pending.call.id == call_id) {
            let pending = self.pending.remove(at);
            self.remember(pending.call.id, Closed::Answered);
        }
    }

    fn remember(&mut self, id: String, closed: Closed) {
        if self.closed.len() == REMEMBERED {
            self.closed.pop_front();
        }
        self.closed.push_back((id, closed));
    }

    /// Everything written has left: each call without a heartbeat to come gets one.
    pub(crate) fn arm_heartbeats(&mut self, at: Option<Instant>) {
        for pending in self.pending.iter_mut().filter(|pending| pending.heartbeat.is_none()) {
            pending.heartbeat = at;
        }
    }

    pub(crate) fn next_heartbeat(&self) -> Option<Instant> {
        self.pending.iter().filter_map(|pending| pending.heartbeat).min()
    }

    /// The execs whose heartbeat is due; the next one of each is armed when this one has left.
    pub(crate) fn take_due_heartbeats(&mut self, now: Instant) -> Vec<u32> {
        let due = |pending: &&mut Pending| pending.heartbeat.is_some_and(|at| at <= now);
        self.pending
            .iter_mut()
            .filter(due)
            .map(|pending| {
                pending.heartbeat = None;
                pending.exec.id
            })
            .collect()
    }
}

/// What an abort hit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) call_id: String,
    pub(crate) was_handed_out: bool,
}

fn refuse(id: &str, why: &str) -> Error {
    Error::new(Kind::InvalidRequest, format!("tool call {} {why}; nothing was sent", shown(&[id])))
}

/// Ids are the peer's text: escaped, and cut where somebody was generous.
fn shown(ids: &[&str]) -> String {
    const SHOWN: usize = 16;
    let mut text = ids
        .iter()
        .take(SHOWN)
        .map(|id| format!("\"{}\"", id.chars().take(64).collect::<String>().escape_debug()))
        .collect::<Vec<_>>()
        .join(", ");
    if ids.len() > SHOWN {
        text.push_str(&format!(" and {} more", ids.len() - SHOWN));
    }
    text
}

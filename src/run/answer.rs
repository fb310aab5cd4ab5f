//! The caller's answers to tool calls.

use std::time::Instant;

use crate::codec::reply;
use crate::context::ToolResult;
use crate::error::{Error, Result};

use super::core::Core;

impl Core {
    /// Checks everything, encodes everything, and only then queues it: a refused answer leaves no
    /// trace on the wire.
    pub(super) fn answer(&mut self, results: &[ToolResult], all: bool, now: Instant) -> Result<()> {
        if self.is_over() {
            return Err(Error::invalid("the run is over; the answer came too late"));
        }
        let execs = self.tools.match_answers(results, all)?;
        let mut envelopes = Vec::with_capacity(results.len());
        for (result, exec) in results.iter().zip(execs) {
            let Some(exec) = exec else { continue };
            envelopes.push((
                &result.tool_call_id,
                reply::mcp_result(exec.id, &exec.exec_id, result)?,
                reply::stream_close(exec.id),
            ));
        }
        for (call_id, result, close) in envelopes {
            self.outbox.send(result);
            self.outbox.send(close);
            self.tools.close(call_id);
        }
        self.work_changed(now);
        Ok(())
    }
}

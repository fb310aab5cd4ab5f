//! What is traced of a run and of what it serves: ids, sizes, times, codes; never what was said.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::time::Instant;

use tracing::field::Empty;
use tracing::{Span, debug, debug_span};

use crate::codec::reply::QueryKind;
use crate::error::{Error, Kind};
use crate::exec;
use crate::run::{Ended, Event, Notice, Options, ServeResult, Work};

/// The span of one run, and what is counted for it.
pub(crate) struct RunSpan {
    span: Span,
    begun: Instant,
    streams: u32,
    sent: u64,
    received: u64,
}

impl RunSpan {
    pub(crate) fn new(request_id: &str, options: &Options) -> Self {
        let span = debug_span!(
            "run",
            request_id,
            retries = options.retry.retries,
            streams = Empty,
            sent = Empty,
            received = Empty,
            outcome = Empty,
            code = Empty,
        );
        Self { span, begun: Instant::now(), streams: 0, sent: 0, received: 0 }
    }

    /// The span, for what happens on the run's task.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    pub(crate) fn opening(&mut self) {
        self.streams += 1;
        debug!(parent: &self.span, stream = self.streams, "stream asked for");
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    pub(crate) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    pub(crate) fn head(&self, status: u16) {
        debug!(parent: &self.span, stream = self.streams, status, "response head");
    }

    /// Not the error's words: a peer may have said them.
    pub(crate) fn lost(&self, error: &Error) {
        let (kind, code) = (error.kind().as_str(), error.code().as_str());
        let (fault, http2) = match error.kind() {
            Kind::Network(fault) => (Some(fault.as_str()), fault.http2_code()),
            _ => (None, None),
        };
        debug!(parent: &self.span, stream = self.streams, kind, fault, code, http2, "stream lost");
    }

    /// What of an event is worth a line.
    pub(crate) fn event(&self, event: &Event) {
        match event {
            Event::ToolCalls(calls) => {
                debug!(parent: &self.span, calls = calls.len(), "tool calls handed out");
            }
            Event::ToolsAborted(ids) => {
                debug!(parent: &self.span, calls = ids.len(), "tool calls aborted");
            }
            Event::Checkpoint(info) => {
                debug!(parent: &self.span, bytes = info.bytes, used_tokens = info.used_tokens, "checkpoint");
            }
            Event::Notice(Notice::Retrying { attempt, delay_ms, .. }) => {
                debug!(parent: &self.span, attempt, delay_ms, "another attempt follows");
            }
            Event::Notice(Notice::Parked) => debug!(parent: &self.span, "parked"),
            Event::Notice(Notice::Resuming) => debug!(parent: &self.span, "resuming"),
            Event::Notice(Notice::Restarted { text, thinking }) => {
                debug!(parent: &self.span, text, thinking, "restarted");
            }
            Event::Ended(ended) => self.ended(ended),
            _ => {}
        }
    }

    fn ended(&self, ended: &Ended) {
        let (outcome, code) = match ended {
            Ok(_) => ("completed", "ok"),
            Err(error) => (error.kind().as_str(), error.code().as_str()),
        };
        let Self { span, begun, streams, sent, received } = self;
        span.record("outcome", outcome);
        span.record("code", code);
        span.record("streams", streams);
        span.record("sent", sent);
        span.record("received", received);
        let took = begun.elapsed();
        debug!(parent: span, outcome, code, streams, sent, received, ?took, "run ended");
    }
}

/// The span of one question that a handler serves, inside that of its run.
pub(crate) fn of_work(work: &Work) -> Span {
    match work {
        Work::Exec { call, case } => {
            let name = exec::name(case);
            debug_span!("exec", id = call.id, name, outcome = Empty, bytes = Empty)
        }
        Work::Query { id, query } => {
            let name = QueryKind::of(query).name();
            debug_span!("query", id, name, outcome = Empty, bytes = Empty)
        }
    }
}

/// Says how the question came out; called inside its span.
pub(crate) fn served(result: &ServeResult, begun: Instant) {
    let (outcome, bytes) = match result {
        ServeResult::Reply(reply) => ("reply", reply.encoded_len()),
        ServeResult::ShellDone => ("shell_done", 0),
        ServeResult::Response(response) => ("response", response.encoded_len()),
        ServeResult::Refused(_) => ("refused", 0),
        ServeResult::Failed => ("failed", 0),
    };
    let span = Span::current();
    span.record("outcome", outcome);
    span.record("bytes", bytes);
    let took = begun.elapsed();
    debug!(outcome, bytes, ?took, "served");
}

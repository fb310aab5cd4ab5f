//! What is told of a run: to a recorder, numbered, timed and without the token; to its span, in
//! numbers alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::Span;

use crate::codec::reply::QueryKind;
use crate::context::ToolResult;
use crate::error::Error;
use crate::exec::{self, Effects};
use crate::recording::{Called, Record, Recorder, ServedHow, What};
use crate::redact::{self, Mask, Redactor};
use crate::run::{Event, Head, Options, ServeKey, ServeResult, Work};

use super::span::RunSpan;

/// Where a run says what it does: its span, and a recorder if there is one.
pub(crate) struct Tap {
    span: RunSpan,
    recorded: Option<Box<Open>>,
}

struct Open {
    to: Arc<dyn Recorder>,
    run: u32,
    stream: u32,
    begun: Instant,
    redactor: Redactor,
    from_client: Mask,
    from_server: Mask,
    /// What was given to handlers, in this order.
    served: Vec<ServeKey>,
}

impl Tap {
    /// A run begins, of which `to`, if there is one, is told.
    pub(crate) fn new(
        to: Option<Arc<dyn Recorder>>,
        request_id: &str,
        options: &Options,
        renewable: bool,
        redactor: Redactor,
        now: Instant,
    ) -> Self {
        let span = RunSpan::new(request_id, options);
        let Some(to) = to else { return Self { span, recorded: None } };
        let mut open = Open {
            run: to.begin(),
            to,
            stream: 0,
            begun: now,
            from_client: Mask::new(&redactor),
            from_server: Mask::new(&redactor),
            redactor,
            served: Vec::new(),
        };
        let retry = &options.retry;
        let what = What::Run {
            request_id: open.redactor.hide(request_id),
            retries: retry.retries,
            read_only_tools: retry.read_only_tools.iter().cloned().collect(),
            renewable,
            deadline_us: options.deadline.map(micros),
        };
        open.tell(what, now);
        Self { span, recorded: Some(Box::new(open)) }
    }

    /// The run's span, for what happens on its task.
    pub(crate) fn span(&self) -> Span {
        self.span.span()
    }

    pub(crate) fn event(&self, event: &Event) {
        self.span.event(event);
    }

    /// A stream is asked for; what is told from here on belongs to it.
    pub(crate) fn open(&mut self, now: Instant) {
        self.span.opening();
        if let Some(open) = &mut self.recorded {
            open.settle(now);
            open.stream += 1;
            open.tell(What::Open, now);
        }
    }

    /// The stream begins with credentials that this redactor knows.
    pub(crate) fn hide(&mut self, redactor: &Redactor, now: Instant) {
        if let Some(open) = &mut self.recorded {
            open.settle(now);
            open.from_client = Mask::new(redactor);
            open.from_server = Mask::new(redactor);
            open.redactor = redactor.clone();
        }
    }

    pub(crate) fn client(&mut self, bytes: &[u8], now: Instant) {
        self.span.sent(bytes.len());
        if let Some(open) = &mut self.recorded {
            let bytes = open.from_client.push(bytes);
            open.client(bytes, now);
        }
    }

    pub(crate) fn server(&mut self, bytes: &[u8], now: Instant) {
        self.span.received(bytes.len());
        if let Some(open) = &mut self.recorded {
            let bytes = open.from_server.push(bytes);
            open.server(bytes, now);
        }
    }

    pub(crate) fn head(&mut self, head: &Head, now: Instant) {
        self.span.head(head.status);
        let Some(open) = &mut self.recorded else { return };
        let shown = |(name, value): &(String, String)| {
            (name.clone(), open.redactor.hide(&redact::header_value(name, value)))
        };
        let headers = head.headers.iter().map(shown).collect();
        open.tell(What::Head { status: head.status, headers }, now);
    }

    pub(crate) fn end(&mut self, now: Instant) {
        self.last(What::End, now);
    }

    pub(crate) fn lost(&mut self, error: &Error, now: Instant) {
        self.span.lost(error);
        if self.recorded.is_some() {
            self.last(What::Lost(error.into()), now);
        }
    }

    pub(crate) fn no_credentials(&mut self, now: Instant) {
        self.last(What::NoCredentials, now);
    }

    pub(crate) fn half_close(&mut self, now: Instant) {
        self.last(What::HalfClose, now);
    }

    pub(crate) fn reset(&mut self, code: u32, now: Instant) {
        self.last(What::Reset { code }, now);
    }

    pub(crate) fn cancel(&mut self, now: Instant) {
        self.last(What::Cancel, now);
    }

    pub(crate) fn say(&mut self, now: Instant) {
        self.last(What::Say, now);
    }

    pub(crate) fn answer(&mut self, results: &[ToolResult], now: Instant) {
        if let Some(open) = &mut self.recorded {
            let called = |result: &ToolResult| Called {
                id: open.redactor.hide(&result.tool_call_id),
                name: open.redactor.hide(&result.tool_name),
            };
            let calls = results.iter().map(called).collect();
            open.settle(now);
            open.tell(What::Answer { calls }, now);
        }
    }

    /// `effects` says what an exec does.
    pub(crate) fn serve(
        &mut self,
        key: ServeKey,
        work: &Work,
        effects: impl FnOnce() -> Effects,
        now: Instant,
    ) {
        if let Some(open) = &mut self.recorded {
            open.served.push(key);
            let (name, read_only) = match work {
                Work::Exec { case, .. } => (exec::name(case), effects() == Effects::ReadOnly),
                Work::Query { query, .. } => (QueryKind::of(query).name(), true),
            };
            open.tell(What::Serve { name: name.to_owned(), read_only }, now);
        }
    }

    pub(crate) fn served(&mut self, key: ServeKey, result: &ServeResult, now: Instant) {
        if let Some(open) = &mut self.recorded
            && let Some(nth) = open.served.iter().position(|served| *served == key)
        {
            let how = match result {
                ServeResult::Refused(_) | ServeResult::Failed => ServedHow::Refused,
                _ => ServedHow::Done,
            };
            open.tell(What::Served { nth: nth as u64, how }, now);
        }
    }

    /// Something before which all that was held back is told.
    fn last(&mut self, what: What, now: Instant) {
        if let Some(open) = &mut self.recorded {
            open.settle(now);
            open.tell(what, now);
        }
    }
}

impl Open {
    fn settle(&mut self, now: Instant) {
        let (client, server) = (self.from_client.finish(), self.from_server.finish());
        self.client(client, now);
        self.server(server, now);
    }

    fn client(&mut self, bytes: Vec<u8>, now: Instant) {
        if !bytes.is_empty() {
            self.tell(What::Client { bytes: Bytes::from(bytes) }, now);
        }
    }

    fn server(&mut self, bytes: Vec<u8>, now: Instant) {
        if !bytes.is_empty() {
            self.tell(What::Server { bytes: Bytes::from(bytes) }, now);
        }
    }

    fn tell(&mut self, what: What, now: Instant) {
        let at_us = micros(now.saturating_duration_since(self.begun));
        self.to.record(Record { at_us, run: self.run, stream: self.stream, what });
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

//! Plays a recording into the machine of a run, on a clock of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::codec::reply::QueryKind;
use crate::codec::{Model, RunRequest};
use crate::context::{Context, ToolResult};
use crate::conversation::Conversation;
use crate::error::{Blame, Error, Kind, Result};
use crate::exec::{self, Effects, Refusal};
use crate::ids::CountingIds;
use crate::proto::exec_server_message::Message as Case;
use crate::proto::interaction_query::Query;
use crate::redact::Redactor;
use crate::run::{
    Event, EventRef, Flow, Head, Options, Output, Polled, RetryBudget, ServeKey, ServeResult,
    Serves, Turn,
};

use super::{Record, Recording, ServedHow, What};

/// How often a turn may want to be woken before the next stream that was recorded is asked for. A
/// waiting turn wants it once; the rest is there so that nothing can go on for ever. No option: the
/// recording is this side's own.
const MAX_WAKES: u32 = 1_000;

/// What was played.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Played {
    /// Records of the run that were taken in.
    pub records: usize,
    /// The run's conversation as it stood in the end.
    pub conversation: Conversation,
}

impl Recording {
    /// Plays one run and hands its events to `sink`; the last one is [`Event::Ended`], also where
    /// the recording ends before the run did.
    ///
    /// Nothing is waited for: the run's clock goes from one record to the next, beginning at `now`.
    /// What the service said decides, so the events are those that the caller saw, but for ids that
    /// were drawn at random and the length of the pause before another attempt.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`]: there is no such run in it.
    pub fn replay(&self, run: u32, now: Instant, sink: impl FnMut(EventRef<'_>)) -> Result<Played> {
        let records = || self.records.iter().filter(|record| record.run == run);
        let begin = records().find(|record| matches!(record.what, What::Run { .. }));
        let Some(What::Run { retries, read_only_tools, renewable, deadline_us, .. }) =
            begin.map(|record| &record.what)
        else {
            return Err(Error::invalid(format!("the recording has no run {run}")));
        };
        let mut options = Options::default();
        options.retry.retries = *retries;
        options.retry.read_only_tools = read_only_tools.iter().cloned().collect();
        options.deadline = deadline_us.map(Duration::from_micros);
        options.serves = Some(Arc::new(Served::of(records())));
        let mut player = Player::new(options, *renewable, now, sink)?;
        let mut count = 0;
        for record in records() {
            if player.over {
                break;
            }
            player.play(record);
            count += 1;
        }
        player.finish();
        Ok(Played { records: count, conversation: player.turn.into_conversation() })
    }
}

/// What was given to a handler in that run, by name.
struct Served {
    names: BTreeSet<String>,
    read_only: BTreeSet<String>,
}

impl Served {
    fn of<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        let mut served = Self { names: BTreeSet::new(), read_only: BTreeSet::new() };
        for record in records {
            if let What::Serve { name, read_only } = &record.what {
                served.names.insert(name.clone());
                if *read_only {
                    served.read_only.insert(name.clone());
                }
            }
        }
        served
    }
}

impl Serves for Served {
    fn exec(&self, case: &Case) -> bool {
        self.names.contains(exec::name(case))
    }

    fn query(&self, query: &Query) -> bool {
        self.names.contains(QueryKind::of(query).name())
    }

    fn effects(&self, case: &Case) -> Effects {
        match self.read_only.contains(exec::name(case)) {
            true => Effects::ReadOnly,
            false => Effects::Changes,
        }
    }
}

/// The turn, and what a driver would know of it.
struct Player<S> {
    turn: Turn,
    sink: S,
    begin: Instant,
    now: Instant,
    /// When the turn wants to be woken.
    wake_at: Option<Instant>,
    /// The stream that the turn has, from 1.
    stream: u32,
    /// What the turn wanted served, in this order.
    served: Vec<ServeKey>,
    /// The last event is out.
    over: bool,
}

impl<S: FnMut(EventRef<'_>)> Player<S> {
    fn new(options: Options, renewable: bool, now: Instant, sink: S) -> Result<Self> {
        // What was asked is in the recording and decides nothing: the service has answered it.
        let context = Context::prompt("a recording is played");
        let model = Model::new("recorded");
        let request_id = "recorded".to_owned();
        let request = RunRequest { context, model, request_id, ..RunRequest::default() };
        let budget = RetryBudget::new(options.retry.retries);
        let (conversation, redactor) = (Conversation::default(), Redactor::default());
        let ids = Box::new(CountingIds::hex());
        let turn = Turn::new(request, conversation, options, budget, redactor, ids, now)
            .map_err(|refused| refused.0)?
            .renewable(renewable);
        let (wake_at, served) = (None, Vec::new());
        let mut player =
            Self { turn, sink, begin: now, now, wake_at, stream: 1, served, over: false };
        player.settle();
        Ok(player)
    }

    /// Hands out what there is and takes what the turn wants.
    fn settle(&mut self) {
        loop {
            let sink = &mut self.sink;
            let polled = self.turn.poll_events(self.now, |event| {
                sink(event);
                Flow::Continue
            });
            self.over |= polled == Polled::Ended;
            let sent = self.take_outputs();
            if self.over || (sent == 0 && polled == Polled::Drained) {
                return;
            }
            self.turn.handle_sent(sent, self.now);
        }
    }

    /// Does what the turn wants as far as it matters here; says how many bytes it wanted sent.
    fn take_outputs(&mut self) -> usize {
        let mut sent = 0;
        loop {
            match self.turn.poll_output() {
                Output::Send(bytes) => sent += bytes.len(),
                Output::Serve(task) => self.served.push(task.key),
                Output::Open => self.stream += 1,
                Output::Wait(at) => {
                    self.wake_at = at;
                    return sent;
                }
                Output::HalfClose
                | Output::Reset(_)
                | Output::StopServing(_)
                | Output::Renew
                | Output::Keep => {}
            }
        }
    }

    /// Wakes the turn at its next instant, if that is not after `until`.
    fn wake(&mut self, until: Option<Instant>) -> bool {
        let Some(at) = self.wake_at.filter(|at| !self.over && until.is_none_or(|t| *at <= t))
        else {
            return false;
        };
        self.now = self.now.max(at);
        self.turn.handle_timeout(self.now);
        self.settle();
        true
    }

    fn play(&mut self, record: &Record) {
        let at = self.begin.checked_add(Duration::from_micros(record.at_us)).unwrap_or(self.now);
        while self.wake(Some(at)) {}
        self.now = self.now.max(at);
        // The pause before another attempt has a random part: it ends when the attempt began.
        for _ in 0..MAX_WAKES {
            if record.stream <= self.stream || !self.wake(None) {
                break;
            }
        }
        if record.stream == self.stream && !self.over {
            self.take_in(&record.what);
            self.settle();
        }
    }

    fn take_in(&mut self, what: &What) {
        let now = self.now;
        match what {
            What::Head { status, headers } => {
                let (status, headers) = (*status, headers.clone());
                self.turn.handle_head(Head { status, headers, received_at: UNIX_EPOCH }, now);
            }
            What::Server { bytes } => self.turn.handle_body(bytes.clone(), now),
            What::End => self.turn.handle_end(now),
            What::Lost(loss) => self.turn.handle_lost(loss.into(), now),
            What::NoCredentials => self.turn.handle_not_renewed(None),
            What::Answer { calls } => {
                for call in calls {
                    // What was answered then can be answered now, or is over by now.
                    let result = ToolResult::text(&*call.id, &*call.name, "");
                    let _ = self.turn.answer_some(&[result], now);
                }
            }
            What::Say => {
                let _ = self.turn.say("a message", now);
            }
            What::Cancel => self.turn.cancel(now),
            What::Served { nth, how } => {
                let nth = usize::try_from(*nth).ok();
                if let Some(key) = nth.and_then(|nth| self.served.get(nth)).copied() {
                    match how {
                        ServedHow::Done => self.turn.handle_served_elsewhere(key, now),
                        ServedHow::Refused => {
                            let refused = ServeResult::Refused(Refusal::not_served());
                            self.turn.handle_served(key, refused, now);
                        }
                    }
                }
            }
            What::Run { .. }
            | What::Open
            | What::Client { .. }
            | What::HalfClose
            | What::Reset { .. }
            | What::Serve { .. }
            | What::Limit => {}
        }
    }

    /// The recording is over. A run that is not has no other end.
    fn finish(&mut self) {
        if !self.over {
            let error = Error::new(Kind::Interrupted, "the recording ends before the run did")
                .with_blame(Blame::Local);
            (self.sink)(EventRef::Other(Box::new(Event::Ended(Err(error)))));
            self.over = true;
        }
    }
}

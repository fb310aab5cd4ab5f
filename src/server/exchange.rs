//! One HTTP request of any path, as a pure machine: what a driver of the server drives.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::player::{Playbook, Player};
use super::session::{self, Output, RUN_PATH, Refusal, RequestHead, Violation, carries};
use super::sign_in::{Seed, SignInCall};
use super::unary::{Unary, call_of};
use crate::connect::Code;
use crate::error::{Error, Kind as ErrorKind};

/// Settings of an exchange.
#[derive(Debug, Clone)]
pub struct Options {
    /// Limits and token of a run; the token holds for unary calls too.
    pub session: session::Options,
    /// The request came over HTTP/1.1: a run is refused with an empty 464, as the service's load
    /// balancer does it (PROTOCOL 1).
    pub http1: bool,
    /// Clock and entropy of the sign-in; without them there is none.
    pub sign_in: Option<Seed>,
    /// The body of a unary call, in bytes. Default 1 MiB: these calls ask little.
    pub unary_body: usize,
    /// How long that body may take to arrive. Default 30 s, as the run request.
    pub unary_within: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            session: session::Options::default(),
            http1: false,
            sign_in: None,
            unary_body: 1 << 20,
            unary_within: Duration::from_secs(30),
        }
    }
}

/// One HTTP request: a run, a unary call, a call of the sign-in, or a refusal.
pub struct Exchange {
    playbook: Playbook,
    options: Options,
    kind: Kind,
}

enum Kind {
    /// The head is awaited.
    New,
    Run(Box<Player>),
    Unary(Box<Unary>),
    SignIn(SignInCall),
    Refused(VecDeque<Output>),
}

impl Exchange {
    /// An exchange that waits for the request head.
    pub fn new(playbook: Playbook, options: Options) -> Self {
        Self { playbook, options, kind: Kind::New }
    }

    /// The request head came; the path decides what this is.
    pub fn handle_head(&mut self, head: &RequestHead, now: Instant) {
        if !matches!(self.kind, Kind::New) {
            return;
        }
        let sign_in = self.options.sign_in.as_ref();
        let sign_in = sign_in.and_then(|seed| SignInCall::new(&self.playbook, seed, head, now));
        self.kind = if let Some(call) = sign_in {
            Kind::SignIn(call)
        } else if let Err(refusal) = self.admit(head, now) {
            refused(refusal)
        } else if head.path == RUN_PATH {
            self.run(head, now)
        } else if let Some(call) = call_of(&head.path) {
            match Unary::new(self.playbook.clone(), call, head, &self.options, now) {
                Ok(unary) => Kind::Unary(Box::new(unary)),
                Err(refusal) => refused(refusal),
            }
        } else {
            let error = Error::invalid("no such path").with_code(Code::Unimplemented);
            refused(Refusal::new(404, error))
        };
    }

    /// Whether a script that wants tokens of its own sign-in gets one; the token of the server is as
    /// good, and then nothing more is looked for.
    fn admit(&mut self, head: &RequestHead, now: Instant) -> Result<(), Refusal> {
        let rules = &self.playbook.script().sign_in;
        if !rules.require || (self.options.http1 && head.path == RUN_PATH) {
            return Ok(());
        }
        let token = self.options.session.token.take();
        let seed = self.options.sign_in.as_ref();
        let ours = seed.is_some_and(|seed| self.playbook.desk().admits(head, seed, rules, now));
        if ours || token.is_some_and(|token| carries(head, &token)) {
            return Ok(());
        }
        let text = "the bearer token is missing, wrong, revoked or past its end";
        Err(Refusal::new(401, Error::new(ErrorKind::Unauthenticated, text)))
    }

    fn run(&self, head: &RequestHead, now: Instant) -> Kind {
        if self.options.http1 {
            let head = Output::Head { status: 464, headers: Vec::new() };
            return Kind::Refused([head, Output::End { trailers: Vec::new() }].into());
        }
        let mut player = Player::new(self.playbook.clone(), self.options.session.clone(), now);
        player.handle_head(head, now);
        Kind::Run(Box::new(player))
    }

    /// Bytes of the request body came.
    pub fn handle_body(&mut self, chunk: &[u8], now: Instant) {
        match &mut self.kind {
            Kind::Run(player) => player.handle_body(chunk, now),
            Kind::Unary(unary) => unary.handle_body(chunk),
            Kind::New | Kind::SignIn(_) | Kind::Refused(_) => {}
        }
    }

    /// The request body ended.
    pub fn handle_end(&mut self, now: Instant) {
        match &mut self.kind {
            Kind::Run(player) => player.handle_end(now),
            Kind::Unary(unary) => unary.handle_end(now),
            Kind::New | Kind::SignIn(_) | Kind::Refused(_) => {}
        }
    }

    /// The client reset the stream (`Some(code)`), or the connection is gone (`None`).
    pub fn handle_reset(&mut self, code: Option<u32>, now: Instant) {
        match &mut self.kind {
            Kind::Run(player) => player.handle_reset(code, now),
            Kind::Unary(unary) => unary.handle_reset(),
            Kind::SignIn(call) => call.handle_reset(),
            Kind::Refused(outputs) => outputs.clear(),
            Kind::New => {}
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Kind::Run(player) = &mut self.kind {
            player.handle_timeout(now);
        }
    }

    /// What the driver is to do next; drain until [`Output::Wait`].
    pub fn poll_output(&mut self, now: Instant) -> Output {
        match &mut self.kind {
            Kind::Run(player) => player.poll_output(now),
            Kind::Unary(unary) => unary.poll_output(now),
            Kind::SignIn(call) => call.poll_output(now),
            Kind::Refused(outputs) => outputs.pop_front().unwrap_or(Output::Wait(None)),
            Kind::New => Output::Wait(None),
        }
    }

    /// Whether the server said its last word, and it was polled.
    pub fn is_ended(&self) -> bool {
        match &self.kind {
            Kind::Run(player) => player.is_ended(),
            Kind::Unary(unary) => unary.is_ended(),
            Kind::SignIn(call) => call.is_ended(),
            Kind::Refused(outputs) => outputs.is_empty(),
            Kind::New => false,
        }
    }

    /// What the client did wrong on a run.
    pub fn violations(&self) -> &[Violation] {
        match &self.kind {
            Kind::Run(player) => player.violations(),
            _ => &[],
        }
    }

    /// Whether this is a run that its client cancelled.
    pub fn was_cancelled(&self) -> bool {
        matches!(&self.kind, Kind::Run(player) if player.was_cancelled())
    }

    /// Questions of a run that have no answer, or no close.
    pub fn open_questions(&self) -> usize {
        match &self.kind {
            Kind::Run(player) => player.session().open_questions().count(),
            _ => 0,
        }
    }
}

fn refused(refusal: Refusal) -> Kind {
    let Refusal { error, status, mut headers } = refusal;
    headers.push(("content-type".into(), "application/json".into()));
    let body = Bytes::from(session::error_body(&error));
    let end = Output::End { trailers: Vec::new() };
    Kind::Refused([Output::Head { status, headers }, Output::Send(body), end].into())
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::New => f.write_str("Exchange(new)"),
            Kind::Run(player) => f.debug_tuple("Exchange").field(player).finish(),
            Kind::Unary(unary) => f.debug_tuple("Exchange").field(unary).finish(),
            Kind::SignIn(_) => f.write_str("Exchange(sign-in)"),
            Kind::Refused(_) => f.write_str("Exchange(refused)"),
        }
    }
}

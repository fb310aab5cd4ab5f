//! The server side in memory as a model: the real protocol, without a socket and without a clock.
#![allow(clippy::disallowed_methods, reason = "a driver: its clock starts at the system's")]

use std::collections::VecDeque;
use std::time::{Instant, SystemTime};

use agentwire::codec::RunRequest;
use agentwire::context::ToolResult;
use agentwire::conversation::Conversation;
use agentwire::error::{Error, Result};
use agentwire::ids::{IdSource as _, RandomIds};
use agentwire::redact::Redactor;
use agentwire::run::{self, Event, Flow, Head, Session};
use agentwire::server::session::{RUN_PATH, STREAM_TYPE};
use agentwire::server::{self, Exchange, Playbook, RequestHead, Script};
use tokio::sync::Notify;

use super::{Boxed, Model, ModelRequest, ModelRun, StartError};

/// A model that is the local server: plays a [`Script`] over the real protocol, in memory. Time
/// jumps to the next moment at which something happens, so scripts that wait cost nothing; execs
/// and queries are refused.
#[derive(Debug, Clone)]
pub struct Local {
    playbook: Playbook,
}

impl Local {
    /// A server that plays `script`.
    ///
    /// # Errors
    /// The script asks for something that cannot be.
    pub fn new(script: Script) -> Result<Self> {
        Ok(Self { playbook: Playbook::new(script)? })
    }
}

impl Model for Local {
    fn start(&self, request: ModelRequest) -> Boxed<'_, Result<Box<dyn ModelRun>, StartError>> {
        let run = Joined::new(self.playbook.clone(), request);
        Box::pin(std::future::ready(run.map(|run| Box::new(run) as Box<dyn ModelRun>)))
    }
}

/// A client session and a server, joined.
struct Joined {
    client: Session,
    server: Exchange,
    now: Instant,
    events: VecDeque<Event>,
    /// Calls that were handed out and are not answered: time stands still.
    paused: bool,
    changed: Notify,
    ended: bool,
}

impl Joined {
    fn new(playbook: Playbook, request: ModelRequest) -> Result<Self, StartError> {
        let ModelRequest { model, context, conversation } = request;
        let now = Instant::now();
        let request_id = RandomIds.next_id().to_string();
        let model = model.as_str().into();
        let request = RunRequest { request_id, model, context, ..RunRequest::default() };
        let (options, ids) = (run::Options::default(), Box::new(RandomIds));
        let session = Session::new(&request, conversation, options, Redactor::default(), ids, now);
        let client = session.map_err(|refused| StartError {
            error: refused.0,
            conversation: Box::new(refused.1),
        })?;
        let mut server = Exchange::new(playbook, server::Options::default());
        let headers = [("content-type", STREAM_TYPE), ("connect-protocol-version", "1")];
        server.handle_head(&RequestHead::post(RUN_PATH, headers), now);
        let (events, changed) = (VecDeque::new(), Notify::new());
        Ok(Self { client, server, now, events, paused: false, changed, ended: false })
    }

    /// Moves bytes and time until there is an event, or nothing more will happen by itself.
    fn pump(&mut self) {
        while self.events.is_empty() && !self.ended && !self.paused {
            self.take_events();
            let client = self.flush_client();
            let (moved, server) = self.flush_server();
            if moved || !self.events.is_empty() || self.client.is_over() {
                self.take_events();
                continue;
            }
            let Some(next) = client.into_iter().chain(server).min() else { return };
            self.now = self.now.max(next);
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
        }
    }

    fn take_events(&mut self) {
        let events = &mut self.events;
        self.client.poll_events(self.now, |event| {
            events.push_back(event.to_event());
            Flow::Continue
        });
        self.paused |= self.events.iter().any(|event| matches!(event, Event::ToolCalls(_)));
        self.ended |= self.events.iter().any(|event| matches!(event, Event::Ended(_)));
    }

    fn flush_client(&mut self) -> Option<Instant> {
        loop {
            match self.client.poll_output() {
                run::Output::Send(bytes) => {
                    self.server.handle_body(&bytes, self.now);
                    self.client.handle_sent(bytes.len(), self.now);
                }
                run::Output::HalfClose => self.server.handle_end(self.now),
                run::Output::Reset(why) => {
                    self.server.handle_reset(Some(why.h2_code()), self.now);
                }
                run::Output::Wait(at) => return at,
                run::Output::Serve(_)
                | run::Output::StopServing(_)
                | run::Output::Open
                | run::Output::Renew
                | run::Output::Keep => {}
            }
        }
    }

    /// Whether bytes came, and when the server wants to be woken.
    fn flush_server(&mut self) -> (bool, Option<Instant>) {
        let mut moved = false;
        loop {
            match self.server.poll_output(self.now) {
                server::Output::Head { status, headers } => {
                    let head = Head { status, headers, received_at: SystemTime::UNIX_EPOCH };
                    self.client.handle_head(head, self.now);
                }
                server::Output::Send(bytes) => self.client.handle_body(bytes, self.now),
                server::Output::End { .. } => self.client.handle_end(self.now),
                server::Output::Wait(at) => return (moved, at),
                _ => {
                    let error = Error::network(run_cut(), "the local server cut the connection");
                    self.client.handle_lost(error, self.now);
                }
            }
            moved = true;
        }
    }
}

fn run_cut() -> agentwire::error::NetworkFault {
    agentwire::error::NetworkFault::Cut
}

impl ModelRun for Joined {
    fn next(&mut self) -> Boxed<'_, Option<Event>> {
        Box::pin(async move {
            loop {
                self.pump();
                if let Some(event) = self.events.pop_front() {
                    return Some(event);
                }
                if self.ended {
                    return None;
                }
                self.changed.notified().await;
            }
        })
    }

    fn answer(&mut self, results: Vec<ToolResult>, say: Vec<String>) -> Boxed<'_, Result<()>> {
        let said = say.iter().try_for_each(|text| self.client.say(text, self.now).map(drop));
        let answered = said.and_then(|()| self.client.answer_some(&results, self.now));
        self.paused &= answered.is_err();
        Box::pin(std::future::ready(answered))
    }

    fn cancel(&mut self) {
        self.client.cancel(self.now);
        self.paused = false;
        self.changed.notify_one();
    }

    fn finish(mut self: Box<Self>) -> Boxed<'static, Conversation> {
        while !self.ended && !self.paused {
            self.events.clear();
            self.pump();
            if self.events.is_empty() {
                break;
            }
        }
        Box::pin(std::future::ready(self.client.into_conversation()))
    }
}

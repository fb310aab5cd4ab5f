//! The life of a question that a handler serves: start, heartbeats, events, one answer, one close.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec::reply::{self, Refuse};
use crate::exec::Refusal;
use crate::proto::exec_client_message::Message as Reply;
use crate::proto::interaction_response::Result as Response;
use crate::proto::{ShellStream, ShellStreamExit, ShellStreamStart, shell_stream};

use super::core::Core;
use super::event::Notice;
use super::output::Output;
use super::serve::{Asked, ServeKey, Served, Shell, Work};

/// What the service is told of a question beyond the limits.
pub(super) const TOO_MUCH: &str = "too much is asked at once; ask again later";

/// What a handler's task came to.
#[derive(Debug, Clone, PartialEq)]
pub enum ServeResult {
    /// The result of an exec.
    Reply(Box<Reply>),
    /// A streaming shell is done; its events were sent before.
    ShellDone,
    /// The answer to a query.
    Response(Box<Response>),
    /// Not served, or not allowed.
    Refused(Refusal),
    /// The handler panicked or was lost.
    Failed,
}

impl Core {
    /// Takes a question in: it starts at once if there is a place, is refused if even the queue is
    /// full, and waits otherwise.
    fn serve(&mut self, work: Work, bytes: usize, now: Instant) {
        let asked = Asked::of(&work);
        if self.serves.len() >= self.options.serve_waiting || !self.has_room(bytes) {
            return self.refuse(&asked, &Refusal::because(TOO_MUCH));
        }
        let deadline = now.checked_add(self.limit_of(&asked));
        self.serves.insert(asked, work, bytes, deadline);
        self.start_waiting(now);
    }

    /// Takes a question that came in a message of so many bytes.
    pub(super) fn serve_or_refuse(&mut self, work: Work, serves: bool, bytes: usize, now: Instant) {
        match serves {
            true => self.serve(work, bytes, now),
            false => self.refuse(&Asked::of(&work), &Refusal::not_served()),
        }
    }

    /// Whether so many bytes more may wait. One message always may: it is here already.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let waiting = self.tools.bytes() + self.serves.bytes();
        waiting == 0 || waiting.saturating_add(bytes) <= self.options.pending_bytes
    }

    fn limit_of(&self, asked: &Asked) -> Duration {
        match asked {
            Asked::Exec { .. } => self.options.exec_limit,
            Asked::Query { .. } => self.options.query_limit,
        }
    }

    fn start_waiting(&mut self, now: Instant) {
        let at_once = self.options.serve_at_once.max(1);
        while let Some(task) = self.serves.start_one(at_once) {
            self.outbox.work(Output::Serve(task));
        }
        self.work_changed(now);
    }

    /// An event of a streaming shell. Dropped when nobody awaits it any more.
    pub(super) fn shell_event(&mut self, key: ServeKey, event: shell_stream::Event) {
        let Some((id, exec_id, shell)) = self.serves.shell(key) else { return };
        use shell_stream::Event as E;
        let next = match (*shell, &event) {
            (Shell::Exited, _) | (Shell::Started, E::Start(_)) => return,
            (_, E::Exit(_) | E::Rejected(_) | E::PermissionDenied(_) | E::Backgrounded(_)) => {
                Shell::Exited
            }
            // A hook may speak before the shell does.
            (before, E::HookContext(_)) => before,
            _ => Shell::Started,
        };
        let unannounced = *shell == Shell::Silent
            && matches!(event, E::Stdout(_) | E::Stderr(_) | E::Exit(_) | E::Backgrounded(_));
        *shell = next;
        let start =
            unannounced.then(|| shell_envelope(id, exec_id, E::Start(ShellStreamStart::default())));
        let envelope = shell_envelope(id, exec_id, event);
        for envelope in start.into_iter().chain([envelope]) {
            self.outbox.send(envelope);
        }
    }

    /// A handler came back. A result that nobody awaits any more is dropped.
    pub(super) fn served(&mut self, key: ServeKey, result: ServeResult, now: Instant) {
        if self.is_over() {
            return;
        }
        let Some(served) = self.serves.remove(key) else { return };
        self.conclude_served(&served, result);
        self.start_waiting(now);
    }

    /// The question is open no more, and nothing is left to say.
    pub(super) fn served_elsewhere(&mut self, key: ServeKey, now: Instant) {
        if !self.is_over() && self.serves.remove(key).is_some() {
            self.start_waiting(now);
        }
    }

    fn conclude_served(&mut self, served: &Served, result: ServeResult) {
        match (&served.asked, result) {
            (Asked::Exec { call, name, shell: None, .. }, ServeResult::Reply(reply))
                if crate::exec::answers(name, &reply) && reply::says_something(&reply) =>
            {
                self.outbox.send(reply::exec_result(call.id, &call.exec_id, &reply));
                self.outbox.send(reply::stream_close(call.id));
            }
            (Asked::Exec { call, shell: Some(shell), .. }, ServeResult::ShellDone) => {
                self.end_shell(call.id, &call.exec_id, *shell);
            }
            (Asked::Query { id, query }, ServeResult::Response(response))
                if query.is_answered_by(&response) =>
            {
                self.outbox.send(reply::query_result(*id, &response));
            }
            (asked, ServeResult::Refused(refusal)) => self.refuse(asked, &refusal),
            // Failed, or a result that is empty or of another kind: the service could not read it.
            (asked, _) => {
                self.refuse(asked, &Refusal::because("the tool failed on this machine"));
            }
        }
    }

    /// Closes a shell; one that never said how it ended is reported as aborted.
    fn end_shell(&mut self, id: u32, exec_id: &str, shell: Shell) {
        if shell != Shell::Exited {
            let exit = ShellStreamExit { code: 1, aborted: true, ..ShellStreamExit::default() };
            self.outbox.send(shell_envelope(id, exec_id, shell_stream::Event::Exit(exit)));
        }
        self.outbox.send(reply::stream_close(id));
    }

    /// Says no, in the question's own typed way, and closes it.
    fn refuse(&mut self, asked: &Asked, refusal: &Refusal) {
        let what = match asked {
            Asked::Exec { call, shell: Some(shell @ (Shell::Started | Shell::Exited)), .. } => {
                // Output was sent: it is too late to say no.
                self.end_shell(call.id, &call.exec_id, *shell);
                "shell_stream_args"
            }
            Asked::Exec { call, name, form, .. } => {
                let refuse = Refuse::new(&self.tool_context).because(refusal.reason());
                for envelope in form.refuse(call.id, &call.exec_id, &refuse) {
                    self.outbox.send(envelope);
                }
                name
            }
            Asked::Query { id, query } => {
                self.outbox.send(query.refuse(*id, refusal.reason()));
                query.name()
            }
        };
        self.notice(Notice::Refused { what: what.to_owned() });
    }

    /// The service calls an exec off. False when no handler has to do with it.
    pub(super) fn abort_served(&mut self, exec_id: u32, now: Instant) -> bool {
        let Some((served, running)) = self.serves.abort(exec_id) else { return false };
        if running {
            self.outbox.work(Output::StopServing(served.key));
        }
        self.outbox.send(reply::stream_close(exec_id));
        self.start_waiting(now);
        true
    }

    /// Questions that took longer than their limit are refused and their handlers dropped.
    pub(super) fn stop_overdue(&mut self, now: Instant) {
        while let Some((served, running)) = self.serves.take_overdue(now) {
            if running {
                self.outbox.work(Output::StopServing(served.key));
            }
            let limit = self.limit_of(&served.asked);
            let reason = format!("gave up after {limit:?}, the limit on this machine");
            self.refuse(&served.asked, &Refusal::because(reason));
        }
        self.start_waiting(now);
    }
}

fn shell_envelope(id: u32, exec_id: &str, event: shell_stream::Event) -> Bytes {
    let stream = ShellStream { event: Some(event) };
    reply::exec_result(id, exec_id, &Reply::ShellStream(Box::new(stream)))
}

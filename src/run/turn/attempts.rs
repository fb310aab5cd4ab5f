//! One attempt after the other: with what request each begins, and what follows when it ends.

use std::time::Instant;

use crate::codec::{Action, History};
use crate::error::{Error, Kind, Result};
use crate::run::core::cancelled;
use crate::run::event::{Ended, Event, Notice, Remedy};
use crate::run::output::Output;
use crate::run::session::Session;

use super::verdict::{Facts, Verdict};
use super::{Phase, Turn};

impl Turn {
    /// Begins an attempt, from what is known now.
    pub(super) fn attempt(&mut self, now: Instant) -> Result<()> {
        self.prepare_request();
        let Some(ids) = self.ids.take() else {
            return Err(Error::invalid("two attempts of one turn at the same time"));
        };
        let mut options = self.options.clone();
        options.deadline = None;
        if options.retry.retries > 0 {
            options.silence = options.silence.min(options.retry.silence);
        }
        let conversation = std::mem::take(&mut self.conversation);
        let redactor = self.redactor.clone();
        let started = Session::new(&self.request, conversation, options, redactor, ids, now);
        let mut session = started.map_err(|refused| {
            self.conversation = refused.1;
            refused.0
        })?;
        session.core.tools = std::mem::take(&mut self.tools);
        session.core.serves.count_on(self.last_key);
        for said in self.ledger.to_say_again() {
            session.core.say_as(said.id, &said.text)?;
        }
        self.phase = Phase::Attempt(Box::new(session));
        Ok(())
    }

    /// The request of the next attempt: the same again while the service has said nothing, else to
    /// go on, from the checkpoint or from the history.
    fn prepare_request(&mut self) {
        let covered = self.request.context.messages.len();
        let has_checkpoint =
            self.conversation.checkpoint().is_some_and(|checkpoint| checkpoint.covers == covered);
        // The older way of sending a history has no room for a turn that is under way.
        let can_resume = self.request.history == History::Full || has_checkpoint;
        let anew = std::mem::take(&mut self.ask_anew) || !self.ledger.heard || !can_resume;
        let from_history = !anew && self.ledger.needs_history();
        if from_history {
            let messages = &mut self.request.context.messages;
            messages.truncate(self.given);
            messages.extend(self.ledger.history());
        }
        if !anew {
            self.request.action = Action::Resume;
        }
        self.ledger.begin(from_history);
    }

    /// An attempt is over: what follows?
    pub(super) fn attempt_over(&mut self, end: Ended, now: Instant) {
        let Phase::Attempt(session) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return;
        };
        let mut remains = session.dismantle();
        self.outputs.extend(remains.outputs);
        remains.tools.keep_open(|id| self.ledger.knows_answer(id));
        self.tools = remains.tools;
        self.last_key = remains.last_key;
        self.conversation = remains.conversation;
        self.ledger.attempt_over(remains.heard, remains.output_tokens);
        let error = match end {
            Ok(finish) => {
                self.budget.give_back();
                return self.over(Ok(finish));
            }
            Err(error) => error,
        };
        let random = remains.ids.next_id().as_u64_pair().1;
        self.ids = Some(remains.ids);
        let verdict = self.judge(&error, remains.pause_expired);
        match verdict {
            // It had failed before it was cancelled, and nobody had heard of it yet.
            Verdict::Repair(_) | Verdict::Park | Verdict::Again if self.cancelled => {
                self.over(Err(cancelled()));
            }
            Verdict::Over => self.over(Err(error)),
            Verdict::Interrupted(why) => self.over(Err(interrupted(&error, &why))),
            Verdict::Repair(remedy) => {
                if remedy == Remedy::OtherToken {
                    self.refused = Some(error);
                    self.outputs.push_back(Output::Renew);
                }
                self.repair(remedy, now);
            }
            Verdict::Park if remains.pause_expired => self.park(now),
            Verdict::Park => {
                if let Some((at, _)) = self.next_at(error, random, now) {
                    self.park(at);
                }
            }
            Verdict::Again => {
                if let Some((at, notice)) = self.next_at(error, random, now) {
                    self.events.push_back(Event::Notice(notice));
                    self.phase = Phase::Waiting(at);
                }
            }
        }
    }

    fn judge(&mut self, error: &Error, pause_expired: bool) -> Verdict {
        let facts = Facts {
            retries: self.options.retry.retries > 0,
            pause_expired,
            pending: !self.tools.is_empty(),
            handed_out: self.ledger.handed_out(),
            changed: self.ledger.changed(),
            answered: self.ledger.needs_history(),
            rebuildable: self.request.history == History::Full && self.ledger.has_history(),
            renewable: self.renewable,
        };
        self.repairs.judge(error, &facts)
    }

    fn park(&mut self, not_before: Instant) {
        self.events.push_back(Event::Notice(Notice::Parked));
        self.phase = Phase::Parked(not_before);
    }

    /// When the next attempt may begin, and what the caller is told. None: the error stands, and
    /// that has been said.
    fn next_at(&mut self, error: Error, random: u64, now: Instant) -> Option<(Instant, Notice)> {
        let Some(delay) = self.retry.after(&error, random) else {
            let tried = self.retry.tried();
            let hint = format!("gave up after {tried} more attempts");
            self.over(Err(if tried > 0 { hinted(error, &hint) } else { error }));
            return None;
        };
        let at = now.checked_add(delay)?;
        let too_late = self.deadline.is_some_and(|deadline| deadline <= at);
        if too_late || !self.budget.take() {
            let hint = match too_late {
                true => "another attempt would begin after the deadline",
                false => "all runs of this client together have used up their retries",
            };
            self.over(Err(hinted(error, hint)));
            return None;
        }
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let why = error.message().to_owned();
        Some((at, Notice::Retrying { attempt: self.retry.tried(), delay_ms, why }))
    }

    fn repair(&mut self, remedy: Remedy, now: Instant) {
        match (remedy, &mut self.ids) {
            (Remedy::OtherModelForm, _) => {
                self.request.model = self.request.model.other_form();
            }
            (Remedy::FreshConversation | Remedy::Rebuild, Some(ids)) => {
                if remedy == Remedy::Rebuild {
                    self.conversation.discard();
                }
                self.conversation.rotate(ids.as_mut());
                self.request.conversation_id = None;
            }
            (Remedy::FreshConversation | Remedy::Rebuild, None) | (Remedy::OtherToken, _) => {}
        }
        self.ask_anew = true;
        self.events.push_back(Event::Notice(Notice::Repairing { remedy }));
        self.phase = Phase::Waiting(now);
    }

    pub(super) fn over(&mut self, end: Ended) {
        self.phase = Phase::Over;
        self.failed = end.is_err();
        let end = end.map_err(|error| self.with_effects(error));
        self.events.push_back(Event::Ended(end));
    }

    /// The error of this turn, which says so when making the turn again could do something twice:
    /// whoever is above tries again by its own rules.
    pub(super) fn with_effects(&self, error: Error) -> Error {
        match self.ledger.changed() {
            Some(what) if error.is_repeatable() => {
                let hint = format!("look at what {what} did before you ask again");
                hinted(error, &hint).with_effects()
            }
            _ => error,
        }
    }
}

/// The error with one more thing to know.
fn hinted(error: Error, hint: &str) -> Error {
    let hint = error.hint().map_or_else(|| hint.to_owned(), |known| format!("{known}; {hint}"));
    error.with_hint(hint)
}

/// The error of a turn that cannot be made again.
fn interrupted(error: &Error, why: &str) -> Error {
    let message = format!("the turn broke off and cannot be repeated: {why} ({})", error.message());
    Error::new(Kind::Interrupted, message)
        .with_code(error.code())
        .with_blame(error.blame())
        .with_effects()
        .with_hint("what was received stands; look at what the tool did before you ask again")
}

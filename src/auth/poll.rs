//! When it is asked whether a login was confirmed, and what ends that (BEHAVIOUR 9).

use std::time::{Duration, Instant};

use super::answer::Answer;
use super::tokens::Tokens;
use crate::error::{Error, Kind, NetworkFault};
use crate::redact::Redactor;

/// Times of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PollOptions {
    /// The pause before the first question. 1 s.
    pub first_delay: Duration,
    /// The longest pause; each is a fifth longer than the one before. 10 s.
    pub longest_delay: Duration,
    /// Questions altogether. 150, which is 23 min 38 s of pauses.
    pub attempts: u32,
    /// Failures in a row that end the login; "not yet" is none. 3.
    pub failures: u32,
    /// How long one question may take, to the last byte of its answer. 30 s.
    pub request: Duration,
    /// The longest pause that a service may ask for (`retry-after`); with a longer one it gets this.
    /// 60 s: a person waits.
    pub longest_asked: Duration,
}

impl Default for PollOptions {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(10),
            attempts: 150,
            failures: 3,
            request: Duration::from_secs(30),
            longest_asked: Duration::from_secs(60),
        }
    }
}

/// What a driver is to do.
#[derive(Debug)]
pub enum PollStep {
    /// Nothing before this instant; then [`Poll::step`] again.
    Wait(Instant),
    /// Ask now, and give the answer back before this instant.
    Ask {
        /// When the question has failed.
        until: Instant,
    },
    /// Signed in.
    Done(Tokens),
    /// Not signed in; nothing more will come.
    Failed(Error),
}

/// Polls for the tokens of one login.
///
/// Call [`Poll::step`], do what it says, and step again; after [`PollStep::Ask`] that is the answer
/// ([`Poll::answered`]) or what kept it from coming ([`Poll::failed`]). A question that is still open
/// at its deadline counts as failed.
#[derive(Debug)]
pub struct Poll {
    options: PollOptions,
    redactor: Redactor,
    delay: Duration,
    asked: u32,
    failures: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Pausing { until: Instant },
    Asking { until: Instant },
    Done(Tokens),
    Failed(Error),
}

impl Poll {
    /// Begins at `now`; `redactor` knows the secrets of the login.
    pub fn new(options: PollOptions, redactor: Redactor, now: Instant) -> Self {
        let delay = options.first_delay;
        let state = match options.attempts {
            0 => State::Failed(timed_out()),
            _ => State::Pausing { until: now + delay },
        };
        Self { options, redactor, delay, asked: 0, failures: 0, state }
    }

    /// What to do now.
    pub fn step(&mut self, now: Instant) -> PollStep {
        match &self.state {
            State::Pausing { until } if now < *until => PollStep::Wait(*until),
            State::Pausing { .. } => {
                let until = now + self.options.request;
                self.asked += 1;
                self.state = State::Asking { until };
                PollStep::Ask { until }
            }
            State::Asking { until } if now < *until => PollStep::Wait(*until),
            State::Asking { .. } => {
                let limit = self.options.request;
                let text = format!("the service did not answer within {limit:?}");
                self.failed(Error::network(NetworkFault::Stalled, text), now);
                self.step(now)
            }
            State::Done(tokens) => PollStep::Done(tokens.clone()),
            State::Failed(error) => PollStep::Failed(error.clone()),
        }
    }

    /// The answer to the question that was asked.
    pub fn answered(&mut self, answer: &Answer, now: Instant) {
        if !matches!(self.state, State::Asking { .. }) {
            return;
        }
        if answer.status == 404 {
            self.failures = 0;
            return self.pause(None, now);
        }
        match answer.poll(&self.redactor) {
            Ok(tokens) => self.state = State::Done(tokens),
            // What a success says is final; and asking again does not change that the question is
            // wrong (BEHAVIOUR 13, H37).
            Err(error) if is_final(answer.status) => self.state = State::Failed(error),
            Err(error) => self.count(error, answer.retry_after(), now),
        }
    }

    /// The question that was asked could not be put, or got no answer.
    pub fn failed(&mut self, error: Error, now: Instant) {
        if matches!(self.state, State::Asking { .. }) {
            let text = self.redactor.clean(error.message());
            self.count(error.with_message(text), None, now);
        }
    }

    /// The person does not want to sign in any more.
    pub fn cancel(&mut self) {
        if matches!(self.state, State::Pausing { .. } | State::Asking { .. }) {
            self.state = State::Failed(Error::new(Kind::Cancelled, "the sign-in was cancelled"));
        }
    }

    fn count(&mut self, error: Error, asked: Option<Duration>, now: Instant) {
        self.failures += 1;
        if self.failures >= self.options.failures {
            self.state = State::Failed(error);
        } else {
            self.pause(asked, now);
        }
    }

    /// Another pause, or the end when no question is left.
    fn pause(&mut self, asked: Option<Duration>, now: Instant) {
        if self.asked >= self.options.attempts {
            self.state = State::Failed(timed_out());
            return;
        }
        self.delay = longer(self.delay).min(self.options.longest_delay);
        let asked = asked.unwrap_or_default().min(self.options.longest_asked);
        let pause = self.delay.max(asked);
        self.state = State::Pausing { until: now + pause };
    }
}

/// A fifth more, in whole milliseconds, rounded up, by the reference's arithmetic (BEHAVIOUR, T12).
fn longer(delay: Duration) -> Duration {
    let ms = (delay.as_millis() as f64 * 1.2).ceil();
    Duration::from_millis(ms as u64)
}

/// Whether a status will be the same next time: success, and errors of ours but for those that say
/// "later".
fn is_final(status: u16) -> bool {
    (200..300).contains(&status)
        || ((400..500).contains(&status) && !matches!(status, 408 | 425 | 429))
}

fn timed_out() -> Error {
    Error::new(Kind::DeadlineExceeded, "nobody confirmed the sign-in in time")
        .with_hint("start it again and confirm it on the page that is opened")
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::answer;
    use super::super::claims::tests::jwt;
    use super::super::{ENTROPY, Pkce};
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    fn options(first_ms: u64) -> PollOptions {
        PollOptions { first_delay: Duration::from_millis(first_ms), ..PollOptions::default() }
    }

    /// Plays answers, a status and a body each, on a virtual clock; status 0 never comes. Gives the
    /// pauses in milliseconds and the end.
    fn play(
        options: PollOptions,
        secrets: &[&str],
        answers: &[(u16, &str)],
    ) -> (Vec<u64>, PollStep) {
        let mut now = start();
        let mut poll = Poll::new(options, Redactor::new(secrets.iter().copied()), now);
        let (mut pauses, mut answers, mut asking) = (Vec::new(), answers.iter().cycle(), false);
        loop {
            match poll.step(now) {
                PollStep::Wait(until) => {
                    if !asking {
                        pauses.push((until - now).as_millis() as u64);
                    }
                    (now, asking) = (until, false);
                }
                PollStep::Ask { .. } => match answers.next() {
                    Some((0, _)) => asking = true,
                    Some((status, body)) => poll.answered(&answer(*status, body), now),
                    None => return (pauses, poll.step(now)),
                },
                end => return (pauses, end),
            }
        }
    }

    fn error(step: PollStep) -> Error {
        match step {
            PollStep::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn c001_pending_then_tokens() {
        let pkce = Pkce::new(&[7; ENTROPY], "uuid-1");
        let body = format!(r#"{{"accessToken":"{}","refreshToken":"r"}}"#, jwt(r#"{"exp":2000}"#));
        let answers = [(404, ""), (200, body.as_str())];
        let (pauses, end) = play(options(10), &pkce.secrets(), &answers);
        assert_eq!(pauses, [10, 12]);
        let PollStep::Done(tokens) = end else { panic!("{end:?}") };
        assert_eq!((tokens.refresh.expose().as_str(), tokens.due_at_ms()), ("r", 1_700_000));
    }

    #[test]
    fn c002_failures_then_tokens() {
        let body = r#"{"accessToken":"a","refreshToken":"r"}"#;
        let (pauses, end) = play(options(10), &[], &[(500, ""), (502, ""), (200, body)]);
        assert_eq!(pauses, [10, 12, 15]);
        assert!(matches!(end, PollStep::Done(tokens) if tokens.access.expose() == "a"));
    }

    #[test]
    fn the_pauses_are_the_references() {
        let (pauses, end) = play(PollOptions::default(), &[], &[(404, "")]);
        let expected = [
            1_000, 1_200, 1_440, 1_728, 2_074, 2_489, 2_987, 3_585, 4_302, 5_163, 6_196, 7_436,
            8_924, 10_000,
        ];
        assert_eq!(pauses[..14], expected);
        assert_eq!((pauses.len(), pauses.iter().sum::<u64>()), (150, 1_418_524));
        assert_eq!(error(end).kind(), &Kind::DeadlineExceeded);
    }

    #[test]
    fn c004_one_question_that_is_not_answered_yet() {
        let once = PollOptions { attempts: 1, ..options(10) };
        let (pauses, end) = play(once, &[], &[(404, "")]);
        assert_eq!(pauses, [10]);
        assert_eq!(error(end).kind(), &Kind::DeadlineExceeded);
        let none = PollOptions { attempts: 0, ..options(10) };
        assert_eq!(error(play(none, &[], &[(404, "")]).1).kind(), &Kind::DeadlineExceeded);
    }

    #[test]
    fn c005_three_failures_that_repeat_the_secrets() {
        let pkce = Pkce::new(&[7; ENTROPY], "uuid-1");
        let url = format!("https://api2.cursor.sh{}", pkce.poll_target().expose());
        let body = format!("{} {:?} at {url}", pkce.poll_target().expose(), pkce.secrets());
        let (pauses, end) = play(options(10), &pkce.secrets(), &[(500, &body)]);
        assert_eq!(pauses, [10, 12, 15]);
        let error = error(end);
        assert_eq!((error.http_status(), error.kind()), (Some(500), &Kind::Rejected));
        for secret in pkce.secrets().into_iter().chain([url.as_str()]) {
            assert!(!format!("{error} {error:?}").contains(secret), "{error}");
        }
    }

    #[test]
    fn c006_questions_that_are_never_answered() {
        let short = PollOptions { request: Duration::from_millis(1), ..options(10) };
        let (pauses, end) = play(short, &["uuid-1"], &[(0, "")]);
        assert_eq!(pauses, [10, 12, 15]);
        let error = error(end);
        assert_eq!(error.kind(), &Kind::Network(NetworkFault::Stalled));
        assert!(!error.to_string().contains("uuid-1"));
    }

    #[test]
    fn a_pending_answer_forgives_failures_and_a_final_one_ends_at_once() {
        let answers = [(500, ""), (500, ""), (404, "")];
        let few = PollOptions { attempts: 9, ..options(10) };
        assert_eq!(error(play(few, &[], &answers).1).kind(), &Kind::DeadlineExceeded);
        for status in [200, 204, 400, 401, 403, 410] {
            assert_eq!(play(options(10), &[], &[(status, "{}")]).0, [10], "{status}");
        }
        for status in [301, 302, 408, 429, 503] {
            let (pauses, end) = play(options(10), &[], &[(status, "")]);
            assert_eq!((pauses.len(), error(end).http_status()), (3, Some(status)));
        }
    }

    #[test]
    fn a_service_may_ask_for_a_longer_pause_and_a_cancel_is_final() {
        let mut now = start();
        let mut poll = Poll::new(options(10), Redactor::default(), now);
        let mut busy = answer(429, "");
        for (asked, pause, most) in [("7", 7_000, 60), ("9999", 60_000, 60), ("9999", 8_000, 8)] {
            poll.options.longest_asked = Duration::from_secs(most);
            poll.failures = 0;
            let PollStep::Wait(until) = poll.step(now) else { panic!() };
            now = until;
            assert!(matches!(poll.step(now), PollStep::Ask { .. }));
            busy.headers = vec![("retry-after".into(), asked.into())];
            poll.answered(&busy, now);
            let PollStep::Wait(until) = poll.step(now) else { panic!() };
            assert_eq!((until - now).as_millis(), pause);
        }
        poll.cancel();
        poll.answered(&answer(404, ""), now);
        assert_eq!(error(poll.step(now)).kind(), &Kind::Cancelled);
    }
}

//! What a player has to do: steps of the script, and the smaller tasks that they become.

use std::time::{Duration, Instant};

use super::Player;
use super::facts::cut;
use crate::proto::{self, interaction_update};
use crate::server::script::{Call, Say, Step, WaitEvent};

/// One thing to do.
#[derive(Debug)]
pub(super) enum Task {
    /// A step of the script.
    Step(Step),
    /// Steps to do again, this many times or for ever.
    Repeat(Vec<Step>, Option<u32>),
    /// Wait for the questions that were asked for this step.
    Await,
    /// Ask for the next blobs of the root prompt, from this one on.
    FetchHistory(usize),
    /// Read the history out of the blobs.
    ReadHistory,
    /// Call the tools that fit, at most this many more.
    UseTools(u32),
    /// Start a call.
    Call(Call),
    /// Send this checkpoint.
    SendCheckpoint(Vec<u8>),
}

/// What is waited for.
#[derive(Debug)]
pub(super) enum Waiting {
    /// Nothing: the next task may run.
    Nothing,
    /// A time.
    Time(Instant),
    /// All questions asked for this step, until a time.
    Answers(Instant),
    /// Something that the client does, until a time; `strict`: else the run fails.
    Event { event: WaitEvent, until: Instant, strict: bool, happened: bool },
    /// The end of the stream, saying heartbeats.
    Heartbeats { every: Duration, left: Option<u32>, next: Instant },
    /// The end of the stream, saying nothing.
    Silence,
}

/// Text that is being said.
#[derive(Debug)]
pub(super) struct Speech {
    text: String,
    said: usize,
    thinking: bool,
    delta: usize,
    pace: Duration,
    tokens: bool,
    began: Instant,
    /// When the next delta goes out.
    pub(super) next: Instant,
}

impl Player {
    /// Begins to say something.
    pub(super) fn say(&mut self, say: &Say, thinking: bool, now: Instant) {
        let text = self.facts.as_ref().map_or_else(String::new, |facts| facts.render(&say.text));
        let script = self.script();
        let speech = Speech {
            said: 0,
            thinking,
            delta: say.delta.unwrap_or(script.delta).max(1),
            pace: Duration::from_millis(say.pace_ms.unwrap_or(script.pace_ms)),
            tokens: say.tokens.unwrap_or(!thinking),
            began: now,
            next: now,
            text,
        };
        if !thinking {
            self.spoken.text(&speech.text);
        } else {
            self.spoken.thinking(&speech.text);
        }
        self.speech = Some(speech);
    }

    /// Says the next delta; after the last one the speech is over.
    pub(super) fn speak(&mut self, now: Instant) {
        let Some(mut speech) = self.speech.take() else { return };
        let rest = speech.text.get(speech.said..).unwrap_or_default();
        let len = rest.char_indices().nth(speech.delta).map_or(rest.len(), |(end, _)| end);
        let piece = rest.get(..len).unwrap_or_default().to_owned();
        speech.said += len;
        if !piece.is_empty() {
            self.say_piece(piece, &speech);
        }
        if speech.said < speech.text.len() {
            speech.next = now + speech.pace;
            self.speech = Some(speech);
        } else if speech.thinking {
            let spent = now.saturating_duration_since(speech.began).as_millis();
            let thinking_duration_ms = i32::try_from(spent).unwrap_or(i32::MAX);
            let done = proto::ThinkingCompletedUpdate { thinking_duration_ms };
            self.session.update(interaction_update::Message::ThinkingCompleted(done));
        }
    }

    fn say_piece(&mut self, piece: String, speech: &Speech) {
        let tokens = estimate(piece.len());
        if speech.thinking {
            self.thinking_tokens += i64::from(tokens);
            let delta = proto::ThinkingDeltaUpdate { text: piece };
            self.session.update(interaction_update::Message::ThinkingDelta(delta));
        } else {
            self.session.text(piece);
        }
        if speech.tokens {
            self.count_tokens(tokens);
        }
    }

    /// Sends a token delta and keeps the sum.
    pub(super) fn count_tokens(&mut self, tokens: i32) {
        self.tokens += i64::from(tokens);
        let delta = proto::TokenDeltaUpdate { tokens };
        self.session.update(interaction_update::Message::TokenDelta(delta));
    }
}

/// Tokens of a text of this many bytes, as far as anybody can tell without the model: a quarter.
pub(super) fn estimate(bytes: usize) -> i32 {
    i32::try_from(bytes.div_ceil(4)).unwrap_or(i32::MAX)
}

/// A name for a chat: the first words of a message.
pub(in crate::server) fn name_of(message: &str) -> String {
    let words: Vec<_> = message.split_whitespace().take(6).collect();
    match words.as_slice() {
        [] => "New chat".into(),
        words => cut(&words.join(" "), 48),
    }
}

//! What the local server says: a [`Script`] of rules, each a list of steps.
//!
//! A script is a TOML or JSON file. The first rule whose `when` fits the run request is played; its
//! steps go out in order. `docs/SCRIPTS.md` explains every step with examples.
//!
//! ```
//! use agentwire::server::Script;
//!
//! let script = Script::from_json(r#"{
//!   "pace_ms": 10,
//!   "rules": [
//!     {"when": {"prompt": "weather"}, "steps": [
//!       {"thinking": "Which city?"},
//!       {"text": "It rains in {{model}}."},
//!       {"turn_end": {"input_tokens": 12, "output_tokens": 7}}]},
//!     {"steps": [{"error": {"code": "unavailable", "message": "try later"}}]}
//!   ]
//! }"#)?;
//! assert_eq!(script.rules.len(), 2);
//! # Ok::<(), agentwire::Error>(())
//! ```

mod defaults;
mod encode;
pub(in crate::server) mod form;
mod rule;
mod sign_in;
mod step;
mod tables;
mod unary;

use serde::{Deserialize, Serialize};

pub(in crate::server) use self::defaults::assistant_steps;
pub(in crate::server) use self::encode::Case;
pub use self::rule::{ActionKind, Facets, Rule, When};
pub use self::sign_in::{JsonReply, SignIn};
pub use self::step::{
    Ask, Bytes, Call, Checkpoint, Condition, ErrorStep, GetBlob, Head, Heartbeats, Repeat, Reset,
    Say, SetBlob, Status, Step, TurnEnd, UseTools, WaitEvent, WaitFor,
};
pub use self::unary::{Model, Unary, UnaryReply};
use crate::{Error, Result};

/// The most steps that a script may have, nested ones included. No option, as the next two: a script
/// is written by hand, and one of that size is a program.
const MAX_STEPS: usize = 100_000;

/// The deepest nesting of `repeat` and `if`.
const MAX_DEPTH: usize = 32;

/// The largest script file, in bytes.
pub(crate) const MAX_BYTES: usize = 16 << 20;

/// What a server says to those who call it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default = "Script::blank")]
pub struct Script {
    /// Characters in one text or thinking delta, unless the step says otherwise. Default 12.
    pub delta: usize,
    /// Milliseconds between two deltas, unless the step says otherwise. Default 0: no pause; the
    /// built-in assistant takes 15.
    pub pace_ms: u64,
    /// Milliseconds between heartbeats that are sent while a step waits. Default 5 000; 0 is off.
    pub heartbeat_ms: u64,
    /// Milliseconds that a question may stay unanswered before the run ends with
    /// `deadline_exceeded`. Default 600 000, the longest tool that anybody should wait for.
    pub answer_ms: u64,
    /// Compress messages with gzip when the client accepts it. Default off.
    pub gzip: bool,
    /// Envelopes are packed into DATA frames of up to this many bytes while no pause separates
    /// them. Default 0: one DATA frame for each message.
    pub pack: usize,
    /// Tried from the first on. With no rule at all the built-in assistant answers.
    pub rules: Vec<Rule>,
    /// The models that GetUsableModels serves. Default: a plausible list.
    pub models: Vec<Model>,
    /// The id that GetDefaultModelForCli gives; empty: the first of `models`.
    pub default_model: String,
    /// Answers of the unary calls, where they are to differ from the plain ones.
    pub unary: Unary,
    /// How the sign-in goes.
    pub sign_in: SignIn,
}

impl Default for Script {
    /// The built-in assistant: see [`Script::assistant`].
    fn default() -> Self {
        Self::assistant()
    }
}

impl Script {
    /// A script from the text of a JSON file.
    ///
    /// # Errors
    /// [`crate::error::Kind::InvalidRequest`]: not JSON, an unknown member (named), or a step that
    /// cannot be played (named by rule and step).
    pub fn from_json(text: &str) -> Result<Self> {
        check_size(text)?;
        let script: Self = serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("script: {}", one_line(&error))))?;
        script.check()?;
        Ok(script)
    }

    /// A script from the text of a TOML file.
    ///
    /// # Errors
    /// As [`Script::from_json`].
    #[cfg(feature = "server")]
    pub fn from_toml(text: &str) -> Result<Self> {
        check_size(text)?;
        let script: Self = toml::from_str(text)
            .map_err(|error| Error::invalid(format!("script: {}", one_line(&error))))?;
        script.check()?;
        Ok(script)
    }

    /// A script that plays these steps whatever it is asked.
    pub fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        let rule = Rule { steps: steps.into_iter().collect(), ..Rule::default() };
        Self { rules: vec![rule], ..Self::blank() }
    }

    /// Checks what types alone cannot say: names of cases, base64 and hex texts, sizes.
    ///
    /// # Errors
    /// [`crate::error::Kind::InvalidRequest`], with the rule and the step that is wrong.
    pub fn check(&self) -> Result<()> {
        let mut budget = MAX_STEPS;
        for (index, rule) in self.rules.iter().enumerate() {
            let place = format!("rule {}", index + 1);
            check_steps(&rule.steps, &place, MAX_DEPTH, &mut budget)?;
        }
        self.unary.check()?;
        self.sign_in.check()
    }
}

/// Checks a list of steps and those inside them; `budget` counts down over the whole script.
fn check_steps(steps: &[Step], place: &str, depth: usize, budget: &mut usize) -> Result<()> {
    if depth == 0 {
        return Err(Error::invalid(format!("script: {place}: steps nest deeper than {MAX_DEPTH}")));
    }
    for (index, step) in steps.iter().enumerate() {
        let place = format!("{place}, step {}", index + 1);
        *budget = budget
            .checked_sub(1)
            .ok_or_else(|| Error::invalid(format!("script: more than {MAX_STEPS} steps")))?;
        step.check()
            .map_err(|error| Error::invalid(format!("script: {place}: {}", error.message())))?;
        for inner in step.inner() {
            check_steps(inner, &place, depth - 1, budget)?;
        }
    }
    Ok(())
}

fn check_size(text: &str) -> Result<()> {
    if text.len() > MAX_BYTES {
        return Err(Error::invalid(format!("script: larger than {MAX_BYTES} bytes")));
    }
    Ok(())
}

/// A parser's message on one line, so that an error stays one.
fn one_line(error: &dyn std::fmt::Display) -> String {
    error
        .to_string()
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

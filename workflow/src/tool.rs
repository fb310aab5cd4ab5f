//! `ctx.tool`: an effect that is recorded once.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::failure::millis;
use crate::run::{Entry, Slot};

/// How often a tool is tried and how long it waits in between.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts in all; at least one is made.
    pub attempts: u32,
    /// Wait before the second attempt.
    pub interval: Duration,
    /// What each further wait is multiplied by.
    pub backoff: f64,
    /// The longest wait.
    pub cap: Duration,
}

impl Default for Retry {
    /// Three attempts, one second, doubled each time, an hour at most: as the reference has them.
    fn default() -> Self {
        Self {
            attempts: 3,
            interval: Duration::from_secs(1),
            backoff: 2.0,
            cap: Duration::from_secs(3_600),
        }
    }
}

impl Retry {
    /// One attempt.
    pub const fn never() -> Self {
        Self { attempts: 1, interval: Duration::ZERO, backoff: 1.0, cap: Duration::ZERO }
    }

    /// The wait after this attempt, counted from 1; `None`: it was the last.
    pub fn wait_after(&self, attempt: u32) -> Option<Duration> {
        if attempt >= self.attempts.max(1) {
            return None;
        }
        let factor = self.backoff.max(0.0).powi(i32::try_from(attempt - 1).unwrap_or(i32::MAX));
        let seconds = self.interval.as_secs_f64() * factor;
        Some(Duration::try_from_secs_f64(seconds).map_or(self.cap, |wait| wait.min(self.cap)))
    }
}

/// What a tool's function is told about this attempt.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// Names this call among those of all runs: the same for every attempt and after every
    /// restart, so it can serve the other side as an idempotency key. Not the key of its record,
    /// which two runs that call a tool alike share.
    pub key: String,
    /// Cancelled when the run is called off.
    pub cancel: CancellationToken,
}

/// A tool call that is being prepared.
#[derive(Debug)]
#[must_use = "a call does nothing until `run`"]
pub struct ToolCall {
    ctx: Ctx,
    slot: Slot,
    retry: Retry,
}

impl Ctx {
    /// Calls a tool: any effect outside the workflow. Its key is made of the name, the arguments
    /// and how often this was called before.
    ///
    /// # Panics
    /// Never. Arguments that cannot be JSON fail at [`ToolCall::run`] as `null` would.
    pub fn tool(&self, name: &str, args: impl Serialize) -> ToolCall {
        let args = serde_json::to_value(args).unwrap_or(Value::Null);
        let slot = self.reserve(name, |ordinals| ordinals.tool(name, &args));
        ToolCall { ctx: self.clone(), slot, retry: Retry::never() }
    }
}

impl ToolCall {
    /// Tries again when it fails. Only for effects that may happen twice.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Makes the effect, unless its result is recorded. The result is recorded before this returns.
    ///
    /// # Errors
    /// The last attempt's error, a result that JSON cannot hold, a run that is called off, or a
    /// store that fails. When the run is called off while the effect is under way, a result that
    /// comes within five seconds is recorded all the same.
    pub async fn run<T, E, F>(self, effect: impl Fn(Attempt) -> F) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        E: Display,
        F: Future<Output = Result<T, E>>,
    {
        let Self { ctx, slot, retry } = self;
        let replace = match ctx.enter(&slot, "")? {
            Entry::Replay(record) => return read(&slot, record.value),
            Entry::Live { replace } => replace,
        };
        let began = ctx.step_started(&slot);
        let made = attempts(&ctx, &slot, retry, effect).await;
        let recorded = match made {
            Ok(value) => ctx.record(slot.record("", Some(value), ctx.now()), replace).await,
            Err(error) => Err(error),
        };
        ctx.step_ended(&slot, began, &recorded);
        let value = read(&slot, recorded?.value)?;
        ctx.gate()?;
        Ok(value)
    }
}

async fn attempts<T, E, F>(
    ctx: &Ctx,
    slot: &Slot,
    retry: Retry,
    effect: impl Fn(Attempt) -> F,
) -> Result<Value>
where
    T: Serialize + DeserializeOwned,
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let key = crate::key::idempotency_key(&ctx.pass.root, &slot.key.key);
    for number in 1.. {
        ctx.gate()?;
        let attempt = Attempt { number, key: key.clone(), cancel: ctx.token.child_token() };
        let result = tokio::select! {
            biased;
            result = effect(attempt) => result,
            () = async {
                ctx.token.cancelled().await;
                ctx.pass.engine.parts.clock.sleep(ctx.pass.engine.parts.grace).await;
            } => return Err(ctx.why()),
        };
        let message = match result {
            Ok(value) => return write::<T>(slot, &value),
            Err(error) => error.to_string(),
        };
        let Some(wait) = retry.wait_after(number) else {
            return Err(Error::Tool { name: slot.name.clone(), attempts: number, message });
        };
        let name = slot.name.clone();
        ctx.tell(&Event::Retrying { name, attempt: number, wait_ms: millis(wait) });
        ctx.wait(wait).await?;
    }
    Err(ctx.why())
}

/// The value as JSON, and only if it can be read back as what it was.
fn write<T: Serialize + DeserializeOwned>(slot: &Slot, value: &T) -> Result<Value> {
    let value = serde_json::to_value(value).map_err(|error| not_json(slot, &error))?;
    T::deserialize(&value).map_err(|error| not_json(slot, &error))?;
    Ok(value)
}

fn read<T: DeserializeOwned>(slot: &Slot, value: Option<Value>) -> Result<T> {
    serde_json::from_value(value.unwrap_or(Value::Null)).map_err(|error| not_json(slot, &error))
}

fn not_json(slot: &Slot, error: &serde_json::Error) -> Error {
    let message = format!(
        "its result cannot be kept as JSON (line {}, column {})",
        error.line(),
        error.column()
    );
    Error::Tool { name: slot.name.clone(), attempts: 1, message }
}

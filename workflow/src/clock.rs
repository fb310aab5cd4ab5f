//! Time and chance come in from outside, so that a test can give both.
#![allow(clippy::disallowed_methods, reason = "the driver's own clock and ids")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::record::Millis;

/// A boxed future: what object-safe async methods give.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where the engine takes the time from.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> Millis;

    /// Waits.
    fn sleep(&self, wait: Duration) -> Boxed<'_, ()>;
}

/// Where the engine takes ids from.
pub trait Entropy: Send + Sync {
    /// The next id; no two calls give the same.
    fn uuid(&self) -> Uuid;
}

/// The system's clock and randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Millis {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map(crate::failure::millis).unwrap_or_default()
    }

    fn sleep(&self, wait: Duration) -> Boxed<'_, ()> {
        Box::pin(tokio::time::sleep(wait))
    }
}

impl Entropy for System {
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }
}

/// The time of a tokio runtime that was paused: it moves when every task waits. The epoch is given,
/// so a run says the same times whenever it is played.
#[derive(Debug, Clone, Copy)]
pub struct VirtualClock {
    epoch: Millis,
    start: tokio::time::Instant,
}

impl VirtualClock {
    /// A clock that says `epoch` now.
    pub fn starting_at(epoch: Millis) -> Self {
        Self { epoch, start: tokio::time::Instant::now() }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Millis {
        self.epoch.saturating_add(crate::failure::millis(self.start.elapsed()))
    }

    fn sleep(&self, wait: Duration) -> Boxed<'_, ()> {
        Box::pin(tokio::time::sleep(wait))
    }
}

/// Ids from a seed: the same seed gives the same ids (SplitMix64).
#[derive(Debug)]
pub struct SeededEntropy(Mutex<u64>);

impl SeededEntropy {
    /// Ids of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Entropy for SeededEntropy {
    fn uuid(&self) -> Uuid {
        let (high, low) = (self.next(), self.next());
        uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
            .into_uuid()
    }
}

//! What a run tells those who watch it: names, keys and times, never prompts or answers.

use serde::Serialize;

use crate::key::Kind;
use crate::record::{Millis, Status};

/// Something happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The run began, or began again.
    Started {
        /// Its id.
        id: String,
        /// The workflow's name.
        name: String,
        /// Results that are there already.
        recorded: usize,
    },
    /// A step is being made.
    StepStarted {
        /// What it is.
        kind: Kind,
        /// Its key.
        key: String,
        /// Its name.
        name: String,
    },
    /// A step's record was used.
    StepReplayed {
        /// What it is.
        kind: Kind,
        /// Its key.
        key: String,
        /// Its name.
        name: String,
    },
    /// A step was made and recorded, or was not done.
    StepEnded {
        /// What it is.
        kind: Kind,
        /// Its key.
        key: String,
        /// Its name.
        name: String,
        /// Whether it was done and recorded.
        done: bool,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
    },
    /// The conversation that a stage was to go on with is not there: it begins another.
    SessionLost {
        /// What it is.
        kind: Kind,
        /// Its key.
        key: String,
        /// Its name.
        name: String,
    },
    /// A tool failed and is tried again.
    Retrying {
        /// The tool's name.
        name: String,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// Milliseconds until the next.
        wait_ms: u64,
    },
    /// The run waits for its provider.
    Blocked {
        /// When it tries again; `None`: when somebody resumes it.
        retry_at: Option<Millis>,
    },
    /// The run ended, for good or until it is resumed.
    Ended {
        /// Its status.
        status: Status,
    },
}

/// Somebody who watches runs. Called in the middle of the run: it must not block.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> Observer for F {
    fn event(&self, event: &Event) {
        self(event);
    }
}

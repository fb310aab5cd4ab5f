//! What is kept about a run.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::key::Kind;

/// Milliseconds since the Unix epoch.
pub type Millis = u64;

/// One fact of a run. The first write of a key wins, in the store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// What it is about.
    pub kind: Kind,
    /// The key, with the scope of a child in front.
    pub key: String,
    /// The key of the child run it was made in; empty for the root.
    pub scope: String,
    /// The step's name, or a question's kind.
    pub name: String,
    /// Position of the step among the steps of its run, from 1, in the order they were called.
    pub seq: u64,
    /// Fingerprint of what the key does not say: prompt, schema, models, inputs. Empty where the
    /// key says all.
    pub print: String,
    /// The result. `None` is "done, and it returned nothing", which is not "not done".
    pub value: Option<Value>,
    /// Of a stage: its session, what it took (model, attempts, tokens, time), and the run's models
    /// where it names none itself.
    pub detail: Option<Value>,
    /// When it was recorded.
    pub at: Millis,
}

impl Record {
    /// The models that the run had for a stage that names none; empty for one that does, and where
    /// it was not kept.
    pub fn models(&self) -> Vec<String> {
        let models = self.detail.as_ref().and_then(|detail| detail.get("models"));
        let models = models.and_then(Value::as_array).into_iter().flatten();
        models.filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// Under way, or its process died.
    Running,
    /// Somebody paused it, or it waits for an answer.
    Paused,
    /// Done.
    Completed,
    /// It failed.
    Failed,
    /// It was killed, or its provider refused for good.
    Cancelled,
    /// The provider cannot serve now.
    Blocked,
}

impl Status {
    const ALL: [Self; 6] = [
        Self::Running,
        Self::Paused,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Blocked,
    ];

    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Blocked => "blocked",
        }
    }

    /// The status of a word in the database.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// The head of a run: one for each root. Children have none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Root {
    /// Its id, also after a resume.
    pub id: String,
    /// The workflow's name, as written.
    pub name: String,
    /// The inputs, defaults applied.
    pub inputs: Map<String, Value>,
    /// Where it stands.
    pub status: Status,
    /// Whether a failed or blocked run can be resumed.
    pub resumable: bool,
    /// When it began. A resume does not change it.
    pub created: Millis,
    /// When something was last written.
    pub updated: Millis,
    /// What it was made from: the fingerprint of the definition, or the path of its file.
    pub code: String,
    /// What the run gave, once it is completed.
    pub result: Option<Value>,
    /// Why it did not go on.
    pub failure: Option<Failure>,
    /// When a blocked run can be tried again.
    pub retry_at: Option<Millis>,
    /// Number of results recorded.
    pub records: u64,
    /// Number of questions shown that nobody has answered.
    pub pending: u64,
    /// Who runs it, where somebody does.
    pub owner: Option<Owner>,
    /// Until when the owner's lease holds.
    pub lease_until: Millis,
}

impl Root {
    /// Whether it is over for good.
    pub fn is_terminal(&self) -> bool {
        match self.status {
            Status::Completed | Status::Cancelled => true,
            Status::Failed | Status::Blocked => !self.resumable,
            Status::Running | Status::Paused => false,
        }
    }

    /// Whether it belongs in a list of runs to go on with: one that has something to lose.
    pub fn is_resumable(&self) -> bool {
        match self.status {
            Status::Completed | Status::Cancelled => false,
            Status::Failed | Status::Blocked => self.resumable,
            Status::Running | Status::Paused => self.records > 0 || self.pending > 0,
        }
    }
}

/// A change of a run's head.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The new status.
    pub status: Status,
    /// Whether it can be resumed.
    pub resumable: bool,
    /// The result, for a completed run.
    pub result: Option<Value>,
    /// Why it did not go on.
    pub failure: Option<Failure>,
    /// When it can be tried again.
    pub retry_at: Option<Millis>,
}

impl Change {
    /// The run is under way.
    pub fn running() -> Self {
        Self::to(Status::Running, true)
    }

    /// The run gets this status.
    pub fn to(status: Status, resumable: bool) -> Self {
        Self { status, resumable, result: None, failure: None, retry_at: None }
    }
}

/// A process that runs a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The host, and on Linux the process namespace: a pid means nothing in another one.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// The start of the operating system: a process of an earlier one is dead.
    pub boot: String,
    /// Drawn for each lease, so that two runs of one process are two owners.
    pub nonce: String,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

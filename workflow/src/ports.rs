//! What the engine asks of its surroundings beside a store and a model.

use serde::Serialize;
use serde_json::Value;

use crate::clock::Boxed;

/// A question to a person.
#[derive(Clone, PartialEq, Serialize)]
pub struct Question {
    /// The run.
    pub run: String,
    /// The key to answer under, also from another process.
    pub key: String,
    /// What its author calls it: in a pipeline the stage that asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `input`, `confirm`, `select`, or a word of the author's.
    pub kind: String,
    /// What is asked.
    pub message: String,
    /// The options of a choice, or what the author adds.
    pub details: Value,
}

impl std::fmt::Debug for Question {
    /// Without what is asked.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { run, key, kind, .. } = self;
        f.debug_struct("Question")
            .field("run", run)
            .field("key", key)
            .field("kind", kind)
            .finish_non_exhaustive()
    }
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// It was answered.
    Answer(Value),
    /// Nobody is there. The run pauses; once the answer is recorded it can be resumed.
    Nobody,
}

/// Asks people. Dropping the future withdraws the question.
pub trait Ask: Send + Sync {
    /// Asks.
    ///
    /// An `Err` holds why it could not be asked; the step fails with it.
    fn ask(&self, question: Question) -> Boxed<'_, Result<Reply, String>>;
}

/// Nobody is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headless;

impl Ask for Headless {
    fn ask(&self, _question: Question) -> Boxed<'_, Result<Reply, String>> {
        Box::pin(std::future::ready(Ok(Reply::Nobody)))
    }
}

/// Which MCP tools a stage may use, for a host that has such servers. [`ToolScope`] is one for a
/// runner whose tools are known by their names.
///
/// [`ToolScope`]: crate::scope::ToolScope
///
/// The engine sets a scope before a stage that has lists asks its model, and clears it afterwards,
/// also when the stage fails or is called off. Stages run at the same time have ids of their own.
pub trait McpScope: Send + Sync {
    /// The stage may use these and not those; `None`: no such list.
    fn set(&self, stage: &str, allow: Option<&[String]>, deny: Option<&[String]>);

    /// The stage is over.
    fn clear(&self, stage: &str);

    /// The names of the tools that the stage is to have, of those that it asks for (`None`: all of
    /// the runner's). The runner is given these; asked once, between `set` and `clear`. A host that
    /// looks at each call instead leaves the list as it is.
    fn tools(&self, _stage: &str, asked: Option<Vec<String>>) -> Option<Vec<String>> {
        asked
    }
}

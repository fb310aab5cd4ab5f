//! Names under which results are recorded, byte for byte those of the reference.
//!
//! A key counts calls of one name in one run, in the order the calls are made. A child's keys carry
//! the key of its boundary in front, so only the root has an identity in a store.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::error::Error;
use crate::hash::durable_hash;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The effect of a tool call.
    Tool,
    /// A person's answer.
    Ask,
    /// A question was shown; its answer is not there yet.
    Asked,
    /// What a stage said.
    Stage,
    /// The result of a task.
    Task,
    /// The result of a child run.
    Child,
    /// The conversation of a stage that is under way.
    Session,
    /// When a durable sleep ends.
    Sleep,
}

impl Kind {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Ask => "ask",
            Self::Asked => "asked",
            Self::Stage => "stage",
            Self::Task => "task",
            Self::Child => "child",
            Self::Session => "session",
            Self::Sleep => "sleep",
        }
    }

    /// The kind of a word in the database.
    pub fn parse(word: &str) -> Option<Self> {
        [
            Self::Tool,
            Self::Ask,
            Self::Asked,
            Self::Stage,
            Self::Task,
            Self::Child,
            Self::Session,
            Self::Sleep,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == word)
    }

    /// Whether a record of this kind is a result. The others only say that one is under way.
    pub const fn is_result(self) -> bool {
        !matches!(self, Self::Asked | Self::Session)
    }
}

/// A key within one run, before the scope of a child is put in front.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// What is recorded.
    pub kind: Kind,
    /// The replay key, or the hash of a tool call or question.
    pub key: String,
}

impl Key {
    /// The key of the `n`-th stage of this name.
    pub fn stage(name: &str, n: u32) -> Self {
        Self { kind: Kind::Stage, key: format!("stage:{name}:{n}") }
    }

    /// The key of the `n`-th task of this name. A stage called `task:x` has the same text and
    /// another kind, so the two cannot meet.
    pub fn task(name: &str, n: u32) -> Self {
        Self { kind: Kind::Task, key: format!("stage:task:{name}:{n}") }
    }

    /// The key of the `n`-th child behind this boundary (`workflow:` and the workflow's name unless
    /// the caller named the boundary).
    pub fn child(boundary: &str, n: u32) -> Self {
        Self { kind: Kind::Child, key: format!("workflow:{boundary}:{n}") }
    }

    /// The key of the `n`-th call of a tool with these arguments.
    pub fn tool(name: &str, args: &Value, n: u32) -> Self {
        let identity = json!({"name": name, "args": args, "ordinal": n});
        Self { kind: Kind::Tool, key: durable_hash(&identity) }
    }

    /// The key of the `n`-th question of this kind, message and details.
    pub fn ask(kind: &str, message: &str, details: &Value, n: u32) -> Self {
        let identity = json!({"kind": kind, "message": message, "details": details, "ordinal": n});
        Self { kind: Kind::Ask, key: durable_hash(&identity) }
    }

    /// The key of the `n`-th durable sleep (the reference has none).
    pub fn sleep(n: u32) -> Self {
        Self { kind: Kind::Sleep, key: format!("sleep:{n}") }
    }

    /// The key inside a child: its boundary in front.
    #[must_use]
    pub fn scoped(mut self, scope: &str) -> Self {
        self.key = join(scope, &self.key);
        self
    }

    /// The id under which the reference files this record, within `scope` (empty for the root).
    pub fn checkpoint_id(&self, scope: &str) -> String {
        let prefix = match self.kind {
            Kind::Tool => "tool:",
            Kind::Ask | Kind::Asked => "ui:",
            Kind::Stage | Kind::Session => "stage:",
            Kind::Task => "task:",
            Kind::Child => "workflow:",
            Kind::Sleep => "sleep:",
        };
        join(scope, &format!("{prefix}{}", self.key))
    }
}

/// What the other side of a tool can know this call by: the same for every attempt and after every
/// restart, and another in every other run. `key` has its scope in front.
pub fn idempotency_key(root: &str, key: &str) -> String {
    durable_hash(&json!({"root": root, "key": key}))
}

/// `scope` and `key`, with a colon between them where there is a scope.
pub fn join(scope: &str, key: &str) -> String {
    if scope.is_empty() { key.to_owned() } else { format!("{scope}:{key}") }
}

/// The id of a stage's session record in the reference; what is not known is the empty text.
pub fn session_id(stage_key: &str, session: Option<&str>, file: Option<&str>) -> String {
    let identity =
        json!({"sessionId": session.unwrap_or_default(), "sessionFile": file.unwrap_or_default()});
    format!("stage-session:{stage_key}:{}", durable_hash(&identity))
}

/// The id of a replayed stage in the graph of a run.
pub fn graph_id(run: &str, replay_key: &str) -> String {
    format!("durable-{}", durable_hash(&json!({"runId": run, "replayKey": replay_key})))
}

/// Counts calls: one counter for each name or identity, in the order of the calls.
#[derive(Debug, Clone, Default)]
pub struct Ordinals(HashMap<String, u32>);

impl Ordinals {
    fn next(&mut self, class: &str, name: &str) -> u32 {
        let count = self.0.entry(format!("{class}\n{name}")).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// The key of the next stage of this name.
    pub fn stage(&mut self, name: &str) -> Key {
        Key::stage(name, self.next("stage", name))
    }

    /// The key of the next task of this name.
    pub fn task(&mut self, name: &str) -> Key {
        Key::task(name, self.next("task", name))
    }

    /// The key of the next child behind this boundary.
    pub fn child(&mut self, boundary: &str) -> Key {
        Key::child(boundary, self.next("child", boundary))
    }

    /// The key of the next call of this tool with these arguments.
    pub fn tool(&mut self, name: &str, args: &Value) -> Key {
        let base = durable_hash(&json!({"name": name, "args": args}));
        Key::tool(name, args, self.next("tool", &base))
    }

    /// The key of the next question that says this.
    pub fn ask(&mut self, kind: &str, message: &str, details: &Value) -> Key {
        let base = durable_hash(&json!({"kind": kind, "message": message, "details": details}));
        Key::ask(kind, message, details, self.next("ask", &base))
    }

    /// The key of the next durable sleep.
    pub fn sleep(&mut self) -> Key {
        Key::sleep(self.next("sleep", ""))
    }
}

/// The name under which a workflow is known: lower case, `a-z`, `0-9` and single dashes.
///
/// # Errors
/// When nothing of the name is left.
pub fn normalize(name: &str) -> Result<String, Error> {
    let mut out = String::new();
    for c in name.trim().to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' => out.push(c),
            c if (c == '-' || c == '_' || c.is_whitespace()) && !out.ends_with('-') => {
                out.push('-');
            }
            _ => {}
        }
    }
    let name = out.trim_matches('-');
    if name.is_empty() {
        return Err(Error::definition("a workflow's name needs a letter or a digit"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        for (name, expected) in [
            ("  My_Cool  Flow! ", "my-cool-flow"),
            ("Kid Flow", "kid-flow"),
            ("a -_- b", "a-b"),
            ("--x--", "x"),
        ] {
            assert_eq!(normalize(name).as_deref(), Ok(expected), "{name}");
        }
        for name in ["", "  ", "!?", "-_-"] {
            assert!(normalize(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn each_name_has_its_own_counter() {
        let mut ordinals = Ordinals::default();
        assert_eq!(ordinals.stage("plan").key, "stage:plan:1");
        assert_eq!(ordinals.stage("review").key, "stage:review:1");
        assert_eq!(ordinals.stage("plan").key, "stage:plan:2");
        assert_eq!(ordinals.task("review").key, "stage:task:review:1");
        assert_ne!(ordinals.stage("task:review"), ordinals.task("other"));
        assert_ne!(Key::stage("task:review", 1), Key::task("review", 1));
        assert_eq!(ordinals.child("workflow:kid-flow").key, "workflow:workflow:kid-flow:1");
        assert_eq!(ordinals.child("X").key, "workflow:X:1");
        assert_eq!(ordinals.child("X").key, "workflow:X:2");
    }
}

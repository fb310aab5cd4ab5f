//! The tools of an agent, and how one call is run: found, checked, approved, bounded.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use agentwire::context::{Part, Tool as Declared, ToolCall, ToolResult};
use jsonschema::Validator;
use serde_json::Value;

use super::{Effect, OutputLimits, Tool, ToolContext};
use crate::model::Boxed;

/// How long one call may take where its tool says nothing. 2 minutes: shorter than what the
/// service waits for a paused turn (5 minutes).
const TIMEOUT: Duration = Duration::from_secs(120);
/// Faults of arguments that are named; the rest is counted.
const FAULTS: usize = 5;

/// What the approval callback says to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approval {
    /// Run it.
    Allow,
    /// Do not, and tell the model why.
    Deny(String),
}

type Approver = dyn Fn(ToolCall, Effect) -> Boxed<'static, Approval> + Send + Sync;

/// Tools by name, with what holds for every call. Cheap to clone.
#[derive(Clone, Default)]
pub struct Toolbox {
    tools: Vec<Arc<Entry>>,
    by_name: HashMap<String, usize>,
    limits: OutputLimits,
    timeout: Option<Duration>,
    approver: Option<Arc<Approver>>,
}

struct Entry {
    tool: Arc<dyn Tool>,
    declared: Arc<Declared>,
    validator: Validator,
}

/// A tool that cannot be taken up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ToolboxError {
    /// The name is not 1 to 64 of `A-Z a-z 0-9 _ -`.
    #[error("`{0}` is not a name of a tool: 1 to 64 letters, digits, `_` and `-`")]
    Name(String),
    /// There is a tool of that name.
    #[error("there are two tools of the name `{0}`")]
    Twice(String),
    /// The schema is none, or not one of an object.
    #[error("the schema of the tool `{name}` cannot be used: {message}")]
    Schema {
        /// The tool.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// No tool has that name.
    #[error("there is no tool of the name `{0}`")]
    Unknown(String),
}

impl Toolbox {
    /// Without tools.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool.
    ///
    /// # Errors
    /// See [`ToolboxError`]; the toolbox is as before.
    pub fn add(&mut self, tool: Arc<dyn Tool>) -> Result<(), ToolboxError> {
        let name = tool.name().to_owned();
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(good) {
            return Err(ToolboxError::Name(name.chars().take(64).collect()));
        }
        if self.by_name.contains_key(&name) {
            return Err(ToolboxError::Twice(name));
        }
        let schema = tool.schema();
        let refused = |message: String| ToolboxError::Schema { name: name.clone(), message };
        if schema.get("type").and_then(Value::as_str).is_some_and(|kind| kind != "object") {
            return Err(refused("it is not of an object".into()));
        }
        let validator =
            jsonschema::validator_for(&schema).map_err(|error| refused(error.to_string()))?;
        let declared = Arc::new(Declared {
            name: name.clone(),
            description: tool.description().to_owned(),
            parameters: schema,
        });
        self.by_name.insert(name, self.tools.len());
        self.tools.push(Arc::new(Entry { tool, declared, validator }));
        Ok(())
    }

    /// The tools of these names, with the same limits and approval.
    ///
    /// # Errors
    /// [`ToolboxError::Unknown`].
    pub fn only(&self, names: &[String]) -> Result<Self, ToolboxError> {
        let mut few = Self { tools: Vec::new(), by_name: HashMap::new(), ..self.clone() };
        for name in names {
            let entry = self.entry(name).ok_or_else(|| ToolboxError::Unknown(name.clone()))?;
            if !few.by_name.contains_key(name) {
                few.by_name.insert(name.clone(), few.tools.len());
                few.tools.push(Arc::clone(entry));
            }
        }
        Ok(few)
    }

    /// Bounds what the model sees of an output.
    pub fn output_limits(&mut self, limits: OutputLimits) {
        self.limits = limits;
    }

    /// How long a call may take where its tool says nothing. Default 2 minutes.
    pub fn timeout(&mut self, timeout: Duration) {
        self.timeout = Some(timeout);
    }

    /// Asks before each call; without it every call is run.
    pub fn approve<F, A>(&mut self, ask: F)
    where
        F: Fn(ToolCall, Effect) -> A + Send + Sync + 'static,
        A: Future<Output = Approval> + Send + 'static,
    {
        self.approver = Some(Arc::new(move |call, effect| Box::pin(ask(call, effect))));
    }

    /// The tools as a request declares them. The pointers stay the same from turn to turn.
    pub fn declared(&self) -> Vec<Arc<Declared>> {
        self.tools.iter().map(|entry| Arc::clone(&entry.declared)).collect()
    }

    /// What running this tool twice would do; `None` when there is no such tool.
    pub fn effect(&self, name: &str) -> Option<Effect> {
        self.entry(name).map(|entry| entry.tool.effect())
    }

    fn entry(&self, name: &str) -> Option<&Arc<Entry>> {
        self.by_name.get(name).and_then(|index| self.tools.get(*index))
    }

    /// Runs one call: every way it can go wrong is a result that the model can correct itself by.
    pub async fn run(&self, context: &ToolContext) -> ToolResult {
        let call = &context.call;
        let failed = |text: String| ToolResult::error(&call.id, &call.name, text);
        let Some(entry) = self.entry(&call.name) else {
            return failed(self.unknown(&call.name));
        };
        if let Some(faults) = faults(&entry.validator, &call.arguments) {
            return failed(faults);
        }
        if let Some(ask) = &self.approver
            && let Approval::Deny(why) = ask(call.clone(), entry.tool.effect()).await
        {
            return failed(format!("The call was not approved: {why}"));
        }
        let timeout = entry.tool.timeout().or(self.timeout).unwrap_or(TIMEOUT);
        let run = entry.tool.call(context, call.arguments.clone());
        match tokio::time::timeout(timeout, run).await {
            Ok(Ok(output)) => ToolResult {
                content: self.limits.clip(output.parts),
                ..ToolResult::text(&call.id, &call.name, "")
            },
            Ok(Err(error)) => {
                let clipped = self.limits.clip(vec![Part::Text { text: error.to_string() }]);
                ToolResult { content: clipped, ..failed(String::new()) }
            }
            Err(_) => failed(format!(
                "The tool was stopped after {} s without a result. It may have had its effect.",
                timeout.as_secs_f32()
            )),
        }
    }

    fn unknown(&self, name: &str) -> String {
        let mut names: Vec<_> = self.tools.iter().map(|entry| entry.tool.name()).collect();
        names.sort_unstable();
        let name: String = name.chars().take(64).collect();
        format!("There is no tool `{name}`. There are: {}.", names.join(", "))
    }
}

/// What is wrong with arguments, in words a model can correct itself by; `None`: nothing.
pub(crate) fn faults(validator: &Validator, value: &Value) -> Option<String> {
    let mut faults = validator.iter_errors(value);
    let mut text = String::new();
    for fault in faults.by_ref().take(FAULTS) {
        let path = fault.instance_path().to_string();
        let place = if path.is_empty() { "/" } else { &path };
        text.push_str(&format!("\n- at {place}: {}", brief(&fault.to_string())));
    }
    if text.is_empty() {
        return None;
    }
    let more = faults.count();
    if more > 0 {
        text.push_str(&format!("\n- and {more} more"));
    }
    Some(format!("The arguments do not fit the schema; correct them and call again.{text}"))
}

/// A message repeats the value it is about, which may be a file.
fn brief(text: &str) -> String {
    const LONGEST: usize = 300;
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let (head, tail) = (text.floor_char_boundary(100), text.ceil_char_boundary(text.len() - 190));
    format!("{} ... {}", &text[..head], &text[tail..])
}

impl fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.tools.iter().map(|entry| entry.tool.name());
        f.debug_struct("Toolbox").field("tools", &names.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

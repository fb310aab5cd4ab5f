//! What a workflow is: a name, declared inputs and outputs, and an async function.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::clock::Boxed;
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::hash::durable_hash;
use crate::key::normalize;

/// What an input may be. Nothing is converted: a number written as text is refused.
#[derive(Debug, Clone, PartialEq)]
pub enum InputKind {
    /// A string.
    Text,
    /// A finite number.
    Number,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// One of these strings.
    Select(Vec<String>),
    /// Any JSON.
    Json,
}

/// A declared input.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    kind: InputKind,
    required: bool,
    default: Option<Value>,
}

impl Input {
    /// A required input of this kind.
    pub fn new(kind: InputKind) -> Self {
        Self { kind, required: true, default: None }
    }

    /// A required string.
    pub fn text() -> Self {
        Self::new(InputKind::Text)
    }

    /// A required choice among these.
    pub fn select<T: Into<String>>(choices: impl IntoIterator<Item = T>) -> Self {
        Self::new(InputKind::Select(choices.into_iter().map(Into::into).collect()))
    }

    /// It may be left out, and is absent then.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    /// It may be left out, and has this value then.
    #[must_use]
    pub fn default_value(mut self, value: impl Into<Value>) -> Self {
        self.default = Some(value.into());
        self.required = false;
        self
    }

    /// The kind.
    pub fn kind(&self) -> &InputKind {
        &self.kind
    }

    fn fault(&self, value: &Value) -> Option<String> {
        let wanted = match &self.kind {
            InputKind::Text if !value.is_string() => "a string",
            InputKind::Number if !value.is_number() => "a number",
            InputKind::Integer if !is_integer(value) => "a whole number",
            InputKind::Boolean if !value.is_boolean() => "true or false",
            InputKind::Select(choices) => {
                let known = value.as_str().is_some_and(|one| choices.iter().any(|c| c == one));
                return (!known).then(|| format!("must be one of {}", choices.join(", ")));
            }
            _ => return None,
        };
        Some(format!("must be {wanted}"))
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
}

type Body =
    dyn Fn(Ctx, Map<String, Value>) -> Boxed<'static, Result<Map<String, Value>>> + Send + Sync;

/// A workflow. Cheap to clone, and never changed once it is built.
#[derive(Clone)]
pub struct Workflow(Arc<Definition>);

struct Definition {
    name: String,
    normalized: String,
    description: String,
    inputs: BTreeMap<String, Input>,
    outputs: BTreeMap<String, bool>,
    code: Option<String>,
    body: Box<Body>,
}

impl fmt::Debug for Workflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workflow").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// Builds a [`Workflow`].
#[derive(Debug, Clone, Default)]
pub struct Builder {
    name: String,
    description: String,
    inputs: BTreeMap<String, Input>,
    outputs: BTreeMap<String, bool>,
    code: Option<String>,
}

impl Builder {
    /// What it is for.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// Declares an input.
    #[must_use]
    pub fn input(mut self, name: impl Into<String>, input: Input) -> Self {
        self.inputs.insert(name.into(), input);
        self
    }

    /// Declares an output that must be there.
    #[must_use]
    pub fn output(mut self, name: impl Into<String>) -> Self {
        self.outputs.insert(name.into(), true);
        self
    }

    /// Declares an output that may be left out.
    #[must_use]
    pub fn optional_output(mut self, name: impl Into<String>) -> Self {
        self.outputs.insert(name.into(), false);
        self
    }

    /// Says where the code is, for lists and for resuming: the path of a file, or a version.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The function. It is run again from its first line when a run is resumed, so between calls
    /// of its context it must do the same every time: no clock, no chance, no outside world.
    ///
    /// # Errors
    /// [`Error::Definition`] when the name is empty or a default does not fit its input.
    pub fn body<I, O, F>(
        self,
        body: impl Fn(Ctx, I) -> F + Send + Sync + 'static,
    ) -> Result<Workflow>
    where
        I: DeserializeOwned,
        O: Serialize,
        F: Future<Output = Result<O>> + Send + 'static,
    {
        let normalized = normalize(&self.name)?;
        for (name, input) in &self.inputs {
            if let Some(fault) = input.default.as_ref().and_then(|value| input.fault(value)) {
                return Err(Error::definition(format!("the default of input {name} {fault}")));
            }
        }
        let body = move |ctx: Ctx, inputs: Map<String, Value>| {
            let started = serde_json::from_value::<I>(Value::Object(inputs))
                .map_err(|error| Error::Inputs(vec![format!("  {error}")]))
                .map(|inputs| body(ctx, inputs));
            let finished: Boxed<'static, Result<Map<String, Value>>> = match started {
                Ok(future) => Box::pin(async move { to_outputs(&future.await?) }),
                Err(error) => Box::pin(std::future::ready(Err(error))),
            };
            finished
        };
        Ok(Workflow(Arc::new(Definition {
            name: self.name,
            normalized,
            description: self.description,
            inputs: self.inputs,
            outputs: self.outputs,
            code: self.code,
            body: Box::new(body),
        })))
    }
}

fn to_outputs<O: Serialize>(outputs: &O) -> Result<Map<String, Value>> {
    match serde_json::to_value(outputs) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(Error::Outputs("the function must return a struct or a map".into())),
        Err(error) => Err(Error::Outputs(error.to_string())),
    }
}

impl Workflow {
    /// Begins a definition.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder { name: name.into(), ..Builder::default() }
    }

    /// The name, as written.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The name under which it is found.
    pub fn normalized(&self) -> &str {
        &self.0.normalized
    }

    /// What it is for.
    pub fn description(&self) -> &str {
        &self.0.description
    }

    /// The declared inputs.
    pub fn inputs(&self) -> &BTreeMap<String, Input> {
        &self.0.inputs
    }

    /// Where the code is; without a word of the author, a fingerprint of what is declared.
    pub fn code(&self) -> String {
        self.0.code.clone().unwrap_or_else(|| {
            let inputs: Vec<&String> = self.0.inputs.keys().collect();
            durable_hash(&json!({"name": self.0.name, "inputs": inputs, "outputs": self.0.outputs}))
        })
    }

    /// The inputs with their defaults.
    ///
    /// # Errors
    /// [`Error::Inputs`] with every fault, one line each.
    pub fn check_inputs(&self, given: &Map<String, Value>) -> Result<Map<String, Value>> {
        let (mut checked, mut faults) = (Map::new(), Vec::new());
        for name in given.keys().filter(|name| !self.0.inputs.contains_key(*name)) {
            faults.push(format!("  {name}: there is no such input"));
        }
        for (name, input) in &self.0.inputs {
            match given.get(name).or(input.default.as_ref()) {
                None if input.required => faults.push(format!("  {name}: is required")),
                None => {}
                Some(value) => match input.fault(value) {
                    Some(fault) => faults.push(format!("  {name}: {fault}")),
                    None => {
                        checked.insert(name.clone(), value.clone());
                    }
                },
            }
        }
        if faults.is_empty() { Ok(checked) } else { Err(Error::Inputs(faults)) }
    }

    /// Exactly the declared outputs; `partial` when the run exits and may have only some of them.
    /// `null` for an output that may be left out counts as left out.
    pub(crate) fn check_outputs(
        &self,
        mut outputs: Map<String, Value>,
        partial: bool,
    ) -> Result<Map<String, Value>> {
        outputs.retain(|name, value| {
            !(value.is_null() && self.0.outputs.get(name).is_some_and(|required| !required))
        });
        if let Some(name) = outputs.keys().find(|name| !self.0.outputs.contains_key(*name)) {
            return Err(Error::Outputs(format!("{name} is not a declared output")));
        }
        let missing = |(name, required): (&String, &bool)| {
            (*required && !partial && !outputs.contains_key(name)).then(|| name.clone())
        };
        match self.0.outputs.iter().find_map(missing) {
            Some(name) => Err(Error::Outputs(format!("{name} is missing"))),
            None => Ok(outputs),
        }
    }

    pub(crate) fn start(
        &self,
        ctx: Ctx,
        inputs: Map<String, Value>,
    ) -> Boxed<'static, Result<Map<String, Value>>> {
        (self.0.body)(ctx, inputs)
    }
}

/// Workflows by name. Adding gives a new registry; a name that is there keeps its place.
#[derive(Debug, Clone, Default)]
pub struct Registry(Vec<Workflow>);

impl Registry {
    /// A registry that also has this workflow; of two with one name the later stays.
    #[must_use]
    pub fn with(&self, workflow: Workflow) -> Self {
        let mut all = self.0.clone();
        match all.iter_mut().find(|one| one.normalized() == workflow.normalized()) {
            Some(place) => *place = workflow,
            None => all.push(workflow),
        }
        Self(all)
    }

    /// The workflow of this name, however it is written.
    pub fn get(&self, name: &str) -> Option<&Workflow> {
        let name = normalize(name).ok()?;
        self.0.iter().find(|one| one.normalized() == name)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Workflow> {
        self.0.iter()
    }
}

//! Functions with typed arguments as tools.

use std::borrow::Cow;
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Effect, Tool, ToolContext, ToolError, ToolOutput};
use crate::model::Boxed;

/// A tool made of an async function: the schema comes from the type of its arguments, doc comments
/// included, and the arguments are read into that type.
///
/// ```
/// use agentwire_agent::tool::{Effect, tool};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Add {
///     /// The first number.
///     a: i64,
///     /// The second number.
///     b: i64,
/// }
///
/// let add = tool("add", "Adds two numbers", |_, Add { a, b }: Add| async move {
///     Ok((a + b).to_string())
/// })
/// .effect(Effect::ReadOnly);
/// ```
pub fn tool<A, F, R, O>(
    name: impl Into<Cow<'static, str>>,
    description: impl Into<Cow<'static, str>>,
    run: F,
) -> Typed<A, F>
where
    A: DeserializeOwned + JsonSchema + Send + 'static,
    F: Fn(ToolContext, A) -> R + Send + Sync + 'static,
    R: Future<Output = Result<O, ToolError>> + Send + 'static,
    O: Into<ToolOutput>,
{
    Typed {
        name: name.into(),
        description: description.into(),
        schema: schema_of::<A>(),
        effect: Effect::SideEffect,
        timeout: None,
        run,
        arguments: PhantomData,
    }
}

/// The schema of a type as a model should see it: no title, no dialect.
pub(crate) fn schema_of<A: JsonSchema>() -> Value {
    // Inlined, because not every provider follows references.
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<A>().to_value();
    if let Some(schema) = schema.as_object_mut() {
        schema.shift_remove("title");
    }
    schema
}

/// See [`tool`].
pub struct Typed<A, F> {
    name: Cow<'static, str>,
    description: Cow<'static, str>,
    schema: Value,
    effect: Effect,
    timeout: Option<Duration>,
    run: F,
    arguments: PhantomData<fn(A)>,
}

impl<A, F> Typed<A, F> {
    /// What running it twice would do.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// How long one call may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl<A, F, R, O> Tool for Typed<A, F>
where
    A: DeserializeOwned + Send + 'static,
    F: Fn(ToolContext, A) -> R + Send + Sync + 'static,
    R: Future<Output = Result<O, ToolError>> + Send + 'static,
    O: Into<ToolOutput>,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn schema(&self) -> Value {
        self.schema.clone()
    }

    fn effect(&self) -> Effect {
        self.effect
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn call<'a>(
        &'a self,
        context: &'a ToolContext,
        arguments: Value,
    ) -> Boxed<'a, Result<ToolOutput, ToolError>> {
        let arguments = match serde_json::from_value(arguments) {
            Ok(arguments) => arguments,
            // The schema let it pass, the type does not: serde says where.
            Err(error) => {
                let error = ToolError::new(format!("the arguments cannot be read: {error}"));
                return Box::pin(std::future::ready(Err(error)));
            }
        };
        let run = (self.run)(context.clone(), arguments);
        Box::pin(async move { run.await.map(Into::into) })
    }
}

impl<A, F> std::fmt::Debug for Typed<A, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Typed").field("name", &self.name).finish_non_exhaustive()
    }
}

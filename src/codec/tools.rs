//! Tool definitions and the request context, encoded once and shared by everything that sends them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::back::Back;
use super::json::Keys;
use super::request::Naming;
use super::value;
use crate::context::Tool;
use crate::error::{Error, Result};

/// Tools that a refusal names before it says how many more there are.
const NAMED: usize = 12;
/// `CursorRuleSource`: a rule of the person who runs the client.
const SOURCE_USER: u64 = 2;

/// The tools and rules of a run, encoded: clones share the bytes.
#[derive(Clone)]
pub struct ToolContext {
    /// The fields of `McpTools`: the definitions as field 1.
    definitions: Bytes,
    /// The fields of `RequestContext`: rules, then the definitions as field 7.
    context: Bytes,
    /// What to use instead of a tool that is refused.
    instead: Arc<str>,
    count: usize,
}

impl ToolContext {
    /// Encodes tools, and a global rule of source USER where there is one.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` that names the tool whose schema nests deeper than [`value::MAX_DEPTH`].
    pub fn new(tools: &[Arc<Tool>], rule: Option<&str>, naming: &Naming) -> Result<Self> {
        Self::encode(tools, rule, naming, Keys::Source)
    }

    pub(crate) fn encode(
        tools: &[Arc<Tool>],
        rule: Option<&str>,
        naming: &Naming,
        keys: Keys,
    ) -> Result<Self> {
        let mut definitions = Back::new(0);
        let mut context = Back::new(0);
        for tool in tools.iter().rev() {
            let mark = definitions.len();
            definition(&mut definitions, tool, naming, keys)?;
            context.bytes(7, definitions.since(mark));
            definitions.wrap(1, mark);
        }
        if let Some(rule) = rule.filter(|rule| !rule.is_empty()) {
            context.message(2, |out| global_rule(out, rule));
        }
        Ok(Self {
            definitions: definitions.finish(),
            context: context.finish(),
            instead: instead(tools, naming).into(),
            count: tools.len(),
        })
    }

    /// The fields of `McpTools`.
    pub(crate) fn definitions(&self) -> &Bytes {
        &self.definitions
    }

    /// The fields of `RequestContext`.
    pub(crate) fn context(&self) -> &Bytes {
        &self.context
    }

    /// A sentence that says what to use instead of a tool that is refused.
    pub(crate) fn instead(&self) -> &str {
        &self.instead
    }

    /// Number of tools.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no tools.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Default for ToolContext {
    /// No tools and no rules.
    fn default() -> Self {
        Self {
            definitions: Bytes::new(),
            context: Bytes::new(),
            instead: instead(&[], &Naming::default()).into(),
            count: 0,
        }
    }
}

impl fmt::Debug for ToolContext {
    /// Sizes only: rules and schemas are the host's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolContext")
            .field("tools", &self.count)
            .field("context_len", &self.context.len())
            .finish_non_exhaustive()
    }
}

/// Writes the fields of a `McpToolDefinition` (BEHAVIOUR 3.7).
fn definition(out: &mut Back, tool: &Tool, naming: &Naming, keys: Keys) -> Result<()> {
    out.text_unless_empty(5, &tool.name);
    out.text_unless_empty(4, &naming.provider_identifier);
    out.message(3, |out| value::write(out, &tool.parameters, keys)).map_err(|error| {
        let name: String = tool.name.chars().take(64).flat_map(char::escape_debug).collect();
        Error::from(error).with_hint(format!("simplify the schema of the tool {name}"))
    })?;
    out.text_unless_empty(2, &tool.description);
    out.text_unless_empty(1, &tool.name);
    Ok(())
}

/// Writes the fields of a `CursorRule` that always holds.
fn global_rule(out: &mut Back, content: &str) {
    out.uint(4, SOURCE_USER);
    out.message(3, |out| out.bytes(1, &[]));
    out.text(2, content);
}

fn instead(tools: &[Arc<Tool>], naming: &Naming) -> String {
    if tools.is_empty() {
        return "There are no tools in this run: answer with text.".into();
    }
    let provider = &naming.provider_identifier;
    let mut text = String::from("Call one of the host's tools: ");
    for (i, tool) in tools.iter().take(NAMED).enumerate() {
        text.push_str(if i == 0 { "" } else { ", " });
        text.push_str(&format!("mcp_{provider}_{}", tool.name));
    }
    if tools.len() > NAMED {
        text.push_str(&format!(" and {} more", tools.len() - NAMED));
    }
    text.push('.');
    text
}

//! Tool definitions and the request context, encoded once and shared by everything that sends them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::back::Back;
use super::json::{self, Keys};
use super::request::Naming;
use super::{about, schema, value};
use crate::context::{RequestContext, Tool};
use crate::error::{Blame, Error, Result};

/// Tools that a refusal names before it says how many more there are.
const NAMED: usize = 12;
/// Tools that the error of a crossed limit names.
const LARGEST: usize = 5;
/// Room for the tags and lengths of one definition.
const FRAMING: usize = 32;
/// `CursorRuleSource`: a rule of the person who runs the client.
const SOURCE_USER: u64 = 2;

/// What a service takes of tools, and what is done about the rest before anything is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ToolRules {
    /// The most tools; `None` is no limit. 330: more make the whole turn fail as
    /// `resource_exhausted` (PROTOCOL 4).
    pub tools: Option<usize>,
    /// The most bytes of all schemas together, as compact JSON; `None` is no limit. 120 000, for
    /// the same reason.
    pub schema_bytes: Option<usize>,
    /// What becomes of schemas with keywords that the service does not take.
    pub schemas: Schemas,
}

impl Default for ToolRules {
    fn default() -> Self {
        Self { tools: Some(330), schema_bytes: Some(120_000), schemas: Schemas::Rewrite }
    }
}

/// What becomes of `oneOf`, `anyOf`, `allOf` and `$ref` in schemas of tools (PROTOCOL 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Schemas {
    /// A schema without them that accepts the same values is sent; where there is none the request
    /// is refused, and the error names tool and place. [`History::Legacy`](super::History::Legacy)
    /// sends schemas as they are.
    #[default]
    Rewrite,
    /// Schemas are sent as they are.
    AsTheyAre,
}

/// What a tool context is made of.
#[derive(Clone, Copy)]
pub(crate) struct Offer<'a> {
    pub(crate) tools: &'a [Arc<Tool>],
    /// The system prompt, where it is sent as a rule.
    pub(crate) rule: Option<&'a str>,
    pub(crate) about: &'a RequestContext,
    pub(crate) naming: &'a Naming,
    pub(crate) rules: ToolRules,
    pub(crate) keys: Keys,
}

/// The tools of a run and everything else of its request context, encoded: clones share the bytes.
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
    /// `LimitExceeded` for more than the default [`ToolRules`] allow and for a schema that nests
    /// deeper than [`value::MAX_DEPTH`], `InvalidRequest` for a schema that cannot be rewritten and
    /// for two tools of one name. Each names the tool.
    pub fn new(tools: &[Arc<Tool>], rule: Option<&str>, naming: &Naming) -> Result<Self> {
        let about = &RequestContext::default();
        let rules = ToolRules::default();
        Self::encode(&Offer { tools, rule, about, naming, rules, keys: Keys::Source })
    }

    pub(crate) fn encode(offer: &Offer<'_>) -> Result<Self> {
        let Offer { tools, rule, about, naming, keys, .. } = *offer;
        let schemas = schemas(offer)?;
        let (below, above) = about::fields(about);
        let rule = rule.filter(|rule| !rule.is_empty());
        let sizes = tools.iter().zip(&schemas).map(|(tool, schema)| {
            let names = 2 * tool.name.len() + naming.provider_identifier.len();
            value::size(schema) + names + tool.description.len() + FRAMING
        });
        let room = 2 * sizes.sum::<usize>() + below.len() + above.len();
        // One buffer for all, written once: a second large one is memory that the system has to
        // give anew each time.
        let mut bytes = Vec::with_capacity(room + rule.map_or(0, str::len) + FRAMING);
        let mut heads = Vec::with_capacity(tools.len());
        // Room that is not used would be cleared all the same, for each conversation without tools.
        let mut scratch = Back::new(if tools.is_empty() { 0 } else { 4096 });
        for (tool, schema) in tools.iter().zip(&schemas) {
            scratch.rewind(0);
            definition(&mut scratch, tool, schema, naming, keys)?;
            scratch.wrap(1, 0);
            heads.push(bytes.len());
            bytes.extend_from_slice(scratch.since(0));
        }
        let definitions = bytes.len();
        scratch.rewind(0);
        scratch.raw(&below);
        if let Some(rule) = rule {
            scratch.message(2, |out| global_rule(out, rule));
        }
        bytes.extend_from_slice(scratch.since(0));
        let start = bytes.len();
        // Both places want the same definitions, each under its own number, whose tags are a byte.
        bytes.extend_from_within(..definitions);
        bytes.extend_from_slice(&above);
        for head in heads {
            if let Some(tag) = bytes.get_mut(start + head) {
                *tag = 7 << 3 | 2;
            }
        }
        let bytes = Bytes::from(bytes);
        Ok(Self {
            definitions: bytes.slice(..definitions),
            context: bytes.slice(definitions..),
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

/// The schemas as they are sent, checked against the rules.
fn schemas<'a>(offer: &Offer<'a>) -> Result<Vec<Cow<'a, Value>>> {
    let Offer { tools, rules, keys, .. } = *offer;
    let ours = keys == Keys::Source;
    if ours {
        refuse_names(tools)?;
    }
    let mut sent = Vec::with_capacity(tools.len());
    for tool in tools {
        sent.push(match rules.schemas {
            Schemas::Rewrite if ours => schema::rewrite(&tool.parameters).map_err(|refused| {
                Error::invalid(format!("the schema of the tool {} {refused}", shown(tool)))
                    .with_hint(
                        "the service takes no oneOf, anyOf, allOf and $ref in schemas of tools; \
                         simplify it there, or leave the tool out",
                    )
            })?,
            _ => Cow::Borrowed(&tool.parameters),
        });
    }
    if rules.schema_bytes.is_none() && rules.tools.is_none_or(|most| tools.len() <= most) {
        return Ok(sent);
    }
    let mut sizes: Vec<_> = sent.iter().map(|schema| json::size(schema)).zip(tools).collect();
    let total: usize = sizes.iter().map(|(size, _)| size).sum();
    let crossed = match (rules.tools, rules.schema_bytes) {
        (Some(most), _) if tools.len() > most => {
            format!("{} tools are more than the {most} that the service takes", tools.len())
        }
        (_, Some(most)) if total > most => {
            format!("the schemas of the tools have {total} bytes, the service takes {most}")
        }
        _ => return Ok(sent),
    };
    sizes.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let largest =
        sizes.iter().take(LARGEST).map(|(size, tool)| format!("{} ({size})", shown(tool)));
    let largest = largest.collect::<Vec<_>>().join(", ");
    Err(Error::limit(format!("{crossed}; the largest in bytes: {largest}"))
        .with_blame(Blame::Caller)
        .with_hint("offer fewer tools, or raise `ToolRules` if your service takes more"))
}

/// Calls go by the name of the tool, so each needs one of its own.
fn refuse_names(tools: &[Arc<Tool>]) -> Result<()> {
    let mut known = HashSet::with_capacity(tools.len());
    for tool in tools {
        if tool.name.is_empty() {
            return Err(Error::invalid("a tool has no name"));
        }
        if !known.insert(&tool.name) {
            return Err(Error::invalid(format!("two tools have the name {}", shown(tool))));
        }
    }
    Ok(())
}

/// The name of a tool in an error.
fn shown(tool: &Tool) -> String {
    let name: String = tool.name.chars().take(64).flat_map(char::escape_debug).collect();
    format!("\"{name}\"")
}

/// Writes the fields of a `McpToolDefinition` (BEHAVIOUR 3.7).
fn definition(
    out: &mut Back<'_>,
    tool: &Tool,
    schema: &Value,
    naming: &Naming,
    keys: Keys,
) -> Result<()> {
    out.text_unless_empty(5, &tool.name);
    out.text_unless_empty(4, &naming.provider_identifier);
    out.message(3, |out| value::write(out, schema, keys)).map_err(|error| {
        Error::from(error).with_hint(format!("simplify the schema of the tool {}", shown(tool)))
    })?;
    out.text_unless_empty(2, &tool.description);
    out.text_unless_empty(1, &tool.name);
    Ok(())
}

/// Writes the fields of a `CursorRule` that always holds.
fn global_rule(out: &mut Back<'_>, content: &str) {
    out.uint(4, SOURCE_USER);
    out.message(3, |out| out.bytes(1, &[]));
    out.text(2, content);
}

fn instead(tools: &[Arc<Tool>], naming: &Naming) -> String {
    if tools.is_empty() {
        return "The host has no tools of its own: use what it serves, or answer with text.".into();
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

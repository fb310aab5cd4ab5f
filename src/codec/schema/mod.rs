//! JSON schemas of tools without `$ref`, `allOf`, `anyOf` and `oneOf`, which make the service fail
//! the whole turn (PROTOCOL 4).
//!
//! What is sent accepts the same values as what was given, or nothing is sent: a schema is never
//! loosened behind the host's back. References are replaced by what they point to, `allOf` is
//! merged into one schema ([`merge`]), `anyOf` and `oneOf` become one schema where the branches
//! differ by type or list values ([`union`]). `if` and `not` could say the rest, but models do not
//! read them; so the rest is refused, with place and reason.
//!
//! Keywords beside `$ref` count, as they do since draft 2019-09. A schema that uses none of the four
//! is left as it is, byte for byte.

mod merge;
#[cfg(test)]
mod tests;
mod union;

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

use super::value::MAX_DEPTH;

/// What the service does not take.
const REFUSED: [&str; 4] = ["$ref", "allOf", "anyOf", "oneOf"];

/// How deep schemas may nest, through references too. 64: the deepest that the library's own JSON
/// reader gives, at two levels of JSON each.
const MAX_NESTING: usize = 64;

/// Schemas and keywords that one rewriting may visit. References to references can stand for
/// exponentially many; 100 000 is some megabytes, far beyond what the service takes. No option, as
/// the depth: schemas are the caller's own, and one beyond it is refused with its place.
const BUDGET: usize = 100_000;

/// Why a schema cannot be sent, as the end of a sentence that begins with its tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// JSON pointer into the schema, as a fragment.
    place: String,
    why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &str, most: usize| {
            let escape = |c: char| match c {
                '"' | '\'' => c.to_string(),
                c => c.escape_debug().to_string(),
            };
            text.chars().take(most).map(escape).collect::<String>()
        };
        write!(f, "cannot be rewritten at {}: {}", shown(&self.place, 200), shown(&self.why, 400))
    }
}

/// The same schema without the keywords that the service does not take.
pub(super) fn rewrite(schema: &Value) -> Result<Cow<'_, Value>, Refused> {
    if !uses(schema, MAX_DEPTH) {
        return Ok(Cow::Borrowed(schema));
    }
    let mut rewriter = Rewriter {
        root: schema,
        path: Vec::new(),
        open: vec!["#".into()],
        embedded: 0,
        left: BUDGET,
    };
    match rewriter.schema(schema, 0)? {
        Value::Bool(false) => rewriter.refuse("no value fits all of it"),
        Value::Bool(true) => Ok(Cow::Owned(Value::Object(Map::new()))),
        rewritten => Ok(Cow::Owned(rewritten)),
    }
}

/// What the value of a keyword is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Schema,
    /// A list of schemas; `items` may be one schema instead.
    List,
    /// Schemas by name.
    Map,
    Other,
}

fn position(keyword: &str) -> Position {
    match keyword {
        "additionalItems"
        | "additionalProperties"
        | "contains"
        | "contentSchema"
        | "else"
        | "if"
        | "not"
        | "propertyNames"
        | "then"
        | "unevaluatedItems"
        | "unevaluatedProperties" => Position::Schema,
        "allOf" | "anyOf" | "items" | "oneOf" | "prefixItems" => Position::List,
        "$defs" | "definitions" | "dependencies" | "dependentSchemas" | "patternProperties"
        | "properties" => Position::Map,
        _ => Position::Other,
    }
}

/// Whether one of the refused keywords stands where a keyword can stand: a property may well have
/// such a name, and a default or an enum may hold anything.
fn uses(schema: &Value, depth: usize) -> bool {
    let Some(map) = schema.as_object() else { return false };
    let within = |inner: &Value| depth == 0 || uses(inner, depth - 1);
    map.iter().any(|(key, value)| {
        REFUSED.contains(&key.as_str())
            // Most values are neither: their keywords need no name.
            || match value {
                Value::Object(inner) => match position(key) {
                    Position::Schema | Position::List => within(value),
                    Position::Map => inner.values().any(within),
                    Position::Other => false,
                },
                Value::Array(list) => position(key) == Position::List && list.iter().any(within),
                _ => false,
            }
    })
}

struct Rewriter<'a> {
    root: &'a Value,
    /// Where we are in `root`.
    path: Vec<String>,
    /// References that are being replaced.
    open: Vec<String>,
    /// How many schemas around us have an `$id` of their own: references in them mean another root.
    embedded: usize,
    left: usize,
}

impl<'a> Rewriter<'a> {
    fn refuse<T>(&self, why: impl Into<String>) -> Result<T, Refused> {
        let mut place = String::from("#");
        for step in &self.path {
            place.push('/');
            place.push_str(&step.replace('~', "~0").replace('/', "~1"));
        }
        Err(Refused { place, why: why.into() })
    }

    fn spend(&mut self, visits: usize) -> Result<(), Refused> {
        match self.left.checked_sub(visits) {
            Some(left) => self.left = left,
            None => return self.refuse("written out, its references are too large"),
        }
        Ok(())
    }

    /// Goes one step into the schema.
    fn at<T>(
        &mut self,
        step: impl Into<String>,
        visit: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.path.push(step.into());
        let result = visit(self);
        self.path.pop();
        result
    }

    fn schema(&mut self, schema: &'a Value, depth: usize) -> Result<Value, Refused> {
        let Some(map) = schema.as_object() else { return Ok(schema.clone()) };
        if depth == MAX_NESTING {
            return self.refuse(format!("it nests deeper than {MAX_NESTING} levels"));
        }
        self.spend(1 + map.len())?;
        let embedded = usize::from(depth > 0 && map.contains_key("$id"));
        self.embedded += embedded;
        let result = self.object(map, depth);
        self.embedded -= embedded;
        result
    }

    fn object(&mut self, map: &'a Map<String, Value>, depth: usize) -> Result<Value, Refused> {
        let mut base = Map::new();
        for (key, value) in map {
            match key.as_str() {
                "$ref" | "allOf" | "anyOf" | "oneOf" | "$defs" | "definitions" => {}
                // Names of what was written out would be there twice.
                "$id" | "$anchor" | "$schema" if self.open.len() > 1 => {}
                "$dynamicRef" | "$recursiveRef" => {
                    return self.at(key, |this| this.refuse("references of this kind have no end"));
                }
                _ => {
                    let value = self.at(key, |this| this.inner(key, value, depth))?;
                    base.insert(key.clone(), value);
                }
            }
        }
        // Some generators write `not: {}` for "this branch is not to be taken".
        if base.get("not").is_some_and(lets_all_through) {
            return Ok(Value::Bool(false));
        }
        if !REFUSED.iter().any(|keyword| map.contains_key(*keyword)) {
            return Ok(Value::Object(base));
        }
        let unevaluated = self.take_unevaluated(&mut base, map)?;
        let mut whole = Value::Object(base);
        if let Some(reference) = map.get("$ref") {
            let target = self.at("$ref", |this| this.reference(reference, depth))?;
            whole = self.at("$ref", |this| this.both(whole, target))?;
        }
        for (place, branch) in self.branches(map, "allOf", depth)?.into_iter().enumerate() {
            whole = self
                .at("allOf", |this| this.at(place.to_string(), |this| this.both(whole, branch)))?;
        }
        for (keyword, kind) in [("anyOf", union::Kind::Any), ("oneOf", union::Kind::One)] {
            if map.contains_key(keyword) {
                let branches = self.branches(map, keyword, depth)?;
                whole = self.at(keyword, |this| this.union(whole, branches, kind))?;
            }
        }
        if let Value::Object(whole) = &mut whole {
            whole.extend(unevaluated);
        }
        Ok(whole)
    }

    /// The value of a keyword, schemas in it rewritten.
    fn inner(&mut self, key: &str, value: &'a Value, depth: usize) -> Result<Value, Refused> {
        Ok(match (position(key), value) {
            (Position::Schema | Position::List, Value::Object(_)) => {
                self.schema(value, depth + 1)?
            }
            (Position::List, Value::Array(list)) => Value::Array(self.list(list, depth)?),
            (Position::Map, Value::Object(map)) => {
                let mut rewritten = Map::new();
                for (name, schema) in map {
                    let schema = self.at(name, |this| this.schema(schema, depth + 1))?;
                    rewritten.insert(name.clone(), schema);
                }
                Value::Object(rewritten)
            }
            _ => value.clone(),
        })
    }

    fn list(&mut self, list: &'a [Value], depth: usize) -> Result<Vec<Value>, Refused> {
        let mut rewritten = Vec::with_capacity(list.len());
        for (place, schema) in list.iter().enumerate() {
            rewritten.push(self.at(place.to_string(), |this| this.schema(schema, depth + 1))?);
        }
        Ok(rewritten)
    }

    /// The branches of a combining keyword, rewritten.
    fn branches(
        &mut self,
        map: &'a Map<String, Value>,
        keyword: &str,
        depth: usize,
    ) -> Result<Vec<Value>, Refused> {
        let Some(value) = map.get(keyword) else { return Ok(Vec::new()) };
        self.at(keyword, |this| match value.as_array() {
            Some(list) if !list.is_empty() => this.list(list, depth),
            _ => this.refuse("it is not a list of schemas"),
        })
    }

    /// What `unevaluated…` covers depends on all that stands beside it: it is put back when that is
    /// one schema. Which branch of a union was taken would have to be known.
    fn take_unevaluated(
        &mut self,
        base: &mut Map<String, Value>,
        map: &Map<String, Value>,
    ) -> Result<Map<String, Value>, Refused> {
        let mut taken = Map::new();
        for keyword in ["unevaluatedProperties", "unevaluatedItems"] {
            let Some(value) = base.shift_remove(keyword) else { continue };
            if map.contains_key("anyOf") || map.contains_key("oneOf") {
                return self.at(keyword, |this| this.refuse("it depends on the branch that fits"));
            }
            taken.insert(keyword.into(), value);
        }
        Ok(taken)
    }

    /// What a reference points to, rewritten.
    fn reference(&mut self, reference: &Value, depth: usize) -> Result<Value, Refused> {
        let Some(reference) = reference.as_str() else {
            return self.refuse("it is not a reference");
        };
        if self.embedded > 0 {
            return self.refuse("it stands in a schema with an `$id` of its own");
        }
        let own = self.root.get("$id").and_then(Value::as_str).unwrap_or_default();
        let own = own.split('#').next().unwrap_or_default();
        let fragment = reference.strip_prefix(own).unwrap_or(reference);
        let Some(fragment) = fragment.strip_prefix('#') else {
            return self.refuse("it points out of the schema");
        };
        let pointer = format!("#{}", percent_decoded(fragment));
        if self.open.contains(&pointer) {
            return self.refuse("it refers to itself without end");
        }
        let Some(target) = find(self.root, pointer.trim_start_matches('#')) else {
            return self.refuse("it points to nothing");
        };
        let steps =
            pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
        let from = std::mem::replace(&mut self.path, steps.collect());
        self.open.push(pointer);
        let rewritten = self.schema(target, depth + 1);
        self.open.pop();
        // An error keeps the place where it is.
        if rewritten.is_ok() {
            self.path = from;
        }
        rewritten
    }

    /// One schema that says what both say.
    fn both(&mut self, one: Value, other: Value) -> Result<Value, Refused> {
        merge::both(one, other, &mut self.left).or_else(|clash| self.refuse(clash.to_string()))
    }

    /// One schema that says what `whole` says, and what any or exactly one of the branches says.
    fn union(
        &mut self,
        whole: Value,
        branches: Vec<Value>,
        kind: union::Kind,
    ) -> Result<Value, Refused> {
        union::union(whole, branches, kind, &mut self.left)
            .or_else(|clash| self.refuse(clash.to_string()))
    }
}

fn lets_all_through(schema: &Value) -> bool {
    *schema == true || schema.as_object().is_some_and(Map::is_empty)
}

/// Two schemas that cannot be one, and where in them.
#[derive(Debug)]
struct Clash(String);

impl Clash {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    fn within(self, name: &str) -> Self {
        Self(format!("{} (within \"{name}\")", self.0))
    }
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The schema at a JSON pointer or under an anchor.
fn find<'a>(root: &'a Value, fragment: &str) -> Option<&'a Value> {
    if fragment.is_empty() || fragment.starts_with('/') {
        return root.pointer(fragment);
    }
    anchored(root, fragment, MAX_NESTING)
}

fn anchored<'a>(value: &'a Value, name: &str, depth: usize) -> Option<&'a Value> {
    let depth = depth.checked_sub(1)?;
    match value {
        Value::Object(map) if map.get("$anchor").and_then(Value::as_str) == Some(name) => {
            Some(value)
        }
        Value::Object(map) => map.values().find_map(|inner| anchored(inner, name, depth)),
        Value::Array(list) => list.iter().find_map(|inner| anchored(inner, name, depth)),
        _ => None,
    }
}

/// A URI fragment with `%2F` and the like undone.
fn percent_decoded(fragment: &str) -> String {
    let mut out = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| first == b'%');
        let byte = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(byte.unwrap_or(first));
        rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

//! `anyOf` and `oneOf` as one schema. Keywords look at values of one type each, so branches that
//! differ by type can stand beside each other; lists of values can be joined; anything else cannot.

use serde_json::{Map, Value};

use super::Clash;
use super::merge::{both, equal, listed_values, type_names, type_of, type_value};

type Schema = Map<String, Value>;

/// How many branches a value has to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// At least one.
    Any,
    /// Exactly one.
    One,
}

/// The types of values, and the keywords that look at values of each and no other.
const TYPES: [(&str, &[&str]); 6] = [
    (
        "string",
        &[
            "minLength",
            "maxLength",
            "pattern",
            "contentEncoding",
            "contentMediaType",
            "contentSchema",
        ],
    ),
    ("number", &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]),
    ("boolean", &[]),
    (
        "array",
        &[
            "items",
            "prefixItems",
            "additionalItems",
            "contains",
            "minContains",
            "maxContains",
            "minItems",
            "maxItems",
            "uniqueItems",
            "unevaluatedItems",
        ],
    ),
    (
        "object",
        &[
            "properties",
            "patternProperties",
            "additionalProperties",
            "propertyNames",
            "required",
            "minProperties",
            "maxProperties",
            "dependentRequired",
            "dependentSchemas",
            "dependencies",
            "unevaluatedProperties",
        ],
    ),
    ("null", &[]),
];

/// Formats of numbers; all others are of strings.
const NUMBER_FORMATS: [&str; 12] = [
    "int8", "int16", "int32", "int64", "uint", "uint8", "uint16", "uint32", "uint64", "float",
    "double", "decimal",
];

/// Keywords that look at each other: a schema is weaker only with all of a group the same.
const GROUPS: [&[&str]; 3] = [
    &["properties", "patternProperties", "additionalProperties", "unevaluatedProperties"],
    &["items", "prefixItems", "additionalItems", "unevaluatedItems"],
    &["contains", "minContains", "maxContains"],
];

/// Keywords that look at values of every type.
const EVERY: [&str; 4] = ["not", "if", "then", "else"];

/// The keyword that looks at values of this type, its format included.
fn looks_at(place: usize, key: &str, value: &Value) -> bool {
    let Some((name, keywords)) = TYPES.get(place) else { return false };
    if key == "format" {
        let of_numbers = value.as_str().is_some_and(|name| NUMBER_FORMATS.contains(&name));
        return *name == if of_numbers { "number" } else { "string" };
    }
    keywords.contains(&key)
}

fn is_assertion(key: &str, value: &Value) -> bool {
    matches!(key, "type" | "enum" | "const")
        || (0..TYPES.len()).any(|place| looks_at(place, key, value))
}

/// What a branch says of the values of one type.
#[derive(Debug, Clone, PartialEq)]
enum Facet {
    /// None fits.
    Never,
    /// These fit.
    Values(Vec<Value>),
    /// Those fit that these keywords let through; `type: integer` stands for whole numbers.
    Keywords(Schema),
}

/// One schema that says what `whole` says, and what any or exactly one of `branches` says.
pub(super) fn union(
    whole: Value,
    branches: Vec<Value>,
    kind: Kind,
    left: &mut usize,
) -> Result<Value, Clash> {
    let whole = match whole {
        Value::Object(whole) => whole,
        Value::Bool(true) => Schema::new(),
        other => return Ok(other),
    };
    // What asserts goes into each branch; the rest stays outside.
    let (core, outside): (Schema, Schema) =
        whole.into_iter().partition(|(key, value)| is_assertion(key, value));
    *left = left
        .checked_sub(weight(&core).saturating_mul(branches.len()))
        .ok_or_else(|| Clash::new("written out, it is too large"))?;
    let mut live = Vec::new();
    for branch in branches {
        match both(Value::Object(core.clone()), branch, left)? {
            Value::Bool(false) => {}
            Value::Object(branch) => live.push(branch),
            other => live.extend(other.as_bool().map(|_| Schema::new())),
        }
    }
    let joined = match live.len() {
        0 => return Ok(Value::Bool(false)),
        1 => Value::Object(live.swap_remove(0)),
        _ => join(&live, kind)?,
    };
    let mut whole = both(Value::Object(outside), joined, left)?;
    if let Value::Object(whole) = &mut whole {
        describe(whole, &live);
    }
    Ok(whole)
}

/// Keywords and values in a schema.
fn weight(schema: &Schema) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::Array(list) => 1 + list.iter().map(of).sum::<usize>(),
            Value::Object(map) => 1 + map.values().map(of).sum::<usize>(),
            _ => 1,
        }
    }
    schema.values().map(of).sum()
}

fn join(branches: &[Schema], kind: Kind) -> Result<Value, Clash> {
    if branches.iter().any(|branch| EVERY.iter().any(|key| branch.contains_key(*key))) {
        return Err(Clash::new("branches with `not` or `if` cannot be joined"));
    }
    let mut facets = Vec::with_capacity(branches.len());
    for branch in branches {
        facets.push(split(branch)?);
    }
    let mut joined = Vec::with_capacity(TYPES.len());
    for (place, (name, _)) in TYPES.iter().enumerate() {
        let of_type = facets.iter().filter_map(|facets| facets.get(place));
        let of_type: Vec<&Facet> = of_type.filter(|facet| **facet != Facet::Never).collect();
        let facet = match kind {
            Kind::Any => any(&of_type),
            Kind::One => exactly_one(&of_type),
        };
        joined.push(facet.ok_or_else(|| {
            Clash::new(match kind {
                Kind::Any => {
                    format!("its branches differ in more than type: two are of type {name}")
                }
                Kind::One => format!(
                    "its branches differ in more than type: two of type {name} may both fit (use \
                     anyOf if both may)"
                ),
            })
        })?);
    }
    assemble(joined)
}

/// What a branch says of each type.
fn split(branch: &Schema) -> Result<Vec<Facet>, Clash> {
    let names = type_names(branch)?;
    let known = |name: &String| name == "integer" || TYPES.iter().any(|(known, _)| known == name);
    if !names.iter().flatten().all(known) {
        return Err(Clash::new("a `type` is not the name of a type"));
    }
    let accepts = |name: &str| names.as_ref().is_none_or(|names| names.iter().any(|n| n == name));
    if let Some(values) = listed_values(branch) {
        return split_values(branch, values, accepts);
    }
    let mut facets = Vec::with_capacity(TYPES.len());
    for (place, (name, _)) in TYPES.iter().enumerate() {
        let whole_only = *name == "number" && !accepts("number") && accepts("integer");
        if !accepts(name) && !whole_only {
            facets.push(Facet::Never);
            continue;
        }
        let own = branch.iter().filter(|(key, value)| looks_at(place, key, value));
        let mut own: Schema = own.map(|(key, value)| (key.clone(), value.clone())).collect();
        if whole_only {
            own.insert("type".into(), "integer".into());
        }
        facets.push(Facet::Keywords(own));
    }
    Ok(facets)
}

fn split_values(
    branch: &Schema,
    values: Vec<Value>,
    accepts: impl Fn(&str) -> bool,
) -> Result<Vec<Facet>, Clash> {
    let mut facets = vec![Facet::Never; TYPES.len()];
    for value in values {
        let own = type_of(&value);
        let name = if own == "integer" { "number" } else { own };
        if !accepts(own) && !accepts(name) {
            continue;
        }
        let Some(place) = TYPES.iter().position(|(known, _)| *known == name) else { continue };
        if branch.iter().any(|(key, value)| looks_at(place, key, value)) {
            return Err(Clash::new("a branch that lists values has other keywords as well"));
        }
        match facets.get_mut(place) {
            Some(Facet::Values(list)) => list.push(value),
            Some(facet) => *facet = Facet::Values(vec![value]),
            None => {}
        }
    }
    Ok(facets.into_iter().map(whole_type).collect())
}

/// `null`, and both booleans, are all there is of their type.
fn whole_type(facet: Facet) -> Facet {
    let Facet::Values(values) = &facet else { return facet };
    let has = |value: Value| values.contains(&value);
    let all = has(Value::Null) || (has(true.into()) && has(false.into()));
    if all { Facet::Keywords(Schema::new()) } else { facet }
}

fn any(facets: &[&Facet]) -> Option<Facet> {
    let anything = |facet: &&&Facet| matches!(facet, Facet::Keywords(own) if own.is_empty());
    if let Some(anything) = facets.iter().find(anything) {
        return Some((*anything).clone());
    }
    if let Some(lists) = lists(facets) {
        let mut all: Vec<Value> = Vec::new();
        for value in lists.into_iter().flatten() {
            if !all.iter().any(|known| equal(known, value)) {
                all.push(value.clone());
            }
        }
        return Some(if all.is_empty() { Facet::Never } else { whole_type(Facet::Values(all)) });
    }
    // One that lets through all that the others do.
    let weakest = facets.iter().find(|a| facets.iter().all(|b| is_weaker(a, b)));
    weakest.map(|facet| (*facet).clone())
}

fn exactly_one(facets: &[&Facet]) -> Option<Facet> {
    match facets {
        [] => return Some(Facet::Never),
        [only] => return Some((*only).clone()),
        [first, rest @ ..] if rest.iter().all(|facet| facet == first) => return Some(Facet::Never),
        _ => {}
    }
    let lists = lists(facets)?;
    let in_lists = |value: &Value| {
        lists.iter().filter(|list| list.iter().any(|known| equal(known, value))).count()
    };
    let once: Vec<Value> =
        lists.iter().copied().flatten().filter(|value| in_lists(value) == 1).cloned().collect();
    Some(if once.is_empty() { Facet::Never } else { whole_type(Facet::Values(once)) })
}

/// The lists of values, if all facets are such.
fn lists<'a>(facets: &[&'a Facet]) -> Option<Vec<&'a [Value]>> {
    let list = |facet: &&'a Facet| match facet {
        Facet::Values(values) => Some(&values[..]),
        _ => None,
    };
    facets.iter().map(list).collect()
}

/// Whether `a` lets through everything that `b` does: it asks for nothing that `b` does not.
fn is_weaker(a: &Facet, b: &Facet) -> bool {
    let (Facet::Keywords(a), Facet::Keywords(b)) = (a, b) else { return a == b };
    let same = |key: &str| a.get(key) == b.get(key);
    let together = GROUPS.iter().all(|group| {
        !group.iter().any(|key| a.contains_key(*key)) || group.iter().all(|key| same(key))
    });
    together && a.keys().all(|key| same(key))
}

/// The schema of all types together.
fn assemble(facets: Vec<Facet>) -> Result<Value, Clash> {
    let anything = |facet: &Facet| matches!(facet, Facet::Keywords(own) if own.is_empty());
    if facets.iter().all(anything) {
        return Ok(Value::Object(Schema::new()));
    }
    let listed = facets.iter().any(|facet| matches!(facet, Facet::Values(_)));
    let (mut names, mut values) = (Vec::new(), Vec::new());
    let mut schema = Schema::new();
    for ((name, _), facet) in TYPES.iter().zip(facets) {
        let mut name = *name;
        match facet {
            Facet::Never => continue,
            Facet::Values(list) => {
                if name == "number" && list.iter().all(|value| type_of(value) == "integer") {
                    name = "integer";
                }
                values.extend(list);
            }
            Facet::Keywords(mut own) => {
                if own.shift_remove("type").is_some() {
                    name = "integer";
                }
                match name {
                    _ if !listed => {}
                    "null" => values.push(Value::Null),
                    "boolean" => values.extend([true.into(), false.into()]),
                    _ => {
                        let why = format!("it joins listed values with free ones of type {name}");
                        return Err(Clash::new(why));
                    }
                }
                for (key, value) in own {
                    // Keywords are of one type each, but for `format`.
                    if schema.insert(key, value).is_some() {
                        return Err(Clash::new("two branches have a `format`"));
                    }
                }
            }
        }
        names.push(name.to_owned());
    }
    if names.is_empty() {
        return Ok(Value::Bool(false));
    }
    let mut whole = Schema::new();
    whole.insert("type".into(), type_value(names));
    if listed {
        whole.insert("enum".into(), values.into());
    }
    whole.extend(schema);
    Ok(Value::Object(whole))
}

/// What the branches say to the reader, where there was more than one: a line for each.
fn describe(whole: &mut Schema, branches: &[Schema]) {
    let said =
        |branch: &Schema| branch.get("description").and_then(Value::as_str).map(str::to_owned);
    let mut lines: Vec<String> =
        whole.get("description").and_then(Value::as_str).map(str::to_owned).into_iter().collect();
    for branch in branches {
        let Some(said) = said(branch) else { continue };
        let what = match (listed_values(branch), branch.get("type")) {
            (Some(values), _) => Value::Array(values).to_string(),
            (None, Some(Value::String(name))) => name.clone(),
            (None, Some(names)) => names.to_string(),
            (None, None) => "otherwise".into(),
        };
        let what = what.trim_start_matches('[').trim_end_matches(']');
        lines.push(format!("- {what}: {said}"));
    }
    if !lines.is_empty() {
        whole.insert("description".into(), lines.join("\n").into());
    }
}

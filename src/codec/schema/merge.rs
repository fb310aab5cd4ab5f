//! Two schemas as one that accepts what both accept. Neither holds a refused keyword.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use super::Clash;

type Schema = Map<String, Value>;

/// Keywords that look at each other: they merge together or not at all.
const OBJECT: &[&str] = &["properties", "patternProperties", "additionalProperties"];
const ITEMS: &[&str] = &["items", "prefixItems", "additionalItems"];
const CONTAINS: &[&str] = &["contains", "minContains", "maxContains"];
const CONDITION: &[&str] = &["if", "then", "else"];
/// What an `unevaluated…` looks at.
const EVALUATING: &[&str] = &[
    "properties",
    "patternProperties",
    "additionalProperties",
    "unevaluatedProperties",
    "items",
    "prefixItems",
    "additionalItems",
    "contains",
    "unevaluatedItems",
    "if",
    "dependentSchemas",
    "dependencies",
    "not",
];

/// The schema that says what both say; `false` when no value can fit both.
pub(super) fn both(one: Value, other: Value, left: &mut usize) -> Result<Value, Clash> {
    match (one, other) {
        (Value::Bool(false), _) | (_, Value::Bool(false)) => Ok(Value::Bool(false)),
        (Value::Bool(true), other) => Ok(other),
        (one, Value::Bool(true)) => Ok(one),
        (Value::Object(one), Value::Object(other)) => objects(one, other, left),
        _ => Err(Clash::new("it is not a schema")),
    }
}

fn objects(mut one: Schema, mut other: Schema, left: &mut usize) -> Result<Value, Clash> {
    *left = left
        .checked_sub(1 + one.len() + other.len())
        .ok_or_else(|| Clash::new("written out, it is too large"))?;
    unevaluated(&one, &other)?;
    if !types(&mut one, &mut other)? || !values(&mut one, &mut other) {
        return Ok(Value::Bool(false));
    }
    properties(&mut one, &mut other, left)?;
    items(&mut one, &mut other, left)?;
    for group in [CONTAINS, CONDITION] {
        as_one(&mut one, &mut other, group)?;
    }
    if has_flag(&one) || has_flag(&other) {
        as_one(&mut one, &mut other, &["minimum", "exclusiveMinimum"])?;
        as_one(&mut one, &mut other, &["maximum", "exclusiveMaximum"])?;
    }
    for (key, value) in other {
        let merged = match one.get_mut(&key) {
            None => value,
            Some(mine) if *mine == value => continue,
            Some(mine) => keyword(&key, mine.take(), value, left)?,
        };
        one.insert(key, merged);
    }
    Ok(if is_impossible(&one) { Value::Bool(false) } else { Value::Object(one) })
}

/// `exclusiveMinimum: true`, the way of draft 4.
fn has_flag(schema: &Schema) -> bool {
    let flag = |key| schema.get(key).is_some_and(Value::is_boolean);
    flag("exclusiveMinimum") || flag("exclusiveMaximum")
}

/// One keyword that both have, with different values.
fn keyword(key: &str, mine: Value, other: Value, left: &mut usize) -> Result<Value, Clash> {
    let clash = || Clash::new(format!("two schemas with a `{key}` each cannot be one"));
    let wanted = match key {
        "minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties" => {
            Ordering::Greater
        }
        "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties" => {
            Ordering::Less
        }
        "multipleOf" => return common_multiple(&mine, &other).ok_or_else(clash),
        "uniqueItems" => return Ok(Value::Bool(mine == true || other == true)),
        "required" => return listed(mine, other).ok_or_else(clash),
        "dependentRequired" => {
            return by_name(mine, other, |mine, other| listed(mine, other).ok_or_else(clash));
        }
        "dependentSchemas" => {
            return by_name(mine, other, |mine, other| both(mine, other, left));
        }
        "propertyNames" => return both(mine, other, left),
        "pattern" | "format" | "not" | "dependencies" | "contentEncoding" | "contentMediaType" => {
            return Err(clash());
        }
        // A title, a default or something that nobody knows: the outer one stands.
        _ => return Ok(mine),
    };
    let (Value::Number(a), Value::Number(b)) = (&mine, &other) else { return Err(clash()) };
    Ok(if compare(a, b) == wanted { mine } else { other })
}

fn compare(a: &Number, b: &Number) -> Ordering {
    let whole = |n: &Number| n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let (a, b) = (a.as_f64().unwrap_or_default(), b.as_f64().unwrap_or_default());
            a.total_cmp(&b)
        }
    }
}

/// The least common multiple of two whole numbers.
fn common_multiple(a: &Value, b: &Value) -> Option<Value> {
    let (a, b) = (a.as_u64().filter(|n| *n > 0)?, b.as_u64().filter(|n| *n > 0)?);
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).checked_mul(b).map(Value::from)
}

/// Two lists as one, each entry once.
fn listed(mine: Value, other: Value) -> Option<Value> {
    let (Value::Array(mut list), Value::Array(other)) = (mine, other) else { return None };
    for entry in other {
        if !list.contains(&entry) {
            list.push(entry);
        }
    }
    Some(Value::Array(list))
}

/// Two objects as one; what both have is merged.
fn by_name(
    mine: Value,
    other: Value,
    mut merge: impl FnMut(Value, Value) -> Result<Value, Clash>,
) -> Result<Value, Clash> {
    let (Value::Object(mut map), Value::Object(other)) = (mine, other) else {
        return Err(Clash::new("it is not a schema"));
    };
    for (name, value) in other {
        let merged = match map.get_mut(&name) {
            None => value,
            Some(mine) => merge(mine.take(), value).map_err(|clash| clash.within(&name))?,
        };
        map.insert(name, merged);
    }
    Ok(Value::Object(map))
}

/// Keywords that say something together only: one side's are taken, or both are the same.
fn as_one(one: &mut Schema, other: &mut Schema, group: &[&str]) -> Result<(), Clash> {
    let has = |schema: &Schema| group.iter().any(|key| schema.contains_key(*key));
    if !has(other) {
        return Ok(());
    }
    let same = group.iter().all(|key| one.get(*key) == other.get(*key));
    if has(one) && !same {
        return Err(Clash::new(format!(
            "two schemas with `{}` each cannot be one",
            group.first().copied().unwrap_or_default()
        )));
    }
    for key in group {
        if let Some(value) = other.shift_remove(*key) {
            one.insert((*key).into(), value);
        }
    }
    Ok(())
}

/// An `unevaluated…` covers what its own schema leaves: beside another's keywords it would cover
/// less.
fn unevaluated(one: &Schema, other: &Schema) -> Result<(), Clash> {
    let has = |schema: &Schema, keys: &[&str]| keys.iter().any(|key| schema.contains_key(*key));
    let own = ["unevaluatedProperties", "unevaluatedItems"];
    if (has(one, &own) && has(other, EVALUATING)) || (has(other, &own) && has(one, EVALUATING)) {
        return Err(Clash::new("what `unevaluated…` covers would change"));
    }
    Ok(())
}

/// The types of a schema in words; all of them without the keyword.
pub(super) fn type_names(schema: &Schema) -> Result<Option<Vec<String>>, Clash> {
    match schema.get("type") {
        None => Ok(None),
        Some(Value::String(name)) => Ok(Some(vec![name.clone()])),
        Some(Value::Array(names)) => {
            let names: Option<Vec<_>> =
                names.iter().map(|name| name.as_str().map(str::to_owned)).collect();
            names.map(Some).ok_or_else(|| Clash::new("a `type` is not the name of a type"))
        }
        Some(_) => Err(Clash::new("a `type` is not the name of a type")),
    }
}

pub(super) fn type_value(mut names: Vec<String>) -> Value {
    if names.len() == 1 {
        return names.swap_remove(0).into();
    }
    names.into()
}

/// Merges `type` into `one`; false when no type is left.
fn types(one: &mut Schema, other: &mut Schema) -> Result<bool, Clash> {
    let (mine, theirs) = (type_names(one)?, type_names(other)?);
    let Some(theirs) = theirs else { return Ok(true) };
    if other.get("type") == one.get("type") {
        return Ok(true);
    }
    let has = |names: &[String], name: &str| names.iter().any(|known| known == name);
    let merged = match mine {
        None => theirs,
        Some(mine) => {
            let mut merged: Vec<String> = Vec::new();
            for name in mine {
                let name = match name.as_str() {
                    "number" if !has(&theirs, "number") && has(&theirs, "integer") => "integer",
                    "integer" if has(&theirs, "number") => "integer",
                    name if has(&theirs, name) => name,
                    _ => continue,
                };
                if !has(&merged, name) {
                    merged.push(name.to_owned());
                }
            }
            merged
        }
    };
    other.shift_remove("type");
    let left = !merged.is_empty();
    one.insert("type".into(), type_value(merged));
    Ok(left)
}

/// The values that a schema lists, `const` or `enum`.
pub(super) fn listed_values(schema: &Schema) -> Option<Vec<Value>> {
    let list = schema.get("enum").and_then(Value::as_array);
    match (schema.get("const"), list) {
        (None, None) => None,
        (None, Some(list)) => Some(list.clone()),
        (Some(only), None) => Some(vec![only.clone()]),
        (Some(only), Some(list)) => {
            Some(list.iter().filter(|value| equal(value, only)).cloned().collect())
        }
    }
}

/// Whether two JSON values are the same to a schema: numbers by value, objects in any order.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b) == Ordering::Equal,
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// The name of a value's type: `integer` for a whole number.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() && n.as_f64().is_none_or(|n| n.fract() != 0.0) => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Merges `const` and `enum` into `one`; false when no value is left.
fn values(one: &mut Schema, other: &mut Schema) -> bool {
    let (mine, theirs) = (listed_values(one), listed_values(other));
    let mut merged = match (mine, theirs) {
        (None, None) => return true,
        (Some(values), None) | (None, Some(values)) => values,
        (Some(mine), Some(theirs)) => {
            mine.into_iter().filter(|a| theirs.iter().any(|b| equal(a, b))).collect()
        }
    };
    if let Ok(Some(names)) = type_names(one) {
        let fits = |value: &Value| {
            let own = type_of(value);
            names.iter().any(|name| name == own || (name == "number" && own == "integer"))
        };
        merged.retain(fits);
    }
    let single = one.contains_key("const") || other.contains_key("const");
    for key in ["const", "enum"] {
        other.shift_remove(key);
    }
    if merged.is_empty() {
        return false;
    }
    if single && merged.len() == 1 {
        one.shift_remove("enum");
        one.insert("const".into(), merged.swap_remove(0));
    } else {
        one.shift_remove("const");
        one.insert("enum".into(), merged.into());
    }
    true
}

fn take_map(schema: &mut Schema, key: &str) -> Result<Map<String, Value>, Clash> {
    match schema.shift_remove(key) {
        None => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(Clash::new(format!("a `{key}` holds no schemas"))),
    }
}

/// Merges what is said of properties into `one`. A name that one side does not list is covered by
/// its `additionalProperties`; with `patternProperties` only a search could tell.
fn properties(one: &mut Schema, other: &mut Schema, left: &mut usize) -> Result<(), Clash> {
    let has = |schema: &Schema| OBJECT.iter().any(|key| schema.contains_key(*key));
    if !has(one) || !has(other) {
        return as_one(one, other, OBJECT);
    }
    let patterned =
        one.contains_key("patternProperties") || other.contains_key("patternProperties");
    let free =
        |schema: &Schema| schema.get("additionalProperties").is_none_or(|rest| *rest == true);
    if patterned {
        if !free(one) || !free(other) {
            return Err(Clash::new(
                "`patternProperties` beside `additionalProperties` cannot be merged",
            ));
        }
        for key in ["properties", "patternProperties"] {
            let (mine, theirs) = (take_map(one, key)?, take_map(other, key)?);
            let merged = by_name(mine.into(), theirs.into(), |a, b| both(a, b, left))?;
            if merged.as_object().is_some_and(|map| !map.is_empty()) {
                one.insert(key.into(), merged);
            }
        }
        return Ok(());
    }
    let rest = |schema: &mut Schema| {
        schema.shift_remove("additionalProperties").unwrap_or(Value::Bool(true))
    };
    let (mine, mut theirs) = (take_map(one, "properties")?, take_map(other, "properties")?);
    let closed =
        one.contains_key("additionalProperties") || other.contains_key("additionalProperties");
    let (my_rest, their_rest) = (rest(one), rest(other));
    let all_rest = both(my_rest.clone(), their_rest.clone(), left)?;
    let mut merged = Map::new();
    let mut put = |name: String, mine, theirs, left: &mut usize| {
        let schema = both(mine, theirs, left).map_err(|clash| clash.within(&name))?;
        // Where nothing unknown may come, a name that cannot come need not be told.
        if schema != false || all_rest != false {
            merged.insert(name, schema);
        }
        Ok(())
    };
    for (name, schema) in mine {
        let theirs = theirs.shift_remove(&name).unwrap_or_else(|| their_rest.clone());
        put(name, schema, theirs, left)?;
    }
    for (name, schema) in theirs {
        put(name, my_rest.clone(), schema, left)?;
    }
    one.insert("properties".into(), merged.into());
    if closed {
        one.insert("additionalProperties".into(), all_rest);
    }
    Ok(())
}

/// Merges what is said of items into `one`, where it is one schema for all of them.
fn items(one: &mut Schema, other: &mut Schema, left: &mut usize) -> Result<(), Clash> {
    let single = |schema: &Schema| {
        !schema.contains_key("prefixItems") && !schema.get("items").is_some_and(Value::is_array)
    };
    if single(one)
        && single(other)
        && one.contains_key("items")
        && let Some(theirs) = other.shift_remove("items")
    {
        let mine = one.get_mut("items").map_or(Value::Bool(true), Value::take);
        let merged = both(mine, theirs, left).map_err(|clash| clash.within("items"))?;
        one.insert("items".into(), merged);
        other.shift_remove("additionalItems");
        return Ok(());
    }
    as_one(one, other, ITEMS)
}

/// Whether the schema takes objects only and none can have what it requires.
fn is_impossible(schema: &Schema) -> bool {
    if schema.get("type").and_then(Value::as_str) != Some("object")
        || schema.contains_key("patternProperties")
    {
        return false;
    }
    let closed = schema.get("additionalProperties").is_some_and(|rest| *rest == false);
    let properties = schema.get("properties").and_then(Value::as_object);
    let never = |name: &str| match properties.and_then(|map| map.get(name)) {
        Some(schema) => *schema == false,
        None => closed,
    };
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|names| names.iter().filter_map(Value::as_str).any(never))
}

use std::borrow::Cow;
use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::*;

fn rewritten(schema: &Value) -> Value {
    rewrite(schema).unwrap_or_else(|refused| panic!("{schema}: {refused}")).into_owned()
}

#[test]
fn what_can_be_said_in_one_schema_is() {
    let cases = [
        (
            "a reference",
            json!({"type": "object", "properties": {"p": {"$ref": "#/$defs/a~1b", "description": "mine"}},
                "$defs": {"a/b": {"type": "string", "description": "its", "minLength": 1}}}),
            json!({"type": "object", "properties": {
                "p": {"description": "mine", "type": "string", "minLength": 1}}}),
        ),
        (
            "a reference to a reference, by anchor, percent-encoded",
            json!({"properties": {"a": {"$ref": "#/definitions/x%20y"}, "b": {"$ref": "#z"}},
                "definitions": {"x y": {"$ref": "#z"}, "n": {"$anchor": "z", "type": "null"}}}),
            json!({"properties": {"a": {"type": "null"}, "b": {"type": "null"}}}),
        ),
        (
            "optional, as generators write it",
            json!({"anyOf": [{"type": "string", "minLength": 2}, {"type": "null"}], "title": "T", "default": null}),
            json!({"title": "T", "default": null, "type": ["string", "null"], "minLength": 2}),
        ),
        (
            "an optional choice",
            json!({"anyOf": [{"enum": ["a", "b"], "type": "string"}, {"type": "null"}]}),
            json!({"type": ["string", "null"], "enum": ["a", "b", null]}),
        ),
        (
            "documented choices",
            json!({"oneOf": [{"const": "a", "description": "first"}, {"const": "b", "description": "second"}],
                "description": "Pick"}),
            json!({"description": "Pick\n- \"a\": first\n- \"b\": second", "type": "string", "enum": ["a", "b"]}),
        ),
        (
            "one or many",
            json!({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
            json!({"type": ["string", "array"], "items": {"type": "string"}, "minItems": 1}),
        ),
        (
            "a branch that lets everything through",
            json!({"anyOf": [{"type": "string"}, {}], "description": "any"}),
            json!({"description": "any"}),
        ),
        (
            "a branch that lets through what the other does",
            json!({"anyOf": [{"type": "integer"}, {"type": "number", }]}),
            json!({"type": "number"}),
        ),
        (
            "exactly one of two lists",
            json!({"oneOf": [{"enum": ["a", "b"]}, {"enum": ["b", "c"]}]}),
            json!({"type": "string", "enum": ["a", "c"]}),
        ),
        (
            "all of several",
            json!({"allOf": [
                {"type": "object", "properties": {"a": {"type": ["string", "null"]}}, "required": ["a"]},
                {"properties": {"a": {"type": "string", "maxLength": 9}, "b": {"type": "integer", "minimum": 1}}},
                {"properties": {"b": {"type": "number", "minimum": 3, "maximum": 9}}, "required": ["b", "a"]}]}),
            json!({"type": "object", "properties": {
                "a": {"type": "string", "maxLength": 9},
                "b": {"type": "integer", "minimum": 3, "maximum": 9}}, "required": ["a", "b"]}),
        ),
        (
            "closed objects keep what both let through",
            json!({"allOf": [
                {"properties": {"a": {}, "b": {}}, "additionalProperties": false},
                {"properties": {"b": {"type": "string"}, "c": {}}, "additionalProperties": false}]}),
            json!({"properties": {"b": {"type": "string"}}, "additionalProperties": false}),
        ),
        (
            "branches that cannot fit what stands beside them",
            json!({"type": "string", "anyOf": [{"type": "integer"}, {"maxLength": 3}, {"enum": [1, 2]}]}),
            json!({"type": "string", "maxLength": 3}),
        ),
        (
            "a branch that is not to be taken",
            json!({"properties": {"a": {"anyOf": [{"not": {}}, {"type": "string"}]}}}),
            json!({"properties": {"a": {"type": "string"}}}),
        ),
        (
            "in items, conditions and unlisted properties",
            json!({"items": [{"allOf": [{"minimum": 1}]}], "if": {"$ref": "#/$defs/x"},
                "additionalProperties": {"anyOf": [{"type": "null"}, {"type": "boolean"}]}, "$defs": {"x": true}}),
            json!({"items": [{"minimum": 1}], "if": {},
                "additionalProperties": {"type": ["boolean", "null"]}}),
        ),
        (
            "definitions that nothing refers to",
            json!({"type": "object", "$defs": {"x": {"$ref": "#/$defs/x"}}}),
            json!({"type": "object"}),
        ),
    ];
    for (name, schema, expected) in cases {
        let got = rewritten(&schema);
        assert_eq!(got, expected, "{name}: {got}");
        assert!(!uses(&got, MAX_NESTING), "{name}: {got}");
    }
}

#[test]
fn what_needs_no_rewriting_is_left_alone() {
    for schema in [
        json!({"type": "object", "properties": {"anyOf": {"type": "string"}, "$ref": {"const": {"$ref": 1}}}}),
        json!({"default": {"oneOf": []}, "enum": [{"allOf": 1}], "examples": [{"$ref": "#"}]}),
        json!({"$defs": {"a": {"type": "string"}}}),
        json!(true),
        json!({}),
        json!("nonsense"),
    ] {
        assert!(matches!(rewrite(&schema), Ok(Cow::Borrowed(_))), "{schema}");
    }
}

#[test]
fn what_cannot_be_said_is_refused_with_its_place() {
    let cases = [
        (json!({"properties": {"a": {"$ref": "#"}}}), "#/properties/a/$ref", "without end"),
        (
            json!({"$ref": "#/$defs/list", "$defs": {"list": {"properties": {"next": {"$ref": "#/$defs/list"}}}}}),
            "#/$defs/list/properties/next/$ref",
            "without end",
        ),
        (json!({"$ref": "https://example.org/x"}), "#/$ref", "out of the schema"),
        (json!({"$ref": "#/$defs/none"}), "#/$ref", "nothing"),
        (json!({"$ref": 5}), "#/$ref", "not a reference"),
        (
            json!({"properties": {"a": {"$id": "b", "items": {"$ref": "#"}}}}),
            "#/properties/a/items/$ref",
            "`$id`",
        ),
        (json!({"$dynamicRef": "#x", "$ref": "#"}), "#/$dynamicRef", "no end"),
        (
            json!({"properties": {"shape": {"oneOf": [
                {"type": "object", "properties": {"r": {"type": "number"}}, "required": ["r"]},
                {"type": "object", "properties": {"w": {"type": "number"}}, "required": ["w"]}]}}}),
            "#/properties/shape/oneOf",
            "two of type object",
        ),
        (json!({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}), "#/anyOf", "object"),
        (json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}), "#/oneOf", "use anyOf"),
        (json!({"anyOf": [{"const": "auto"}, {"type": "integer"}]}), "#/anyOf", "listed values"),
        (json!({"anyOf": [{"not": {"type": "null"}}, {"type": "null"}]}), "#/anyOf", "`not`"),
        (json!({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}), "#/allOf/1", "`pattern`"),
        (
            json!({"properties": {"p": {"allOf": [{"properties": {"q": {"format": "a"}}}, {"properties": {"q": {"format": "b"}}}]}}}),
            "#/properties/p/allOf/1",
            "`format` each cannot be one (within \"q\")",
        ),
        (json!({"allOf": []}), "#/allOf", "not a list"),
        (json!({"anyOf": {}}), "#/anyOf", "not a list"),
        (json!({"allOf": [{"type": "string"}, {"type": "null"}]}), "#", "no value"),
        (
            json!({"allOf": [
                {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": false},
                {"properties": {"b": {}}, "additionalProperties": false}]}),
            "#",
            "no value",
        ),
        (
            json!({"unevaluatedProperties": false, "anyOf": [{"properties": {"a": {}}}, {}]}),
            "#/unevaluatedProperties",
            "branch",
        ),
        (
            json!({"allOf": [{"patternProperties": {"^x": {}}}, {"additionalProperties": false}]}),
            "#/allOf/1",
            "patternProperties",
        ),
    ];
    for (schema, place, why) in cases {
        let refused = rewrite(&schema).map(Cow::into_owned).expect_err(&schema.to_string());
        let text = refused.to_string();
        assert_eq!(refused.place, place, "{text}");
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn references_that_stand_for_too_much_are_refused_in_time() {
    let mut defs = Map::new();
    defs.insert("d0".into(), json!({"type": "string"}));
    for n in 1..25 {
        let before = format!("#/$defs/d{}", n - 1);
        defs.insert(
            format!("d{n}"),
            json!({"properties": {"a": {"$ref": before}, "b": {"$ref": before}}}),
        );
    }
    let laughs = json!({"$ref": "#/$defs/d24", "$defs": defs});
    assert!(rewrite(&laughs).unwrap_err().to_string().contains("too large"));
    let mut deep = json!({"$ref": "#/$defs/x"});
    for _ in 0..100 {
        deep = json!({"items": deep});
    }
    // Found only as deep as it is looked for: the encoder refuses what is deeper still.
    assert!(rewrite(&json!({"allOf": [deep]})).unwrap_err().to_string().contains("nests deeper"));
    let wide: Vec<Value> = (0..2_000).map(|n| json!({"const": n})).collect();
    assert_eq!(rewritten(&json!({"anyOf": wide}))["enum"].as_array().unwrap().len(), 2_000);
}

/// Whether `value` fits `schema`: a reader of the specification, with no idea of rewriting.
fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    let Some(map) = schema.as_object() else { return schema != false };
    let fits_in = |schema: &Value| fits(root, schema, value);
    let number = |key: &str, test: fn(f64, f64) -> bool| match (map.get(key), value.as_f64()) {
        (Some(limit), Some(n)) => test(n, limit.as_f64().unwrap()),
        _ => true,
    };
    let size = |key: &str, len: Option<usize>, test: fn(usize, usize) -> bool| match (
        map.get(key).and_then(Value::as_u64),
        len,
    ) {
        (Some(limit), Some(len)) => test(len, limit as usize),
        _ => true,
    };
    let is = |name: &str| match name {
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
        name => merge::type_of(value) == name,
    };
    let of_type = match map.get("type") {
        None => true,
        Some(Value::String(name)) => is(name),
        Some(names) => names.as_array().unwrap().iter().any(|name| is(name.as_str().unwrap())),
    };
    let chars = value.as_str().map(|text| text.chars().count());
    let list = |key: &str| map.get(key).and_then(Value::as_array);
    let property = |name: &str, inner: &Value| match map.get("properties").and_then(|p| p.get(name))
    {
        Some(schema) => fits(root, schema, inner),
        None => map.get("additionalProperties").is_none_or(|rest| fits(root, rest, inner)),
    };
    of_type
        && map.get("const").is_none_or(|only| merge::equal(only, value))
        && list("enum").is_none_or(|all| all.iter().any(|one| merge::equal(one, value)))
        && number("minimum", |n, limit| n >= limit)
        && number("maximum", |n, limit| n <= limit)
        && number("multipleOf", |n, of| n % of == 0.0)
        && size("minLength", chars, |len, limit| len >= limit)
        && size("maxLength", chars, |len, limit| len <= limit)
        && size("minItems", value.as_array().map(Vec::len), |len, limit| len >= limit)
        && value.as_array().is_none_or(|items| {
            items.iter().all(|item| map.get("items").is_none_or(|schema| fits(root, schema, item)))
        })
        && value.as_object().is_none_or(|object| {
            object.iter().all(|(name, inner)| property(name, inner))
                && list("required").is_none_or(|names| {
                    names.iter().all(|name| object.contains_key(name.as_str().unwrap()))
                })
        })
        && map.get("not").is_none_or(|schema| !fits_in(schema))
        && list("allOf").is_none_or(|all| all.iter().all(fits_in))
        && list("anyOf").is_none_or(|all| all.iter().any(fits_in))
        && list("oneOf").is_none_or(|all| all.iter().filter(|s| fits_in(s)).count() == 1)
        && map.get("$ref").is_none_or(|reference| {
            let pointer = reference.as_str().unwrap().trim_start_matches('#');
            fits(root, root.pointer(pointer).unwrap(), value)
        })
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (-3..4).prop_map(Value::from),
        Just(json!(1.5)),
        Just(json!(2.0)),
        "[ab]{0,3}".prop_map(Value::from),
    ]
}

fn instance() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(2, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A keyword or two of one kind.
fn keywords(inner: BoxedStrategy<Value>) -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "null", "boolean", "object", "array", "number", "integer", "string",
    ]);
    let names = prop::sample::subsequence(
        vec!["null", "integer", "string", "number", "array", "object"],
        1..4,
    );
    let few = prop::collection::vec(inner.clone(), 1..4);
    let properties = prop::collection::btree_map("[abc]", inner.clone(), 0..3);
    let required = prop::sample::subsequence(vec!["a", "b"], 0..3);
    prop_oneof![
        4 => name.prop_map(|name| json!({"type": name})),
        2 => names.prop_map(|names| json!({"type": names})),
        2 => prop::collection::vec(leaf(), 1..4).prop_map(|all| json!({"enum": all})),
        1 => leaf().prop_map(|only| json!({"const": only})),
        1 => (-3..4).prop_map(|n| json!({"minimum": n})),
        1 => (-3..4).prop_map(|n| json!({"maximum": n})),
        1 => (1..4).prop_map(|n| json!({"multipleOf": n})),
        1 => (0..3).prop_map(|n| json!({"minLength": n})),
        1 => (0..3).prop_map(|n| json!({"type": "string", "maxLength": n})),
        1 => inner.clone().prop_map(|items| json!({"type": "array", "items": items})),
        2 => (properties.clone(), required).prop_map(|(properties, required)|
            json!({"type": "object", "properties": properties, "required": required})),
        1 => (properties, inner.clone()).prop_map(|(properties, rest)|
            json!({"properties": properties, "additionalProperties": rest})),
        1 => inner.prop_map(|not| json!({"not": not})),
        2 => few.clone().prop_map(|all| json!({"allOf": all})),
        3 => few.clone().prop_map(|all| json!({"anyOf": all})),
        2 => few.prop_map(|all| json!({"oneOf": all})),
        2 => (0..3).prop_map(|n| json!({"$ref": format!("#/$defs/d{n}")})),
        1 => any::<bool>().prop_map(Value::from),
    ]
}

fn schema(depth: u32) -> BoxedStrategy<Value> {
    if depth == 0 {
        return keywords(Just(json!({})).boxed())
            .prop_filter("no references in definitions", |schema| schema.get("$ref").is_none())
            .boxed();
    }
    let inner = schema(depth - 1);
    prop::collection::vec(keywords(inner), 1..3)
        .prop_map(|parts| {
            let mut whole = Map::new();
            for part in parts {
                match part {
                    Value::Object(part) => whole.extend(part),
                    other => return other,
                }
            }
            Value::Object(whole)
        })
        .boxed()
}

#[test]
fn rewritten_schemas_accept_the_same_values_without_the_keywords() {
    const CASES: u32 = 600;
    let strategy =
        (schema(3), prop::collection::vec(schema(0), 3), prop::collection::vec(instance(), 16));
    let (sent, changed) = (Cell::new(0), Cell::new(0));
    let test = |(mut schema, defs, values): (Value, Vec<Value>, Vec<Value>)| {
        if let Value::Object(map) = &mut schema {
            let defs = defs.into_iter().enumerate().map(|(n, def)| (format!("d{n}"), def));
            map.insert("$defs".into(), Value::Object(defs.collect()));
        }
        let Ok(rewritten) = rewrite(&schema) else { return Ok(()) };
        sent.set(sent.get() + 1);
        changed.set(changed.get() + u32::from(*rewritten != schema));
        prop_assert!(!uses(&rewritten, MAX_NESTING), "{schema}\n{rewritten}");
        for value in values {
            let before = fits(&schema, &schema, &value);
            let after = fits(&rewritten, &rewritten, &value);
            prop_assert_eq!(before, after, "{}\n{}\n{}", schema, &rewritten, value);
        }
        Ok(())
    };
    let config = ProptestConfig { cases: CASES, ..ProptestConfig::default() };
    TestRunner::new(config).run(&strategy, test).unwrap_or_else(|failed| panic!("{failed}"));
    assert!(sent.get() > CASES / 3, "most were refused: {}", sent.get());
    assert!(changed.get() > CASES / 6, "most had nothing to rewrite: {}", changed.get());
}

//! The bodies of `fuzz/` as property tests: short, but with every change.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on"
)]

use agentwire::connect::fuzz;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

/// Few enough for a second or two.
const CASES: u32 = 256;

/// Bytes that look like envelopes often enough: wild bytes, and frames with small lengths.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let frame = (prop_oneof![6 => Just(0_u8), 2 => Just(2), 1 => Just(1), 1 => any::<u8>()], {
        prop_oneof![vec(any::<u8>(), 0..60), Just(br#"{"error":{"code":"internal"}}"#.to_vec())]
    });
    let frame = frame.prop_map(|(flags, payload)| {
        let mut bytes = vec![flags];
        bytes.extend(u32::try_from(payload.len()).unwrap_or(0).to_be_bytes());
        bytes.extend(payload);
        bytes
    });
    let part = prop_oneof![8 => frame, 1 => vec(any::<u8>(), 0..12)];
    vec(part, 0..8).prop_map(|parts| parts.concat())
}

/// JSON that looks like a schema from afar: any keyword with anything in it.
fn almost_schema() -> impl Strategy<Value = Value> {
    let keywords = prop::sample::select(vec![
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
        "$defs",
        "type",
        "enum",
        "const",
        "properties",
        "items",
        "required",
        "additionalProperties",
        "patternProperties",
        "not",
        "minimum",
        "format",
        "$id",
        "description",
        "unevaluatedProperties",
        "dependentSchemas",
    ]);
    let scalars =
        prop::sample::select(vec!["#", "#/properties/type", "#/$defs/not", "string", "null", "x"]);
    let scalar = prop_oneof![
        3 => scalars.prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => (-2..3).prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    scalar.prop_recursive(5, 40, 4, move |inner| {
        let object = prop::collection::btree_map(keywords.clone(), inner.clone(), 0..4);
        let object = object.prop_map(|map| {
            Value::Object(map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
        });
        prop_oneof![1 => vec(inner, 0..3).prop_map(Value::from), 3 => object]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn any_cut_of_a_body_decodes_the_same(body in body(), cuts in vec(any::<u8>(), 0..8)) {
        fuzz::decoder_split(&body, &cuts);
    }

    #[test]
    fn payloads_come_out_of_envelopes_as_they_went_in(data in vec(any::<u8>(), 0..600)) {
        fuzz::envelopes(&data);
    }

    #[test]
    fn end_stream_messages_are_read_or_refused(
        text in r#"(\{"error":\{"code":"[a-z_]{0,20}","message":".{0,40}(secret-token-123)?.{0,40}"\}\})|.{0,80}"#
    ) {
        fuzz::end_stream(text.as_bytes());
    }

    #[test]
    fn redacted_text_holds_no_secret(parts in vec("(secret-token-123)|(.{0,40})", 0..60)) {
        fuzz::redaction(&parts.concat());
    }

    #[test]
    fn values_survive_the_wire(data in vec(any::<u8>(), 0..40), text in r#"[\[\]{}":,0-9a-z.e+-]{0,40}"#) {
        agentwire::codec::fuzz::json_value(&data);
        agentwire::codec::fuzz::json_value(text.as_bytes());
    }

    #[test]
    fn images_are_read_as_the_base64_crate_does(text in "[A-Za-z0-9+/=_ \\t\n\r\x0c]{0,40}") {
        agentwire::codec::fuzz::base64_image(&text);
    }

    #[test]
    fn schemas_are_rewritten_or_refused(schema in almost_schema()) {
        agentwire::codec::fuzz::tool_schema(schema.to_string().as_bytes());
    }

    #[test]
    fn tool_calls_are_read_or_refused(args in vec(any::<u8>(), 0..60)) {
        agentwire::codec::fuzz::tool_call(&args);
        let mut exec = vec![0x5a, args.len() as u8];
        exec.extend(&args);
        let mut payload = vec![0x12, exec.len() as u8];
        payload.extend(exec);
        agentwire::codec::fuzz::tool_call(&payload);
    }

    #[test]
    fn any_history_is_sent_whole_and_the_same(data in vec(any::<u8>(), 0..300)) {
        agentwire::conversation::fuzz::request(&data);
    }

    #[test]
    fn tokens_answers_and_kept_sign_ins_are_read_or_refused(
        data in vec(any::<u8>(), 0..80),
        claims in r#"\{("(sub|exp)":[-0-9e.]{0,8}"?[a-z|]{0,8}"?,?){0,3}\}?"#,
        token in "[ -~]{0,20}(secret-token-123)?",
    ) {
        use agentwire::auth::fuzz;
        use base64::Engine as _;
        let payload = base64::engine::general_purpose::STANDARD.encode(&claims);
        for text in [String::from_utf8_lossy(&data).as_ref(), &format!("a.{payload}.b"), &token] {
            fuzz::token(text);
        }
        let members = format!("{{\"accessToken\":{token:?},\"refresh_token\":\"{token}\"}}");
        for body in [&data[..], &[&[7], token.as_bytes()].concat(), &[&[0], members.as_bytes()].concat()] {
            fuzz::answer(body);
        }
        let kept = format!(
            "{{\"version\":1,\"endpoint\":\"https://api.example\",\"account\":\"default\",\
             \"receivedAt\":{},\"accessToken\":{token:?},\"refreshToken\":\"r\"}}",
            claims.len() * 7_777
        );
        for text in [&data[..], token.as_bytes(), kept.as_bytes(), members.as_bytes()] {
            fuzz::kept(text);
        }
    }

    #[test]
    fn kept_conversations_are_read_or_refused(data in vec(any::<u8>(), 0..80)) {
        agentwire::conversation::fuzz::state(&data);
        agentwire::conversation::fuzz::state(&[&[0x08, 1][..], &data].concat());
    }

    #[test]
    fn catalogs_put_nothing_else_on_the_wire(
        ids in vec("[a-c.-]{0,3}(-(none|low|high|max|thinking|fast)){0,3}", 0..12),
        text in r#"[\[\]{}:,"0-9a-z.eE+-]{0,40}"#,
    ) {
        use agentwire::models::fuzz::{cache, catalog};
        let models: Vec<_> = ids.iter().map(|id| serde_json::json!({"id": id, "name": text})).collect();
        catalog(serde_json::json!(models).to_string().as_bytes());
        catalog(text.as_bytes());
        cache(text.as_bytes());
    }

    #[test]
    fn cache_files_are_kept_as_they_were(
        ids in vec("[a-c./-]{0,4}", 0..6),
        number in any::<f64>(),
        flag in any::<Option<bool>>(),
    ) {
        let key = agentwire::models::CacheKey::new("a", "https://example.invalid");
        let entries = ids.into_iter().map(|id| agentwire::models::Entry {
            context_window: Some(number),
            max_tokens: Some(number.abs()),
            supports_thinking: flag,
            ..agentwire::models::Entry::new(id)
        });
        let catalog = agentwire::models::Catalog::live(entries.collect(), 7);
        if let Some(text) = agentwire::models::encode_cache(&catalog, &key) {
            agentwire::models::fuzz::cache(text.as_bytes());
        }
    }

    #[test]
    fn lists_of_models_are_read_or_refused(data in vec(any::<u8>(), 0..80), body in body()) {
        agentwire::models::fuzz::listing(&data);
        agentwire::models::fuzz::listing(&body);
    }
}

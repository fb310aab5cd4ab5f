//! What `GetUsableModels` can answer: BEHAVIOUR 1.4, FAULTS M45 and M91.

use agentwire::connect::{EndStream, Limits, gzip, put_envelope};
use agentwire::error::Kind;
use agentwire::models::{Dropped, IntakeLimits, Listing, decode_listing};
use agentwire::proto::{GetUsableModelsResponse, ModelDetails, ThinkingDetails};
use agentwire::redact::Redactor;
use agentwire::{Error, Result};
use prost::Message;

fn model(id: &str) -> ModelDetails {
    ModelDetails { model_id: id.to_owned(), ..ModelDetails::default() }
}

fn body(models: Vec<ModelDetails>) -> Vec<u8> {
    GetUsableModelsResponse { models }.encode_to_vec()
}

fn enveloped(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_envelope(&mut out, flags, payload);
    out
}

fn decode(body: &[u8]) -> Result<Listing> {
    decode_listing(
        body,
        Limits::default(),
        IntakeLimits::default(),
        &Redactor::new(["secret-token-123"]),
    )
}

fn ids(body: &[u8]) -> Vec<String> {
    decode(body).unwrap().entries.into_iter().map(|entry| entry.id).collect()
}

fn kind(body: &[u8]) -> Kind {
    decode(body).unwrap_err().kind().clone()
}

#[test]
fn names_and_flags() {
    let thinks = ModelDetails {
        thinking_details: Some(ThinkingDetails {}),
        display_model_id: "third".into(),
        display_name_short: "second".into(),
        display_name: " ".into(),
        aliases: vec!["b".into(), "../x".into()],
        ..model(" a ")
    };
    let max = ModelDetails { max_mode: Some(true), display_name: "D".into(), ..model("m") };
    let entries = decode(&body(vec![thinks, max, model("plain")])).unwrap().entries;
    let facts = |n: usize| {
        let entry = &entries[n];
        (entry.id.as_str(), entry.label(), entry.supports_reasoning, entry.supports_thinking)
    };
    assert_eq!(facts(0), ("a", Some("second"), Some(true), Some(true)));
    assert_eq!(facts(1), ("m", Some("D"), Some(true), Some(false)));
    assert_eq!(facts(2), ("plain", None, Some(false), Some(false)));
    assert_eq!(entries[0].aliases, ["b"]);
}

#[test]
fn an_envelope_is_understood() {
    let list = body(vec![model("a")]);
    assert!(!decode(&list).unwrap().enveloped);
    assert!(decode(&enveloped(0, &list)).unwrap().enveloped);
    assert_eq!(ids(&enveloped(1, &gzip::compress(&list))), ["a"]);
    let end = EndStream::ok().to_envelope();
    assert_eq!(ids(&[end.clone(), enveloped(0, &list)].concat()), ["a"]);
    let two = [enveloped(0, &list), enveloped(0, &body(vec![model("b")])), end].concat();
    assert_eq!(ids(&two), ["a"], "the first message counts");
}

#[test]
fn m45_an_answer_without_models_says_so() {
    let end = EndStream::ok().to_envelope();
    for empty in [&b""[..], &enveloped(0, b""), &end, &body(vec![model(" ")])] {
        let error = decode(empty).unwrap_err();
        assert_eq!(error.kind(), &Kind::ModelNotAvailable);
        assert!(error.hint().is_some());
    }
}

#[test]
fn m45_a_damaged_answer_is_an_error_and_not_an_empty_list() {
    let list = body(vec![model("a"), model("b")]);
    let whole = enveloped(0, &list);
    for cut in 1..whole.len() {
        assert_eq!(kind(&whole[..cut]), Kind::Protocol, "cut at {cut}");
    }
    let garbage = [0xff; 20];
    for damaged in [
        &b"{\"models\":[]}"[..],
        b"<html></html>",
        &garbage,
        &list[..list.len() - 1],
        &enveloped(0, &garbage),
        &enveloped(1, &list),
        &enveloped(1, &gzip::compress(&list)[..12]),
    ] {
        assert_eq!(kind(damaged), Kind::Protocol, "{damaged:?}");
    }
    let small = Limits { message: 3, ..Limits::default() };
    let error = decode_listing(&list, small, IntakeLimits::default(), &Redactor::default());
    assert_eq!(error.unwrap_err().kind(), &Kind::LimitExceeded);
    let bomb = enveloped(1, &gzip::compress(&vec![0; 20 << 20]));
    assert_eq!(kind(&bomb), Kind::LimitExceeded);
}

#[test]
fn an_error_in_the_envelope_is_the_answer() {
    let refused = Error::new(Kind::Unauthenticated, "bad secret-token-123");
    let error = decode(&EndStream::failed(refused).to_envelope()).unwrap_err();
    assert_eq!(error.kind(), &Kind::Unauthenticated);
    assert!(!format!("{error} {error:?}").contains("secret-token-123"));
}

#[test]
fn m91_hostile_ids_are_dropped_and_counted() {
    let long = "x".repeat(100 * 1024);
    let hostile =
        ["a\r\nb: c", "\u{1b}[2J", "../../x", "a\u{202e}b", "--yolo", &long, "", "good", "good"];
    let listing = decode(&body(hostile.iter().map(|id| model(id)).collect())).unwrap();
    assert_eq!(listing.entries.len(), 1);
    let expected =
        Dropped { unsafe_id: 5, too_long: 1, blank: 1, duplicate: 1, ..Dropped::default() };
    assert_eq!(listing.dropped, expected);

    let many = body((0..100_000).map(|n| model(&format!("m-{n}"))).collect());
    let listing = decode(&many).unwrap();
    assert_eq!(listing.entries.len(), IntakeLimits::default().models);
    assert_eq!(listing.entries.len() + listing.dropped.beyond_limit, 100_000);

    // An entry that is not UTF-8 costs only itself.
    let mut broken = body(vec![model("aa"), model("good")]);
    let place = broken.windows(2).position(|two| two == b"aa").unwrap();
    broken[place] = 0xff;
    let listing = decode(&broken).unwrap();
    assert_eq!((listing.entries[0].id.as_str(), listing.dropped.malformed), ("good", 1));
}

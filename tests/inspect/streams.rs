//! Streams: a line an envelope, and the damage of streams.

use agentwire::connect::{Limits, gzip, put_envelope};
use agentwire::inspect::{InspectError, Inspected, Side, envelope_from_json, lines};
use serde_json::{Value, json};

use crate::{hex, sorted};

fn read(side: Side, stream: &[u8]) -> (Vec<Inspected>, Option<InspectError>) {
    read_within(side, stream, Limits::default())
}

fn read_within(
    side: Side,
    stream: &[u8],
    limits: Limits,
) -> (Vec<Inspected>, Option<InspectError>) {
    let mut shown = Vec::new();
    let mut reader = lines(side, stream, limits);
    while let Some(line) = reader.next() {
        match line {
            Ok(line) => shown.push(line),
            Err(error) => {
                assert!(reader.next().is_none(), "nothing comes after an error");
                return (shown, Some(error));
            }
        }
    }
    (shown, None)
}

fn write(side: Side, lines: &[Inspected]) -> Vec<u8> {
    let envelope = |line: &Inspected| envelope_from_json(side, &sorted(&line.value));
    lines.iter().flat_map(|line| envelope(line).expect("a line that was printed")).collect()
}

fn envelope(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_envelope(&mut out, flags, payload);
    out
}

#[test]
fn a_stream_is_a_line_an_envelope() {
    let stream = [
        envelope(0, &hex("0a06 0a04 0a02 6869")),
        envelope(0, &hex("0a02 6a00")),
        envelope(2, br#"{"error":{"code":"internal","message":"no"}}"#),
    ]
    .concat();
    let (shown, error) = read(Side::Server, &stream);
    assert_eq!(error, None);
    let values: Vec<Value> = shown.iter().map(|line| line.value.clone()).collect();
    let expected = [
        json!({"offset": 0, "flags": 0, "length": 8,
            "message": {"interaction_update": {"text_delta": {"text": "hi"}}}}),
        json!({"offset": 13, "flags": 0, "length": 4,
            "message": {"interaction_update": {"heartbeat": {}}}}),
        json!({"offset": 22, "flags": 2, "length": 44,
            "end_stream": {"error": {"code": "internal", "message": "no"}}}),
    ];
    assert_eq!(values, expected);
    assert!(shown.iter().all(|line| line.damage.is_none()));
    assert_eq!(write(Side::Server, &shown), stream);
    // The members come in an order that reads well.
    assert!(values[0].to_string().starts_with(r#"{"offset":0,"flags":0,"length":8,"message":{"#));
}

#[test]
fn the_client_speaks_its_own_message() {
    let stream = envelope(0, &hex("3a00"));
    let (shown, _) = read(Side::Client, &stream);
    assert_eq!(shown[0].value["message"], json!({"client_heartbeat": {}}));
    assert_eq!(write(Side::Client, &shown), stream);
}

#[test]
fn end_stream_messages_in_other_forms_keep_their_bytes() {
    let cases: [(&[u8], bool, bool); 9] = [
        (b"{}", false, false),
        (br#"{"error":{"code":"aborted"},"metadata":{"a":["b"]}}"#, false, false),
        (br#"{"metadata":{},"error":null}"#, true, false),
        (b"{ }", true, false),
        (br#"{"a":1,"a":2}"#, true, false),
        (br#"{"a":1e2}"#, true, false),
        (b"", true, true),
        (b"[]", false, true),
        (b"{\"a\":\xff}", true, true),
    ];
    for (payload, keeps, damaged) in cases {
        for flags in [2, 3] {
            let packed = if flags == 3 { gzip::compress(payload) } else { payload.to_vec() };
            let stream = envelope(flags, &packed);
            let (shown, error) = read(Side::Server, &stream);
            assert_eq!((shown.len(), error), (1, None));
            assert_eq!(shown[0].value.get("raw").is_some(), keeps, "{}", shown[0].value);
            assert_eq!(shown[0].damage.is_some(), damaged, "{}", shown[0].value);
            assert_eq!(shown[0].value.get("damaged").is_some(), damaged);
            assert_eq!(write(Side::Server, &shown), stream);
        }
    }
}

/// JSON of an end-stream message that readers take alone, but not one level further in.
/// Found by fuzzing: without `float_roundtrip` such a number is read one unit off, and the line that was
/// printed is refused.
#[test]
fn numbers_of_an_end_stream_message_are_read_as_they_were_written() {
    for number in
        ["888800000000000000000000880957474511595474", "123456789012345680000000000.5", "5e-324"]
    {
        let stream = envelope(2, format!("{{\"a\":{number}}}").as_bytes());
        let line = lines(Side::Server, &stream, Limits::default()).next().unwrap().unwrap();
        let printed: Value = serde_json::from_str(&line.value.to_string()).unwrap();
        assert_eq!(envelope_from_json(Side::Server, &printed).unwrap(), stream, "{number}");
    }
}

#[test]
fn end_stream_messages_may_be_nested() {
    for levels in [109, 110, 126, 127, 5000] {
        let text = format!(r#"{{"a":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
        let stream = envelope(2, text.as_bytes());
        let (shown, error) = read(Side::Server, &stream);
        assert_eq!(error, None);
        assert_eq!(shown[0].damage.is_some(), levels > 110, "{levels}");
        assert_eq!(write(Side::Server, &shown), stream);
    }
}

#[test]
fn compressed_envelopes_are_shown_inside_and_kept_outside() {
    let plain = hex("0a06 0a04 0a02 6869");
    // Stored, not deflated: no encoder here would choose that.
    let stored = hex("1f8b0800000000000003 01 0800 f7ff 0a060a040a026869 647f5a36 08000000");
    let deflated = gzip::compress(&plain);
    for packed in [&deflated[..], &stored, b""] {
        let stream = envelope(1, packed);
        let (shown, error) = read(Side::Server, &stream);
        assert_eq!(error, None);
        let text = &shown[0].value["message"]["interaction_update"]["text_delta"]["text"];
        assert_eq!(text == "hi", !packed.is_empty());
        assert_eq!(write(Side::Server, &shown), stream);
    }
    // Without the bytes it is compressed anew.
    let line = json!({"flags": 1,
        "message": {"interaction_update": {"text_delta": {"text": "hi"}}}});
    assert_eq!(envelope_from_json(Side::Server, &line), Ok(envelope(1, &deflated)));
}

#[test]
fn damage_comes_with_its_offset_after_what_was_before() {
    let good = envelope(0, &hex("0a02 6a00"));
    let end = envelope(2, b"{}");
    let long = 16 * 1024 * 1024 + 1;
    let cases: [(&str, Vec<u8>, u64, String); 11] = [
        ("head", vec![0, 0, 0], 9, "the stream ends inside a header, after 3 of 5 bytes".into()),
        (
            "payload",
            hex("00 00000005 0a02"),
            9,
            "the stream ends inside a payload, after 2 of 5 bytes".into(),
        ),
        ("flags", envelope(4, b""), 9, "the envelope has reserved flags: 0x04".into()),
        ("flags", envelope(0x82, b"{}"), 9, "the envelope has reserved flags: 0x82".into()),
        (
            "length",
            hex("00 01000001"),
            9,
            format!("{long} bytes are announced, the limit is {}", long - 1),
        ),
        (
            "length of an end",
            hex("02 00100001"),
            9,
            "1048577 bytes are announced, the limit is 1048576".into(),
        ),
        ("message", envelope(0, &hex("0a00 0a05")), 16, "the message is cut short".into()),
        ("gzip", envelope(1, b"no"), 14, "a compressed message is not valid gzip".into()),
        (
            "gzip of a damaged message",
            envelope(1, &gzip::compress(&hex("0a00 0a05"))),
            14,
            "at byte 2 of the decompressed message: the message is cut short".into(),
        ),
        (
            "bomb",
            envelope(1, &gzip::compress(&vec![0; long])),
            14,
            format!("a compressed message becomes longer than the limit of {} bytes", long - 1),
        ),
        (
            "after the end",
            [end.clone(), good.clone()].concat(),
            16,
            "something follows the end-stream envelope".into(),
        ),
    ];
    for (name, bad, offset, reason) in cases {
        let stream = [good.clone(), bad].concat();
        let (shown, error) = read(Side::Server, &stream);
        let error = error.expect(name);
        assert_eq!((error.offset(), error.reason()), (Some(offset), reason.as_str()), "{name}");
        assert!(!shown.is_empty(), "{name}");
        let before = write(Side::Server, &shown);
        assert!(stream.starts_with(&before) && before.len() as u64 <= offset, "{name}");
    }
}

#[test]
fn damage_inside_a_message_does_not_stop_the_stream() {
    let good = envelope(0, &hex("0a02 6a00"));
    let bad = hex("0a05 0a03 0a01 ff");
    let stream =
        [&good[..], &envelope(0, &bad), &envelope(1, &gzip::compress(&bad)), &good].concat();
    let (shown, error) = read(Side::Server, &stream);
    assert_eq!(error, None);
    let damage: Vec<_> = shown.iter().map(|line| line.damage.as_ref()?.offset()).collect();
    assert_eq!(damage, [None, Some(9 + 5 + 6), Some(9 + 12 + 5), None]);
    assert_eq!(write(Side::Server, &shown), stream);
}

#[test]
fn limits_are_those_of_the_caller() {
    let limits = Limits { message: 4, decompressed: 4, end_stream: 4, ..Limits::DEFAULT };
    let stream = [envelope(0, &hex("0a02 6a00")), envelope(0, &hex("0a03 6a00 6a"))].concat();
    let (shown, error) = read_within(Side::Server, &stream, limits);
    assert_eq!(shown.len(), 1);
    assert_eq!(error.and_then(|error| error.offset()), Some(9));
}

#[test]
fn lines_that_mean_nothing_are_refused() {
    let packed = json!({"flags": 1, "compressed": "?", "message": {}});
    let edited = {
        let stream = envelope(1, &gzip::compress(&hex("0a02 6a00")));
        let (shown, _) = read(Side::Server, &stream);
        let mut value = shown[0].value.clone();
        value["message"] = json!({});
        value
    };
    let cases = [
        (json!(1), None),
        (json!({"flags": 0}), Some("")),
        (json!({"flags": 4, "message": {}}), Some("flags")),
        (json!({"flags": -1, "message": {}}), Some("flags")),
        (json!({"flags": 2, "message": {}}), Some("message")),
        (json!({"flags": 0, "end_stream": {}}), Some("end_stream")),
        (json!({"flags": 0, "message": {"x": 1}}), Some("message")),
        (json!({"flags": 0, "compressed": "", "message": {}}), Some("compressed")),
        (json!({"flags": 2, "end_stream": {}, "raw": "e30="}), None),
        (json!({"flags": 2, "end_stream": {"a": 1}, "raw": "e30="}), Some("raw")),
        (packed, Some("compressed")),
        (edited, Some("compressed")),
    ];
    for (line, path) in cases {
        let result = envelope_from_json(Side::Server, &line);
        match (path, line.is_object()) {
            (None, true) => assert_eq!(result, Ok(envelope(2, b"{}"))),
            (path, _) => {
                let error = result.expect_err(&line.to_string());
                assert_eq!(error.path(), Some(path.unwrap_or_default()), "{line}");
            }
        }
    }
    let any_length = json!({"offset": 9, "length": 9, "message": {}});
    assert_eq!(envelope_from_json(Side::Server, &any_length), Ok(envelope(0, b"")));
}

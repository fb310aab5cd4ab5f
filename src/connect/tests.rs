//! The decoder and the end-stream message against the rows of FAULTS A, B and C.

use proptest::prelude::*;

use super::*;
use crate::error::Kind;
use crate::redact::Redactor;

type Outcome = (Vec<Vec<u8>>, Result<(), (Kind, String)>, bool);

/// What came out of a body: messages and ends in order, then the error or the end's verdict.
fn decode(chunks: &[&[u8]], limits: Limits, compression: Compression) -> Outcome {
    let mut decoder = Decoder::new(limits, compression);
    let mut messages = Vec::new();
    let told = |error: crate::Error| (error.kind().clone(), error.message().to_owned());
    for mut chunk in chunks.iter().copied() {
        loop {
            match decoder.next(&mut chunk) {
                Ok(Some(Envelope::Message(message))) => messages.push(message.to_vec()),
                Ok(Some(Envelope::EndStream(end))) => {
                    messages.push(format!("end {:?}", end.error.map(|e| e.code())).into_bytes());
                }
                Ok(None) => break,
                Err(error) => {
                    let again = decoder.next(&mut &b"\0\0\0\0\0"[..]).unwrap_err();
                    assert_eq!(again.to_string(), error.to_string(), "the same error again");
                    return (messages, Err(told(error)), decoder.is_ended());
                }
            }
        }
    }
    let verdict = decoder.finish().map_err(told);
    (messages, verdict, decoder.is_ended())
}

fn frame(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_envelope(&mut out, flags, payload);
    out
}

fn failure(bytes: &[u8], compression: Compression) -> (Kind, String) {
    let (messages, verdict, _) = decode(&[bytes], Limits::default(), compression);
    assert!(messages.len() <= 1, "{messages:?}");
    verdict.unwrap_err()
}

#[test]
fn m11_a_missing_end_is_for_the_caller_to_judge() {
    let (messages, verdict, is_ended) =
        decode(&[&frame(0, b"hi")], Limits::default(), Compression::None);
    assert_eq!((messages, verdict, is_ended), (vec![b"hi".to_vec()], Ok(()), false));
}

#[test]
fn m12_nothing_follows_the_end() {
    for late in [frame(0, b"late"), frame(2, b"{}"), vec![0], b"junk".to_vec()] {
        let body = [frame(0, b"hi"), frame(2, b"{}"), late].concat();
        for size in [1, 3, body.len()] {
            let chunks: Vec<_> = body.chunks(size).collect();
            let (messages, verdict, _) = decode(&chunks, Limits::default(), Compression::None);
            assert_eq!(messages, [b"hi".to_vec(), b"end None".to_vec()]);
            let text = "the peer sent data after the end-stream message".to_owned();
            assert_eq!(verdict, Err((Kind::Protocol, text)));
        }
    }
}

#[test]
fn m14_reserved_flags_are_refused_before_the_payload() {
    for bit in 2..8 {
        for flags in [1 << bit, 1 << bit | 1, 1 << bit | 2] {
            let head = header(flags, 1 << 20);
            assert_eq!(failure(&head, Compression::Gzip).0, Kind::Protocol);
        }
    }
}

#[test]
fn m15_m16_malformed_end_streams_are_errors() {
    let deep = "[".repeat(100_000);
    let deep_error = format!("{{\"error\":{}", "{\"a\":".repeat(100_000));
    let cases: [&[u8]; 11] = [
        b"",
        b"not json",
        b"[]",
        b"null",
        b"1",
        b"\"error\"",
        b"{} x",
        b"{\"error\":",
        b"{\"a\":\"\xff\"}",
        deep.as_bytes(),
        deep_error.as_bytes(),
    ];
    for payload in cases {
        let (kind, message) = failure(&frame(2, payload), Compression::None);
        let expected = "the end-stream message is not a JSON object";
        assert_eq!((kind, message.as_str()), (Kind::Protocol, expected));
    }
}

fn end(json: &str) -> EndStream {
    EndStream::parse(json.as_bytes(), &Redactor::default()).unwrap()
}

#[test]
fn m17_codes_and_messages_that_are_missing_or_odd() {
    for json in ["{}", r#"{"error":null}"#, r#"{"x":[{"error":1}]}"#] {
        assert!(end(json).error.is_none(), "{json}");
    }
    let cases = [
        (r#"{"error":{}}"#, Code::Unknown, "the service gave no reason"),
        (r#"{"error":{"code":null,"message":"m"}}"#, Code::Unknown, "m"),
        (r#"{"error":{"code":"made_up","message":"m"}}"#, Code::Unknown, "m"),
        (r#"{"error":{"code":5,"message":5}}"#, Code::Unknown, "the service gave no reason"),
        (r#"{"error":{"code":"not_found","more":[],"message":"m"}}"#, Code::NotFound, "m"),
        (r#"{"error":{"code":"internal","message":"a","message":"b"}}"#, Code::Internal, "b"),
        (r#"{"error":{"message":"\ud83d\ude00"}}"#, Code::Unknown, "😀"),
        (r#"{"error":"boom"}"#, Code::Unknown, "boom"),
        (r#"{"error":[]}"#, Code::Unknown, "the service gave no reason"),
        (r#"{"error":false}"#, Code::Unknown, "the service gave no reason"),
    ];
    for (json, code, message) in cases {
        let error = end(json).error.unwrap();
        assert_eq!((error.code(), error.message()), (code, message), "{json}");
    }
}

#[test]
fn m18_depth_inside_the_error_costs_the_detail_only() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let json = format!(
        r#"{{"x":{deep},"error":{{"code":"internal","y":{deep},"message":"kept","details":[
           {{"type":"t","value":"AA","debug":{deep}}}]}}}}"#
    );
    let error = end(&json).error.unwrap();
    assert_eq!((error.code(), error.message()), (Code::Internal, "kept"));
    assert_eq!(error.details().len(), 1);
    assert!(error.details()[0].debug.is_none());
}

#[test]
fn m19_a_huge_end_stream_is_refused_at_its_header() {
    let (kind, _) = failure(&header(2, 64 << 20), Compression::None);
    assert_eq!(kind, Kind::LimitExceeded);
    let bomb = frame(3, &gzip::compress(&vec![b' '; 8 << 20]));
    assert_eq!(failure(&bomb, Compression::Gzip).0, Kind::LimitExceeded);
}

#[test]
fn m20_a_bad_detail_is_dropped_and_the_rest_kept() {
    let json = r#"{"error":{"code":"aborted","message":"m","details":[
        {"type":"type.googleapis.com/a.B","value":"aGk=","debug":{"x":1}},
        {"type":"a.C","value":"aGk"},
        {"type":"a.D","value":"!!"}, {"type":"a.E"}, {"value":"aGk"}, 7, null,
        {"type":"a.F","value":"","debug":"garbage"}]}}"#;
    let error = end(json).error.unwrap();
    let details: Vec<_> = error
        .details()
        .iter()
        .map(|detail| (detail.type_name.as_str(), &detail.value[..], detail.debug.clone()))
        .collect();
    let expected = [
        ("a.B", &b"hi"[..], Some(serde_json::json!({ "x": 1 }))),
        ("a.C", b"hi", None),
        ("a.F", b"", Some("garbage".into())),
    ];
    assert_eq!(details, expected);
    let wild = r#"{"error":{"code":"aborted","message":"m","details":{"type":"x"}}}"#;
    assert_eq!(end(wild).error.unwrap().details(), []);
}

#[test]
fn m21_a_compressed_end_stream_is_read() {
    let packed = gzip::compress(br#"{"error":{"code":"out_of_range","message":"oops"}}"#);
    let (messages, verdict, is_ended) =
        decode(&[&frame(3, &packed)], Limits::default(), Compression::Gzip);
    assert_eq!((messages.len(), verdict, is_ended), (1, Ok(()), true));
    assert_eq!(messages[0], b"end Some(OutOfRange)");
}

#[test]
fn m22_m88_the_message_is_one_line_and_holds_no_secret() {
    let redactor = Redactor::new(["secret-token-123"]);
    let json = br#"{"error":{"code":"internal","message":"a\u001b[31m\r\nsecret-token-123\u0000",
        "details":[{"type":"t","value":"","debug":{"text":"secret%2Dtoken-123"}}]}}"#;
    let error = EndStream::parse(json, &redactor).unwrap().error.unwrap();
    assert_eq!(error.message(), r"a\u{1b}[31m\r\n[redacted]\u{0}");
    let debug = serde_json::json!({ "text": "[redacted]" });
    assert_eq!(error.details()[0].debug.as_ref(), Some(&debug));
}

#[test]
fn metadata_is_kept_in_order() {
    let json = r#"{"metadata":{"B-Bin":["AA","BB"],"a":"one","n":[1,null,"two"],"o":{}},
        "error":{"code":"aborted"}}"#;
    let end = end(json);
    let expected = [("b-bin", "AA"), ("b-bin", "BB"), ("a", "one"), ("n", "two")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(end.metadata, expected);
    assert_eq!(end.error.unwrap().metadata(), expected);
    assert_eq!(EndStream::ok().to_json(), "{}");
}

#[test]
fn an_end_stream_reads_back_as_it_was_written() {
    let detail = crate::error::Detail {
        type_name: "a.B".to_owned(),
        value: bytes::Bytes::from_static(b"\0\x01\x02\x03"),
        debug: Some(serde_json::json!({ "k": [1] })),
    };
    let error = crate::Error::new(Kind::Rejected, "line one\nline \"two\" 😀")
        .with_code(Code::DataLoss)
        .with_details(vec![detail.clone()]);
    let mut written = EndStream::failed(error);
    written.metadata = vec![("a".into(), "1".into()), ("b".into(), "2".into())];
    let read = EndStream::parse(written.to_json().as_bytes(), &Redactor::verbatim()).unwrap();
    assert_eq!(read.metadata, written.metadata);
    let error = read.error.unwrap();
    assert_eq!((error.code(), error.message()), (Code::DataLoss, "line one\nline \"two\" 😀"));
    assert_eq!(error.details(), [detail]);
    let body = written.to_envelope();
    assert!(decode(&[&body], Limits::default(), Compression::None).2);
}

#[test]
fn m23_m25_compression_that_nobody_named() {
    let packed = frame(1, &gzip::compress(b"hi"));
    let (kind, message) = failure(&packed, Compression::None);
    let expected = "a message is compressed, but no encoding was named";
    assert_eq!((kind, message.as_str()), (Kind::Protocol, expected));
}

#[test]
fn m26_m27_compressed_messages_whole_or_not_at_all() {
    let packed = gzip::compress(b"hello");
    let decoded =
        |payload: &[u8]| decode(&[&frame(1, payload)], Limits::default(), Compression::Gzip);
    assert_eq!(decoded(&packed).0, [b"hello".to_vec()]);
    assert_eq!(decoded(b"").0, [b"".to_vec()]);
    assert_eq!(decoded(&[packed.clone(), packed.clone()].concat()).0, [b"hellohello".to_vec()]);
    let damaged = [&packed[..packed.len() - 1], b"plain", &[&packed[..], b"x"].concat()];
    for payload in damaged {
        let (messages, verdict, _) = decoded(payload);
        assert_eq!((messages.len(), verdict.unwrap_err().0), (0, Kind::Protocol));
    }
}

#[test]
fn m28_bombs_stop_at_the_limit_one_at_a_time() {
    let limits = Limits { decompressed: 1 << 20, ..Limits::default() };
    let bomb = frame(1, &gzip::compress(&vec![0; (1 << 20) + 1]));
    let (messages, verdict, _) = decode(&[&bomb], limits, Compression::Gzip);
    assert_eq!((messages.len(), verdict.unwrap_err().0), (0, Kind::LimitExceeded));
    let under = frame(1, &gzip::compress(&vec![0; 1 << 20]));
    let body = [under.clone(), under.clone(), under].concat();
    assert_eq!(decode(&[&body], limits, Compression::Gzip).0.len(), 3);
}

/// Copied once: with a copy of the whole for each piece this takes hours and not a second.
#[test]
fn m04_a_large_message_in_small_pieces_takes_linear_time() {
    const SIZE: usize = 64 << 20;
    let limits = Limits { message: SIZE, ..Limits::default() };
    let mut decoder = Decoder::new(limits, Compression::None);
    let mut header = &[0, 4, 0, 0, 0][..];
    assert!(decoder.next(&mut header).unwrap().is_none());
    let piece = [7; 1 << 10];
    for n in 1..=SIZE / piece.len() {
        let mut chunk = &piece[..];
        let whole = match decoder.next(&mut chunk).unwrap() {
            Some(Envelope::Message(message)) => message.len() == SIZE,
            Some(Envelope::EndStream(_)) => unreachable!(),
            None => false,
        };
        assert_eq!(whole, n == SIZE / piece.len());
    }
}

#[test]
fn m10_a_million_empty_messages() {
    let body = vec![0; 5_000_000];
    let mut decoder = Decoder::new(Limits::default(), Compression::None);
    let mut count = 0;
    for mut chunk in body.chunks(1 << 14) {
        while decoder.next(&mut chunk).unwrap().is_some() {
            count += 1;
        }
    }
    assert_eq!(count, 1_000_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cut_of_any_stream_is_the_same(
        payloads in prop::collection::vec((0_u8..8, prop::collection::vec(any::<u8>(), 0..200)), 0..12),
        tail in prop::collection::vec(any::<u8>(), 0..40),
        sizes in prop::collection::vec(1_usize..50, 1..20),
    ) {
        let mut body: Vec<u8> = payloads
            .iter()
            .flat_map(|(flags, payload)| match flags {
                1 => frame(1, &gzip::compress(payload)),
                2 => frame(2, b"{}"),
                3 => frame(3, &gzip::compress(b"{\"error\":{}}")),
                4 => frame(1, payload),
                _ => frame(0, payload),
            })
            .collect();
        body.extend(tail);
        let limits = Limits { message: 300, decompressed: 150, end_stream: 100, ..Limits::DEFAULT };
        let whole = decode(&[&body], limits, Compression::Gzip);
        let mut chunks = Vec::new();
        let mut rest = body.as_slice();
        for size in sizes.iter().cycle() {
            let (chunk, more) = rest.split_at((*size).min(rest.len()));
            chunks.push(chunk);
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(decode(&chunks, limits, Compression::Gzip), whole);
    }
}

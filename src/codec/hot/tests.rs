use proptest::prelude::*;
use prost::Message as _;

use super::checkpoint::{Kind as Shaped, SPAN, STATE, Shape};
use super::fuzz::differential;
use super::*;
use crate::error::Kind;
use crate::proto;
use crate::wire::{WireType, put_bytes, put_nested, put_str, put_tag, put_uint, put_varint};

/// A delta as a server sends it: `case` 1 is text, 4 is thinking.
fn delta_of(case: u32, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_nested(&mut out, 1, |out| put_nested(out, case, |out| put_bytes(out, 1, text)));
    out
}

fn built(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

#[test]
fn deltas_of_every_length_are_borrowed() {
    for len in (0..300).chain(16_250..16_500) {
        let text = "y".repeat(len);
        let payload = delta_of(1, text.as_bytes());
        assert_eq!(decode(&payload).unwrap(), Incoming::Text(Cow::Borrowed(&text)));
        let payload = delta_of(4, text.as_bytes());
        assert!(matches!(decode(&payload).unwrap(), Incoming::Thinking(Cow::Borrowed(_))));
        let is_fast = !(124..128).contains(&len) && len < 0x4000 - 6;
        let fast = short_delta(&payload).or_else(|| long_delta(&payload));
        assert_eq!(fast.is_some(), is_fast, "{len}");
        differential(&payload);
    }
}

#[test]
fn m31_invalid_utf8_is_repaired_in_deltas_only() {
    for text in [&b"a\xffb"[..], &[b'x'; 70], &[0xe2, 0x82]] {
        let text = [text, &[0xff]].concat();
        let repaired = String::from_utf8_lossy(&text).into_owned();
        let payload = delta_of(1, &text);
        assert_eq!(decode(&payload).unwrap(), Incoming::Text(Cow::Owned(repaired.clone())));
        let payload = delta_of(4, &text);
        assert_eq!(decode(&payload).unwrap(), Incoming::Thinking(Cow::Owned(repaired)));
    }
    let bad = b"\xff";
    let others = [
        built(|out| put_nested(out, 1, |out| put_nested(out, 9, |out| put_bytes(out, 1, bad)))),
        built(|out| put_nested(out, 2, |out| put_bytes(out, 15, bad))),
        built(|out| put_nested(out, 3, |out| put_bytes(out, 4, bad))),
        built(|out| put_nested(out, 4, |out| put_nested(out, 4, |out| put_bytes(out, 1, bad)))),
        // Replaced by another case, so nobody would see what was repaired.
        [delta_of(1, bad), delta_of(4, b"x")].concat(),
        [delta_of(1, bad), built(|out| put_nested(out, 4, |_| {}))].concat(),
        built(|out| {
            put_nested(out, 1, |out| {
                put_nested(out, 1, |out| {
                    put_bytes(out, 1, bad);
                    put_str(out, 1, "good");
                });
            });
        }),
    ];
    for payload in others {
        let error = decode(&payload).unwrap_err();
        assert_eq!(error.kind(), &Kind::Protocol);
        assert!(AgentServerMessage::decode(&payload[..]).is_err());
    }
}

use proto::AgentServerMessage;

#[test]
fn m32_m33_m34_refusals() {
    let cases: [&[u8]; 10] = [
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0x0a, 0x05, 0x01],
        &[0x0a, 0x80],
        &[0x08, 0x01],
        &[0x0e, 0x00],
        &[0x02, 0x00],
        &[0x0a, 0x03, 0x0a, 0x01, 0x08],
        &[0x0b],
        &[0x0a, 0x04, 0x42, 0x02, 0x0a, 0x00],
        &[0x7b, 0x08, 0x01],
    ];
    for payload in cases {
        assert_eq!(decode(payload).unwrap_err().kind(), &Kind::Protocol, "{payload:02x?}");
        differential(payload);
    }
    assert_eq!(decode(&[]).unwrap(), Incoming::Unknown);
    // Field 2²⁹ − 1, and a group: skipped.
    assert_eq!(decode(&[0xf8, 0xff, 0xff, 0xff, 0x0f, 1]).unwrap(), Incoming::Unknown);
    assert_eq!(decode(&[0x7b, 0x08, 0x01, 0x7c]).unwrap(), Incoming::Unknown);
    assert!(decode(&vec![0x7b; 100_000]).is_err());
}

/// A checkpoint with a subagent's checkpoint inside, `levels` deep.
fn nested_checkpoint(levels: usize) -> Vec<u8> {
    let mut state = Vec::new();
    for _ in 0..levels {
        let inner = std::mem::take(&mut state);
        put_nested(&mut state, 16, |out| {
            put_str(out, 1, "id");
            put_nested(out, 2, |out| put_bytes(out, 1, &inner));
        });
    }
    built(|out| put_bytes(out, 3, &state))
}

#[test]
fn m35_nesting_ends_at_the_limit_of_prost() {
    for levels in 28..38 {
        differential(&nested_checkpoint(levels));
    }
    assert!(decode(&nested_checkpoint(30)).is_ok());
    assert_eq!(decode(&nested_checkpoint(40)).unwrap_err().kind(), &Kind::Protocol);
    assert!(decode(&nested_checkpoint(10_000)).is_err());
    for depth in 95..103 {
        let group = [vec![0x7b; depth], vec![0x7c; depth]].concat();
        for field in [1, 3, 4, 15] {
            differential(&built(|out| put_bytes(out, field, &group)));
            differential(&group);
            differential(&built(|out| {
                put_nested(out, field, |out| put_bytes(out, 2, &group));
            }));
        }
    }
}

#[test]
fn m36_unknown_cases_keep_what_an_answer_needs() {
    let exec = built(|out| {
        put_nested(out, 2, |out| {
            put_uint(out, 1, 7);
            put_nested(out, 99, |out| put_str(out, 1, "new"));
            put_str(out, 15, "exec-7");
            put_uint(out, 98, 1);
        });
    });
    let Incoming::Exec(message, unknown) = decode(&exec).unwrap() else { panic!() };
    assert_eq!((message.id, message.exec_id.as_str(), unknown), (7, "exec-7", Some(99)));
    let query = built(|out| {
        put_nested(out, 7, |out| {
            put_uint(out, 1, 8);
            put_nested(out, 77, |_| {});
        });
    });
    let Incoming::Query(message, unknown) = decode(&query).unwrap() else { panic!() };
    assert_eq!((message.id, unknown), (8, Some(77)));
    let span_only = built(|out| put_nested(out, 2, |out| put_nested(out, 19, |_| {})));
    assert!(matches!(decode(&span_only).unwrap(), Incoming::Exec(_, None)));
    for (outer, inner) in [(1, 60), (4, 60), (5, 60), (6, 1), (99, 1)] {
        let payload = built(|out| put_nested(out, outer, |out| put_nested(out, inner, |_| {})));
        let expected = if outer == 5 { Incoming::ExecControl(None) } else { Incoming::Unknown };
        assert_eq!(decode(&payload).unwrap(), expected);
    }
}

/// Found by `fuzz/messages`: entries of a map are messages, whatever else their tag says.
#[test]
fn a_map_entry_of_another_wire_type_is_refused() {
    for number in [12, 15, 16] {
        let payload = built(|out| put_nested(out, 3, |out| put_uint(out, number, 0)));
        assert!(decode(&payload).is_err(), "{number}");
        differential(&payload);
    }
}

#[test]
fn m37_the_last_case_wins_and_the_same_case_merges() {
    let tokens = built(|out| {
        put_nested(out, 1, |out| put_nested(out, 8, |out| put_uint(out, 1, 5)));
    });
    let both = [delta_of(1, b"a"), tokens.clone()].concat();
    assert_eq!(decode(&both).unwrap(), Incoming::Tokens(5));
    let both = [tokens, delta_of(1, b"a"), delta_of(1, b"b")].concat();
    assert_eq!(decode(&both).unwrap(), Incoming::Text("b".into()));
    let checkpoint = |write: fn(&mut Vec<u8>)| built(|out| put_nested(out, 3, write));
    let first = checkpoint(|out| {
        put_nested(out, 5, |out| {
            put_uint(out, 1, 10);
            put_uint(out, 2, 20);
        });
    });
    let second = checkpoint(|out| put_nested(out, 5, |out| put_uint(out, 1, 11)));
    let both = [&first[..], &second].concat();
    let Incoming::Checkpoint(merged) = decode(&both).unwrap() else { panic!() };
    assert_eq!((merged.used_tokens, merged.max_tokens), (Some(11), Some(20)));
    assert_eq!(merged.raw, [&first[2..], &second[2..]].concat());
    for pair in [both, [first, delta_of(1, b"x"), second].concat()] {
        differential(&pair);
    }
}

#[test]
fn the_shapes_are_those_of_the_field_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/protocol/agent_v1_fields.tsv");
    let table: &'static str = std::fs::read_to_string(path).unwrap().leak();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split('\t').collect()).collect();
    let mut open = vec![(&STATE, "ConversationStateStructure"), (&SPAN, "SpanContext")];
    let mut seen = Vec::new();
    while let Some((shape, name)) = open.pop() {
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        assert!(rows.iter().any(|row| row[0] == name), "{name}");
        let declared = rows.iter().filter(|row| row[0] == name && !row[1].is_empty());
        let declared: Vec<_> =
            declared.map(|row| (row[1].parse::<u32>().unwrap(), row[3])).collect();
        assert_eq!(declared.len(), shape.fields.len(), "{name}");
        for ((number, declared), (ours, kind)) in declared.iter().zip(shape.fields) {
            assert_eq!(number, ours, "{name}");
            open.extend(fits(declared, *kind));
        }
    }
    assert_eq!(seen.len(), 11);
}

/// Asserts that a declared type is what `kind` says; gives the message that it is about.
fn fits(declared: &'static str, kind: Shaped) -> Option<(&'static Shape, &'static str)> {
    let plain = declared.trim_start_matches("repeated ").trim_start_matches("optional ");
    match kind {
        Shaped::Varint => {
            assert!(["int32", "uint32", "int64", "uint64", "bool"].contains(&plain), "{declared}");
            None
        }
        Shaped::Bytes => (plain != "bytes").then(|| panic!("{declared}")),
        Shaped::Text => (plain != "string").then(|| panic!("{declared}")),
        Shaped::Message(shape) => Some((shape, plain)),
        Shaped::Map(entry) => {
            let value = plain.strip_prefix("map<string, ").and_then(|rest| rest.strip_suffix('>'));
            let [(1, Shaped::Text), (2, kind)] = entry.fields else { panic!("{declared}") };
            fits(value.unwrap(), *kind)
        }
    }
}

/// A message field with its tag and its length written longer than needed where `wide`.
fn put_wide(out: &mut Vec<u8>, number: u32, wide: bool, content: &[u8]) {
    if !wide {
        return put_bytes(out, number, content);
    }
    out.extend([(number as u8 * 8 + 2) | 0x80, 0x80, 0]);
    put_varint(out, content.len() as u64 | 1 << 14);
    let end = out.len() - 1;
    // The bit above the length is taken back: a last group of nothing.
    out[end] = 0;
    out.extend(content);
}

/// A delta with something unknown beside it at each of its three levels.
fn beside(case: u32, text: &[u8], unknown: &[Vec<u8>; 6], wide: bool) -> Vec<u8> {
    let mut level = text.to_vec();
    for (pair, number) in unknown.chunks(2).zip([1, case, 1]) {
        let content = std::mem::replace(&mut level, pair[0].clone());
        put_wide(&mut level, number, wide, &content);
        level.extend(&pair[1]);
    }
    level
}

#[test]
fn a_lone_delta_is_seen_whatever_is_unknown_beside_it() {
    let unknown = |number: u32| {
        [
            Vec::new(),
            built(|out| put_uint(out, number, 300)),
            built(|out| put_str(out, number, "later")),
            built(|out| {
                put_tag(out, number, WireType::StartGroup);
                put_uint(out, 1, 1);
                put_tag(out, number, WireType::EndGroup);
            }),
            built(|out| {
                put_tag(out, number, WireType::I32);
                out.extend([1, 2, 3, 4]);
            }),
        ]
    };
    for (case, wide, len) in [(1, false, 0), (1, true, 5), (4, false, 90), (4, true, 600)] {
        let text = "z".repeat(len);
        for other in unknown(99) {
            for place in 0..6 {
                let mut unknown = <[Vec<u8>; 6]>::default();
                unknown[place] = other.clone();
                let payload = beside(case, text.as_bytes(), &unknown, wide);
                assert_eq!(walk::lone_delta(&payload), Some((case, text.as_bytes())));
                differential(&payload);
                // The same with a byte too much or too few, and with a text that is none.
                differential(&payload[..payload.len() - 1]);
                differential(&[&payload[..], &[0x0a]].concat());
                let broken = beside(case, &[text.as_bytes(), b"\xff"].concat(), &unknown, wide);
                assert!(matches!(
                    decode(&broken).unwrap(),
                    Incoming::Text(Cow::Owned(_)) | Incoming::Thinking(Cow::Owned(_))
                ));
            }
        }
    }
}

#[test]
fn what_comes_twice_is_no_lone_delta() {
    let one = delta_of(1, b"a");
    let twice_inside = built(|out| {
        put_nested(out, 1, |out| {
            put_bytes(out, 1, &delta_of(1, b"a")[4..]);
            put_bytes(out, 4, &delta_of(4, b"b")[4..]);
        });
    });
    let known = built(|out| put_nested(out, 4, |_| {}));
    let heartbeat = built(|out| put_nested(out, 1, |out| put_nested(out, 13, |_| {})));
    let others =
        [[one.clone(), one.clone()].concat(), twice_inside, [one, known].concat(), heartbeat];
    for payload in others {
        assert_eq!(walk::lone_delta(&payload), None);
        differential(&payload);
    }
    // A number where a message should be.
    assert_eq!(walk::lone_delta(&[0x08, 1]), None);
}

/// Bytes that are nearly a server message: fields of the numbers that matter, nested, some of them
/// with a wild tag or a wild length.
fn nearly_a_message(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let number = prop_oneof![4 => 1_u32..24, 1 => Just(99_u32), 1 => Just((1 << 29) - 1)];
    let leaf = prop_oneof![
        3 => "[a-z漢😀]{0,12}".prop_map(String::into_bytes),
        2 => prop::collection::vec(any::<u8>(), 0..12),
        1 => Just(Vec::new()),
    ];
    let content = match depth {
        0 => leaf.boxed(),
        _ => prop_oneof![2 => leaf, 5 => nearly_a_message(depth - 1)].boxed(),
    };
    let field =
        (number, content, any::<u64>(), 0_u8..24).prop_map(|(number, content, int, how)| {
            built(|out| match how {
                0..=13 => put_bytes(out, number, &content),
                14..=18 => put_uint(out, number, int >> (int % 64)),
                19 => {
                    put_tag(out, number, WireType::StartGroup);
                    out.extend(&content);
                    put_tag(out, number, WireType::EndGroup);
                }
                20 => {
                    put_tag(out, number, WireType::I32);
                    out.extend(&int.to_le_bytes()[..4]);
                }
                21 => {
                    put_tag(out, number, WireType::I64);
                    out.extend(&int.to_le_bytes());
                }
                22 => {
                    put_varint(out, int >> (int % 64));
                    out.extend(&content);
                }
                _ => {
                    put_tag(out, number, WireType::Len);
                    put_varint(out, int >> (int % 64));
                    out.extend(&content);
                }
            })
        });
    prop::collection::vec(field, 0..4).prop_map(|fields| fields.concat()).boxed()
}

/// A message of one of the cases, with plausible content.
fn typical() -> impl Strategy<Value = Vec<u8>> {
    let case = prop_oneof![
        (Just(1_u32), prop_oneof![Just(1_u32), Just(4), Just(8), Just(13), Just(14), 1_u32..20]),
        (Just(3), 1_u32..23),
        (Just(4), 1_u32..5),
        (prop_oneof![Just(2_u32), Just(5), Just(7)], 1_u32..24),
    ];
    let part = (case, nearly_a_message(2), "[ -~é]{0,90}", any::<bool>());
    let part = part.prop_map(|((outer, inner), content, text, is_text)| {
        built(|out| {
            put_nested(out, outer, |out| match is_text {
                true => put_nested(out, inner, |out| put_str(out, 1, &text)),
                false => put_bytes(out, inner, &content),
            });
        })
    });
    prop::collection::vec(part, 1..3).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn both_decoders_agree(
        payload in prop_oneof![3 => typical(), 2 => nearly_a_message(4)],
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in any::<prop::sample::Index>(),
        is_cut in prop::bool::weighted(0.1),
    ) {
        differential(&payload);
        let mut mutated = payload;
        if !mutated.is_empty() {
            for (at, with) in flips {
                let at = at.index(mutated.len());
                mutated[at] = with;
            }
            if is_cut {
                mutated.truncate(cut.index(mutated.len()));
            }
        }
        differential(&mutated);
    }

    #[test]
    fn a_delta_beside_anything_agrees(
        is_text in any::<bool>(),
        text in prop_oneof![
            "[ -~é漢]{0,90}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..40),
        ],
        parts in prop::array::uniform6(prop_oneof![4 => Just(Vec::new()), 1 => nearly_a_message(1)]),
        wide in any::<bool>(),
    ) {
        differential(&beside(if is_text { 1 } else { 4 }, &text, &parts, wide));
    }

    #[test]
    fn random_bytes_agree(payload in prop::collection::vec(any::<u8>(), 0..40)) {
        differential(&payload);
    }
}

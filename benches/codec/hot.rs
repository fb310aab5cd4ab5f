//! Every message that comes often, decoded beside prost with the full schema.

use agentwire::codec::hot;
use agentwire::proto::AgentServerMessage;
use agentwire::wire::{put_bytes, put_nested, put_str, put_uint};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use prost::Message as _;

use super::COUNT;

const KINDS: [&str; 9] = [
    "text",
    "thinking",
    "tokens",
    "heartbeat",
    "turn_ended",
    "get_blob",
    "set_blob",
    "checkpoint",
    "tool_started",
];

/// The payload of a message of this kind.
fn message(kind: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut update = |number: u32, fill: &dyn Fn(&mut Vec<u8>)| {
        put_nested(&mut out, 1, |out| put_nested(out, number, fill));
    };
    match kind {
        "text" => update(1, &|out| put_str(out, 1, "twenty bytes of text")),
        "thinking" => update(4, &|out| put_str(out, 1, "twenty bytes of text")),
        "tokens" => update(8, &|out| put_uint(out, 1, 3)),
        "heartbeat" => update(13, &|_| {}),
        "turn_ended" => update(14, &|out| {
            (1..=4).for_each(|field| put_uint(out, field, 1_234));
        }),
        // One that prost decodes: not every message is hot.
        "tool_started" => update(2, &|out| put_str(out, 1, "call-1")),
        "checkpoint" => put_nested(&mut out, 3, |out| {
            (0..20).for_each(|turn| put_bytes(out, 8, &[turn; 32]));
        }),
        "get_blob" => put_nested(&mut out, 4, |out| {
            put_uint(out, 1, 7);
            put_nested(out, 2, |out| put_bytes(out, 1, &[7; 32]));
        }),
        _ => put_nested(&mut out, 4, |out| {
            put_uint(out, 1, 7);
            put_nested(out, 3, |out| {
                put_bytes(out, 1, &[7; 32]);
                put_bytes(out, 2, &[9; 1_024]);
            });
        }),
    }
    out
}

#[divan::bench(args = KINDS)]
fn ours(bencher: Bencher<'_, '_>, kind: &str) {
    let payload = message(kind);
    let bytes = BytesCount::new(COUNT * payload.len());
    bencher.counter(ItemsCount::new(COUNT)).counter(bytes).bench_local(|| {
        (0..COUNT).for_each(|_| drop(black_box(hot::decode(black_box(&payload)).unwrap())));
    });
}

#[divan::bench(args = KINDS)]
fn prost_full(bencher: Bencher<'_, '_>, kind: &str) {
    let payload = message(kind);
    let bytes = BytesCount::new(COUNT * payload.len());
    bencher.counter(ItemsCount::new(COUNT)).counter(bytes).bench_local(|| {
        (0..COUNT).for_each(|_| {
            let decoded = AgentServerMessage::decode(black_box(payload.as_slice())).unwrap();
            drop(black_box(decoded));
        });
    });
}

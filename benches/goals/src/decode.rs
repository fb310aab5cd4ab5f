//! Goals 1 to 4: text deltas.

use std::hint::black_box;

use agentwire::codec::hot::{self, Incoming};

use crate::data;
use crate::race::{Race, Results};
use crate::rivals;
use crate::table::Table;

const COUNT: usize = 1_000;
const ROUNDS: u32 = 200;

#[inline(always)]
pub fn ours(payload: &[u8]) -> usize {
    match hot::decode(payload) {
        Ok(Incoming::Text(text)) => black_box(&*text).len(),
        _ => 0,
    }
}

fn race(payloads: &[Vec<u8>]) -> Results {
    Race::new(ROUNDS)
        .case("ours", over(payloads, ours))
        .case("full", over(payloads, |payload| rivals::full(payload)))
        .case("trimmed", over(payloads, |payload| rivals::trimmed(payload)))
        .case("buffa", over(payloads, rivals::view))
        .run()
}

/// A decoder over all payloads, called as a caller does: by its name, so that each may be inlined. A
/// pointer to a function costs as much as half a decode.
fn over<'a>(
    payloads: &'a [Vec<u8>],
    decode: impl Fn(&[u8]) -> usize + 'a,
) -> impl FnMut() -> u64 + 'a {
    move || payloads.iter().map(|payload| decode(black_box(payload)) as u64).sum()
}

fn deltas(make: fn(&str) -> Vec<u8>, text: impl Fn(usize) -> String) -> Vec<Vec<u8>> {
    (0..COUNT).map(|seed| make(&text(seed))).collect()
}

pub fn judge(table: &mut Table) {
    let mut calls = 0;
    for len in [4, 20, 60] {
        let results = race(&deltas(data::delta, |seed| data::ascii(len, seed)));
        let what = |rival| format!("text delta of {len} B against prost, {rival} schema");
        table.at_least("1", what("full"), 25.0, results.times_faster("ours", "full"));
        table.at_least("1", what("trimmed"), 10.0, results.times_faster("ours", "trimmed"));
        against_buffa(table, "1", &format!("text delta of {len} B"), &results);
        calls += results.get("ours").heap.calls;
    }
    let results = race(&deltas(data::delta, |seed| data::ascii(200, seed)));
    table.at_least(
        "2",
        "200 B against prost, full schema",
        7.0,
        results.times_faster("ours", "full"),
    );
    let trimmed = results.times_faster("ours", "trimmed");
    table.at_least("2", "200 B against prost, trimmed schema", 3.5, trimmed);
    against_buffa(table, "2", "200 B", &results);
    calls += results.get("ours").heap.calls;
    let results = race(&deltas(data::delta, |seed| data::wide(200, seed)));
    for rival in ["full", "trimmed"] {
        let what = format!("200 B that are not ASCII against prost, {rival} schema");
        table.at_least("2", what, 15.0, results.times_faster("ours", rival));
    }
    against_buffa(table, "2", "200 B that are not ASCII", &results);
    calls += results.get("ours").heap.calls;
    let results = race(&deltas(data::odd_delta, |seed| data::ascii(20, seed)));
    let full = results.times_faster("ours", "full");
    table.at_least("3", "off the fast path against prost, full schema", 5.0, full);
    let trimmed = results.times_faster("ours", "trimmed");
    table.at_least("3", "off the fast path against prost, trimmed schema", 2.0, trimmed);
    against_buffa(table, "3", "off the fast path", &results);
    table.at_most("4", "allocations of 5,000 deltas in the codec", 0.0, calls as f64, "");
}

/// Its borrowed view of the trimmed schema, the fastest that a generator makes.
fn against_buffa(table: &mut Table, goal: &'static str, what: &str, results: &Results) {
    let what = format!("{what} against buffa, borrowed, trimmed schema");
    table.told(goal, what, "x", results.times_faster("ours", "buffa"));
}

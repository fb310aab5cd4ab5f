//! Goal 5: instructions under callgrind, which do not depend on what else the machine does.
//! `../instructions` runs the same work and fails above its ceilings.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;

use agentwire::codec::RunRequest;
use agentwire::conversation::Conversation;

use crate::table::Table;
use crate::{data, decode, send, split};

const MESSAGES: usize = 10_000;

/// Requests are longer.
const REQUESTS: usize = 20;

/// The word on the command line that makes this program do nothing but the work to be counted.
pub const COUNTED: &str = "--counted";

#[inline(never)]
fn counted_fast_path(payloads: &[Vec<u8>]) -> usize {
    payloads.iter().map(|payload| decode::ours(black_box(payload))).sum()
}

#[inline(never)]
fn counted_split_and_decode(body: &[u8]) -> u64 {
    split::ours(body, 1_400)
}

#[inline(never)]
fn counted_next_turn(next: &RunRequest, known: &mut [Conversation]) -> u64 {
    known.iter_mut().map(|conversation| send::encode(next, conversation)).sum()
}

/// What runs under callgrind.
pub fn work(which: &str) {
    let payloads: Vec<_> = (0..MESSAGES).map(|seed| data::delta(&data::ascii(20, seed))).collect();
    match which {
        "counted_fast_path" => drop(black_box(counted_fast_path(&payloads))),
        "counted_split_and_decode" => {
            _ = black_box(counted_split_and_decode(&data::stream(&payloads)));
        }
        "counted_next_turn" => {
            let (next, known) = send::next_turn();
            _ = black_box(counted_next_turn(&next, &mut vec![known; REQUESTS]));
        }
        other => panic!("there is nothing to count by the name of {other}"),
    }
}

pub fn judge(table: &mut Table) {
    for (which, what, wanted) in [
        ("counted_fast_path", "instructions of a text delta of 20 B", 70.0),
        ("counted_split_and_decode", "instructions of split and decode, chunks of 1,400 B", 110.0),
    ] {
        match count(which) {
            Some(found) => table.at_most("5", what, wanted, found, ""),
            None => eprintln!("     (goal 5 not counted: valgrind is not installed, or failed)"),
        }
    }
}

/// Instructions for each message inside the function `which`.
fn count(which: &str) -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    let out = std::env::temp_dir().join(format!("agentwire-callgrind-{}", std::process::id()));
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--toggle-collect=*{which}*"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([COUNTED, which])
        .output()
        .ok()?;
    let total = total(&out);
    // A leftover in the temporary folder is no reason to fail.
    let _ = std::fs::remove_file(&out);
    output.status.success().then_some(total? / MESSAGES as f64)
}

/// The line `totals: N` of callgrind's file.
fn total(file: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with("totals:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

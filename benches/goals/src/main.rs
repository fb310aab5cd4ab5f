//! The performance goals of the crate, each beside its rivals in one run: `cargo run --release` in
//! this folder prints the table. Ratios are what counts; `../README.md` holds the last table.

mod data;
mod decode;
mod heap;
mod ir;
mod node;
mod race;
mod rivals;
mod send;
mod split;
mod table;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let [word, which] = &words[..]
        && word == ir::COUNTED
    {
        return ir::work(which);
    }
    stay_on_one_core();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    let mut table = table::Table::default();
    for (name, judge) in [
        ("decode", decode::judge as fn(&mut table::Table)),
        ("ir", ir::judge),
        ("split", split::judge),
        ("send", send::judge),
    ] {
        if wanted(name) {
            judge(&mut table);
        }
    }
    print!("{}", table.markdown());
    std::process::exit(i32::from(table.missed() > 0));
}

/// A thread that moves between cores loses its caches on the way.
fn stay_on_one_core() {
    let last = |set: &CpuSet| (0..CpuSet::MAX_CPU).rev().find(|&cpu| set.is_set(cpu));
    if let Ok(allowed) = sched_getaffinity(None)
        && let Some(cpu) = last(&allowed)
    {
        let mut one = CpuSet::new();
        one.set(cpu);
        // Not allowed here: then the scheduler decides, as it would have.
        let _ = sched_setaffinity(None, &one);
    }
}

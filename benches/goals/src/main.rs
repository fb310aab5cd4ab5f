//! The performance goals of the crate, each beside its rivals in one run: `cargo run --release` in
//! this folder prints the table. Ratios are what counts; `../README.md` holds the last table.

mod decode;
mod heap;
mod ir;
mod many;
mod node;
mod open;
mod race;
mod send;
mod split;
mod stream;
mod table;
mod weight;

use agentwire_goals::{data, net, rivals};

fn main() {
    net::serve_if_asked();
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let [word, which] = &words[..]
        && word == ir::COUNTED
    {
        return ir::work(which);
    }
    net::stay_on_core(true);
    if let [word, which, runs @ ..] = &words[..]
        && word == "--profile"
    {
        let which = match which.as_str() {
            "single" => stream::Profile::Single,
            "packed" => stream::Profile::Packed,
            "paced" => stream::Profile::Paced,
            "runs" => stream::Profile::Runs,
            other => panic!("there is nothing to profile by the name of {other}"),
        };
        let runs = runs.first().map(|runs| runs.parse().expect("how many runs, a number"));
        return stream::profile(which, runs);
    }
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    let mut table = table::Table::default();
    for (name, judge) in [
        ("decode", decode::judge as fn(&mut table::Table)),
        ("ir", ir::judge),
        ("split", split::judge),
        ("stream", stream::judge),
        ("open", open::judge),
        ("many", many::judge),
        ("send", send::judge),
        ("weight", weight::judge),
    ] {
        if wanted(name) {
            judge(&mut table);
        }
    }
    if words.iter().any(|word| word == "build") {
        weight::judge_build(&mut table);
    }
    print!("{}", table.markdown());
    std::process::exit(i32::from(table.missed() > 0));
}

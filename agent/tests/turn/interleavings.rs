//! Ten thousand random lives of a turn. The seed of each is its number, so a failure names it.

use std::collections::HashMap;
use std::time::Duration;

use agentwire::context::{Message, ToolResult};
use agentwire::error::{Error, Kind, NetworkFault};
use agentwire::run::{Event as Said, Finish, Usage};
use agentwire_agent::turn::{ContextBudget, ModelCall, Step, Turn, TurnOptions};
use agentwire_agent::{Event, Limits, ToolStatus};

use crate::rig::{Rig, call};

const LIVES: u64 = 10_000;

/// xorshift64*: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

/// What is going on around the machine.
#[derive(Default)]
struct World {
    run: bool,
    running: Vec<String>,
    /// Text of results by call id, as the tools gave them while they were awaited.
    given: HashMap<String, String>,
    next_call: u32,
    said: u32,
    reopened: bool,
}

#[test]
fn nothing_is_lost_and_nothing_follows_the_end() {
    let (mut tools, mut cancels, mut steered, mut reopened, mut compacted) = (0, 0, 0, 0, 0);
    for seed in 1..=LIVES {
        let (rig, world) = live(seed);
        let told = std::panic::catch_unwind(|| check(&rig, &world));
        assert!(told.is_ok(), "seed {seed}");
        tools += world.given.len();
        let outcome = rig.done.as_ref().map(|outcome| &outcome.stop);
        cancels += usize::from(outcome == Some(&agentwire_agent::Stop::Cancelled));
        steered += world.said;
        reopened += usize::from(world.reopened);
        let notice = |event: &&Event| match event {
            Event::Notice { notice } => {
                matches!(notice, agentwire_agent::Notice::Compacted { .. })
            }
            _ => false,
        };
        compacted += rig.events.iter().filter(notice).count();
    }
    // The lives were worth living.
    assert!(tools > 10_000 && cancels > 500 && steered > 5_000, "{tools} {cancels} {steered}");
    assert!(reopened > 500 && compacted > 500, "{reopened} {compacted}");
}

fn live(seed: u64) -> (Rig, World) {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut limits = Limits::default();
    limits.turns = Some(2 + chance.below(12) as u32);
    limits.tool_calls = Some(4 + chance.below(20) as u32);
    limits.parallel = 1 + chance.below(4) as u32;
    limits.wall = Some(Duration::from_millis(200 + chance.below(2_000)));
    let options = TurnOptions {
        models: vec!["a".into(), "b".into(), "c".into()],
        limits,
        budget: (chance.below(3) == 0).then_some(ContextBudget { tokens: 60, keep: 20 }),
        ..TurnOptions::default()
    };
    let mut rig = Rig::new(options);
    let mut world = World::default();
    for _ in 0..5_000 {
        take_step(&mut rig, &mut world);
        if rig.done.is_some() {
            break;
        }
        act(&mut rig, &mut world, &mut chance);
        let turn = &rig.turn;
        world.running.retain(|id| turn.awaits(id));
        rig.now += Duration::from_millis(chance.below(10));
        rig.turn.handle_timeout(rig.now);
    }
    // Whatever comes after the end changes nothing.
    let events = rig.events.len();
    rig.say(Said::Text("late".into()));
    rig.say(Said::ToolCalls(vec![call("late")]));
    rig.result("late", "late");
    rig.turn.cancel();
    assert!(!rig.turn.steer("late") && rig.step().is_none());
    assert_eq!(rig.events.len(), events, "seed {seed}: an event after finished");
    (rig, world)
}

fn take_step(rig: &mut Rig, world: &mut World) {
    while let Some(step) = rig.step() {
        match step {
            Step::CallModel(ModelCall::Answer { .. }) => assert!(world.run, "no run to answer"),
            Step::CallModel(_) => world.run = true,
            Step::CallTools(calls) => {
                world.running.extend(calls.into_iter().map(|call| call.id));
            }
            Step::Done(_) => return,
        }
    }
}

fn act(rig: &mut Rig, world: &mut World, chance: &mut Chance) {
    match chance.below(100) {
        0..30 if world.run => rig.say(Said::Text(format!("text {} ", chance.below(1_000)))),
        30..36 if world.run => rig.say(Said::Thinking("hm".into())),
        36..48 if world.run => {
            let calls = (0..=chance.below(3)).map(|_| {
                world.next_call += 1;
                call(&format!("c{}", world.next_call))
            });
            rig.say(Said::ToolCalls(calls.collect()));
        }
        48..54 if world.run => {
            world.run = false;
            rig.say(Said::Ended(Ok(Finish::default())));
        }
        54..58 if world.run => {
            world.run = false;
            let kind = match chance.below(4) {
                0 => Kind::Interrupted,
                1 => Kind::Rejected,
                _ => Kind::Network(NetworkFault::Cut),
            };
            rig.say(Said::Ended(Err(Error::new(kind, "cut"))));
        }
        58..80 if !world.running.is_empty() => {
            let at = chance.below(world.running.len() as u64) as usize;
            let id = world.running.swap_remove(at);
            let text = format!("result of {id}");
            world.given.insert(id.clone(), text.clone());
            rig.turn.handle_tool(ToolResult::text(&id, "", text), rig.now);
        }
        80..82 if !world.running.is_empty() => {
            rig.say(Said::ToolsAborted(vec![world.running[0].clone()]));
        }
        82..86 => {
            world.said += u32::from(rig.turn.steer(format!("said {}", world.said)));
        }
        86..88 => {
            world.said += u32::from(rig.turn.follow_up(format!("said {}", world.said)));
        }
        88 => rig.say(Said::Usage(Usage { output: 3, ..Usage::default() })),
        89 => rig.turn.cancel(),
        90 if world.run => {
            rig.turn.handle_refused();
            // A refusal that the machine believed makes it start another run.
        }
        91 => rig.turn.handle_tool(ToolResult::text("nobody", "", "asked"), rig.now),
        92 => reopen(rig, world),
        _ => {}
    }
}

/// The process dies and the turn goes on in another: everything that was said is on record by then.
fn reopen(rig: &mut Rig, world: &mut World) {
    take_step(rig, world);
    if rig.done.is_some() {
        return;
    }
    let kept = serde_json::to_string(&rig.turn).expect("a turn is serialisable");
    let mut turn: Turn = serde_json::from_str(&kept).expect("and comes back");
    turn.reopen();
    rig.turn = turn;
    world.run = false;
    world.running.clear();
    world.reopened = true;
}

fn check(rig: &Rig, world: &World) {
    rig.check();
    let finished: HashMap<_, _> = rig
        .events
        .iter()
        .filter_map(|event| match event {
            Event::ToolFinished { result, status } => {
                Some((&result.tool_call_id, (result, status)))
            }
            _ => None,
        })
        .collect();
    for (id, text) in &world.given {
        let (result, status) = finished[id];
        let kept = ToolResult::text(id, "t", text);
        assert!(*status == ToolStatus::Ok && *result == kept, "the result of {id} is lost");
    }
    // Steers and follow-ups stand in the records, none twice.
    for n in 0..world.said {
        let said = Message::user(format!("said {n}"));
        let times = rig.records.iter().filter(|record| match record {
            agentwire_agent::record::Record::User { message, .. } => **message == said,
            _ => false,
        });
        assert_eq!(times.count(), 1, "said {n}");
    }
}

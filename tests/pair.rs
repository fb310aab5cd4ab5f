//! The client machine against the server machine, over a link that re-chunks, delays and cuts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on"
)]

#[path = "pair/link.rs"]
mod link;

use std::time::Duration;

use agentwire::codec::RunRequest;
use agentwire::context::{Context, Tool};
use agentwire::conversation::Conversation;
use agentwire::error::{Kind, NetworkFault};
use agentwire::run::{Event, Options};
use agentwire::server::{Playbook, Script};

use link::{Pair, Weather, playbook};

const HOUR: Duration = Duration::from_secs(3_600);

fn request(context: Context) -> RunRequest {
    RunRequest {
        request_id: "req-1".into(),
        model: "composer-2".into(),
        context,
        ..RunRequest::default()
    }
}

fn tool(name: &str) -> Tool {
    let parameters = serde_json::json!({
        "type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]});
    Tool { name: name.into(), description: format!("The tool {name}"), parameters }
}

fn assistant() -> Playbook {
    Playbook::new(Script::assistant()).expect("the built-in script")
}

fn context() -> Context {
    Context::prompt("what is in the folder?")
        .system("Be brief.")
        .tool(tool("ls"))
        .tool(tool("read"))
}

fn weather(seed: u64) -> Weather {
    Weather {
        seed,
        piece: 1 + seed % 40,
        delay: Duration::from_millis(seed % 7 * 30),
        rest_every: seed.is_multiple_of(3).then_some(2),
        cut_after: None,
    }
}

#[test]
fn the_assistant_answers_the_same_whatever_the_link_does() {
    let play = |weather: Weather| {
        let conversation = Conversation::with_id("conv");
        let mut pair =
            Pair::new(&request(context()), conversation, Options::default(), assistant(), weather);
        let ended = pair.play(HOUR);
        assert!(ended.is_ok(), "{pair:?}");
        assert!(pair.server.violations().is_empty(), "{pair:?}");
        assert_eq!(pair.server.open_questions(), 0, "{pair:?}");
        let calls: usize = pair
            .events
            .iter()
            .map(|event| if let Event::ToolCalls(calls) = event { calls.len() } else { 0 })
            .sum();
        (pair.text(), calls, ended.ok())
    };
    let (text, calls, finish) = play(Weather::default());
    assert!(text.contains("what is in the folder?"), "{text}");
    assert!(calls > 0, "a tool is offered, so one is called");
    assert!(finish.as_ref().is_some_and(|finish| finish.usage.billed));
    for seed in 1..60 {
        assert_eq!(play(weather(seed)), (text.clone(), calls, finish.clone()), "seed {seed}");
    }
}

#[test]
fn a_conversation_goes_on_with_its_history() {
    let mut conversation = Conversation::with_id("conv");
    let mut context = Context::prompt("my name is Ada").system("Be brief.");
    for (turn, question) in ["who am I?", "and now?"].into_iter().enumerate() {
        let mut pair = Pair::new(
            &request(context.clone()),
            conversation,
            Options::default(),
            assistant(),
            weather(turn as u64),
        );
        assert!(pair.play(HOUR).is_ok(), "{pair:?}");
        let answer = pair.text();
        assert!(answer.contains(&format!("turn {}", turn + 1)), "{answer}");
        assert!(pair.server.violations().is_empty(), "{pair:?}");
        conversation = pair.client.into_conversation();
        assert!(conversation.checkpoint().is_some());
        context.push(agentwire::context::Message::assistant(answer));
        context.push(agentwire::context::Message::user(question));
    }
}

/// Every cut gives the text before it, in order, and a typed error; what was committed stays.
#[test]
fn a_cut_anywhere_ends_in_a_typed_error_and_loses_nothing_that_came() {
    let play = |cut_after: Option<usize>| {
        let conversation = Conversation::with_id("conv");
        let weather = Weather { cut_after, ..weather(5) };
        let mut pair =
            Pair::new(&request(context()), conversation, Options::default(), assistant(), weather);
        let ended = pair.play(HOUR);
        (ended, pair.text())
    };
    let (_, whole) = play(None);
    let mut interrupted = 0;
    for cut in (0..4_000).step_by(37) {
        let (ended, text) = play(Some(cut));
        assert!(whole.starts_with(&text), "cut after {cut}: {text:?}");
        match ended {
            Ok(_) => assert_eq!(text, whole, "cut after {cut}"),
            Err(error) => {
                interrupted += 1;
                assert_eq!(*error.kind(), Kind::Network(NetworkFault::Cut), "cut after {cut}");
                assert!(error.is_retryable());
            }
        }
    }
    assert!(interrupted > 10, "the cuts were all too late: {interrupted}");
}

#[test]
fn every_connect_code_arrives_as_itself() {
    for code in agentwire::connect::Code::ALL {
        let script = format!(
            r#"{{"rules": [{{"steps": [{{"text": "so far"}}, {{"error": {{"code": "{code}", "message": "on purpose"}}}}]}}]}}"#
        );
        let mut pair = Pair::new(
            &request(Context::prompt("hi")),
            Conversation::with_id("conv"),
            Options::default(),
            playbook(&script),
            weather(u64::from(code.number())),
        );
        let error = pair.play(HOUR).expect_err("an error was stated");
        assert_eq!(error.code(), code);
        assert!(error.message().contains("on purpose"), "{error}");
        assert_eq!(pair.text(), "so far");
    }
}

#[test]
fn a_service_that_falls_silent_is_noticed_and_told() {
    let mut pair = Pair::new(
        &request(Context::prompt("hi")),
        Conversation::with_id("conv"),
        Options::default(),
        playbook(r#"{"rules": [{"steps": [{"text": "and then"}, "silence"]}]}"#),
        Weather::default(),
    );
    let error = pair.play(HOUR).expect_err("silence is no answer");
    assert_eq!(*error.kind(), Kind::Network(NetworkFault::Stalled));
    assert!(pair.server.was_cancelled(), "{pair:?}");
    assert_eq!(pair.text(), "and then");
}

#[test]
fn calls_in_parallel_are_answered_on_the_same_stream() {
    let script = r#"{"rules": [{"steps": [
        {"calls": [{"tool": "ls", "args": {"path": "."}}, {"tool": "read", "args": {"path": "a"}}]},
        {"text": "thank you"}, {"turn_end": {}}]}]}"#;
    let mut pair = Pair::new(
        &request(context()),
        Conversation::with_id("conv"),
        Options::default(),
        playbook(script),
        weather(4),
    );
    assert!(pair.play(HOUR).is_ok(), "{pair:?}");
    let batches = pair.events.iter().filter(|event| matches!(event, Event::ToolCalls(_))).count();
    assert_eq!(batches, 1, "{pair:?}");
    assert!(pair.server.violations().is_empty(), "{pair:?}");
}

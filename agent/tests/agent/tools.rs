//! Tools: checked, bounded, stopped, asked about.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agentwire::server::Script;
use agentwire_agent::model::{Boxed, Local, Reply};
use agentwire_agent::tool::{Approval, Effect, OutputLimits, ToolboxError, tool};
use agentwire_agent::{Agent, Event, Tool, ToolContext, ToolError, ToolOutput, ToolStatus};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::support::{Add, add, agent, calls, no_arguments, statuses};

#[tokio::test]
async fn a_typed_tool_over_the_real_protocol() {
    let script = r#"{"rules": [{"steps": ["context",
        {"call": {"tool": "add", "args": {"a": 40, "b": 2}}},
        {"text": "It is {{result}}."}, {"turn_end": {"output_tokens": 4}}]}]}"#;
    let model = Local::new(Script::from_json(script).expect("a script")).expect("plays");
    let agent = Agent::builder(model).model("composer-2").tool(add()).build().expect("an agent");
    let ended = agent.prompt("40 and 2?").start().collect().await.expect("an end");
    assert_eq!(ended.outcome.text, "It is 42.");
    assert_eq!(statuses(&ended.events), [ToolStatus::Ok]);
    assert_eq!(ended.outcome.usage.output, 4);
}

#[tokio::test]
async fn wrong_arguments_are_explained_and_corrected() {
    let replies = [
        Reply::new().call("1", "add", json!({"a": "x"})),
        Reply::new().call("2", "ad", json!({})),
        Reply::new().call("3", "add", json!({"a": 1, "b": 2})),
        Reply::new().text("3"),
    ];
    let agent = agent(replies).tool(add()).build().expect("an agent");
    let ended = agent.prompt("1 and 2?").start().collect().await.expect("an end");
    let told: Vec<_> = ended
        .events
        .iter()
        .filter_map(|event| match event {
            Event::ToolFinished { result, .. } => Some(crate::support::text(&result.content)),
            _ => None,
        })
        .collect();
    assert!(told[0].contains("at /a") && told[0].contains("\"b\" is a required"), "{}", told[0]);
    assert_eq!(told[1], "There is no tool `ad`. There are: add.");
    assert_eq!(told[2], "3");
    use ToolStatus::{Error, Ok};
    assert_eq!(statuses(&ended.events), [Error, Error, Ok]);
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_takes_too_long_is_stopped() {
    let slow =
        tool("slow", "Never ends", |_, _: Value| std::future::pending::<Result<String, _>>())
            .timeout(Duration::from_secs(3));
    let agent = Agent::builder(calls("slow", &json!({}))).model("m").tool(slow).build();
    let start = tokio::time::Instant::now();
    let answer = agent.expect("an agent").prompt("go").final_text().await.expect("an answer");
    assert!(answer.starts_with("The tool was stopped after 3 s"), "{answer}");
    assert_eq!(start.elapsed(), Duration::from_secs(3));
}

#[tokio::test]
async fn a_tool_that_panics_is_a_failed_tool() {
    let broken = tool("broken", "Panics", |_, _: Value| async {
        assert!(std::hint::black_box(false), "on purpose");
        Ok(String::new())
    });
    let agent = Agent::builder(calls("broken", &json!({}))).model("m").tool(broken).build();
    let answer = agent.expect("an agent").prompt("go").final_text().await.expect("an answer");
    assert!(answer.starts_with("The tool broke down"), "{answer}");
}

#[tokio::test]
async fn tools_of_one_turn_run_side_by_side() {
    // Each waits for the other: one after the other would never end.
    let barrier = Arc::new(Barrier::new(2));
    let meet = tool("meet", "Meets", move |_, _: Value| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            Ok("met")
        }
    });
    let replies = [
        Reply::new().call("1", "meet", json!({})).call("2", "meet", json!({})),
        Reply::new().text("both"),
    ];
    let agent = agent(replies).tool(meet).build().expect("an agent");
    assert_eq!(agent.prompt("go").final_text().await.expect("an answer"), "both");
}

#[tokio::test]
async fn long_output_keeps_head_and_tail_and_images_pass() {
    let long = tool("long", "Says much", |_, _: Value| async {
        let text = format!("first{}last", "x".repeat(1_000));
        Ok(ToolOutput::text(text).image("aGk=", "image/png"))
    });
    let limits = OutputLimits { head: 5, tail: 4, ..OutputLimits::default() };
    let agent = Agent::builder(calls("long", &json!({}))).model("m").tool(long);
    let agent = agent.output_limits(limits).build().expect("an agent");
    let answer = agent.prompt("go").final_text().await.expect("an answer");
    assert_eq!(answer, "first\n[... 1000 bytes left out ...]\nlastimage/png");
}

#[tokio::test]
async fn a_call_that_is_not_approved_is_not_run() {
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    let write = tool("write", "Writes", move |_, _: Value| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok("written") }
    });
    let agent = Agent::builder(calls("write", &json!({}))).model("m").tool(write);
    let agent = agent.approve(|call, effect| async move {
        assert_eq!((call.name.as_str(), effect), ("write", Effect::SideEffect));
        Approval::Deny("not today".into())
    });
    let agent = agent.build().expect("an agent");
    let answer = agent.prompt("go").final_text().await.expect("an answer");
    assert_eq!(answer, "The call was not approved: not today");
    assert_eq!(ran.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn progress_reaches_the_caller() {
    let slow = tool("slow", "Tells", |context: ToolContext, _: Value| async move {
        context.progress("half");
        tokio::task::yield_now().await;
        Ok("done")
    });
    let agent = Agent::builder(calls("slow", &json!({}))).model("m").tool(slow).build();
    let running = agent.expect("an agent").prompt("go").start();
    let ended = running.collect().await.expect("an end");
    let progress = Event::ToolProgress { id: "c1".into(), text: "half".into() };
    assert!(ended.events.contains(&progress));
}

struct Bad(&'static str, Value);

impl Tool for Bad {
    fn name(&self) -> &str {
        self.0
    }

    fn description(&self) -> &str {
        "Bad"
    }

    fn schema(&self) -> Value {
        self.1.clone()
    }

    fn call<'a>(
        &'a self,
        _context: &'a ToolContext,
        _arguments: Value,
    ) -> Boxed<'a, Result<ToolOutput, ToolError>> {
        Box::pin(async { Err(ToolError::new("never called")) })
    }
}

#[test]
fn tools_that_cannot_be_are_refused_when_the_agent_is_built() {
    let refused = |tool: Bad| agent([]).tool(add()).tool(tool).build().expect_err("refused");
    assert_eq!(refused(Bad("a b", no_arguments())), ToolboxError::Name("a b".into()));
    assert_eq!(refused(Bad("add", no_arguments())), ToolboxError::Twice("add".into()));
    let schema = |schema| matches!(refused(Bad("s", schema)), ToolboxError::Schema { .. });
    assert!(schema(json!({"type": "string"})));
    assert!(schema(json!({"type": 3})));
}

#[test]
fn the_schema_of_a_type_is_what_a_model_needs() {
    let add = tool("add", "Adds", |_, _: Add| async { Ok("") });
    let schema = add.schema();
    assert_eq!(schema["properties"]["a"]["description"], "The first number.");
    assert_eq!(schema["required"], json!(["a", "b"]));
    assert!(schema.get("$schema").is_none() && schema.get("title").is_none());
}

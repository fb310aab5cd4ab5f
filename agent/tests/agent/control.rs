//! Cancel, steer, follow up, fall back, generate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agentwire::context::ToolResult;
use agentwire::conversation::Conversation;
use agentwire::error::{Error, Kind};
use agentwire::transport::StartError;
use agentwire_agent::model::{Boxed, Reply, Scripted};
use agentwire_agent::tool::tool;
use agentwire_agent::{
    Agent, CancellationToken, Event, LimitKind, Limits, Model, ModelRequest, ModelRun, Notice,
    StageError, Stop, ToolStatus,
};
use serde_json::{Value, json};

use crate::support::{add, agent, statuses};

#[tokio::test]
async fn a_cancel_stops_the_model_and_keeps_what_was_said() {
    let agent = agent([Reply::new().text("half").hang()]).build().expect("an agent");
    let mut running = agent.prompt("go").start();
    while let Some(event) = running.next().await {
        if matches!(event, Event::Text { .. }) {
            running.control().cancel();
        }
    }
    let ended = running.finish().await.expect("an end");
    assert_eq!((ended.outcome.stop, ended.outcome.text.as_str()), (Stop::Cancelled, "half"));
    assert_eq!(ended.session.messages().len(), 2);
}

#[tokio::test]
async fn a_cancel_stops_tools_and_tells_them() {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let wait = tool("wait", "Waits", move |context: agentwire_agent::ToolContext, _: Value| {
        let (told, cancelled) = (told.clone(), context.cancelled().clone());
        // Work that goes on elsewhere.
        tokio::spawn(async move {
            cancelled.cancelled().await;
            told.send(()).ok();
        });
        std::future::pending::<Result<String, _>>()
    });
    let agent = agent([Reply::new().call("1", "wait", json!({}))]).tool(wait);
    let mut running = agent.build().expect("an agent").prompt("go").start();
    let mut events = Vec::new();
    while let Some(event) = running.next().await {
        if matches!(event, Event::ToolStarted { .. }) {
            running.control().cancel();
        }
        events.push(event);
    }
    heard.recv().await.expect("the tool was told");
    assert_eq!(statuses(&events), [ToolStatus::Interrupted]);
    assert!(matches!(events.last(), Some(Event::Finished { .. })));
}

#[tokio::test]
async fn a_cancel_does_not_wait_for_events_to_be_read() {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let wait = tool("wait", "Waits", move |context: agentwire_agent::ToolContext, _: Value| {
        let (told, cancelled) = (told.clone(), context.cancelled().clone());
        told.send(()).ok();
        tokio::spawn(async move {
            cancelled.cancelled().await;
            told.send(()).ok();
        });
        // More than the task's events may wait.
        (0..1_000).for_each(|n| context.progress(n.to_string()));
        std::future::pending::<Result<String, _>>()
    });
    let agent = agent([Reply::new().call("1", "wait", json!({}))]).tool(wait);
    let running = agent.build().expect("an agent").prompt("go").start();
    heard.recv().await.expect("the tool runs");
    running.control().cancel();
    heard.recv().await.expect("the tool was told, though nobody read an event");
    let ended = running.collect().await.expect("an end");
    assert_eq!(ended.outcome.stop, Stop::Cancelled);
    assert!(matches!(ended.events.last(), Some(Event::Finished { .. })));
}

/// A model that never stops to talk, and counts its words.
#[derive(Clone)]
struct Talker(Arc<AtomicUsize>);

impl Model for Talker {
    fn start(&self, _: ModelRequest) -> Boxed<'_, Result<Box<dyn ModelRun>, StartError>> {
        let run: Box<dyn ModelRun> = Box::new(self.clone());
        Box::pin(std::future::ready(Ok(run)))
    }
}

impl ModelRun for Talker {
    fn next(&mut self) -> Boxed<'_, Option<agentwire::run::Event>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(Some(agentwire::run::Event::Text("word ".into()))))
    }

    fn answer(&mut self, _: Vec<ToolResult>, _: Vec<String>) -> Boxed<'_, agentwire::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn cancel(&mut self) {}

    fn finish(self: Box<Self>) -> Boxed<'static, Conversation> {
        Box::pin(std::future::ready(Conversation::new()))
    }
}

/// A model that could say a thousand words says as many as may wait, until somebody reads.
#[tokio::test]
async fn how_many_events_wait_for_the_caller_can_be_set() {
    let mut ahead = Vec::new();
    for queue in [1, 64] {
        let said = Arc::new(AtomicUsize::new(0));
        let agent = Agent::builder(Talker(Arc::clone(&said)))
            .model("m")
            .event_queue(queue)
            .build()
            .expect("one");
        let mut running = agent.prompt("go").start();
        // The first is read; then everybody who can go on does.
        running.next().await;
        let mut last = usize::MAX;
        while last != said.load(Ordering::SeqCst) {
            last = said.load(Ordering::SeqCst);
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
        ahead.push(last);
        running.control().cancel();
        running.finish().await.expect("an end");
    }
    assert!(ahead[0] < 10 && ahead[1] > 60 && ahead[1] < 80, "{ahead:?}");
}

#[tokio::test]
async fn dropping_a_task_ends_its_tools() {
    struct Told(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send(()).ok();
        }
    }
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let wait = tool("wait", "Waits", move |_, _: Value| {
        let told = Told(told.clone());
        async move {
            std::future::pending::<()>().await;
            drop(told);
            Ok("never")
        }
    });
    let agent = agent([Reply::new().call("1", "wait", json!({}))]).tool(wait);
    let mut running = agent.build().expect("an agent").prompt("go").start();
    while let Some(event) = running.next().await {
        if matches!(event, Event::ToolStarted { .. }) {
            break;
        }
    }
    drop(running);
    heard.recv().await.expect("the tool was dropped");
}

#[tokio::test]
async fn what_is_said_into_a_task_is_answered() {
    let model = Scripted::new(|request| match request.context.messages.last().map(|m| &**m) {
        Some(agentwire::context::Message::User { content }) => match content {
            agentwire::context::UserContent::Text(text) if text == "go" => {
                Reply::new().call("1", "add", json!({"a": 1, "b": 2}))
            }
            content => Reply::new().text(format!("heard {}", said(content))),
        },
        _ => Reply::new().text("three"),
    });
    let agent = Agent::builder(model).model("m").tool(add()).build().expect("an agent");
    let mut running = agent.prompt("go").start();
    let control = running.control();
    assert!(control.follow_up("more?"));
    let mut text = Vec::new();
    while let Some(event) = running.next().await {
        if let Event::Text { text: piece } = event {
            text.push(piece);
        }
    }
    assert_eq!(text, ["three", "heard more?"]);
    let ended = running.finish().await.expect("an end");
    assert_eq!(ended.outcome.text, "heard more?");
    assert!(!control.steer("too late"));
}

fn said(content: &agentwire::context::UserContent) -> String {
    match content {
        agentwire::context::UserContent::Text(text) => text.clone(),
        agentwire::context::UserContent::Parts(parts) => crate::support::text(parts),
    }
}

#[tokio::test]
async fn the_next_model_answers_where_the_first_cannot() {
    let model = Scripted::new(|request| match request.model.as_str() {
        "first" => Reply::new().fail(Error::new(Kind::Overloaded { retry_after: None }, "busy")),
        model => Reply::new().text(format!("I am {model}")),
    });
    let agent = Agent::builder(model).model("first").model("second").build().expect("an agent");
    let ended = agent.prompt("who?").start().finish().await.expect("an end");
    assert_eq!(ended.outcome.text, "I am second");
    assert_eq!(ended.outcome.attempts[0].model, "first");
    assert_eq!(ended.outcome.attempts[0].failure.kind, "overloaded");
}

#[derive(Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
struct City {
    name: String,
    people: u32,
}

#[tokio::test]
async fn generate_corrects_three_times_and_then_says_so() {
    let wrong = r#"{"name": "Paris", "people": "many"}"#;
    let right = "Of course:\n```json\n{\"name\": \"Paris\", \"people\": 3}\n```";
    let city = |answers: Vec<&'static str>| async move {
        let agent = Agent::builder(Scripted::answers(answers)).model("m").build().expect("one");
        agent.prompt("The capital of France?").generate::<City>().await
    };
    let paris = City { name: "Paris".into(), people: 3 };
    assert_eq!(city(vec![wrong, "none", wrong, right]).await.expect("the fourth"), paris);
    let error = city(vec![wrong, wrong, wrong, wrong, right]).await.expect_err("no fifth");
    let mut limits = Limits::default();
    limits.corrections = 4;
    let answers = Scripted::answers([wrong, wrong, wrong, wrong, right]);
    let agent = Agent::builder(answers).model("m").limits(limits).build().expect("one");
    let fifth = agent.prompt("The capital of France?").generate::<City>().await;
    assert_eq!(fifth.expect("the fifth, where it may"), paris);
    assert!(error.to_string().contains("after 3 corrections"), "{error}");
    assert!(!error.to_string().contains("many"), "content in an error: {error}");
}

#[tokio::test]
async fn corrections_are_part_of_the_task() {
    let right = r#"{"name": "Paris", "people": 3}"#;
    let replies = || {
        [
            Reply::new().text("none").usage(10, 1),
            Reply::new().text("none either").usage(20, 2),
            Reply::new().text(right).usage(30, 3),
        ]
    };
    let task = |limits: Limits| {
        let agent = agent(replies()).limits(limits).build().expect("an agent");
        agent.prompt("The capital of France?")
    };
    let cancel = CancellationToken::new();
    let mut events = Vec::new();
    let done = task(Limits::default())
        .generate_with::<City>(&cancel, &mut |event| events.push(event.clone()))
        .await
        .expect("the third");
    let outcome = &done.ended.outcome;
    assert_eq!((outcome.turns, outcome.usage.input, outcome.usage.output), (3, Some(60), 6));
    assert_eq!((done.value.people, done.ended.session.messages().len()), (3, 6));
    let count = |is: fn(&Event) -> bool| events.iter().filter(|event| is(event)).count();
    assert_eq!(count(|event| matches!(event, Event::Started { .. })), 1);
    assert_eq!(count(|event| matches!(event, Event::Notice { notice: Notice::FollowedUp })), 2);
    assert_eq!(count(|event| matches!(event, Event::Text { .. })), 3);
    assert_eq!(events.last(), Some(&Event::Finished { outcome: outcome.clone() }));

    for (turns, tokens, limit) in
        [(Some(2), None, LimitKind::Turns), (None, Some(33), LimitKind::Tokens)]
    {
        let mut limits = Limits::default();
        (limits.turns, limits.tokens) = (turns, tokens);
        let mut last = None;
        let error = task(limits)
            .generate_with::<City>(&cancel, &mut |event| last = Some(event.clone()))
            .await
            .expect_err("no third");
        assert_eq!(error, StageError::Limit { limit });
        let Some(Event::Finished { outcome }) = last else { panic!("not finished") };
        assert_eq!((outcome.turns, outcome.usage.output), (2, 3));
    }
}

#[tokio::test]
async fn generate_can_be_cancelled_between_and_in_its_corrections() {
    let replies = [Reply::new().text("none"), Reply::new().text("and").hang()];
    let agent = agent(replies).build().expect("an agent");
    let cancel = CancellationToken::new();
    let mut texts = 0;
    let mut heard = |event: &Event| {
        texts += usize::from(matches!(event, Event::Text { .. }));
        if texts == 2 {
            cancel.cancel();
        }
    };
    let error = agent.prompt("?").generate_with::<City>(&cancel, &mut heard).await;
    assert_eq!(error.map(|done| done.value).expect_err("cancelled"), StageError::Cancelled);
    assert_eq!(texts, 2);
}

//! What a subscriber sees of connections, runs and execs at TRACE: names, numbers and codes, and
//! nothing that anybody said. A process of its own: the subscriber is for all of it.

#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on")]

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use agentwire::context::{Tool, ToolResult};
use agentwire::exec::{Ask, ExecCall, ExecHandler, Refusal, Served};
use agentwire::proto::exec_server_message::Message as Case;
use agentwire::proto::{ReadArgs, ReadResult, ReadSuccess, read_result, read_success};
use agentwire::run::{Ended, Event};
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::{Client, Run};
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// A span or an event: its name (of an event: its message), what surrounds it, its fields.
#[derive(Debug, Clone, Default)]
struct Seen {
    ours: bool,
    name: String,
    parent: Option<String>,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        write!(text, "{value:?}").unwrap();
        self.fields.insert(field.name(), text);
    }
}

#[derive(Default)]
struct Books {
    spans: BTreeMap<u64, Seen>,
    closed: Vec<Seen>,
    events: Vec<Seen>,
}

/// Collects everything, of every crate.
#[derive(Clone, Default)]
struct Collect(Arc<Mutex<Books>>);

impl<S> Layer<S> for Collect
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let metadata = attributes.metadata();
        let parent = context.span(id).and_then(|span| span.parent()).map(|up| up.name().to_owned());
        let (ours, name) = (metadata.target().starts_with("agentwire"), metadata.name().to_owned());
        let mut seen = Seen { ours, name, parent, ..Seen::default() };
        attributes.record(&mut seen);
        self.0.lock().unwrap().spans.insert(id.into_u64(), seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(seen) = self.0.lock().unwrap().spans.get_mut(&id.into_u64()) {
            values.record(seen);
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let ours = event.metadata().target().starts_with("agentwire");
        let parent = context.event_span(event).map(|span| span.name().to_owned());
        let mut seen = Seen { ours, parent, ..Seen::default() };
        event.record(&mut seen);
        seen.name = seen.fields.remove("message").unwrap_or_default();
        self.0.lock().unwrap().events.push(seen);
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let mut books = self.0.lock().unwrap();
        let seen = books.spans.remove(&id.into_u64());
        books.closed.extend(seen);
    }
}

impl Books {
    fn closed(&self, name: &str) -> Vec<&Seen> {
        self.closed.iter().filter(|seen| seen.ours && seen.name == name).collect()
    }

    fn events(&self, name: &str) -> Vec<&Seen> {
        self.events.iter().filter(|seen| seen.ours && seen.name == name).collect()
    }
}

/// Words that must be nowhere: the token, the prompt, what the model says and does, files.
const TOKEN: &str = "tok-canary-1f9c";
const CANARIES: [&str; 10] = [
    TOKEN,
    "canary-prompt",
    "canary-system",
    "canary-answer",
    "canary-thought",
    "canary-args",
    "canary-result",
    "canary-path",
    "canary-file",
    "canary-error",
];

const SCRIPT: &str = r#"
[[rules]]
when = { prompt = "canary-prompt", action = "user" }
steps = [
  "context", "history",
  { thinking = "canary-thought" },
  { text = "canary-answer one. " },
  { call = { tool = "ls", args = { path = "canary-args" } } },
  { ask = { exec = "read_args", args = { path = "canary-path" } } },
  { ask = { exec = "read_args", args = { path = "not this canary-path" } } },
  { ask = { query = "switch_mode_request_query", args = { args = { target_mode_id = "canary-args" } } } },
  { set_blob = "canary-file" },
  { checkpoint = { used_tokens = 5 } },
  { reset = 2 },
]
[[rules]]
when = { action = "resume" }
steps = [{ text = "canary-answer two." }, { turn_end = {} }]
[[rules]]
steps = [{ error = { code = "internal", message = "canary-error" } }]
"#;

struct Files;

impl ExecHandler for Files {
    fn serves(&self, case: &Case) -> bool {
        matches!(case, Case::ReadArgs(_))
    }

    fn effects(&self, _: &Case) -> agentwire::exec::Effects {
        agentwire::exec::Effects::ReadOnly
    }

    fn read<'a>(&'a self, _: &'a ExecCall, args: ReadArgs) -> Served<'a, ReadResult> {
        let read = if args.path.starts_with("not") {
            Err(Refusal::because("canary-error"))
        } else {
            let output = Some(read_success::Output::Content("canary-file".to_owned()));
            let success = ReadSuccess { path: args.path, output, ..ReadSuccess::default() };
            Ok(ReadResult { result: Some(read_result::Result::Success(success)) })
        };
        Box::pin(std::future::ready(read))
    }
}

/// Answers nothing.
struct Nobody;

impl Ask for Nobody {}

async fn ended(mut run: Run) -> Ended {
    loop {
        match run.next().await {
            Some(Event::ToolCalls(calls)) => {
                let (id, name) = (&*calls[0].id, &*calls[0].name);
                run.answer(vec![ToolResult::text(id, name, "canary-result")]).await.unwrap();
            }
            Some(Event::Ended(ended)) => {
                let _ended = run.finish().await;
                return ended;
            }
            Some(_) => {}
            None => panic!("no end"),
        }
    }
}

#[tokio::test]
async fn spans_have_ids_sizes_and_codes_and_no_content() {
    let collect = Collect::default();
    tracing_subscriber::registry().with(collect.clone()).init();
    let script = Script::from_toml(SCRIPT).unwrap();
    let server = Server::builder().script(script).token(TOKEN).cleartext().bind().await.unwrap();
    let client = Client::builder().endpoint(server.url()).token(TOKEN).build().unwrap();
    let tool = Tool {
        name: "ls".to_owned(),
        description: "canary-system".to_owned(),
        parameters: json!({"type": "object"}),
    };
    let run = client.prompt("canary-prompt").model("m").system("canary-system");
    let run = run.read_only_tool(tool).execs(Arc::new(Files)).asker(Arc::new(Nobody));
    let run = run.configure(|request| request.request_id = "req-1".to_owned());
    ended(run.start().await.unwrap()).await.unwrap();
    let failed = client.prompt("something else").model("m").start().await.unwrap();
    ended(failed).await.unwrap_err();
    drop(client);
    server.shutdown().await;
    // The connection's task ends after the client is gone; its span closes with it.
    let closed = async {
        while collect.0.lock().unwrap().closed("connection").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), closed).await.unwrap();

    let books = collect.0.lock().unwrap();
    let runs = books.closed("run");
    assert_eq!(runs.len(), 2, "{runs:?}");
    let [good, bad] = &runs[..] else { panic!() };
    let field = |seen: &Seen, name: &str| seen.fields.get(name).cloned().unwrap_or_default();
    assert_eq!(field(good, "request_id"), "\"req-1\"");
    assert_eq!(
        (field(good, "outcome"), field(good, "code")),
        ("\"completed\"".into(), "\"ok\"".into())
    );
    assert_eq!(field(good, "streams"), "2");
    for size in ["sent", "received"] {
        assert!(field(good, size).parse::<u64>().unwrap() > 100, "{good:?}");
    }
    assert_eq!(field(bad, "outcome"), "\"rejected\"");
    assert_eq!(field(bad, "code"), "\"internal\"");

    let execs = books.closed("exec");
    assert_eq!(execs.len(), 2, "{execs:?}");
    for (exec, outcome) in execs.iter().zip(["\"reply\"", "\"refused\""]) {
        assert_eq!(exec.parent.as_deref(), Some("run"));
        assert_eq!(field(exec, "name"), "\"read_args\"");
        assert_eq!(field(exec, "outcome"), outcome);
        assert!(field(exec, "id").parse::<u32>().is_ok() && !field(exec, "bytes").is_empty());
    }
    assert!(books.closed("connection").iter().all(|seen| !field(seen, "endpoint").is_empty()));
    assert!(!books.closed("dial").is_empty());
    let lost = books.events("stream lost");
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(
        (field(lost[0], "fault"), field(lost[0], "http2")),
        ("\"reset\"".into(), "2".into())
    );
    for name in ["run ended", "tool calls handed out", "checkpoint", "another attempt follows"] {
        let events = books.events(name);
        assert!(
            !events.is_empty() && events.iter().all(|e| e.parent.as_deref() == Some("run")),
            "{name}"
        );
    }
    let served = books.events("served");
    let within: Vec<_> = served.iter().filter_map(|event| event.parent.as_deref()).collect();
    assert_eq!(within, ["exec", "exec", "query"]);
    assert_eq!(field(books.closed("query")[0], "name"), "\"switch_mode_request_query\"");

    // At TRACE, of this crate and of those below it.
    assert!(books.events.len() > 30);
    for seen in books.closed.iter().chain(books.spans.values()).chain(&books.events) {
        let shown = format!("{seen:?}");
        for canary in CANARIES {
            assert!(!shown.contains(canary), "{canary} in {shown}");
        }
    }
}

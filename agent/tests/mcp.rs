//! Tools of MCP servers. Without the test harness, because this program is the server too: it must
//! have its standard output for itself.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::io::{BufRead as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use agentwire::context::ToolCall;
use agentwire_agent::mcp::Server;
use agentwire_agent::model::{Reply, Scripted};
use agentwire_agent::tool::{Effect, ToolContext};
use agentwire_agent::{Agent, Event, ToolStatus};
use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::{Value, json};

const SERVE: &str = "AGENTWIRE_TEST_MCP_SERVER";

fn main() {
    if std::env::var_os(SERVE).is_some() {
        return serve();
    }
    // Ours is not the environment of a test harness: its arguments mean nothing here.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tools_of_two_servers_are_kept_apart().await;
        println!("test tools_of_two_servers_are_kept_apart ... ok");
        a_server_that_dies_is_started_again().await;
        println!("test a_server_that_dies_is_started_again ... ok");
        a_server_over_http().await;
        println!("test a_server_over_http ... ok");
        what_is_no_server_is_an_error().await;
        println!("test what_is_no_server_is_an_error ... ok");
        a_server_is_told_that_a_call_is_called_off().await;
        println!("test a_server_is_told_that_a_call_is_called_off ... ok");
        a_tool_that_cannot_be_taken_up_is_left_out().await;
        println!("test a_tool_that_cannot_be_taken_up_is_left_out ... ok");
        a_server_ends_while_its_tools_are_held().await;
        println!("test a_server_ends_while_its_tools_are_held ... ok");
    });
    println!("\ntest result: ok. 7 passed; 0 failed; 0 ignored");
}

/// The server over standard streams: a JSON message a line.
fn serve() {
    let mut stdout = std::io::stdout();
    let mut cancelled = Vec::new();
    // Who asks what was called off hears it when something was: a cancel has a task of its own and may
    // come after the next call.
    let mut asking: Option<Value> = None;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let answers = match request["params"]["name"].as_str() {
            Some("die") => std::process::exit(1),
            Some("hang") => {
                let said = json!({"progress": 1, "total": 2, "message": "half\nof it"});
                vec![progress(&request, said)]
            }
            Some("cancelled") => {
                asking = Some(request["id"].clone());
                vec![]
            }
            _ if request["method"] == "notifications/cancelled" => {
                cancelled.push(request["params"]["requestId"].clone());
                vec![]
            }
            _ => answer(&request).into_iter().collect(),
        };
        let told = if cancelled.is_empty() { None } else { asking.take() };
        let told = told.map(|id| {
            let text = json!(cancelled).to_string();
            let result = json!({"content": [{"type": "text", "text": text}]});
            json!({"jsonrpc": "2.0", "id": id, "result": result})
        });
        for answer in answers.into_iter().chain(told) {
            writeln!(stdout, "{answer}").and_then(|()| stdout.flush()).unwrap();
        }
    }
}

fn progress(request: &Value, mut said: Value) -> Value {
    said["progressToken"] = request["params"]["_meta"]["progressToken"].clone();
    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": said})
}

/// What the server says to a message; nothing to a notification.
fn answer(request: &Value) -> Option<Value> {
    let id = request.get("id")?;
    let object = json!({"type": "object", "properties": {"text": {"type": "string"}}});
    let hint = |hint: &str| json!({hint: true});
    let result = match request["method"].as_str()? {
        "initialize" => json!({
            "protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
            "serverInfo": {"name": "test", "version": "1"}}),
        "tools/list" => json!({"tools": [
            {"name": "echo", "description": "Says it again", "inputSchema": object,
             "annotations": hint("readOnlyHint")},
            {"name": "pid", "inputSchema": {"type": "object"},
             "annotations": hint("idempotentHint")},
            {"name": "die", "inputSchema": {"type": "object"}},
            {"name": "hang", "inputSchema": {"type": "object"}},
            {"name": "cancelled", "inputSchema": {"type": "object"}},
            {"name": "bad", "inputSchema": {"type": "object", "properties": 3}},
            {"name": "e.cho", "inputSchema": {"type": "object"}},
            {"name": "e_cho", "inputSchema": {"type": "object"}},
        ]}),
        "tools/call" => match request["params"]["name"].as_str()? {
            "echo" => json!({"content": [
                {"type": "text", "text": request["params"]["arguments"]["text"]},
                {"type": "image", "data": "aGk=", "mimeType": "image/png"}]}),
            "pid" => json!({"content": [
                {"type": "text", "text": std::process::id().to_string()}]}),
            _ => json!({"content": [{"type": "text", "text": "no"}], "isError": true}),
        },
        _ => {
            let error = json!({"code": -32601, "message": "no such method"});
            return Some(json!({"jsonrpc": "2.0", "id": id, "error": error}));
        }
    };
    Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn process(name: &str) -> Server {
    let this = std::env::current_exe().unwrap();
    Server::process(name, ["env".into(), format!("{SERVE}=1"), this.display().to_string()])
}

/// Runs an agent that makes these calls, one after the other; gives what each came to.
async fn calls(
    servers: Vec<Server>,
    calls: Vec<(&'static str, Value)>,
) -> Vec<(String, ToolStatus)> {
    let replies = calls
        .into_iter()
        .enumerate()
        .map(|(n, (name, args))| Reply::new().call(format!("c{n}"), name, args))
        .chain([Reply::new().text("done")])
        .collect::<Vec<_>>();
    let mut builder = Agent::builder(Scripted::replies(replies)).model("m");
    for server in servers {
        builder = builder.shared_tools(server.connect().await.unwrap());
    }
    let ended = builder.build().unwrap().prompt("go").start().collect().await.unwrap();
    assert_eq!(ended.outcome.text, "done");
    let results = ended.events.into_iter().filter_map(|event| match event {
        Event::ToolFinished { result, status } => {
            let message = agentwire::context::Message::ToolResult(result);
            Some((agentwire_agent::record::text_of(&message), status))
        }
        _ => None,
    });
    results.collect()
}

async fn tools_of_two_servers_are_kept_apart() {
    let tools = process("a").connect().await.unwrap();
    let names: Vec<_> = tools.iter().map(|tool| (tool.name(), tool.effect())).collect();
    let names = names.get(..3).unwrap();
    let expected = [
        ("a_echo", Effect::ReadOnly),
        ("a_pid", Effect::Idempotent),
        ("a_die", Effect::SideEffect),
    ];
    assert_eq!(names, expected);
    let servers = vec![process("a"), process("b")];
    let wanted = vec![
        ("a_echo", json!({"text": "hello"})),
        ("a_pid", json!({})),
        ("b_pid", json!({})),
        ("a_echo", json!({"text": 3})),
    ];
    let results = calls(servers, wanted).await;
    assert_eq!(results[0], ("hello".into(), ToolStatus::Ok));
    assert_ne!(results[1].0, results[2].0);
    // The server's schema is held to here.
    assert_eq!(results[3].1, ToolStatus::Error);
}

async fn a_server_that_dies_is_started_again() {
    let wanted = vec![("a_pid", json!({})), ("a_die", json!({})), ("a_pid", json!({}))];
    let results = calls(vec![process("a")], wanted).await;
    assert_eq!(results[1].1, ToolStatus::Error);
    assert!(results[1].0.contains("died during the call"), "{}", results[1].0);
    assert_eq!(results[2].1, ToolStatus::Ok);
    assert_ne!(results[0].0, results[2].0);
}

async fn a_server_over_http() {
    async fn handle(Json(request): Json<Value>) -> Response {
        match answer(&request) {
            Some(answer) => Json(answer).into_response(),
            None => StatusCode::ACCEPTED.into_response(),
        }
    }
    let app = Router::new().route("/mcp", post(handle));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let serving = tokio::spawn(async { axum::serve(listener, app).await });
    let wanted = vec![("web_echo", json!({"text": "hello"})), ("web_die", json!({}))];
    let results = calls(vec![Server::http("web", url)], wanted).await;
    assert_eq!(results, [("hello".into(), ToolStatus::Ok), ("no".into(), ToolStatus::Error)]);
    serving.abort();
}

async fn what_is_no_server_is_an_error() {
    let error = Server::process("none", ["/nonexistent/program"]).connect().await.err().unwrap();
    assert!(error.to_string().starts_with("the MCP server `none` cannot be started"), "{error}");
    let error = Server::process("true", ["true"]).connect().await.err().unwrap();
    assert!(error.to_string().contains("does not speak MCP"), "{error}");
}

async fn a_server_ends_while_its_tools_are_held() {
    let tools = process("a").connect().await.unwrap();
    let pid = tools.iter().find(|tool| tool.name() == "a_pid").unwrap();
    let ask = || async {
        let call = ToolCall { id: "c".into(), name: "a_pid".into(), arguments: json!({}) };
        pid.call(&ToolContext::detached(call), json!({})).await.unwrap().to_text()
    };
    let first = ask().await;
    assert_eq!(ask().await, first);
    // It heeds the end of its input, so this takes as long as that: the limit is for a hang.
    tools.handle().end(Duration::from_secs(60)).await;
    let there = Command::new("kill").args(["-0", &first]).stderr(Stdio::null()).status().unwrap();
    assert!(!there.success(), "it is still there");
    // Ended already: nothing to wait for.
    tools.handle().end(Duration::from_secs(60)).await;
    assert_ne!(ask().await, first, "the next call starts it again");
}

async fn a_server_is_told_that_a_call_is_called_off() {
    let replies = || {
        [
            Reply::new().call("c1", "a_hang", json!({})),
            Reply::new().call("c2", "a_cancelled", json!({})),
            Reply::new().text("done"),
        ]
    };
    // The tool takes too long, and the server hears of it. The time is also the next call's.
    let tools = process("a").connect().await.unwrap();
    let agent = Agent::builder(Scripted::replies(replies())).model("m");
    let agent = agent.tool_timeout(Duration::from_secs(1)).shared_tools(tools);
    let ended = agent.build().unwrap().prompt("go").start().collect().await.unwrap();
    assert_eq!(last_result(&ended.events).matches(|c: char| c.is_ascii_digit()).count(), 1);

    // The caller cancels; the server is asked in another task.
    let tools = process("a").connect().await.unwrap();
    let agent = Agent::builder(Scripted::replies(replies())).model("m").shared_tools(tools);
    let agent = agent.build().unwrap();
    let mut running = agent.prompt("go").start();
    while let Some(event) = running.next().await {
        if let Event::ToolProgress { id, text } = event {
            assert_eq!((id.as_str(), text.as_str()), ("c1", "1 of 2: half"));
            // The server has the call.
            running.control().cancel();
        }
    }
    let ended = agent.prompt("and?").start().collect().await.unwrap();
    assert_eq!(last_result(&ended.events).matches(|c: char| c.is_ascii_digit()).count(), 1);
}

/// What the last tool said.
fn last_result(events: &[Event]) -> String {
    let result = events.iter().rev().find_map(|event| match event {
        Event::ToolFinished { result, .. } => {
            Some(agentwire::context::Message::ToolResult(result.clone()))
        }
        _ => None,
    });
    agentwire_agent::record::text_of(&result.unwrap())
}

async fn a_tool_that_cannot_be_taken_up_is_left_out() {
    let tools = process("a").connect().await.unwrap();
    let left_out: Vec<_> = tools.left_out().iter().map(ToString::to_string).collect();
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    assert!(left_out[0].contains("`a_bad`") && left_out[1].contains("`a_e_cho`"), "{left_out:?}");
    assert!(tools.iter().any(|tool| tool.name() == "a_e_cho"));

    // Beside those of another server: what both are called, one keeps.
    let more = process("a").connect().await.unwrap();
    let count = more.len();
    let agent = Agent::builder(Scripted::answers(["done"])).model("m");
    let (agent, left_out) = agent.tools_that_fit(tools);
    assert!(left_out.is_empty(), "{left_out:?}");
    let (agent, left_out) = agent.tools_that_fit(more);
    assert_eq!(left_out.len(), count);
    assert_eq!(agent.build().unwrap().prompt("go").final_text().await.unwrap(), "done");
}

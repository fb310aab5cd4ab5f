//! No token in anything that an agent tells, keeps or traces, whatever its provider and its MCP servers
//! repeat: the detector of the library, held against this crate (FAULTS M88, M89).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on")]

use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::Client;
use agentwire_agent::model::Hosted;
use agentwire_agent::session::Session;
use agentwire_agent::{Agent, CancellationToken, StageSpec, run_stage};
use serde_json::{Value, json};

#[path = "../../tests/secrets/detector.rs"]
mod detector;

use detector::{ACCESS, Capture, check, check_debug, failures};

async fn serve(steps: &Value) -> Server {
    let script = json!({"rules": [{"steps": steps}]}).to_string();
    let script = Script::from_json(&script).unwrap();
    Server::builder().cleartext().script(script).bind().await.unwrap()
}

/// In memory and as JSON.
#[track_caller]
fn check_value<T: std::fmt::Debug + serde::Serialize>(what: &str, value: &T) {
    check_debug(what, value);
    check(what, &serde_json::to_string(value).unwrap());
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct City {
    #[allow(dead_code, reason = "no answer ever comes")]
    name: String,
}

async fn tasks_stages_and_values() {
    let dir = tempfile::tempdir().unwrap();
    for (n, steps) in failures(ACCESS).iter().enumerate() {
        let server = serve(steps).await;
        let client =
            Client::builder().endpoint(server.url()).token(ACCESS).retries(0).build().unwrap();
        let model = Hosted::new(client);
        let agent = Agent::builder(model).model("composer-2").model("gpt-5.4").build().unwrap();
        check_debug("agent", &agent);

        let what = format!("task {n}");
        let log = dir.path().join(format!("{n}.jsonl"));
        let mut running = agent.prompt("hi").session(Session::open(&log).unwrap()).start();
        while let Some(event) = running.next().await {
            check_value(&what, &event);
        }
        let ended = running.finish().await.unwrap();
        assert!(!ended.outcome.attempts.is_empty(), "{what}: it failed");
        check_value(&what, &ended.outcome);
        check(&what, &std::fs::read_to_string(log).unwrap());

        let what = format!("stage {n}");
        let spec = StageSpec::new("hi").schema(json!({"type": "object"}));
        let cancel = CancellationToken::new();
        let error = run_stage(&agent, &spec, None, &mut |_| {}, &cancel).await.unwrap_err();
        check(&what, &error.to_string());
        check_value(&what, &error);
        let error = agent.prompt("hi").generate::<City>().await.unwrap_err();
        check(&what, &error.to_string());
        check_value(&what, &error);
    }
}

/// A server of tools whose URL holds the key: errors name the server, not the way to it.
#[cfg(feature = "mcp")]
async fn tool_servers() {
    use agentwire_agent::mcp;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    let key = detector::forms(ACCESS).into_iter().find(|(form, _)| *form == "percent").unwrap().1;
    let said = detector::echo(ACCESS);
    let error = json!({"jsonrpc": "2.0", "id": 0, "error": {"code": -32000, "message": said}});
    let error = error.to_string();
    let answers = [
        ("", ""),
        ("200 OK", "text/plain"),
        ("200 OK", "application/json"),
        ("302 Found", "text/html"),
        ("401 Unauthorized", "text/plain"),
        ("404 Not Found", "text/plain"),
        ("500 Internal Server Error", "application/json"),
    ];
    for (status, kind) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nlocation: http://{at}/?key={key}\r\n\
             www-authenticate: Bearer realm=\"{key}\"\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{error}",
            error.len()
        );
        let answering = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 4_096];
                let _ = stream.read(&mut asked).await;
                if !status.is_empty() {
                    // Whoever has heard enough hangs up.
                    let _ = stream.write_all(head.as_bytes()).await;
                }
            }
        });
        for url in [
            format!("http://{at}/mcp?key={key}"),
            format!("http://me:{key}@{at}/mcp"),
            format!("http://{at}/{key}/mcp"),
        ] {
            let what = format!("MCP server that says {status:?} of {kind:?}");
            let server = mcp::Server::http("files", url);
            check_debug(&what, &server);
            let error = server.connect().await.unwrap_err();
            assert!(error.to_string().contains("the MCP server `files`"), "{error}");
            check(&what, &format!("{error} {error:?}"));
        }
        answering.abort();
    }
}

#[tokio::test]
async fn m88_m89_no_token_in_anything_that_an_agent_says() {
    let capture = Capture::begin();
    tasks_stages_and_values().await;
    #[cfg(feature = "mcp")]
    {
        tool_servers().await;
        // The SDK traces URLs as they are; `Server::http` says so.
        capture.forget("rmcp::");
    }
    capture.check(&["h2", "agentwire::transport"]);
}

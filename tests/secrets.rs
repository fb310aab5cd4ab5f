//! No token in any error, log line or debug print, in any form (FAULTS M88, M89): peers that repeat
//! it everywhere, and a subscriber that writes down every event and span down to trace level, of this
//! library and of those below it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on")]
#![cfg(all(feature = "auth", feature = "server"))]

use std::sync::Arc;
use std::time::{Duration, Instant};

use agentwire::auth::{Account, Auth, FileStore, MemoryStore, TokenSource, TokenStore, Tokens};
use agentwire::provider::{Ask, Provider, ProviderOptions};
use agentwire::secret::Secret;
use agentwire::server::serve::Server;
use agentwire::server::session::Options;
use agentwire::server::{Output, RequestHead, Script, Session as ServerSession};
use agentwire::transport::{Client, Proxy, Roots};
use agentwire_agent::Agent;
use agentwire_agent::session::Session;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[path = "secrets/detector.rs"]
mod detector;

use detector::{
    ACCESS, Capture, REFRESH, check, check_debug, check_error, echo, failures, forms, statuses,
};

async fn serve(script: Value) -> Server {
    let script = Script::from_json(&script.to_string()).unwrap();
    Server::builder().cleartext().script(script).bind().await.unwrap()
}

fn client(server: &Server) -> Client {
    Client::builder().endpoint(server.url()).token(ACCESS).retries(0).build().unwrap()
}

async fn run_error(client: &Client, what: &str) {
    let run = client.prompt("hi").model("m").start().await.unwrap();
    check_debug(what, &run);
    let ended = tokio::time::timeout(Duration::from_secs(60), run.finish()).await.unwrap().0;
    check_error(what, &ended.unwrap_err());
}

async fn runs_and_unary_calls() {
    let text = echo(ACCESS);
    let details = json!([{"type": ACCESS, "value": STANDARD.encode(ACCESS), "debug": {"a": text, ACCESS: [text]}}]);
    let mut steps = failures(ACCESS);
    let long = format!("{}{ACCESS}", "x".repeat(60));
    for header in ["content-type", "content-encoding", "connect-content-encoding"] {
        for value in [ACCESS, long.as_str(), &format!("text/{ACCESS}")] {
            steps.push(json!([{"head": {"headers": {header: value}}}, "close"]));
        }
    }
    steps.push(json!([{"bytes": {"text": text, "flags": 2}}]));
    // Cut where a long text is cut for people.
    for before in 1_150..1_200 {
        let message = format!("{}{ACCESS}", "x".repeat(before));
        steps.push(json!([{"error": {"code": "internal", "message": message}}]));
    }
    for (n, steps) in steps.iter().enumerate() {
        let server = serve(json!({"rules": [{"steps": steps}]})).await;
        run_error(&client(&server), &format!("run {n}")).await;
    }
    let mut replies: Vec<Value> =
        statuses(ACCESS).into_iter().map(|status| json!({ "status": status })).collect();
    replies.push(json!({"error": {"code": "internal", "message": text, "details": details}}));
    for value in [ACCESS, long.as_str(), &format!("text/{ACCESS}")] {
        replies.push(
            json!({"status": {"status": 200, "headers": {"content-type": value}, "body": "x"}}),
        );
    }
    for (n, reply) in replies.iter().enumerate() {
        let server = serve(json!({"unary": {"default_model": reply}})).await;
        let error = client(&server).default_model().await.unwrap_err();
        check_error(&format!("unary {n}"), &error);
    }
}

async fn sign_ins() {
    let mut replies: Vec<Value> =
        statuses(REFRESH).into_iter().map(|status| json!({ "status": status })).collect();
    for kind in [REFRESH, &format!("text/{REFRESH}"), &format!("{}{REFRESH}", "x".repeat(90))] {
        replies.push(
            json!({"status": {"status": 200, "headers": {"content-type": kind}, "body": "x"}}),
        );
    }
    replies.push(json!({"bytes": {"text": echo(REFRESH)}}));
    for (n, reply) in replies.iter().enumerate() {
        let server = serve(json!({"sign_in": {"refresh": reply}})).await;
        let auth = Auth::builder().endpoint(server.url()).build().unwrap();
        let store = Arc::new(MemoryStore::default());
        let key = Account::key_of(&auth);
        let tokens = Tokens::new(ACCESS, REFRESH, 0);
        let account = Account::keep(auth.clone(), store.clone(), key, tokens).await.unwrap();
        let what = format!("refresh {n}");
        check_debug(&what, &(&auth, &account, &store, account.tokens(), account.tokens().claims()));
        check_error(&what, &account.instead_of(&Secret::from(ACCESS)).await.unwrap_err());
        let client =
            Client::builder().endpoint(server.url()).tokens(account).retries(0).build().unwrap();
        check_debug(&what, &client);
        if let Err(error) = client.prompt("hi").model("m").start().await {
            check_debug(&what, &error);
            check_error(&what, &error.error);
        }
    }
    // What is issued here is nobody's to know, either.
    let server = serve(json!({"sign_in": {"require": true}})).await;
    let auth = Auth::builder().endpoint(server.url()).build().unwrap();
    let login = auth.login().unwrap();
    check_debug("login", &(&login, &server));
    let tokens = login.wait(std::future::pending()).await.unwrap();
    let shown = format!("{tokens:?}");
    assert!(!shown.contains(tokens.access.expose()) && !shown.contains(tokens.refresh.expose()));
}

/// Those above the client: a provider that asks for models and runs, an agent and its session.
async fn providers_and_agents() {
    let dir = tempfile::tempdir().unwrap();
    for (n, answer) in statuses(ACCESS).into_iter().enumerate() {
        let script = json!({"unary": {"usable_models": {"status": answer}},
            "rules": [{"steps": [{"status": answer}]}]});
        let server = serve(script).await;
        let what = format!("provider {n}");
        let cache_dir = Some(dir.path().join(n.to_string()));
        let options = ProviderOptions { cache_dir, ..ProviderOptions::default() };
        check_debug(&what, &options);
        let provider = Provider::new(options);
        let account = provider.sign_in(ACCESS, client(&server));
        check_error(&what, &account.refresh().await.unwrap_err());
        check_debug(&what, &(&provider, &account.models(), account.cache_note()));
        let ask = Ask::new("composer-2").session("3e1c5a90-0000-4000-8000-000000000001");
        let run = account.client().unwrap().prompt("hi");
        let run = account.start(&ask, run).await.unwrap();
        check_error(&what, &run.finish().await.unwrap_err());
        provider.dispose().await;

        let what = format!("agent {n}");
        let agent = Agent::builder(client(&server)).model("composer-2").build().unwrap();
        let log = dir.path().join(format!("{n}.jsonl"));
        let session = Session::open(&log).unwrap();
        let mut running = agent.prompt("hi").session(session).start();
        while let Some(event) = running.next().await {
            check_debug(&what, &event);
        }
        match running.finish().await {
            Ok(ended) => check_debug(&what, &ended.outcome),
            Err(error) => check(&what, &format!("{error} {error:?}")),
        }
        check(&what, &std::fs::read_to_string(log).unwrap());
    }
}

/// The token as the password in a URL.
fn password() -> String {
    forms(ACCESS).into_iter().find(|(form, _)| *form == "percent").unwrap().1
}

/// A proxy that repeats all that it was told behind `line`, the first of its answer, and then goes on
/// to talk; with `line` empty it says nothing and hangs up.
async fn proxy(line: String, tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://me:{}@{}", password(), listener.local_addr().unwrap());
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            assert!(head.contains("proxy-authorization: Basic "), "the proxy knows the password");
            if line.is_empty() {
                continue;
            }
            let said = format!("{line}\r\nx-echo: {ACCESS}\r\nx-asked: {}\r\n\r\n", echo(ACCESS));
            // Whoever has heard enough hangs up.
            let _ = stream.write_all(said.as_bytes()).await;
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    url
}

/// A proxy on the way: it knows its own password, and repeats it and the token wherever it can.
async fn proxies() {
    let mut tasks = JoinSet::new();
    let mut lines = vec![String::new(), ACCESS.to_owned(), format!("HTTP/1.1 {ACCESS}")];
    for status in [200, 204, 301, 302, 400, 401, 403, 404, 405, 407, 429, 500, 502, 503, 504] {
        lines.push(format!("HTTP/1.1 {status} {ACCESS}"));
    }
    for line in lines {
        let url = proxy(line.clone(), &mut tasks).await;
        for endpoint in ["https://service.example:8443", "http://service.example"] {
            let what = format!("proxy {line:?} to {endpoint}");
            let way = Proxy::url(url.as_str());
            let builder = Client::builder().endpoint(endpoint).token(ACCESS).retries(0);
            let builder = builder.allow_cleartext(true).roots(Roots::OnlyAdded).proxy(way.clone());
            check_debug(&what, &(&builder, &way));
            let client = builder.build().unwrap();
            check_debug(&what, &client);
            run_error(&client, &what).await;
            check_error(&what, &client.default_model().await.unwrap_err());
            // In clear text a connection stands before anything was heard on it.
            if let Err(error) = client.prewarm().await {
                check_error(&what, &error);
            }
            let builder = Auth::builder().endpoint(endpoint).proxy(way).allow_cleartext(true);
            check_debug(&what, &builder);
            let auth = builder.roots(Roots::OnlyAdded).build().unwrap();
            check_error(&what, &auth.refresh(&Secret::from(REFRESH)).await.unwrap_err());
        }
    }
    // A proxy that cannot be used or reached.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::builder().proxy(Proxy::url(format!("http://me:{}@{nobody}", password())));
    run_error(&client.token(ACCESS).retries(0).build().unwrap(), "no proxy").await;
    for url in [
        format!("http://me:{ACCESS}@host"),
        format!("ftp://me:{}@host", password()),
        format!("http://me:{}@", password()),
        format!("http://me:{}@host/path", password()),
        format!("http://me:{}@host:port", password()),
        format!("http://me:{}%zz@host", password()),
    ] {
        let builder = Client::builder().proxy(Proxy::url(url.as_str()));
        check_debug("proxy", &builder);
        check_error("proxy", &builder.build().unwrap_err());
        check_error("proxy", &Auth::builder().proxy(Proxy::url(url)).build().unwrap_err());
    }
}

/// What a server says to clients and of them: those who bring its token, and those who bring another
/// and get its tokens wrong.
async fn servers() {
    let server = Server::builder().cleartext().token(ACCESS).bind().await.unwrap();
    let run = "/agent.v1.AgentService/Run";
    let models = "/agent.v1.AgentService/GetUsableModels";
    let refresh = "/auth/exchange_user_api_key";
    let bearers = [format!("Bearer {ACCESS}"), format!("Bearer {REFRESH}"), ACCESS.into()];
    for path in [run, models, refresh, "/auth/poll", "/auth/nothing", &format!("/{}", password())] {
        for bearer in &bearers {
            for (method, more) in [
                ("POST", "content-type: application/proto\r\n".to_owned()),
                ("POST", format!("content-type: text/{ACCESS}\r\n")),
                ("GET", format!("x-{}: 1\r\n", password().replace('%', ""))),
                (ACCESS, String::new()),
            ] {
                let head = format!(
                    "{method} {path}?uuid={0}&verifier={0} HTTP/1.1\r\nhost: x\r\n\
                     authorization: {bearer}\r\ncontent-length: 0\r\n{more}\r\n",
                    password(),
                );
                let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
                stream.write_all(head.as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                // A peer that hangs up on what is no request may do so by a reset.
                let _ = stream.read_to_end(&mut answer).await;
                check(&format!("answer to {method} {path}"), &String::from_utf8_lossy(&answer));
            }
        }
    }
    let wrong = Client::builder().endpoint(server.url()).token(REFRESH).retries(0).build().unwrap();
    run_error(&wrong, "the wrong token").await;
    check_error("the wrong token", &wrong.usable_models().await.unwrap_err());
    let right = client(&server);
    right.prompt(echo(ACCESS)).model("composer-2").start().await.unwrap().finish().await.0.unwrap();
    check_debug("server", &(&server, server.report()));
    check_debug("report", &server.shutdown().await);
}

/// The server's machine, whose events and outputs a host may print.
fn server_sessions() {
    #[allow(clippy::disallowed_methods, reason = "virtual time starts here")]
    let now = Instant::now();
    let kind = "application/connect+proto";
    for authorization in [format!("Bearer {ACCESS}"), format!("Bearer {REFRESH}"), ACCESS.into()] {
        for kind in [kind, ACCESS] {
            for encoding in ["identity", ACCESS] {
                let options = Options { token: Some(Secret::from(ACCESS)), ..Options::default() };
                check_debug("options", &options);
                let mut session = ServerSession::new(options, now);
                let headers = [
                    ("content-type", kind),
                    ("connect-content-encoding", encoding),
                    ("authorization", authorization.as_str()),
                ];
                let head = RequestHead::post("/agent.v1.AgentService/Run", headers);
                check_debug("head", &head);
                session.handle_head(&head, now);
                session.handle_body(echo(ACCESS).as_bytes(), now);
                session.handle_end(now);
                while let Some(event) = session.poll_event() {
                    check_debug("event", &event);
                    if let agentwire::server::Event::Refused(error) = &event {
                        check_error("refusal", error);
                    }
                }
                loop {
                    match session.poll_output() {
                        Output::Wait(_) => break,
                        Output::Send(body) => check("body", &String::from_utf8_lossy(&body)),
                        Output::Head { headers, .. } => check_debug("headers", &headers),
                        output => check_debug("output", &output),
                    }
                }
                check_debug("session", &(&session, session.violations()));
            }
        }
    }
}

async fn what_callers_do_wrong() {
    for token in [format!("{ACCESS}\n"), format!("a {ACCESS}"), format!("{ACCESS}\u{e9}")] {
        let builder = Client::builder().token(token.as_str());
        check_debug("builder", &builder);
        check_error("builder", &builder.build().unwrap_err());
        let client = Client::builder().build().unwrap();
        check_error("with_token", &client.with_token(token.as_str()).unwrap_err());
    }
    for url in [format!("https://me:{ACCESS}@host"), format!("https://host/{ACCESS}")] {
        let builder = Client::builder().endpoint(url.as_str());
        check_debug("endpoint", &builder);
        check_error("endpoint", &builder.build().unwrap_err());
        let builder = Auth::builder().endpoint(url.as_str()).refresh_path(ACCESS);
        check_debug("auth", &builder);
        check_error("auth", &builder.build().unwrap_err());
    }
    check_error("path", &Auth::builder().refresh_path(ACCESS).build().unwrap_err());
    let headers = Client::builder().header("x-a", format!("{ACCESS}\r\n"));
    check_debug("header", &headers);
    check_error("header", &headers.build().unwrap_err());
    check_debug("server", &Server::builder().token(ACCESS));

    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    let key = agentwire::auth::Key::new("https://api.example");
    store.save(&key, &Tokens::new(ACCESS, REFRESH, 5)).unwrap();
    let text = std::fs::read_to_string(store.path(&key)).unwrap();
    for damaged in
        [&text[..text.len() - 10], &text.replace("\"version\": 1", "\"version\": 2"), ACCESS]
    {
        std::fs::write(store.path(&key), damaged).unwrap();
        check_error("store", &store.load(&key).unwrap_err());
    }
}

#[test]
fn m88_the_detector_finds_each_form() {
    for (form, text) in forms(ACCESS) {
        let found = std::panic::catch_unwind(|| check("x", &format!("a {text} b")));
        assert!(found.is_err(), "{form}");
    }
    assert!(std::panic::catch_unwind(|| check("x", &STANDARD.encode(ACCESS))).is_err());
}

#[tokio::test]
async fn m88_m89_no_token_in_any_error_log_or_debug_print() {
    let capture = Capture::begin();
    runs_and_unary_calls().await;
    sign_ins().await;
    providers_and_agents().await;
    proxies().await;
    servers().await;
    server_sessions();
    what_callers_do_wrong().await;
    // Those below are heard, and we are.
    capture.check(&["h2", "agentwire::auth", "agentwire::transport", "agentwire::server"]);
}

//! `chat` from its arguments to its exit code, against real servers.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use crate::support::{Done, agentwire, finish, run, run_with};
use agentwire::server::Script;
use agentwire::server::serve::{Report, Server};
use serde_json::Value;

/// A server in this process that plays a script, on a runtime of its own.
pub(crate) struct Service {
    server: Option<Server>,
    runtime: tokio::runtime::Runtime,
}

impl Service {
    pub(crate) fn new(script: &str, token: Option<&str>) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut builder = Server::builder().script(Script::from_toml(script).unwrap()).cleartext();
        if let Some(token) = token {
            builder = builder.token(token);
        }
        let server = runtime.block_on(builder.bind()).unwrap();
        Self { server: Some(server), runtime }
    }

    pub(crate) fn url(&self) -> String {
        self.server.as_ref().unwrap().url()
    }

    /// `chat` against this server, with a token in the environment.
    fn chat(&self, args: &[&str]) -> Child {
        let url = self.url();
        let mut command = agentwire(["chat", "--endpoint", &url]);
        command.args(args).env("AGENTWIRE_TOKEN", "tok-1").spawn().unwrap()
    }

    /// Waits for open runs to end, and says what was seen.
    pub(crate) fn report(mut self) -> Report {
        let server = self.server.take().unwrap();
        self.runtime.block_on(server.shutdown())
    }
}

fn said(lines: &[Value]) -> String {
    lines
        .iter()
        .filter(|line| line["type"] == "text")
        .filter_map(|line| line["text"].as_str())
        .collect()
}

fn last(lines: &[Value]) -> &Value {
    lines.last().unwrap()
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn local_streams_an_answer_and_nothing_else() {
    let done = run(["chat", "--local", "hello there"]).expect(0);
    assert!(done.stdout().contains("hello there"), "{}", done.stdout());
    assert!(done.stdout().ends_with('\n'));
    assert!(!done.stdout.contains(&0x1b), "no colour codes in a pipe");
    assert_eq!(done.stderr, "");
}

#[test]
fn local_works_with_an_endpoint_and_no_home_in_the_environment() {
    let mut command = agentwire(["chat", "--local", "hello"]);
    command.env("AGENTWIRE_ENDPOINT", "https://nowhere.invalid").env("HOME", "/nonexistent");
    finish(command.spawn().unwrap()).expect(0);
}

#[test]
fn json_lines_have_the_documented_types_and_end_with_done() {
    let done = run(["chat", "--local", "--json", "hello there"]).expect(0);
    let lines = done.lines();
    let types = ["text", "thinking", "tool_call", "usage", "checkpoint", "notice", "done"];
    for line in &lines {
        assert!(types.contains(&line["type"].as_str().unwrap()), "{line}");
    }
    assert!(said(&lines).contains("hello there"));
    assert_eq!(last(&lines)["type"], "done");
    assert!(last(&lines)["usage"]["output"].is_u64());
    assert!(lines.iter().any(|line| line["type"] == "usage"));
    assert!(lines.iter().any(|line| line["type"] == "checkpoint"));
    assert_eq!(lines.iter().filter(|line| line["type"] == "done").count(), 1);
    assert_eq!(done.stderr, "");
}

#[test]
fn history_tools_and_pictures_reach_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let context = write(
        folder.path(),
        "context.json",
        r#"{"messages": [
            {"role": "user", "content": "What is the capital of Norway?"},
            {"role": "assistant", "content": [{"type": "text", "text": "Oslo."}]}],
          "tools": [{"name": "ls", "description": "List a folder", "parameters": {"type": "object"}}]}"#,
    );
    let image = write(folder.path(), "a.png", b"\x89PNG\r\n\x1a\n0000");
    let done = run([
        "chat".as_ref(),
        "--local".as_ref(),
        "--json".as_ref(),
        "--context".as_ref(),
        context.as_os_str(),
        "--image".as_ref(),
        image.as_os_str(),
        "list the files".as_ref(),
    ])
    .expect(0);
    let lines = done.lines();
    let text = said(&lines);
    for part in ["list the files", "1 earlier turn", "ls", "1 image"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let call = lines.iter().find(|line| line["type"] == "tool_call").unwrap();
    assert_eq!(call["name"], "ls");
    assert!(call["id"].is_string() && call["arguments"].is_object());
}

#[test]
fn a_tool_call_is_shown_and_answered_with_an_error_and_the_turn_goes_on() {
    let service = Service::new(
        r#"[[rules]]
        steps = [{ call = { tool = "ls", args = { path = "." } } }, { text = "I heard: {{result}}" },
                 { turn_end = {} }, "end"]"#,
        None,
    );
    let done = finish(service.chat(&["hi"])).expect(0);
    assert!(done.stdout().contains("No tool is served"), "{}", done.stdout());
    assert!(done.stderr.contains("tool call: ls"), "{}", done.stderr);
    let report = service.report();
    assert_eq!((report.unanswered, report.violation_count), (0, 0), "{report:?}");
}

#[test]
fn a_model_that_never_stops_calling_tools_is_stopped() {
    let service = Service::new(
        r#"[[rules]]
        steps = [{ repeat = { steps = [{ call = { tool = "ls", quiet = true } }] } }]"#,
        None,
    );
    let done = finish(service.chat(&["hi"])).expect(1);
    assert!(done.stderr.contains("25 times"), "{}", done.stderr);
}

#[test]
fn the_prompt_and_the_system_prompt_come_from_stdin_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let rules = write(folder.path(), "rules.md", "Speak like a pirate.");
    let system = format!("@{}", rules.display());
    let done = run_with(["chat", "--local", "--system", &system, "-"], b"from a pipe").expect(0);
    assert!(done.stdout().contains("from a pipe"), "{}", done.stdout());
}

#[test]
fn thinking_goes_to_stderr_and_only_when_asked_for() {
    let script = r#"[[rules]]
        steps = [{ thinking = "let me see" }, { text = "yes" }, { turn_end = {} }, "end"]"#;
    let service = Service::new(script, None);
    let done = finish(service.chat(&["hi"])).expect(0);
    assert_eq!((done.stdout(), done.stderr.as_str()), ("yes\n", ""));
    let done = finish(service.chat(&["--show-thinking", "hi"])).expect(0);
    assert_eq!((done.stdout(), done.stderr.as_str()), ("yes\n", "let me see\n"));
}

#[test]
fn the_thinking_level_and_the_model_are_sent() {
    let script = r#"[[rules]]
        when = { model = "gpt-5.4-high" }
        steps = [{ text = "{{model}}" }, { turn_end = {} }, "end"]"#;
    let service = Service::new(script, None);
    let done = finish(service.chat(&["--model", "gpt-5.4", "--thinking", "high", "hi"])).expect(0);
    assert_eq!(done.stdout(), "gpt-5.4-high\n");
}

#[test]
fn input_that_cannot_be_used_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let text = write(folder.path(), "a.png", "not a picture");
    let empty = write(folder.path(), "b.png", "");
    let table: &[(&[&str], &[u8], &str)] = &[
        (&["-"], b"caf\xe9", "not UTF-8"),
        (&["-"], b" \n", "empty"),
        (&[""], b"", "empty"),
        (&["--image", text.to_str().unwrap(), "hi"], b"", "not an image"),
        (&["--image", empty.to_str().unwrap(), "hi"], b"", "empty"),
        (&["--image", "/nonexistent.png", "hi"], b"", "nonexistent.png"),
        (&["--system", "@/nonexistent.md", "hi"], b"", "nonexistent.md"),
        (&["--context", "/nonexistent.json"], b"", "nonexistent.json"),
    ];
    for (args, input, expected) in table {
        let args: Vec<&str> = ["chat", "--local"].iter().chain(args.iter()).copied().collect();
        let done = run_with(&args, input).expect(2);
        assert!(done.stderr.contains(expected), "{args:?}: {}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    }
}

#[test]
fn without_a_token_one_message_says_what_to_do() {
    let done = run(["chat", "hello"]).expect(3);
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    for part in ["AGENTWIRE_TOKEN", "--token-file", "--local"] {
        assert!(done.stderr.contains(part), "{}", done.stderr);
    }
    let done = run(["chat", "--json", "hello"]).expect(3);
    assert_eq!(done.lines().len(), 1);
    assert_eq!(done.lines()[0]["type"], "error");
    assert_eq!(done.lines()[0]["kind"], "unauthenticated");
    assert_eq!(done.stderr, "");
}

fn with_token_file(service: &Service, content: &str, mode: u32) -> Done {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "token", content);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
    let url = service.url();
    let args = ["chat", "--endpoint", &url, "--token-file", file.to_str().unwrap(), "hi"];
    finish(agentwire(args).spawn().unwrap())
}

const HELLO: &str = r#"[[rules]]
    steps = [{ text = "hello" }, { turn_end = {} }, "end"]"#;

#[test]
fn the_token_of_a_file_is_trimmed_and_its_permissions_are_looked_at() {
    let service = Service::new(HELLO, Some("tok-file-1"));
    let done = with_token_file(&service, "\n tok-file-1 \n", 0o600).expect(0);
    assert_eq!((done.stdout(), done.stderr.as_str()), ("hello\n", ""));
    if cfg!(unix) {
        let done = with_token_file(&service, "tok-file-1", 0o644).expect(0);
        assert!(done.stderr.contains("chmod 600"), "{}", done.stderr);
    }
}

#[test]
fn a_token_that_is_refused_is_not_signed_in_and_is_never_shown() {
    let service = Service::new(HELLO, Some("another"));
    let done = with_token_file(&service, "tok-secret-77", 0o600).expect(3);
    assert_eq!(done.stdout(), "");
    assert!(!done.stderr.contains("tok-secret"), "{}", done.stderr);
    with_token_file(&service, "\n", 0o600).expect(3);
    let done = with_token_file(&service, "tok secret", 0o600).expect(2);
    assert!(!done.stderr.contains("secret"), "{}", done.stderr);
}

#[test]
fn an_error_of_the_service_ends_with_one() {
    let service = Service::new(
        r#"[[rules]]
        steps = [{ text = "so far" }, { error = { code = "unavailable", message = "come back later" } }]"#,
        None,
    );
    let done = finish(service.chat(&["hi"])).expect(1);
    assert_eq!(done.stdout(), "so far\n");
    assert!(done.stderr.contains("come back later"), "{}", done.stderr);
    let done = finish(service.chat(&["--json", "hi"])).expect(1);
    let lines = done.lines();
    assert_eq!(last(&lines)["type"], "error");
    assert_eq!(last(&lines)["code"], "unavailable");
    assert_eq!(done.stderr, "");
}

#[test]
fn nobody_listens() {
    // Bound and dropped: nothing listens there now.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let mut command = agentwire(["chat", "--json", "--retries", "0", "--endpoint", &url, "hi"]);
    let done = finish(command.env("AGENTWIRE_TOKEN", "t").spawn().unwrap()).expect(1);
    assert_eq!(last(&done.lines())["kind"], "network");
}

#[test]
fn a_trace_says_what_the_connection_did_and_nothing_that_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "trace.jsonl", "what was before\n");
    let script = r#"[[rules]]
        steps = [{ text = "quite-private" }, { turn_end = {} }]"#;
    let service = Service::new(script, Some("tok-1"));
    let trace = path.to_str().unwrap();
    finish(service.chat(&["--trace", trace, "very-private"])).expect(0);
    let text = fs::read_to_string(&path).unwrap();
    let mut messages = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        messages.push(line["fields"]["message"].as_str().unwrap_or_default().to_owned());
    }
    for step in ["connected", "connection opened", "call placed", "call ended"] {
        assert!(messages.iter().any(|message| message == step), "{step}: {text}");
    }
    assert!(!text.contains("private") && !text.contains("tok-1"), "{text}");
    let nowhere = finish(service.chat(&["--trace", "/nonexistent/x", "hi"])).expect(2);
    assert!(nowhere.stderr.contains("--trace"), "{}", nowhere.stderr);
}

#[test]
fn the_environment_names_a_proxy_and_the_hosts_without_one() {
    let with = |name: &str, value: &str| {
        let mut command =
            agentwire(["chat", "--endpoint", "https://192.0.2.1", "--retries", "0", "hello"]);
        command.env("AGENTWIRE_TOKEN", "tok-1").env_remove("no_proxy").env_remove("NO_PROXY");
        finish(command.env(name, value).spawn().unwrap()).expect(1).stderr
    };
    // Port 1: nobody listens.
    let told = with("https_proxy", "http://me:zz9@127.0.0.1:1");
    assert!(told.contains("on the way to the proxy"), "{told}");
    assert!(!told.contains("zz9"), "{told}");
    // This machine itself is never reached through one.
    let mut command =
        agentwire(["chat", "--endpoint", "https://127.0.0.1:1", "--retries", "0", "hello"]);
    command.env("AGENTWIRE_TOKEN", "tok-1").env("https_proxy", "http://192.0.2.1:1");
    let told = finish(command.spawn().unwrap()).expect(1).stderr;
    assert!(!told.contains("proxy"), "{told}");
}

#[test]
fn clear_text_beyond_this_machine_is_refused_before_anything_is_sent() {
    let mut command = agentwire(["chat", "--endpoint", "http://192.0.2.1", "hi"]);
    let done = finish(command.env("AGENTWIRE_TOKEN", "t").spawn().unwrap()).expect(2);
    assert!(done.stderr.contains("clear"), "{}", done.stderr);
}

#[test]
fn the_timeout_ends_a_silent_run() {
    let service = Service::new("[[rules]]\nsteps = [{ text = \"a\" }, \"silence\"]", None);
    let done = finish(service.chat(&["--json", "--timeout", "0.5", "hi"])).expect(1);
    assert_eq!(last(&done.lines())["kind"], "deadline_exceeded");
}

/// A service that takes connections and says nothing; the list of models is the first it is asked for.
fn mute() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a guard against seconds that the timeout excludes")]
fn the_timeout_counts_from_the_start() {
    let (_listener, url) = mute();
    let mut command = agentwire(["chat", "--json", "--timeout", "0.5", "--endpoint", &url, "hi"]);
    let begun = Instant::now();
    let done = finish(command.env("AGENTWIRE_TOKEN", "t").spawn().unwrap()).expect(1);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(last(&done.lines())["kind"], "deadline_exceeded");
}

#[cfg(unix)]
#[test]
fn ctrl_c_before_the_run_is_said_as_well() {
    for json in [true, false] {
        let (listener, url) = mute();
        let mut command = agentwire(["chat", "--endpoint", &url, "hi"]);
        if json {
            command.arg("--json");
        }
        let child = command.env("AGENTWIRE_TOKEN", "t").spawn().unwrap();
        // It is connected, so it waits for its list, and Ctrl-C is listened for.
        let _connected = listener.accept().unwrap();
        let pid = child.id().to_string();
        assert!(
            std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success()
        );
        let done = finish(child).expect(130);
        match json {
            true => assert_eq!(last(&done.lines())["kind"], "cancelled"),
            false => assert!(done.stderr.contains("cancelled"), "{}", done.stderr),
        }
    }
}

#[test]
fn an_attempt_says_why_it_is_made() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let args = ["chat", "--timeout", "30", "--retries", "1", "--endpoint", &url, "hi"];
    let done = finish(agentwire(args).env("AGENTWIRE_TOKEN", "t").spawn().unwrap()).expect(1);
    let note = done.stderr.lines().find(|line| line.contains("attempt 1 to go on"));
    assert!(note.is_some_and(|note| note.contains("no TCP connection")), "{}", done.stderr);
}

/// A script that says one line and then goes on for ever.
const ENDLESS: &str = r#"[[rules]]
    steps = [{ text = "first\n" }, { repeat = { steps = [{ text = "and on and on and on" }] } }]"#;

#[test]
fn a_reader_that_leaves_ends_the_run_quietly() {
    let service = Service::new(ENDLESS, None);
    for args in [&["hi"][..], &["--json", "hi"]] {
        let mut child = service.chat(args);
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        drop(stdout);
        let done = finish(child).expect(0);
        assert_eq!(done.stderr, "");
    }
    assert_eq!(service.report().violation_count, 0);
}

#[test]
fn a_run_goes_on_after_the_way_to_the_service_failed() {
    let script = r#"
        [[rules]]
        times = 1
        steps = [{ text = "here " }, "cut"]
        [[rules]]
        when = { action = "resume" }
        steps = [{ text = "here I am" }, { turn_end = {} }]"#;
    let service = Service::new(script, None);
    let done = finish(service.chat(&["--retries", "1", "hi"])).expect(0);
    assert_eq!(done.stdout(), "here I am\n", "nothing is said twice");
    assert!(done.stderr.contains("attempt 1"), "{}", done.stderr);
    assert_eq!(service.report().requests, 3, "the list of models, and two attempts");

    let service = Service::new(script, None);
    let done = finish(service.chat(&["--retries", "0", "--json", "hi"])).expect(1);
    assert_eq!(last(&done.lines())["kind"], "network");
    assert_eq!(service.report().requests, 2, "the list of models, and one attempt");
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    let kill = std::process::Command::new("kill").args(["-INT", &pid]).status();
    assert!(kill.unwrap().success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_cancels_the_run_and_the_service_is_told() {
    let service = Service::new("[[rules]]\nsteps = [{ text = \"first\\n\" }, \"silence\"]", None);
    let mut child = service.chat(&["hi"]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    interrupt(&child);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let done = finish(child);
    assert_eq!(done.code, 130, "{}", done.stderr);
    assert_eq!(rest, "");
    let report = service.report();
    assert_eq!((report.requests, report.violation_count), (2, 0), "{report:?}");
    assert_eq!(report.cancelled, 1, "{report:?}");
}

#[cfg(unix)]
#[test]
fn serve_says_where_it_listens_and_ends_on_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let mut server = agentwire(["serve", "--cert-out", ca.to_str().unwrap()]).spawn().unwrap();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    let mut url = String::new();
    stdout.read_line(&mut url).unwrap();
    let url = url.trim();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");

    let chat = |extra: &[&str]| {
        let mut command = agentwire(["chat", "--endpoint", url, "hello"]);
        finish(command.args(extra).env("AGENTWIRE_TOKEN", "t").spawn().unwrap())
    };
    let done = chat(&["--tls-ca", ca.to_str().unwrap()]).expect(0);
    assert!(done.stdout().contains("hello"));
    let done = chat(&["--retries", "0"]).expect(1);
    assert!(done.stderr.contains("certificate"), "{}", done.stderr);

    interrupt(&server);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "the address is all that stdout gets");
    finish(server).expect(0);
}

/// A root, and a certificate that it signed, both as a person would make them.
#[cfg(unix)]
#[test]
fn serve_takes_a_certificate_and_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let mut root = rcgen::CertificateParams::default();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root_key = rcgen::KeyPair::generate().unwrap();
    let ca = write(folder.path(), "ca.pem", root.self_signed(&root_key).unwrap().pem());
    let issuer = rcgen::Issuer::new(root, root_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = names.signed_by(&key, &issuer).unwrap().pem();
    let certificate = write(folder.path(), "certificate.pem", &certificate);
    let key = write(folder.path(), "key.pem", key.serialize_pem());

    let files = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let mut server = agentwire(["serve"]).args(files).spawn().unwrap();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    let mut url = String::new();
    stdout.read_line(&mut url).unwrap();
    let mut chat = agentwire(["chat", "--endpoint", url.trim(), "hello"]);
    chat.args(["--tls-ca", ca.to_str().unwrap()]).env("AGENTWIRE_TOKEN", "t");
    assert!(finish(chat.spawn().unwrap()).expect(0).stdout().contains("hello"));
    interrupt(&server);
    finish(server).expect(0);
}

#[test]
fn serve_refuses_what_it_cannot_play() {
    let folder = tempfile::tempdir().unwrap();
    let bad = write(folder.path(), "bad.toml", "rulez = 1");
    let done = run(["serve", "--script", bad.to_str().unwrap()]).expect(2);
    assert!(done.stderr.contains("bad.toml"), "{}", done.stderr);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let done = run(["serve", "--cleartext", "--listen", &addr]).expect(1);
    assert!(done.stderr.contains(&addr), "{}", done.stderr);
}

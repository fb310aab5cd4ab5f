//! A turn over the real transport that breaks off, and who makes it again or goes on with it: the
//! same process, or another after kill -9.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agentwire::conversation::id::of_session;
use agentwire::exec::{ExecCall, ExecHandler, Served};
use agentwire::proto::{ShellArgs, ShellResult};
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::{Client, Roots};
use agentwire_agent::model::Hosted;
use agentwire_agent::record::text_of;
use agentwire_agent::session::Store;
use agentwire_agent::tool::tool;
use agentwire_agent::{Agent, Event, FailureClass, Stop};
use serde_json::Value;

/// A shell that only counts its commands.
#[derive(Default)]
struct Counting(AtomicUsize);

impl ExecHandler for Counting {
    fn shell<'a>(&'a self, _: &'a ExecCall, _: ShellArgs) -> Served<'a, ShellResult> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(ShellResult::default()) })
    }
}

async fn server(script: &str, retries: u32) -> (Client, Server) {
    let script = Script::from_toml(script).expect("a script");
    let server = Server::builder().script(script).bind().await.expect("a server");
    let certificate = server.certificate_pem().expect("a certificate");
    (client(&server.url(), certificate, retries), server)
}

fn client(url: &str, certificate: &str, retries: u32) -> Client {
    let builder = Client::builder().endpoint(url).roots(Roots::OnlyAdded).retries(retries);
    builder.ca_pem(certificate.to_owned()).build().expect("a client")
}

/// A command that ran before the stream broke is not run again: not by the same model, not by the
/// next. Without the command the same break is taken up.
#[tokio::test]
async fn a_command_runs_once_whoever_could_ask_again() {
    let shell = r#"{ ask = { exec = "shell_args", args = { command = "echo x >> eff.txt" } } },"#;
    for (command, error) in [
        (shell, r#""cut""#),
        (shell, r#"{ error = "unavailable" }"#),
        ("", r#"{ error = "unavailable" }"#),
    ] {
        let script = format!("[[rules]]\nsteps = [{command} {{ text = 'Half' }}, {error}]");
        let (client, _server) = server(&script, 10).await;
        let effects = Arc::new(Counting::default());
        let model = Hosted::new(client).execs(effects.clone());
        let agent = Agent::builder(model).model("composer-2").model("other").build();
        let task = agent.expect("an agent").prompt("go").start();
        let ended = task.finish().await.expect("an end");
        let Stop::Failed { failure } = ended.outcome.stop else { panic!("it went on") };
        let asked = ended.outcome.attempts.len();
        if command.is_empty() {
            assert_eq!((failure.class, asked), (FailureClass::Retryable, 2), "{failure}");
            continue;
        }
        assert_eq!(effects.0.load(Ordering::SeqCst), 1, "{error}");
        assert_eq!((failure.class, asked), (FailureClass::Fatal, 1), "{failure}");
        assert!(failure.message.contains("shell_args"), "{failure}");
        assert!(failure.message.contains("before you ask again"), "{failure}");
    }
}

/// The next model goes on from the checkpoint, and so does the next task where there is no other
/// model: what was said before it failed is in the transcript.
#[tokio::test]
async fn a_broken_turn_is_gone_on_with_from_its_checkpoint() {
    let script = r#"
        [[rules]]
        when = { action = "user" }
        times = 1
        steps = [{ text = "One, " }, { checkpoint = { used_tokens = 5 } }, { text = "two, " }, "cut"]
        [[rules]]
        when = { action = "resume", used_tokens = 5 }
        steps = [{ text = "two, three." }, { turn_end = {} }]
    "#;
    let (client, _server) = server(script, 0).await;
    let agent = Agent::builder(client).model("composer-2").model("other").build();
    let agent = agent.expect("an agent");
    let ended = agent.prompt("Count").start().finish().await.expect("an end");
    assert_eq!(ended.outcome.stop, Stop::Completed);
    assert_eq!(ended.outcome.text, "One, two, three.");

    let (client, _server) = server(script, 0).await;
    let agent = Agent::builder(client).model("composer-2").build().expect("an agent");
    let ended = agent.prompt("Count").start().finish().await.expect("an end");
    assert!(matches!(ended.outcome.stop, Stop::Failed { .. }));
    let messages = ended.session.messages();
    assert_eq!(messages.iter().map(|m| text_of(m)).collect::<Vec<_>>(), ["Count", "One, two, "]);
    let ended = agent.resume(ended.session).start().finish().await.expect("an end");
    assert_eq!(ended.outcome.stop, Stop::Completed);
}

/// A model's turn, one frame (or one question and its answer) at a time.
const TURN: [&str; 6] = [
    r#"{ text = { text = "one ", delta = 10, tokens = false } }"#,
    r#"{ tokens = 3 }"#,
    r#"{ call = { tool = "note", args = {} } }"#,
    r#"{ text = { text = "two ", delta = 10, tokens = false } }"#,
    r#"{ checkpoint = { used_tokens = 5 } }"#,
    r#"{ text = { text = "three", delta = 10, tokens = false } }"#,
];
/// Where in the turn the tool is called, and where the checkpoint comes.
const CALL: usize = 2;
const CHECKPOINT: usize = 4;

const FOLDER: &str = "AGENTWIRE_TEST_FOLDER";
const URL: &str = "AGENTWIRE_TEST_URL";

#[tokio::test]
#[ignore = "one of the processes of kill_9_in_the_middle_of_a_turn"]
async fn process() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("a folder"));
    let url = std::env::var(URL).expect("an address");
    let certificate = fs::read_to_string(folder.join("ca.pem")).expect("a certificate");
    let effects = folder.join("effects");
    let note = tool("note", "Takes a note", move |_, _: Value| {
        let file = fs::OpenOptions::new().append(true).create(true).open(&effects);
        file.and_then(|mut file| file.write_all(b"noted\n")).expect("written");
        std::future::ready(Ok("noted"))
    });
    let model = client(&url, &certificate, 10);
    let agent = Agent::builder(model).model("composer-2").tool(note).build().expect("an agent");
    let session = Store::new(&folder).open("task").expect("it opens");
    let task = match session.messages().is_empty() {
        true => agent.prompt("Count").session(session),
        false => agent.resume(session),
    };
    let mut task = task.start();
    while let Some(event) = task.next().await {
        match event {
            // What the script says after the frame that is the last.
            Event::Thinking { .. } => println!("\nhere"),
            Event::Finished { outcome } => println!("\nanswer {:?} {}", outcome.stop, outcome.text),
            _ => {}
        }
        std::io::stdout().flush().expect("said");
    }
}

/// Runs the task in a process of its own up to its last word, and kills it.
fn run(folder: &Path, url: &str) -> String {
    let mut process = Command::new(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "process", "--nocapture"])
        .env(FOLDER, folder)
        .env(URL, url)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
    let mut lines = lines.map(|line| line.expect("text"));
    let word = lines.find(|line| line == "here" || line.starts_with("answer"));
    // SIGKILL.
    process.kill().expect("killed");
    process.wait().expect("gone");
    word.expect("a last word")
}

/// A server with this script, and the process against it.
async fn run_against(folder: &Path, script: &str) -> String {
    let (_, server) = server(script, 0).await;
    fs::write(folder.join("ca.pem"), server.certificate_pem().expect("one")).expect("written");
    let (folder, url) = (folder.to_owned(), server.url());
    tokio::task::spawn_blocking(move || run(&folder, &url)).await.expect("it ran")
}

/// What the killed process left says what the next request is, and the script of the next server
/// answers no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_in_the_middle_of_a_turn() {
    for frames in 0..=TURN.len() {
        let folder = tempfile::tempdir().expect("a folder");
        let steps = TURN[..frames].join(", ");
        let comma = if frames == 0 { "" } else { "," };
        let script =
            format!("[[rules]]\nsteps = [{steps}{comma} {{ thinking = 'mark' }}, 'silence']");
        assert_eq!(run_against(folder.path(), &script).await, "here", "{frames} frames");

        let (called, kept) = (frames > CALL, frames > CHECKPOINT);
        let action = if called { "resume" } else { "user" };
        let (used, call) = (if kept { 5 } else { 0 }, if called { "" } else { TURN[CALL] });
        let comma = if called { "" } else { "," };
        let script = format!(
            "[[rules]]\nwhen = {{ action = '{action}', used_tokens = {used} }}\n\
             steps = [{call}{comma} {{ text = '{{{{conversation}}}}' }}, {{ turn_end = {{}} }}]"
        );
        let word = run_against(folder.path(), &script).await;
        let (header, ..) = Store::new(folder.path()).read("task").expect("it reads");
        let conversation = of_session(&header.id).expect("an id");
        // What the checkpoint covers is not said again, and not lost.
        let before = if kept { "two " } else { "" };
        assert_eq!(word, format!("answer Completed {before}{conversation}"), "{frames} frames");
        let effects = fs::read_to_string(folder.path().join("effects")).expect("effects");
        assert_eq!(effects, "noted\n", "{frames} frames: the tool's effect");
    }
}

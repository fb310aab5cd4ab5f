//! A worker: the process that runs workflows, and stops for good at the point it is given.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use agentwire::Client;
use agentwire::context::ToolResult;
use agentwire::conversation::Conversation;
use agentwire::run::Event;
use agentwire::transport::{Roots, StartError};
use agentwire_agent::model::Boxed;
use agentwire_agent::session::Store;
use agentwire_agent::tool::tool;
use agentwire_agent::{
    Agent, CancellationToken, Model, ModelRequest, ModelRun, SessionRef, StageError, StageOutcome,
    StageRunner, StageSession, StageSpec,
};
use agentwire_dbos::stage;
use dbos::{Config, DBOS, Enqueue, QueueConflict, QueueOptions, StartOptions};
use serde_json::{Map, Value, json};

/// Longer than any machine takes for a run of these tests; a run that is lost ends the test.
const LATE: Duration = Duration::from_secs(120);
/// How often DBOS looks for work and for results. A second is its own; tests have no time.
const LOOK: Duration = Duration::from_millis(50);
const QUEUE: &str = "stages";

/// A point that is passed several times; the worker stops for good when it passes one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// A session was opened and is not recorded.
    Open,
    /// A session was recorded, and nothing was sent.
    Ready,
    /// An event of the model's stream came. Counted through all stages.
    Frame,
    /// The stage has its outcome, which is not recorded.
    Answered,
    /// The stage is recorded, and the next is not begun.
    Between,
    /// The tool is called and has done nothing.
    Tool,
}

/// How far a worker got.
#[derive(Debug)]
pub(crate) enum End {
    /// It stopped at its point and was killed.
    Killed,
    /// The run ended, with this result.
    Done(Value),
    /// The worker gave the run up and left it `PENDING`; what it wrote to its log.
    Left(String),
}

/// What a worker is started with.
pub(crate) struct Job<'a> {
    /// Folder of the sessions, and of the ledger of effects.
    pub(crate) folder: &'a Path,
    pub(crate) database: String,
    pub(crate) server: &'a agentwire::server::serve::Server,
    pub(crate) id: &'a str,
    pub(crate) topic: &'a str,
    /// Name of the workflow: `review`, or `both`.
    pub(crate) workflow: &'a str,
    pub(crate) stop: Option<(Point, u32)>,
}

impl Job<'_> {
    /// Runs a worker up to its point, where it is killed with `SIGKILL`, or to the end of its run.
    pub(crate) fn run(&self) -> End {
        let mut child = self.start();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut log = String::new();
        for line in lines {
            let end = match line.strip_prefix('@').map(|said| said.split_once(' ')) {
                Some(Some(("done", json))) => End::Done(serde_json::from_str(json).unwrap()),
                Some(_) => End::Killed,
                None => {
                    log.push_str(&line);
                    log.push('\n');
                    // DBOS says this last of a run whose end is not one to record; those who wait
                    // for its result go on waiting.
                    if !line.contains("a control signal ended this execution") {
                        continue;
                    }
                    End::Left(log)
                }
            };
            child.kill().unwrap();
            child.wait().unwrap();
            return end;
        }
        panic!("the worker ended with {}:\n{log}", child.wait().unwrap());
    }

    fn start(&self) -> Child {
        let job = json!({
            "folder": self.folder, "database": self.database, "id": self.id, "topic": self.topic,
            "workflow": self.workflow, "url": self.server.url(), "certificate": self.server.certificate_pem(),
            "stop": self.stop.map(|(point, n)| (format!("{point:?}"), n)),
        });
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker", "--ignored", "--nocapture"])
            .env("DBOS_TEST_JOB", job.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n@{line}").unwrap();
    out.flush().unwrap();
}

/// Counts the points that are passed.
#[derive(Clone)]
struct Gate {
    stop: Option<(String, u32)>,
    passed: Arc<AtomicU32>,
}

impl Gate {
    fn pass(&self, point: Point) {
        let Some((name, n)) = &self.stop else { return };
        if *name == format!("{point:?}") && self.passed.fetch_add(1, Ordering::SeqCst) + 1 == *n {
            say("hold here");
            loop {
                std::thread::park();
            }
        }
    }
}

/// A client whose events pass the gate.
struct Watched(Client, Gate);

struct WatchedRun(Box<dyn ModelRun>, Gate);

impl Model for Watched {
    fn start(&self, request: ModelRequest) -> Boxed<'_, Result<Box<dyn ModelRun>, StartError>> {
        Box::pin(async move {
            let run = self.0.start(request).await?;
            Ok(Box::new(WatchedRun(run, self.1.clone())) as Box<dyn ModelRun>)
        })
    }
}

impl ModelRun for WatchedRun {
    fn next(&mut self) -> Boxed<'_, Option<Event>> {
        Box::pin(async move {
            let event = self.0.next().await;
            self.1.pass(Point::Frame);
            event
        })
    }

    fn answer(
        &mut self,
        results: Vec<ToolResult>,
        say: Vec<String>,
    ) -> Boxed<'_, agentwire::error::Result<()>> {
        self.0.answer(results, say)
    }

    fn cancel(&mut self) {
        self.0.cancel();
    }

    fn finish(self: Box<Self>) -> Boxed<'static, Conversation> {
        self.0.finish()
    }
}

/// An agent whose stages pass the gate.
#[derive(Clone)]
struct Gated(Agent, Gate);

struct GatedSession(Box<dyn StageSession>, Gate);

impl StageRunner for Gated {
    fn open<'a>(
        &'a self,
        spec: &'a StageSpec,
        prior: Option<&'a SessionRef>,
    ) -> Boxed<'a, Result<Box<dyn StageSession>, StageError>> {
        Box::pin(async move {
            let session = self.0.open(spec, prior).await?;
            self.1.pass(if prior.is_some() { Point::Ready } else { Point::Open });
            Ok(Box::new(GatedSession(session, self.1.clone())) as Box<dyn StageSession>)
        })
    }
}

impl StageSession for GatedSession {
    fn session_ref(&self) -> &SessionRef {
        self.0.session_ref()
    }

    fn prompt<'a>(
        &'a mut self,
        cancel: &'a CancellationToken,
    ) -> Boxed<'a, Result<StageOutcome, StageError>> {
        Box::pin(async move {
            let outcome = self.0.prompt(cancel).await;
            self.1.pass(Point::Answered);
            outcome
        })
    }
}

/// What one draft and its verdict say.
async fn review(agent: Gated, topic: String) -> dbos::Result<[String; 2], StageError> {
    let draft = stage(&agent, "draft", StageSpec::new(format!("Write about {topic}"))).await?;
    agent.1.pass(Point::Between);
    let judge = StageSpec::new(format!("Judge this: {}", draft.text()));
    let verdict = stage(&agent, "verdict", judge).await?;
    Ok([draft.text().to_owned(), verdict.text().to_owned()])
}

/// What two drafts say that are written side by side.
async fn both(agent: Gated, topic: String) -> dbos::Result<[String; 2], StageError> {
    let prose = stage(&agent, "prose", StageSpec::new(format!("Write about {topic}")));
    let song = stage(&agent, "song", StageSpec::new(format!("Sing about {topic}")));
    let (prose, song) = tokio::join!(prose, song);
    Ok([prose?.text().to_owned(), song?.text().to_owned()])
}

fn agent(job: &Value, gate: &Gate) -> Gated {
    let folder = Path::new(job["folder"].as_str().unwrap()).to_owned();
    let (url, certificate) = (job["url"].as_str().unwrap(), job["certificate"].as_str().unwrap());
    let client = Client::builder().endpoint(url).roots(Roots::OnlyAdded).ca_pem(certificate);
    let ledger = folder.join("ledger");
    let at_tool = gate.clone();
    let note = tool("note", "Takes a note", move |_, _arguments: Map<String, Value>| {
        at_tool.pass(Point::Tool);
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&ledger).unwrap();
        file.write_all(b"note\n").unwrap();
        async { Ok("noted") }
    });
    let agent = Agent::builder(Watched(client.build().unwrap(), gate.clone()))
        .model("composer-2")
        .tool(note)
        .sessions(Store::new(folder.join("sessions")));
    Gated(agent.build().unwrap(), gate.clone())
}

/// What the test of this name does: runs one workflow, from a queue.
pub(crate) fn work() {
    let job: Value = serde_json::from_str(&std::env::var("DBOS_TEST_JOB").unwrap()).unwrap();
    let stop = serde_json::from_value(job["stop"].clone()).unwrap();
    let agent = agent(&job, &Gate { stop, passed: Arc::default() });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stdout)
        .init();
    let said = runtime.block_on(async {
        let run = tokio::time::timeout(LATE, run(&job, agent));
        run.await.expect("the run does not end")
    });
    say(&format!("done {}", json!(said.unwrap())));
}

async fn run(job: &Value, agent: Gated) -> dbos::Result<[String; 2], StageError> {
    let text = |name: &str| job[name].as_str().unwrap();
    let config = Config {
        app_version: Some("1".into()),
        outcome_poll_interval: Some(LOOK),
        ..Config::new("agentwire-tests", text("database"))
    };
    let dbos = DBOS::new(config);
    let topic = text("topic").to_owned();
    // The topic is the code's here, not the input's: another one is another version of the code.
    let workflow = match text("workflow") {
        "both" => dbos.register_workflow("both", move |(): ()| both(agent.clone(), topic.clone())),
        name => dbos.register_workflow(name, move |(): ()| review(agent.clone(), topic.clone())),
    };
    let workflow = workflow.map_err(dbos::Error::lift)?;
    dbos.launch().await.map_err(dbos::Error::lift)?;
    let limits =
        QueueOptions { worker_concurrency: Some(1), polling_interval: LOOK, ..Default::default() };
    let queue = dbos.register_queue(QUEUE, limits, QueueConflict::AlwaysUpdate);
    queue.await.map_err(dbos::Error::lift)?;
    let options = StartOptions {
        workflow_id: Some(text("id")),
        queue: Some(Enqueue::new(QUEUE)),
        ..StartOptions::default()
    };
    let said = workflow.start_with((), options).await?.result().await;
    dbos.shutdown().await;
    said
}

//! The same through a whole client: its tasks, its connections and handlers that really panic, on
//! tokio's paused clock and links in memory. The service is the mirror machine, which notices what is
//! answered twice or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use agentwire::context::ToolResult;
use agentwire::exec::Effects;
use agentwire::proto::interaction_update::Message as Update;
use agentwire::rpc::http2::ServerConnection;
use agentwire::rpc::http2::{Accepted, BodyReceiver, BodySender, Http2Config, Responder};
use agentwire::run::{self, Ended, Event};
use agentwire::server::session::STREAM_TYPE;
use agentwire::server::{self, RequestHead};
use agentwire::transport::{BoxIo, Client, Connecting, Connector, Endpoint, Run};
use prost::Message as _;
use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::everything::Everything;
use crate::judge::{Count, ask_something, tool};
use crate::link::Rng;
use crate::moody::{Books, Moody, hide_panics_on_purpose};
use crate::{ALLOCATED, ALONE};

const EXECS: usize = 3_000;
/// How long an exec or a query may take.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn handlers_that_panic_leave_no_question_open_and_no_memory_taken() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    hide_panics_on_purpose();
    // With few places most of the questions wait for one, with many none does.
    for (seed, places) in [(4, 16), (5, 256)] {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(over_many_runs(seed, places));
    }
}

/// What came of all runs.
#[derive(Debug, Default)]
struct Tally {
    asked: Count,
    runs: usize,
    cut: usize,
    /// Runs that were cut and went on to their end.
    went_on: usize,
    /// Runs that ended at the cut: something had been changed.
    interrupted: usize,
    started: usize,
    panics: usize,
    hangs: usize,
    /// Questions that had their answer when their time was over.
    given_up: usize,
}

async fn over_many_runs(seed: u64, places: usize) {
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let (give, mut calls) = mpsc::unbounded_channel();
    let mut options = run::Options::default();
    options.exec_limit = LIMIT;
    options.query_limit = LIMIT;
    options.serve_at_once = places;
    let client = Client::builder().connector(Links(give)).run_options(options).build().unwrap();
    // Every request has an id of its own, which HPACK remembers on both sides until its tables, of
    // 4 KiB each, are full: some 45 requests.
    let mut most = 0;
    for _ in 0..60 {
        let plan = Plan { questions: 1, cuts: 0, effects: Effects::ReadOnly };
        one_run(&client, &mut calls, &mut rng, plan, &mut Tally::default()).await;
        most = most.max(ALLOCATED.current_usage());
    }
    let mut tally = Tally::default();
    while tally.asked.execs < EXECS {
        let plan = Plan::new(&mut rng);
        one_run(&client, &mut calls, &mut rng, plan, &mut tally).await;
        let now = ALLOCATED.current_usage();
        if tally.asked.execs < EXECS / 10 {
            most = most.max(now);
        }
        assert!(now <= most + 8_192, "seed {seed}: {most} bytes at first, {now} after {tally:?}");
    }
    println!("seed {seed}: {tally:?}");
    assert!(tally.asked.queries > EXECS / 20 && tally.started > EXECS / 2);
    assert!(tally.panics > EXECS / 5 && tally.given_up > 0);
    // Where nothing waits for a place only what hangs takes so long: a panic is answered at once.
    assert!(places == 16 || tally.given_up <= tally.hangs);
    assert!(tally.went_on > 0 && tally.interrupted > 0 && tally.runs > 2 * tally.cut);
}

/// What a run is to be.
#[derive(Clone, Copy)]
struct Plan {
    questions: usize,
    /// How often its stream is cut.
    cuts: usize,
    /// What its handlers do: a run that changed something ends when it is cut.
    effects: Effects,
}

impl Plan {
    fn new(rng: &mut Rng) -> Self {
        Self {
            questions: 60 + usize::try_from(rng.below(60)).unwrap(),
            cuts: [0, 0, 0, 1, 2][usize::try_from(rng.below(5)).unwrap()],
            effects: [Effects::ReadOnly, Effects::Changes][usize::from(rng.below(2) == 0)],
        }
    }
}

async fn one_run(client: &Client, calls: &mut Calls, rng: &mut Rng, plan: Plan, tally: &mut Tally) {
    let mut fresh = || Rng::new(rng.below(u64::MAX));
    let (handlers, consumer, service) = (fresh(), fresh(), fresh());
    let effects = plan.effects;
    let books = Arc::new(Books::default());
    let handler = Arc::new(Everything(Moody::new(handlers, Arc::clone(&books), effects)));
    let run = client.prompt("hello").model("composer-2");
    let run = match effects {
        Effects::ReadOnly => run.read_only_tool(tool()),
        Effects::Changes => run.tool(tool()),
    };
    let run = run.execs(handler.clone()).asker(handler).start().await.unwrap();

    let mut service = Service::new(service, plan);
    let over = Notify::new();
    let (ended, ()) = tokio::join!(consume(run, consumer, &over), service.serve(calls, &over));
    // For what was called off at the end to be dropped.
    sleep(Duration::from_secs(1)).await;

    assert_eq!(books.at_work(), 0, "handlers were left at work");
    assert!(books.started() <= service.asked.all(), "a question was given to a handler twice");
    tally.asked.add(service.asked);
    tally.runs += 1;
    tally.cut += usize::from(service.was_cut);
    tally.started += books.started();
    tally.panics += books.panics();
    tally.hangs += books.hangs();
    tally.given_up += service.given_up;
    match ended {
        Ok(_) => {
            assert_eq!(service.asked.all(), plan.questions);
            tally.went_on += usize::from(service.was_cut);
        }
        Err(error) => {
            assert!(service.was_cut && effects == Effects::Changes, "{error}");
            assert!(!error.is_repeatable(), "{error}");
            tally.interrupted += 1;
        }
    }
}

/// Reads a run to its end, and answers its tool calls after a while.
async fn consume(mut run: Run, mut rng: Rng, over: &Notify) -> Ended {
    let mut answers = JoinSet::new();
    while let Some(event) = run.next().await {
        let Event::ToolCalls(calls) = event else { continue };
        for call in calls {
            let (handle, wait) = (run.handle(), Duration::from_millis(rng.below(5_000)));
            answers.spawn(async move {
                sleep(wait).await;
                let result = ToolResult::text(call.id, call.name, "done");
                // Refused when the service has called it off, or the run is over.
                let _ = handle.answer_some(vec![result]).await;
            });
        }
    }
    answers.shutdown().await;
    let (ended, _) = run.finish().await;
    over.notify_one();
    ended
}

/// Gives the streams that a client opens to the test.
struct Links(mpsc::UnboundedSender<Call>);

type Calls = mpsc::UnboundedReceiver<Call>;

struct Call {
    accepted: Accepted,
    connection: Arc<Connection>,
}

/// Ends a connection without a word.
#[derive(Default)]
struct Connection {
    cut: Notify,
    gone: Notify,
}

impl Connection {
    async fn cut(&self) {
        self.cut.notify_one();
        self.gone.notified().await;
    }
}

impl Connector for Links {
    fn connect<'a>(&'a self, _: &'a Endpoint) -> Connecting<'a> {
        Box::pin(async move {
            // Less than a frame may be: messages arrive in pieces.
            let (near, far) = tokio::io::duplex(1 << 10);
            tokio::spawn(accept(far, self.0.clone()));
            let io: BoxIo = Box::new(near);
            Ok(io)
        })
    }
}

async fn accept(io: DuplexStream, calls: mpsc::UnboundedSender<Call>) {
    let mut http2 = ServerConnection::handshake(io, Http2Config::server()).await.unwrap();
    let connection = Arc::new(Connection::default());
    loop {
        tokio::select! {
            accepted = http2.accept() => {
                let Ok(accepted) = accepted else { return };
                let _ = calls.send(Call { accepted, connection: Arc::clone(&connection) });
            }
            () = connection.cut.notified() => break,
        }
    }
    drop(http2);
    connection.gone.notify_one();
}

/// Something that the service does later.
enum Later {
    Ask,
    Abort(u32),
    Cut,
}

/// The service's side of one run, over as many streams as it takes.
struct Service {
    rng: Rng,
    to_ask: usize,
    asked: Count,
    /// Cuts that are to come.
    cuts: usize,
    was_cut: bool,
    given_up: usize,
}

impl Service {
    fn new(rng: Rng, plan: Plan) -> Self {
        let Plan { questions, cuts, .. } = plan;
        let asked = Count::default();
        Self { rng, to_ask: questions, asked, cuts, was_cut: false, given_up: 0 }
    }

    async fn serve(&mut self, calls: &mut Calls, over: &Notify) {
        loop {
            tokio::select! {
                call = calls.recv() => self.play(call.expect("a client")).await,
                () = over.notified() => return,
            }
        }
    }

    /// One stream, until the client's side is over or the connection is cut.
    async fn play(&mut self, call: Call) {
        let mut stream = Stream::new(call.accepted);
        let mut agenda = Agenda::default();
        agenda.put(0, Later::Ask);
        if self.cuts > 0 {
            agenda.put(self.rng.below(self.to_ask as u64 * 60), Later::Cut);
        }
        loop {
            stream.write().await;
            tokio::select! {
                open = stream.read(&mut self.given_up) => if !open { break },
                later = agenda.next() => match later {
                    Later::Ask => self.ask(&mut stream.server, &mut agenda),
                    Later::Abort(id) => stream.server.abort(id),
                    Later::Cut => {
                        self.cuts -= 1;
                        self.was_cut = true;
                        // Else the stream is reset, and the connection stays.
                        if self.rng.below(2) == 0 {
                            call.connection.cut().await;
                        }
                        return stream.assert_no_violation();
                    }
                }
            }
        }
        stream.assert_no_violation();
        assert!(stream.server.is_ended(), "the client left early");
        assert_eq!(stream.server.open_questions().count(), 0);
    }

    /// Asks the next question, or ends the turn when all are settled.
    fn ask(&mut self, server: &mut server::Session, agenda: &mut Agenda) {
        let now = Instant::now().into_std();
        if self.asked.all() < self.to_ask {
            let id = ask_something(server, &mut self.rng, &mut self.asked, now);
            if self.rng.below(5) == 0 {
                agenda.put(self.rng.below(8_000), Later::Abort(id));
            }
            return agenda.put(self.rng.below(100), Later::Ask);
        }
        let oldest = server.open_questions().map(|open| now - open.asked).max();
        match oldest {
            Some(age) => {
                assert!(age <= LIMIT + Duration::from_secs(1), "without an answer: {age:?}");
                agenda.put(500, Later::Ask);
            }
            None => {
                server.update(Update::TurnEnded(Box::default()));
                server.finish();
            }
        }
    }
}

/// What is to be done, by time.
#[derive(Default)]
struct Agenda {
    later: BTreeMap<(Instant, usize), Later>,
    count: usize,
}

impl Agenda {
    fn put(&mut self, millis: u64, later: Later) {
        self.count += 1;
        self.later.insert((Instant::now() + Duration::from_millis(millis), self.count), later);
    }

    /// The next thing when it is due; never when there is none. Nothing is lost when this is dropped.
    async fn next(&mut self) -> Later {
        let due = self.later.first_key_value().map(|((at, _), _)| *at);
        match due {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.later.pop_first().expect("it is due").1
    }
}

/// A stream, and the machine that says what goes over it.
struct Stream {
    server: server::Session,
    body: BodyReceiver,
    respond: Option<Responder>,
    send: Option<BodySender>,
}

impl Stream {
    fn new(accepted: Accepted) -> Self {
        let now = Instant::now().into_std();
        let mut server = server::Session::new(server::session::Options::default(), now);
        let Accepted { head, body, respond } = accepted;
        let headers = head.headers.iter().map(|(name, value)| (name.as_str(), value));
        let headers = headers.map(|(name, value)| (name, value.to_str().unwrap()));
        server.handle_head(&RequestHead::post(head.uri.path(), headers), now);
        server.respond(200, &[("content-type".into(), STREAM_TYPE.into())]);
        Self { server, body, respond: Some(respond), send: None }
    }

    /// Takes what the client sent, and counts what it gave up; false when its side is over.
    async fn read(&mut self, given_up: &mut usize) -> bool {
        let chunk = self.body.next().await;
        let now = Instant::now().into_std();
        match &chunk {
            Some(Ok(chunk)) => self.server.handle_body(chunk, now),
            Some(Err(_)) => self.server.handle_reset(None, now),
            None => self.server.handle_end(now),
        }
        while let Some(event) = self.server.poll_event() {
            *given_up += usize::from(says_given_up(event));
        }
        matches!(chunk, Some(Ok(_)))
    }

    async fn write(&mut self) {
        loop {
            match self.server.poll_output() {
                server::Output::Head { status, headers } => {
                    let mut head = http::Response::builder().status(status);
                    for (name, value) in headers {
                        head = head.header(name, value);
                    }
                    let respond = self.respond.take().expect("one head");
                    self.send = respond.send_head(head.body(()).unwrap(), false).ok();
                }
                // What cannot be sent is seen where the stream is read.
                server::Output::Send(bytes) => {
                    if let Some(send) = &mut self.send {
                        let _ = send.send(bytes).await;
                    }
                }
                server::Output::End { .. } => {
                    if let Some(send) = &mut self.send {
                        let _ = send.finish().await;
                    }
                }
                server::Output::Wait(_) => return,
                other => panic!("nothing here wants {other:?}"),
            }
        }
    }

    fn assert_no_violation(&self) {
        assert!(self.server.violations().is_empty(), "{:?}", self.server.violations());
    }
}

/// Whether a question is refused because its time was over.
fn says_given_up(event: server::Event) -> bool {
    let answer = match event {
        server::Event::ExecResult(result) => result.encode_to_vec(),
        server::Event::ExecThrown { error, .. } => error.into_bytes(),
        server::Event::Answer(response) => response.encode_to_vec(),
        _ => return false,
    };
    String::from_utf8_lossy(&answer).contains("gave up after")
}

//! The session as the oracle: what clients do right and wrong, in every order.

use agentwire::Secret;
use agentwire::connect::Limits;
use agentwire::proto::{self, agent_client_message as ask, exec_client_message as result};
use agentwire::server::session::{Open, Options, Question, answer_field};
use agentwire::server::{Event, Output, Session, Violation};
use prost::Message as _;

use crate::client::{Client, head, mcp_text, run, shell_rejected};

type Now = std::time::Instant;

fn now() -> Now {
    #[allow(clippy::disallowed_methods, reason = "virtual time starts here")]
    Now::now()
}

/// A session with a run request read, and what it is told.
struct Pair {
    session: Session,
    now: Now,
}

impl Pair {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let now = now();
        let mut pair = Self { session: Session::new(options, now), now };
        pair.session.handle_head(&head(), now);
        pair.tell(run("hi", Default::default()));
        assert!(matches!(pair.session.poll_event(), Some(Event::Run { .. })));
        pair
    }

    /// Whether an end with these words is among what is to be sent.
    fn ended_with(&mut self, words: &str) -> bool {
        let mut sent = Vec::new();
        loop {
            match self.session.poll_output() {
                Output::Wait(_) => break,
                Output::Send(bytes) => sent.extend_from_slice(&bytes),
                _ => {}
            }
        }
        String::from_utf8_lossy(&sent).contains(words)
    }

    fn tell(&mut self, message: ask::Message) {
        let message = proto::AgentClientMessage { message: Some(message) };
        self.tell_raw(&message.encode_to_vec());
    }

    fn tell_raw(&mut self, payload: &[u8]) {
        let mut out = Vec::new();
        agentwire::connect::put_envelope(&mut out, 0, payload);
        self.session.handle_body(&out, self.now);
    }

    fn result(&mut self, id: u32, exec_id: &str, result: result::Message) {
        let message = proto::ExecClientMessage {
            id,
            exec_id: exec_id.into(),
            message: Some(result),
            ..Default::default()
        };
        self.tell(ask::Message::ExecClientMessage(Box::new(message)));
    }

    fn control(&mut self, message: proto::exec_client_control_message::Message) {
        let control = proto::ExecClientControlMessage { message: Some(message) };
        self.tell(ask::Message::ExecClientControlMessage(control));
    }

    fn close(&mut self, id: u32) {
        let close = proto::ExecClientStreamClose { id };
        self.control(proto::exec_client_control_message::Message::StreamClose(close));
    }

    fn throw(&mut self, id: u32) {
        let throw = proto::ExecClientThrow { id, error: "no".into(), ..Default::default() };
        self.control(proto::exec_client_control_message::Message::Throw(throw));
    }

    fn beat(&mut self, id: u32) {
        let beat = proto::ExecClientHeartbeat { id };
        self.control(proto::exec_client_control_message::Message::Heartbeat(beat));
    }

    fn ask(&mut self, field: u32) -> u32 {
        self.session.ask_exec(field, &[], None, Some("e"), self.now).unwrap()
    }

    fn open(&self) -> Vec<Open> {
        self.session.open_questions().collect()
    }
}

fn mcp() -> result::Message {
    result::Message::McpResult(Box::new(mcp_text("x".into())))
}

fn shell() -> result::Message {
    result::Message::ShellResult(Box::new(shell_rejected()))
}

#[test]
fn one_answer_and_one_close() {
    let mut pair = Pair::new();
    let id = pair.ask(11);
    assert_eq!(pair.open().len(), 1);
    pair.beat(id);
    pair.result(id, "e", mcp());
    assert!(pair.open()[0].answered);
    pair.close(id);
    assert!(pair.open().is_empty());
    assert!(pair.session.violations().is_empty());
    let names: Vec<_> = std::iter::from_fn(|| pair.session.poll_event())
        .map(|event| format!("{event:?}"))
        .collect();
    assert_eq!(
        names,
        [format!("ExecHeartbeat({id})"), format!("ExecResult({id})"), format!("ExecClosed({id})")]
    );
}

#[test]
fn violations_and_events_that_are_kept_can_be_set() {
    let mut pair = Pair::with(Options { violations: 2, events: 5, ..Options::default() });
    for _ in 0..3 {
        pair.close(9);
    }
    assert_eq!((pair.session.violations().len(), pair.session.violation_count()), (2, 3));
    assert!(!pair.ended_with("too many messages wait"));
    for _ in 0..3 {
        pair.close(9);
    }
    assert_eq!(std::iter::from_fn(|| pair.session.poll_event()).count(), 5);
    assert!(pair.ended_with("too many messages wait"));
}

/// FAULTS M37, from this side.
#[test]
fn what_a_message_may_become_can_be_set() {
    for (decoded, passes) in [(64 << 20, true), (100_000, false)] {
        let limits = Limits { decoded, ..Limits::default() };
        let mut pair = Pair::with(Options { limits, ..Options::default() });
        let id = pair.ask(11);
        let text = mcp_text("x".repeat(100_000));
        pair.result(id, "e", result::Message::McpResult(Box::new(text)));
        assert_eq!(pair.session.violations().is_empty(), passes);
        assert_eq!(pair.ended_with("the limit is 100000"), !passes);
    }
}

#[test]
fn what_clients_do_wrong_is_named() {
    type Act = fn(&mut Pair, u32);
    type Expected = fn(u32) -> Violation;
    let table: [(Act, Expected); 14] = [
        (|pair, id| pair.result(id + 9, "e", mcp()), |id| Violation::UnknownExec { id: id + 9 }),
        (|pair, id| pair.close(id + 9), |id| Violation::UnknownExec { id: id + 9 }),
        (|pair, id| pair.beat(id + 9), |id| Violation::UnknownExec { id: id + 9 }),
        (|pair, id| pair.close(id), |id| Violation::CloseWithoutAnswer { id }),
        (|pair, id| pair.result(id, "f", mcp()), |id| Violation::WrongExecId { id }),
        (
            |pair, id| pair.result(id, "e", shell()),
            |id| Violation::WrongCase { id, asked: 11, got: 2 },
        ),
        (
            |pair, id| {
                pair.result(id, "e", mcp());
                pair.result(id, "e", mcp());
            },
            |id| Violation::AnsweredTwice { id },
        ),
        (
            |pair, id| {
                pair.result(id, "e", mcp());
                pair.throw(id);
            },
            |id| Violation::AnsweredTwice { id },
        ),
        (
            |pair, id| {
                pair.throw(id);
                pair.close(id);
                pair.close(id);
            },
            |id| Violation::ClosedTwice { id },
        ),
        (
            |pair, id| {
                pair.throw(id);
                pair.close(id);
                pair.result(id, "e", mcp());
            },
            |id| Violation::AnswerAfterClose { id },
        ),
        (
            |pair, id| {
                pair.result(id, "e", mcp());
                pair.beat(id);
            },
            |id| Violation::HeartbeatAfterAnswer { id },
        ),
        (
            |pair, id| {
                let empty =
                    proto::ExecClientMessage { id, exec_id: "e".into(), ..Default::default() };
                pair.tell(ask::Message::ExecClientMessage(Box::new(empty)));
            },
            |id| Violation::EmptyAnswer { id },
        ),
        (
            |pair, id| pair.result(id, "e", result::Message::McpResult(Default::default())),
            |id| Violation::EmptyAnswer { id },
        ),
        (|pair, _| pair.tell(run("again", Default::default())), |_| Violation::SecondRunRequest),
    ];
    for (index, (act, expected)) in table.into_iter().enumerate() {
        let mut pair = Pair::new();
        let id = pair.ask(11);
        act(&mut pair, id);
        assert_eq!(pair.session.violations(), [expected(id)], "row {index}");
        assert_eq!(pair.session.violation_count(), 1);
    }
}

#[test]
fn blobs_and_queries_are_held_against_their_questions() {
    use proto::kv_client_message::Message as K;
    let mut pair = Pair::new();
    let kv = |id, message| {
        ask::Message::KvClientMessage(Box::new(proto::KvClientMessage {
            id,
            message: Some(message),
        }))
    };
    let data = |data: &'static str| {
        K::GetBlobResult(proto::GetBlobResult { blob_data: Some(data.into()) })
    };
    let hash = <sha2::Sha256 as sha2::Digest>::digest(b"right");

    let id = pair.session.get_blob(&hash, pair.now).unwrap();
    pair.tell(kv(id, data("right")));
    assert!(pair.session.violations().is_empty());
    pair.tell(kv(id, data("right")));
    let wrong = pair.session.get_blob(&hash, pair.now).unwrap();
    pair.tell(kv(wrong, data("wrong")));
    let set = pair.session.set_blob(b"id", b"data", pair.now).unwrap();
    pair.tell(kv(set, data("right")));
    pair.tell(kv(99, data("right")));

    let answer = |id, result| {
        ask::Message::InteractionResponse(Box::new(proto::InteractionResponse { id, result }))
    };
    let query = pair.session.ask_query(2, &[], None, pair.now).unwrap();
    pair.tell(answer(query, None));
    let unknown = pair.session.ask_query(42, &[], None, pair.now).unwrap();
    pair.tell(answer(unknown, None));
    let setup = pair.session.ask_query(8, &[], None, pair.now).unwrap();
    pair.tell(answer(setup, None));
    let mode = pair.session.ask_query(4, &[], None, pair.now).unwrap();
    let search = proto::interaction_response::Result::WebSearchRequestResponse(Default::default());
    pair.tell(answer(mode, Some(search)));
    pair.tell(answer(98, None));

    assert_eq!(
        pair.session.violations(),
        [
            Violation::AnsweredTwice { id },
            Violation::WrongBlob { id: wrong },
            Violation::WrongCase { id: set, asked: 3, got: 2 },
            Violation::UnknownBlobQuestion { id: 99 },
            Violation::EmptyAnswer { id: query },
            Violation::WrongCase { id: mode, asked: 4, got: 2 },
            Violation::UnknownQuery { id: 98 },
        ]
    );
    assert!(pair.open().is_empty());
}

#[test]
fn a_blob_handed_over_under_a_foreign_id_may_come_back() {
    let mut pair = Pair::new();
    pair.session.set_blob(&[7; 32], b"data", pair.now).unwrap();
    let id = pair.session.get_blob(&[7; 32], pair.now).unwrap();
    let result = proto::GetBlobResult { blob_data: Some("data".into()) };
    let message = Some(proto::kv_client_message::Message::GetBlobResult(result));
    pair.tell(ask::Message::KvClientMessage(Box::new(proto::KvClientMessage { id, message })));
    assert!(pair.session.violations().is_empty());
}

#[test]
fn a_shell_stream_has_many_events_and_one_end() {
    use proto::shell_stream::Event as E;
    let stream =
        |event| result::Message::ShellStream(Box::new(proto::ShellStream { event: Some(event) }));
    let mut pair = Pair::new();
    let id = pair.ask(14);
    for _ in 0..3 {
        pair.result(id, "e", stream(E::Stdout(Default::default())));
        assert!(!pair.open()[0].answered);
    }
    pair.result(id, "e", stream(E::Exit(Default::default())));
    assert!(pair.open()[0].answered);
    pair.close(id);
    assert!(pair.session.violations().is_empty(), "{:?}", pair.session.violations());
    pair.result(id, "e", stream(E::Stdout(Default::default())));
    assert_eq!(pair.session.violations(), [Violation::AnswerAfterClose { id }]);
}

#[test]
fn an_aborted_exec_may_be_answered_or_closed_or_neither() {
    for answer in [false, true] {
        let mut pair = Pair::new();
        let id = pair.ask(11);
        pair.session.abort(id);
        assert!(pair.open().is_empty());
        if answer {
            pair.result(id, "e", mcp());
        }
        pair.close(id);
        assert!(pair.session.violations().is_empty());
    }
}

#[test]
fn answers_have_the_name_of_their_question() {
    for (asked, answer) in
        [(2, 2), (14, 14), (44, 44), (45, 46), (51, 52), (52, 55), (53, 53), (54, 54)]
    {
        assert_eq!(answer_field(asked), Some(answer));
    }
    for unknown in [0, 1, 6, 12, 15, 19, 24, 39, 55, 99] {
        assert_eq!(answer_field(unknown), None, "{unknown}");
    }
}

#[test]
fn ids_are_not_used_twice_at_once() {
    let mut pair = Pair::new();
    pair.session.ask_exec(2, &[], Some(1), None, pair.now).unwrap();
    assert!(pair.session.ask_exec(2, &[], Some(1), None, pair.now).is_err());
    let fresh = pair.ask(2);
    assert_ne!(fresh, 1);
    let options = Options { questions: 1, ..Options::default() };
    let mut session = Session::new(options, pair.now);
    session.get_blob(b"a", pair.now).unwrap();
    assert!(session.get_blob(b"a", pair.now).is_err());
}

#[test]
fn bodies_that_cannot_be_read_end_with_an_error() {
    let cases: [(&[u8], &str); 5] = [
        (&[0, 0xff, 0xff, 0xff, 0xff], "resource_exhausted"),
        (&[1, 0, 0, 0, 0], "invalid_argument"),
        (&[4, 0, 0, 0, 0], "invalid_argument"),
        (&[0, 0, 0, 0, 1, 0xff], "invalid_argument"),
        (&[0, 0, 0], "invalid_argument"),
    ];
    for (bytes, code) in cases {
        let mut client = Client::new(Default::default());
        client.open();
        client.exchange.handle_body(bytes, client.now);
        client.exchange.handle_end(client.now);
        client.play();
        assert_eq!(client.seen.error_code(), Some(code), "{bytes:02x?}");
        assert_eq!(client.seen.last, Some(Output::End { trailers: vec![] }));
        assert_eq!(client.exchange.violations(), [Violation::Broken], "{bytes:02x?}");
    }
}

#[test]
fn a_message_that_would_grow_out_of_proportion_is_refused() {
    // Half a million empty tools: 1 MiB on the wire, hundreds as structs (FAULTS M37).
    let tools = [0x0a, 0].repeat(1 << 19);
    let mut payload = Vec::new();
    agentwire::wire::put_nested(&mut payload, 1, |out| agentwire::wire::put_bytes(out, 4, &tools));
    let mut client = Client::new(Default::default());
    client.open();
    client.send_raw(&payload);
    client.play();
    assert_eq!(client.seen.error_code(), Some("resource_exhausted"));
    // As many bytes of text are nothing special.
    let mut client = Client::new(Default::default());
    client.ask(&"x".repeat(1 << 20));
    assert_eq!(client.seen.error_code(), None);
    assert!(client.seen.turn_ended().is_some());
}

#[test]
fn a_request_without_a_run_is_refused_or_timed_out() {
    let mut client = Client::new(Default::default());
    client.open();
    client.exchange.handle_end(client.now);
    client.play();
    assert_eq!(client.seen.error_code(), Some("invalid_argument"));

    let mut client = Client::new(Default::default());
    client.open();
    client.play();
    assert_eq!(client.seen.error_code(), Some("deadline_exceeded"));

    let mut client = Client::new(Default::default());
    client.open();
    client.send(ask::Message::ClientHeartbeat(Default::default()));
    assert_eq!(client.exchange.violations(), [Violation::NotARunRequest]);

    // A prewarm may come alone, and a run may follow it.
    let mut client = Client::new(Default::default());
    client.open();
    client.send(ask::Message::PrewarmRequest(Default::default()));
    client.send(run("hi", Default::default()));
    client.play();
    assert!(client.seen.text().contains("You asked: hi"));
    assert!(client.exchange.violations().is_empty());
}

#[test]
fn the_token_is_asked_for() {
    let options = Options { token: Some(Secret::from("tok")), ..Options::default() };
    for (value, status) in [("Bearer tok", None), ("Bearer tik", Some(401)), ("", Some(401))] {
        let mut session = Session::new(options.clone(), now());
        let mut head = head();
        head.headers.push(("authorization".into(), value.into()));
        session.handle_head(&head, now());
        match (session.poll_output(), status) {
            (Output::Head { status, .. }, Some(expected)) => assert_eq!(status, expected),
            (Output::Wait(Some(_)), None) => {}
            (output, _) => panic!("{value}: {output:?}"),
        }
    }
}

#[test]
fn debug_shows_nothing_that_anybody_said() {
    let mut pair = Pair::new();
    pair.tell(ask::Message::ConversationAction(Default::default()));
    let id = pair.ask(11);
    pair.result(id, "e", result::Message::McpResult(Box::new(mcp_text("SECRET".into()))));
    pair.session.text("SECRET");
    let mut shown = format!("{:?}", pair.session);
    while let Some(event) = pair.session.poll_event() {
        shown.push_str(&format!("{event:?}"));
    }
    loop {
        match pair.session.poll_output() {
            Output::Wait(_) => break,
            output => shown.push_str(&format!("{output:?}")),
        }
    }
    assert!(!shown.contains("SECRET"), "{shown}");
    assert!(matches!(pair.open()[..], [Open { question: Question::Exec(11), .. }]));
}

//! What the hot paths allocate, counted: a guard that no noise of the machine moves.
//!
//! A test binary of its own, because the counter replaces the allocator of the whole process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on; sessions are told the time"
)]

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use agentwire::codec::hot::{self, Incoming};
use agentwire::codec::{Naming, RunRequest, ToolContext, reply};
use agentwire::connect::{Compression, Decoder, Envelope, Limits, put_envelope};
use agentwire::context::{Context, Message, Tool};
use agentwire::conversation::{Conversation, encode_run};
use agentwire::ids::CountingIds;
use agentwire::redact::Redactor;
use agentwire::run::{Event, EventRef, Flow, Head, Options, Progress, Session, Snapshot};
use agentwire::wire::{put_nested, put_str, put_uint};
use allocation_counter::measure;
use bytes::Bytes;

/// Messages in one stream.
const COUNT: usize = 1_000;

/// A message with a delta of this field (1: text, 4: thinking).
fn delta(field: u32, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_nested(&mut out, 1, |out| put_nested(out, field, |out| put_str(out, 1, text)));
    out
}

/// `COUNT` of every hot message that comes many times in a run, each in an envelope.
fn stream() -> Vec<u8> {
    let mut tokens = Vec::new();
    put_nested(&mut tokens, 1, |out| put_nested(out, 8, |out| put_uint(out, 1, 3)));
    let mut heartbeat = Vec::new();
    put_nested(&mut heartbeat, 1, |out| put_nested(out, 13, |_| {}));
    // An unknown field behind the delta: not the usual shape.
    let mut odd = delta(1, "an odd one");
    put_uint(&mut odd, 99, 1);
    let long = delta(1, &"long ".repeat(60));
    let wide = delta(1, "漢字はкириллицаと😀");
    let plain = delta(1, "twenty bytes of text");
    let messages = [plain, delta(4, "thinking"), tokens, heartbeat, odd, long, wide];
    let mut out = Vec::new();
    for _ in 0..COUNT {
        messages.iter().for_each(|message| put_envelope(&mut out, 0, message));
    }
    out
}

/// How many of the messages in a stream are text or thinking.
const TEXTS: usize = 5 * COUNT;

fn decode_all(decoder: &mut Decoder, body: &[u8], chunk: usize) -> usize {
    let mut texts = 0;
    for mut chunk in body.chunks(chunk) {
        while let Some(envelope) = decoder.next(&mut chunk).unwrap() {
            let Envelope::Message(payload) = envelope else { panic!("not a message") };
            match hot::decode(payload).unwrap() {
                Incoming::Text(_) | Incoming::Thinking(_) => texts += 1,
                Incoming::Tokens(3) | Incoming::Heartbeat => {}
                other => panic!("{other:?}"),
            }
        }
    }
    texts
}

#[test]
fn a_hot_message_allocates_nothing_in_the_codec() {
    let body = stream();
    let mut decoder = Decoder::new(Limits::default(), Compression::Gzip);
    let mut texts = 0;
    let whole = measure(|| texts = decode_all(&mut decoder, &body, usize::MAX));
    assert_eq!((whole.count_total, texts), (0, TEXTS));
    // What straddles two chunks goes through one buffer, which grows to the longest message.
    for chunk in [1_400, 64, 1] {
        let mut decoder = Decoder::new(Limits::default(), Compression::Gzip);
        decode_all(&mut decoder, &body, chunk);
        let warm = measure(|| texts = decode_all(&mut decoder, &body, chunk));
        assert_eq!((warm.count_total, texts), (0, TEXTS), "chunks of {chunk}");
    }
}

/// A session whose answer has begun.
fn session() -> (Session, Instant) {
    let now = Instant::now();
    let ids = Box::new(CountingIds::hex());
    let request = request(0);
    let conversation = Conversation::with_id("c");
    let options = Options::default();
    let mut session =
        Session::new(&request, conversation, options, Redactor::default(), ids, now).unwrap();
    let headers = vec![("content-type".into(), "application/connect+proto".into())];
    session.handle_head(Head { status: 200, headers, received_at: SystemTime::UNIX_EPOCH }, now);
    (session, now)
}

/// Gives a chunk to the session, and counts what its events allocate on the way to the sink.
fn feed(
    session: &mut Session,
    chunk: Bytes,
    now: Instant,
    mut sink: impl FnMut(EventRef<'_>),
) -> u64 {
    measure(|| {
        session.handle_body(chunk, now);
        session.poll_events(now, |event| {
            sink(event);
            Flow::Continue
        });
    })
    .count_total
}

#[test]
fn a_hot_message_allocates_nothing_in_the_session() {
    let (mut session, now) = session();
    let body = Bytes::from(stream());
    feed(&mut session, body.clone(), now, |_| {});
    let (mut texts, mut tokens) = (0, 0);
    let count = feed(&mut session, body, now, |event| match event {
        EventRef::Text(_) | EventRef::Thinking(_) => texts += 1,
        EventRef::OutputTokens(3) => tokens += 1,
        other => panic!("{other:?}"),
    });
    assert_eq!((count, texts, tokens), (0, TEXTS, COUNT));
}

#[test]
fn an_owned_text_event_is_one_allocation() {
    let (mut session, now) = session();
    let body = Bytes::from(stream());
    feed(&mut session, body.clone(), now, |_| {});
    let mut kept = Vec::<Event>::with_capacity(8 * COUNT);
    let count = feed(&mut session, body, now, |event| kept.push(event.to_event()));
    assert_eq!((count, kept.len()), (TEXTS as u64, TEXTS + COUNT));
}

/// So many pieces of 20 bytes of one call's arguments.
fn partial_arguments(pieces: usize) -> Bytes {
    let mut piece = Vec::new();
    put_nested(&mut piece, 1, |out| {
        put_nested(out, 7, |out| {
            put_str(out, 1, "call-1");
            put_str(out, 3, "twenty bytes of text");
        });
    });
    let mut out = Vec::new();
    (0..pieces).for_each(|_| put_envelope(&mut out, 0, &piece));
    out.into()
}

/// Bytes that so many pieces of a call's arguments allocate, up to `look` at each event.
fn arguments(pieces: usize, look: impl Fn(&Snapshot)) -> u64 {
    let (mut session, now) = session();
    let body = partial_arguments(pieces);
    let mut last = 0;
    let counted = measure(|| {
        session.handle_body(body, now);
        session.poll_events(now, |event| {
            let EventRef::Other(event) = event else { panic!("{event:?}") };
            let Event::Progress(progress) = *event else { panic!("{event:?}") };
            let Progress::ToolArguments { snapshot, .. } = progress else { panic!("{progress:?}") };
            look(&snapshot);
            last = snapshot.len();
            Flow::Continue
        });
    });
    assert_eq!(last, (20 * pieces).min(Options::default().partial_arguments));
    counted.bytes_total
}

#[test]
fn arguments_in_many_pieces_cost_what_the_pieces_cost() {
    // 13,107 pieces are 256 KiB, where putting together ends.
    let [few, many, beyond] = [6_500, 13_000, 26_000].map(|pieces| arguments(pieces, |_| {}));
    println!("arguments in pieces of 20 bytes: {few} bytes for 6,500, {many} for 13,000");
    assert!(many < 5 * few / 2, "{few} bytes, {many} for twice as many pieces");
    assert!(beyond < 5 * many / 2, "{many} bytes, {beyond} for twice as many pieces");
    // What a copy for each piece would be: the counter sees it.
    let read = arguments(6_500, |snapshot| assert!(!snapshot.as_str().is_empty()));
    assert!(read > 50 * few, "{read} bytes where each snapshot is read, {few} where none is");
}

#[test]
fn pieces_of_arguments_weigh_what_they_hold_while_they_wait() {
    let (mut session, now) = session();
    let body = partial_arguments(13_000);
    let (mut kept, mut weight) = (Vec::with_capacity(13_000), 0);
    let held = measure(|| {
        // What the session lets go of is not to be counted.
        session.handle_body(body.clone(), now);
        session.poll_events(now, |event| {
            weight += event.weight();
            kept.push(event.to_event());
            Flow::Continue
        });
    })
    .bytes_current;
    let held = usize::try_from(held).unwrap();
    println!("13,000 pieces of arguments hold {held} bytes and weigh {weight}");
    // A queue counts the events themselves on top; a text that grows has room for as much again.
    assert!(held <= 3 * weight / 2, "{held} bytes, {weight} counted");
    assert!(weight <= 2 * held, "{held} bytes, {weight} counted");
}

/// A request with so many turns behind it.
fn request(turns: usize) -> RunRequest {
    let mut context = Context::prompt("go").system("Be brief.");
    let asked = context.messages.pop().unwrap();
    for turn in 0..turns {
        context.push(Message::user(format!("question {turn}")));
        context.push(Message::assistant(format!("answer {turn}")));
    }
    context.push(asked);
    RunRequest {
        request_id: "00000000-0000-4000-8000-000000000001".into(),
        model: "composer-2".into(),
        context,
        ..RunRequest::default()
    }
}

/// Allocations of the request for one more turn behind so many that were sent before.
fn next_turn(turns: usize) -> u64 {
    let mut request = request(turns);
    let mut conversation = Conversation::with_id("c");
    let mut ids = CountingIds::hex();
    encode_run(&request, &mut conversation, &mut ids).unwrap();
    request.context.push(Message::assistant("done"));
    request.context.push(Message::user("and now?"));
    let mut bytes = 0;
    let count = measure(|| {
        bytes = encode_run(&request, &mut conversation, &mut ids).unwrap().envelope.len();
    });
    assert!(bytes > 0);
    count.count_total
}

#[test]
fn a_next_turn_request_allocates_for_the_new_turn_alone() {
    let (short, long) = (next_turn(10), next_turn(1_000));
    println!("next turn: {short} allocations behind 10 turns, {long} behind 1,000");
    assert!(short <= 14, "{short} allocations");
    // A list of ids that has outgrown its capacity is moved, which depends on how long it is.
    assert!(long <= short + 4, "{long} allocations behind 1,000 turns, {short} behind 10");
}

#[test]
fn a_tool_list_is_encoded_once_in_a_session() {
    let tool = |n: usize| {
        let parameters =
            serde_json::json!({"type": "object", "properties": {"a": {"type": "string"}}});
        Arc::new(Tool { name: format!("tool_{n}"), description: "A tool".into(), parameters })
    };
    let answer = |tools: usize| {
        let tools: Vec<_> = (0..tools).map(tool).collect();
        let context = ToolContext::new(&tools, None, &Naming::default()).unwrap();
        let mut bytes = 0;
        let count = measure(|| {
            let parts = reply::request_context_parts(7, "exec-7", &context);
            bytes = parts.iter().map(Bytes::len).sum::<usize>();
        });
        (count.count_total, bytes)
    };
    let ((few, short), (many, long)) = (answer(2), answer(200));
    assert!(long > 10 * short, "{long} bytes for 200 tools, {short} for 2");
    assert_eq!(few, many);
    println!("a tool list again: {many} allocations");
    assert!(many <= 4, "{many} allocations");
}

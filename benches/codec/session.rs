//! The session machine on the in-memory pair: a whole run without sockets, and the stream alone.

#![allow(clippy::disallowed_methods, reason = "the driver of two machines: it tells them the time")]

use std::time::{Instant, SystemTime};

use agentwire::codec::RunRequest;
use agentwire::context::Context;
use agentwire::conversation::Conversation;
use agentwire::ids::CountingIds;
use agentwire::redact::Redactor;
use agentwire::run::{EventRef, Flow, Head, Options, Output, Session};
use agentwire::server::session::{RUN_PATH, STREAM_TYPE};
use agentwire::server::{self, Exchange, Playbook, RequestHead, Script};
use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;

use super::{BytesMutSplitter, COUNT, deltas, prost_full, stream};

fn client(now: Instant) -> Session {
    let request = RunRequest {
        request_id: "req-1".into(),
        model: "composer-2".into(),
        context: Context::prompt("Say hello").system("Be brief."),
        ..RunRequest::default()
    };
    let (conversation, ids) = (Conversation::with_id("c"), Box::new(CountingIds::hex()));
    let (options, redactor) = (Options::default(), Redactor::default());
    Session::new(&request, conversation, options, redactor, ids, now).unwrap()
}

fn head() -> Head {
    let headers = vec![("content-type".to_owned(), STREAM_TYPE.to_owned())];
    Head { status: 200, headers, received_at: SystemTime::UNIX_EPOCH }
}

/// Events of the client; how long its texts are.
fn texts(client: &mut Session, now: Instant) -> usize {
    let mut sum = 0;
    client.poll_events(now, |event| {
        if let EventRef::Text(text) = event {
            sum += text.len();
        }
        Flow::Continue
    });
    sum
}

/// 1,000 text deltas in one chunk: what the machine adds to splitting and decoding.
#[divan::bench]
fn stream_ours(bencher: Bencher<'_, '_>) {
    let body = Bytes::from(stream(&deltas((20, "ascii"))));
    let now = Instant::now();
    let mut session = client(now);
    session.handle_head(head(), now);
    bencher.counter(ItemsCount::new(COUNT)).bench_local(|| {
        session.handle_body(body.clone(), now);
        assert_eq!(texts(&mut session, now), 20 * COUNT);
    });
}

#[divan::bench]
fn stream_bytes_mut_and_prost(bencher: Bencher<'_, '_>) {
    let body = Bytes::from(stream(&deltas((20, "ascii"))));
    bencher.counter(ItemsCount::new(COUNT)).bench_local(|| {
        let mut sum = 0;
        BytesMutSplitter::default().push(&body, |frame| sum += prost_full(&frame));
        assert_eq!(sum, 20 * COUNT);
    });
}

/// A run from its request to its end, both machines, so many pieces of text.
#[divan::bench(args = [1, 100])]
fn whole_run(bencher: Bencher<'_, '_>, pieces: usize) {
    let steps: String = (0..pieces).map(|_| r#"{"text": "Hello, world"}, "#).collect();
    let script = format!(r#"{{"rules": [{{"steps": [{steps}{{"turn_end": {{}}}}]}}]}}"#);
    let playbook = Playbook::new(Script::from_json(&script).unwrap()).unwrap();
    bencher.bench_local(|| assert_eq!(play(playbook.clone()), pieces * 12));
}

fn play(playbook: Playbook) -> usize {
    let mut now = Instant::now();
    let mut client = client(now);
    let mut server = Exchange::new(playbook, server::Options::default());
    let headers = [("content-type", STREAM_TYPE), ("connect-protocol-version", "1")];
    server.handle_head(&RequestHead::post(RUN_PATH, headers), now);
    let mut sum = 0;
    while !client.is_over() {
        sum += texts(&mut client, now);
        loop {
            match client.poll_output() {
                Output::Send(bytes) => {
                    server.handle_body(&bytes, now);
                    client.handle_sent(bytes.len(), now);
                }
                Output::Wait(_) => break,
                _ => {}
            }
        }
        match server.poll_output(now) {
            server::Output::Head { status, headers } => {
                client.handle_head(Head { status, headers, ..head() }, now);
            }
            server::Output::Send(bytes) => client.handle_body(bytes, now),
            server::Output::End { .. } => client.handle_end(now),
            server::Output::Wait(Some(at)) => {
                now = at;
                server.handle_timeout(now);
            }
            _ => {}
        }
    }
    sum
}

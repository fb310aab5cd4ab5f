//! The unary calls: models and names.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use agentwire::connect::put_envelope;
use agentwire::error::{Kind, NetworkFault};
use agentwire::proto::{
    GetDefaultModelForCliResponse, GetUsableModelsResponse, ModelDetails, NameAgentRequest,
    NameAgentResponse,
};
use agentwire::run::Options;
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::{Client, UnaryLimits};
use prost::Message;

use super::peer::{Call, Peer};

fn model(id: &str) -> ModelDetails {
    ModelDetails { model_id: id.to_owned(), ..ModelDetails::default() }
}

fn models() -> Vec<u8> {
    GetUsableModelsResponse { models: vec![model("composer-2"), model("bad\r\nid")] }
        .encode_to_vec()
}

fn client(peer: &Peer) -> Client {
    Client::builder().endpoint(peer.url()).token("tok-123456789").build().unwrap()
}

async fn answer(mut call: Call, status: u16, headers: &[(&str, &str)], body: Vec<u8>) {
    call.respond(status, headers);
    call.raw(body).await;
    call.finish().await;
    while call.body.next().await.is_some() {}
}

const PROTO: &[(&str, &str)] = &[("content-type", "application/proto")];

#[tokio::test]
async fn a_unary_call_has_the_protocols_headers() {
    let (heads, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let peer = Peer::cleartext(move |call| {
        heads.send(call.head.headers.clone()).unwrap();
        answer(call, 200, PROTO, models())
    })
    .await;
    let client = Client::builder().endpoint(peer.url()).token("tok").build().unwrap();
    client.usable_models().await.unwrap();
    super::runs::contains(&seen.recv().await.unwrap(), "unary");
}

/// The longest answer is an option: that of the messages of a run.
#[tokio::test]
async fn an_answer_has_a_limit() {
    let peer = Peer::cleartext(|call| answer(call, 200, PROTO, models())).await;
    let length = models().len();
    for (message, fits) in [(length, true), (length - 1, false)] {
        let mut options = Options::default();
        options.limits.message = message;
        let builder = Client::builder().endpoint(peer.url()).token("tok").run_options(options);
        let listing = builder.build().unwrap().usable_models().await;
        match listing {
            Ok(_) => assert!(fits),
            Err(error) => assert!(!fits && *error.kind() == Kind::LimitExceeded, "{error}"),
        }
    }
}

#[tokio::test]
async fn how_long_small_answers_are_and_how_many_models_are_taken_can_be_set() {
    let name = NameAgentResponse { name: "n".repeat(100) }.encode_to_vec();
    let length = name.len();
    let peer = Peer::cleartext(move |call| {
        let named = call.head.uri.path().ends_with("NameAgent");
        let models = GetUsableModelsResponse { models: vec![model("a"), model("b"), model("c")] };
        answer(call, 200, PROTO, if named { name.clone() } else { models.encode_to_vec() })
    })
    .await;
    for (fits, models) in [(true, 3), (false, 2)] {
        let mut limits = UnaryLimits::default();
        limits.answer = if fits { length } else { length - 1 };
        limits.models.models = models;
        let client = Client::builder().endpoint(peer.url()).unary_limits(limits).build().unwrap();
        match client.name_agent("x").await {
            Ok(_) => assert!(fits),
            Err(error) => assert!(!fits && *error.kind() == Kind::LimitExceeded, "{error}"),
        }
        let listing = client.usable_models().await.unwrap();
        assert_eq!((listing.entries.len(), listing.dropped.beyond_limit), (models, 3 - models));
    }
}

#[tokio::test]
async fn how_much_is_sent_to_be_named_and_how_often_is_tried_can_be_set() {
    let (asked, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let peer = Peer::cleartext(move |mut call| {
        let asked = asked.clone();
        async move {
            let mut body = Vec::new();
            while let Some(Ok(bytes)) = call.body.next().await {
                body.extend_from_slice(&bytes);
            }
            asked.send(body).unwrap();
            answer(call, 503, &[("retry-after", "0")], Vec::new()).await;
        }
    })
    .await;
    let mut limits = UnaryLimits::default();
    (limits.named_text, limits.retries) = (3, 4);
    let client = Client::builder().endpoint(peer.url()).unary_limits(limits).build().unwrap();
    assert!(client.name_agent("aa\u{e9}bb").await.is_err());
    let named = NameAgentRequest::decode(&*seen.recv().await.unwrap()).unwrap();
    assert_eq!(named.user_message, "aa", "no half of a character");
    assert!(client.usable_models().await.is_err());
    for attempt in 0..5 {
        assert!(seen.try_recv().is_ok(), "{attempt}");
    }
    assert!(seen.try_recv().is_err());
}

/// How much of an error's body is read is an option, beyond the default too.
#[tokio::test]
async fn the_body_of_an_error_has_a_limit() {
    const SIZE: usize = 100_000;
    let body =
        format!("{{\"code\":\"not_found\",\"{}\":1,\"message\":\"gone\"}}", "x".repeat(SIZE));
    let peer = Peer::cleartext(move |call| answer(call, 404, &[], body.clone().into_bytes())).await;
    for (limit, whole) in [(2 * SIZE, true), (SIZE, false)] {
        let mut options = Options::default();
        options.error_body = limit;
        let builder = Client::builder().endpoint(peer.url()).run_options(options);
        let error = builder.build().unwrap().usable_models().await.unwrap_err();
        assert_eq!(error.message() == "gone", whole, "{limit}: {error}");
    }
}

#[tokio::test]
async fn models_come_bare_or_in_an_envelope_and_bad_ids_are_dropped() {
    let mut enveloped = Vec::new();
    put_envelope(&mut enveloped, 0, &models());
    let stream: &[_] = &[("content-type", "application/connect+proto")];
    let cases = [(PROTO, models()), (PROTO, enveloped.clone()), (stream, enveloped)];
    for (headers, body) in cases {
        let peer = Peer::cleartext(move |call| {
            assert_eq!(call.head.uri.path(), "/agent.v1.AgentService/GetUsableModels");
            assert_eq!(call.head.headers["authorization"], "Bearer tok-123456789");
            assert_eq!(call.head.headers["content-type"], "application/proto");
            answer(call, 200, headers, body.clone())
        })
        .await;
        let listing = client(&peer).usable_models().await.unwrap();
        let ids: Vec<_> = listing.entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!((ids, listing.dropped.total()), (vec!["composer-2"], 1));
    }
}

#[tokio::test]
async fn the_default_model_and_a_name() {
    let peer = Peer::cleartext(|mut call| async move {
        let mut request = Vec::new();
        while let Some(Ok(chunk)) = call.body.next().await {
            request.extend_from_slice(&chunk);
        }
        let body = match call.head.uri.path().rsplit('/').next() {
            Some("NameAgent") => {
                let asked = NameAgentRequest::decode(&request[..]).unwrap().user_message;
                let name = format!(" {}\u{1b}[31m\n", asked.len());
                NameAgentResponse { name }.encode_to_vec()
            }
            _ => {
                let model = Some(model("composer-2"));
                GetDefaultModelForCliResponse { model }.encode_to_vec()
            }
        };
        answer(call, 200, PROTO, body).await;
    })
    .await;
    let client = client(&peer);
    assert_eq!(client.default_model().await.unwrap().unwrap().id, "composer-2");
    let name = client.name_agent(&"\u{e9}".repeat(20_000)).await.unwrap();
    assert!(name.starts_with("16384"), "{name}");
    assert!(!name.contains(['\u{1b}', '\n']), "{name:?}");
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn a_momentary_failure_is_tried_again_and_a_lasting_one_is_not() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let peer = Peer::cleartext(move |call| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            match first {
                true => answer(call, 503, &[("retry-after", "0")], Vec::new()).await,
                false => answer(call, 200, PROTO, models()).await,
            }
        }
    })
    .await;
    assert!(client(&peer).usable_models().await.is_ok());
    assert_eq!(calls.swap(0, Ordering::SeqCst), 2);

    let count = Arc::clone(&calls);
    let refusing = Peer::cleartext(move |call| {
        count.fetch_add(1, Ordering::SeqCst);
        answer(call, 401, &[], b"{\"code\":\"unauthenticated\"}".to_vec())
    })
    .await;
    let error = client(&refusing).usable_models().await.unwrap_err();
    assert_eq!((error.kind(), calls.load(Ordering::SeqCst)), (&Kind::Unauthenticated, 1));
}

#[tokio::test]
async fn answers_that_are_none_end_in_an_error_that_says_so() {
    let html: &[_] = &[("content-type", "text/html")];
    let cases = [
        (200, html, b"<html>".to_vec(), Kind::Protocol),
        (200, PROTO, Vec::new(), Kind::ModelNotAvailable),
        (302, &[("location", "https://elsewhere.example")], Vec::new(), Kind::Rejected),
        (200, PROTO, vec![0x0a; 17 << 20], Kind::LimitExceeded),
    ];
    for (status, headers, body, kind) in cases {
        let peer = Peer::cleartext(move |call| answer(call, status, headers, body.clone())).await;
        let error = client(&peer).usable_models().await.unwrap_err();
        if kind == Kind::Rejected {
            assert_eq!(error.http_status(), Some(302), "{error}");
        } else {
            assert_eq!(error.kind(), &kind, "{error}");
        }
        assert_eq!(peer.connections(), 1, "nothing was followed");
    }
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_given_up_in_time() {
    let peer = Peer::cleartext(|call| async move {
        let _held = call;
        std::future::pending::<()>().await;
    })
    .await;
    let client = Client::builder()
        .endpoint(peer.url())
        .unary_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let start = Instant::now();
    assert_eq!(client.usable_models().await.unwrap_err().kind(), &Kind::DeadlineExceeded);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn unary_calls_have_a_base_url_of_their_own() {
    let runs = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let peer = Peer::cleartext(|call| answer(call, 200, PROTO, models())).await;
    let client = Client::builder()
        .retries(0)
        .endpoint(format!("http://{runs}"))
        .unary_endpoint(peer.url())
        .build()
        .unwrap();
    assert!(client.usable_models().await.is_ok());
    let run = client.prompt("x").model("m").start().await.unwrap();
    let error = run.finish().await.0.unwrap_err();
    assert_eq!(error.kind(), &Kind::Network(NetworkFault::Connect));
}

#[tokio::test]
async fn the_local_server_serves_all_of_it_over_tls() {
    let server = Server::builder().script(Script::assistant()).bind().await.unwrap();
    let client = Client::builder()
        .endpoint(server.url())
        .token("any")
        .ca_pem(server.certificate_pem().unwrap())
        .build()
        .unwrap();
    assert!(!client.usable_models().await.unwrap().entries.is_empty());
    let model = client.default_model().await.unwrap().unwrap();
    assert!(!client.name_agent("hello").await.unwrap().is_empty());
    let run = client.prompt("hello").model(model.id.as_str()).start().await.unwrap();
    let (ended, _) = run.finish().await;
    assert!(ended.is_ok(), "{ended:?}");
    drop(client);
    let report = server.shutdown().await;
    assert!(report.violations.is_empty(), "{report:?}");
}

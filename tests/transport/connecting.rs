//! From a URL to a connection: TLS, certificates, ALPN (FAULTS M58, M59).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agentwire::error::{Kind, NetworkFault};
use agentwire::proto::agent_client_message::Message as FromClient;
use agentwire::rpc::http2::Http2Config;
use agentwire::run::Event;
use agentwire::transport::{Client, ClientBuilder, DialLimits, Proxy, Roots};
use rcgen::date_time_ymd;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::peer::{Authority, Call, Peer, until};

async fn nothing(call: Call) {
    drop(call);
}

fn client(peer: &Peer, authority: &Authority) -> ClientBuilder {
    Client::builder()
        .endpoint(peer.tls_url())
        .roots(Roots::OnlyAdded)
        .ca_pem(authority.pem())
        .retries(0)
}

#[tokio::test]
async fn a_server_whose_authority_is_given_is_reached_with_every_choice_of_roots() {
    let authority = Authority::new("good");
    let peer = Peer::tls(authority.server("localhost", &["h2"], |_| {}), nothing).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority.pem()).unwrap();
    for roots in [Roots::Platform, Roots::Bundled, Roots::OnlyAdded] {
        let client = Client::builder()
            .endpoint(peer.tls_url())
            .roots(roots)
            .ca_file(file.path())
            .build()
            .unwrap();
        client.prewarm().await.unwrap();
        client.prewarm().await.unwrap();
    }
    assert_eq!(peer.connections(), 3, "one connection a client");
}

#[tokio::test]
async fn the_service_can_be_told_of_a_coming_run() {
    let peer = Peer::cleartext(|mut call| async move {
        let Some(FromClient::PrewarmRequest(prewarm)) = call.next().await else {
            panic!("a prewarm was awaited")
        };
        assert!(call.next().await.is_none(), "and nothing more");
        let unknown = prewarm.conversation_id.is_none();
        assert_eq!(prewarm.model_details.unwrap().model_id, "m");
        call.accept();
        let sorry = r#"{"error": {"code": "not_found", "message": "no such conversation"}}"#;
        call.end(if unknown { "{}" } else { sorry }).await;
    })
    .await;
    let client = Client::builder().endpoint(peer.url()).build().unwrap();
    client.prewarm().run_of("m", "").await.unwrap();
    let error = client.prewarm().run_of("m", "conv").await.unwrap_err();
    assert!(error.message().contains("no such conversation"), "{error}");
    let error = client.prewarm().run_of("m\n", "").await.unwrap_err();
    assert_eq!(error.kind(), &Kind::InvalidRequest);
    assert_eq!(peer.connections(), 1, "what was warmed up is used");
}

#[tokio::test]
async fn the_error_names_what_is_wrong_with_a_certificate() {
    let (good, other) = (Authority::new("good"), Authority::new("other"));
    let long_ago = |params: &mut rcgen::CertificateParams| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    };
    let not_yet = |params: &mut rcgen::CertificateParams| {
        params.not_before = date_time_ymd(2901, 1, 1);
        params.not_after = date_time_ymd(2902, 1, 1);
    };
    let cases = [
        (good.server("localhost", &["h2"], long_ago), "has expired"),
        (good.server("localhost", &["h2"], not_yet), "not valid yet"),
        (good.server("elsewhere.example", &["h2"], |_| {}), "another name"),
        (other.server("localhost", &["h2"], |_| {}), "not trusted"),
    ];
    for (config, words) in cases {
        let peer = Peer::tls(config, nothing).await;
        let error = client(&peer, &good).build().unwrap().prewarm().await.unwrap_err();
        assert_eq!(error.kind(), &Kind::Network(NetworkFault::Tls));
        assert!(error.message().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_stripped_alpn_is_refused_right_after_the_handshake() {
    let authority = Authority::new("good");
    for alpn in [&["http/1.1"][..], &[]] {
        let peer = Peer::tls(authority.server("localhost", alpn, |_| {}), nothing).await;
        let error = client(&peer, &authority).build().unwrap().prewarm().await.unwrap_err();
        assert_eq!(error.kind(), &Kind::Network(NetworkFault::Alpn), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("HTTP/1.1")), "{error}");
    }
}

/// A second connection, made because the first is full, needs no full handshake.
#[tokio::test]
async fn a_second_connection_resumes_the_tls_session() {
    let authority = Authority::new("good");
    let tls = Arc::new(authority.server("localhost", &["h2"], |_| {}));
    let mut http2 = Http2Config::server();
    http2.max_concurrent_streams = 1;
    let peer = Peer::listen(Some(tls), http2, |mut call| async move {
        call.next().await;
        call.accept();
        call.text("here").await;
        call.linger().await;
    })
    .await;
    let client = client(&peer, &authority).build().unwrap();
    let mut runs = Vec::new();
    for connections in 1..=3 {
        let mut run = client.prompt("x").model("m").start().await.unwrap();
        assert_eq!(run.next().await, Some(Event::Text("here".to_owned())));
        runs.push(run);
        assert_eq!(peer.connections(), connections);
    }
    assert_eq!(peer.resumed.load(Ordering::SeqCst), 2);
}

#[test]
fn a_client_is_cheap_to_clone_and_goes_anywhere() {
    fn goes_anywhere<T: Clone + Send + Sync + 'static>() -> usize {
        size_of::<T>()
    }
    assert!(goes_anywhere::<Client>() <= 4 * size_of::<usize>(), "two pointers, and a recorder's");
}

/// Clones and live runs keep the connections; with the last of them everything is gone.
#[tokio::test]
async fn m75_the_last_clone_and_the_last_run_close_everything() {
    let peer = Peer::cleartext(|mut call| async move {
        call.next().await;
        call.accept();
        call.text("here").await;
        call.linger().await;
    })
    .await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let client = Client::builder().endpoint(peer.url()).build().unwrap();
    let clone = client.clone();
    client.prewarm().await.unwrap();
    drop(client);
    let mut run = clone.prompt("x").model("m").start().await.unwrap();
    drop(clone);
    assert_eq!(run.next().await, Some(Event::Text("here".to_owned())), "a run outlives its client");
    assert_eq!(peer.connections(), 1);
    drop(run);
    until("the connection closed", || peer.open.load(Ordering::SeqCst) == 0).await;
    until("every task ended", || metrics.num_alive_tasks() <= before).await;
}

/// Bytes of a server's first flight in TLS, and what is said of them.
#[tokio::test]
async fn m59_a_handshake_that_goes_wrong_says_how() {
    // An alert of TLS 1.1: protocol_version.
    let cases: [(&'static [u8], &str); 4] = [
        (b"\x15\x03\x02\0\x02\x02\x46", "ProtocolVersion"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", "does not speak TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS"),
        (b"", "closed the connection"),
    ];
    for (answer, words) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let peer = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            // The whole hello first: a socket closed on unread bytes would reset, and take the
            // answer with it.
            let mut hello = vec![0; 16 << 10];
            let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut hello).await;
            socket.write_all(answer).await.unwrap();
            socket.shutdown().await.unwrap();
            let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut hello).await;
        });
        let error = Client::builder().endpoint(url).build().unwrap().prewarm().await.unwrap_err();
        assert_eq!(error.kind(), &Kind::Network(NetworkFault::Tls), "{error}");
        assert!(error.message().contains(words), "{error}");
        peer.await.unwrap();
    }
}

#[tokio::test]
async fn m59b_a_name_that_does_not_exist_is_said_to_be_that() {
    let client = Client::builder().endpoint("https://nobody.invalid").proxy(Proxy::off());
    let error = client.build().unwrap().prewarm().await.unwrap_err();
    assert_eq!(error.kind(), &Kind::Network(NetworkFault::Dns), "{error}");
}

#[tokio::test]
async fn a_peer_that_speaks_something_else_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            kept.push(socket);
        }
    });
    let limits = {
        let mut limits = DialLimits::default();
        limits.tls = Duration::from_secs(2);
        limits
    };
    let build = |url: String| {
        Client::builder().endpoint(url).dial_limits(limits).retries(0).build().unwrap()
    };
    let tls = build(format!("https://{address}")).prewarm().await.unwrap_err();
    assert_eq!(tls.kind(), &Kind::Network(NetworkFault::Tls));
    assert!(tls.message().contains("does not speak TLS"), "{tls}");

    let mut run = build(format!("http://{address}")).prompt("hi").model("m").start().await.unwrap();
    let ended = loop {
        match run.next().await {
            Some(Event::Ended(ended)) => break ended.unwrap_err(),
            Some(_) => {}
            None => panic!("no end"),
        }
    };
    assert_eq!(ended.kind(), &Kind::Network(NetworkFault::Alpn), "{ended}");
    assert!(ended.message().contains("HTTP/1"), "{ended}");
    answer.abort();
}

#[tokio::test]
async fn what_cannot_work_is_refused_by_build_and_never_shown() {
    let build = |change: &dyn Fn(ClientBuilder) -> ClientBuilder| {
        let error = change(Client::builder().token("tok-zz9")).build().unwrap_err();
        assert_eq!(error.kind(), &Kind::InvalidRequest, "{error}");
        assert!(!format!("{error} {error:?}").contains("zz9"), "{error}");
    };
    build(&|b| b.endpoint("https://user:zz9@host"));
    build(&|b| b.endpoint("http://192.0.2.1"));
    build(&|b| b.unary_endpoint("http://192.0.2.1"));
    build(&|b| b.token("zz9\n"));
    build(&|b| b.header("Host", "zz9"));
    build(&|b| b.header("x-a", "zz9\r\n"));
    build(&|b| b.ca_pem("zz9"));
    build(&|b| b.ca_file("/nonexistent/file"));
    let builder = Client::builder().token("tok-zz9");
    let shown = format!("{builder:?}");
    let client = builder.build().unwrap();
    assert!(!format!("{shown} {client:?} {:?}", client.prompt("x")).contains("zz9"));
}

//! From a URL to a connection: TLS, certificates, ALPN (FAULTS M58, M59).

use std::time::Duration;

use agentwire::error::{Kind, NetworkFault};
use agentwire::proto::agent_client_message::Message as FromClient;
use agentwire::transport::{Client, ClientBuilder, DialLimits, Roots};
use rcgen::date_time_ymd;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::peer::{Authority, Call, Peer};

async fn nothing(call: Call) {
    drop(call);
}

fn client(peer: &Peer, authority: &Authority) -> ClientBuilder {
    Client::builder().endpoint(peer.tls_url()).roots(Roots::OnlyAdded).ca_pem(authority.pem())
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
    let build = |url: String| Client::builder().endpoint(url).dial_limits(limits).build().unwrap();
    let tls = build(format!("https://{address}")).prewarm().await.unwrap_err();
    assert_eq!(tls.kind(), &Kind::Network(NetworkFault::Tls));
    assert!(tls.message().contains("does not speak TLS"), "{tls}");

    let mut run = build(format!("http://{address}")).prompt("hi").model("m").start().await.unwrap();
    let ended = loop {
        match run.next().await {
            Some(agentwire::run::Event::Ended(ended)) => break ended.unwrap_err(),
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

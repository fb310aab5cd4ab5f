//! Login: page, polls, tokens.

use std::time::Duration;

use agentwire::auth::{Auth, Tokens};
use agentwire::error::{Error, Kind, NetworkFault, Result};
use agentwire::server::Script;
use agentwire::server::serve::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::support::{auth, faults, now_ms, quick, serve, soon};

async fn login(auth: &Auth) -> Result<Tokens> {
    soon(auth.login().unwrap().options(quick()).wait(std::future::pending())).await
}

#[tokio::test]
async fn c001_a_login_is_polled_for_until_it_is_confirmed() {
    let script = Script::from_toml("[sign_in]\npending = 2\nsubject = \"ada\"").unwrap();
    let server = Server::builder().script(script).bind().await.unwrap();
    let auth = Auth::builder()
        .endpoint(server.url())
        .ca_pem(server.certificate_pem().unwrap())
        .build()
        .unwrap();
    let begun = auth.login().unwrap().options(quick());
    let page = begun.page();
    assert!(page.starts_with("https://cursor.com/loginDeepControl?challenge="), "{page}");
    assert!(page.ends_with("&mode=login&redirectTarget=cli"), "{page}");
    assert_ne!(page, auth.login().unwrap().page(), "each login has a secret of its own");

    let tokens = soon(begun.wait(std::future::pending())).await.unwrap();
    assert_eq!(tokens.claims().subject.as_deref(), Some("ada"));
    let ends = tokens.expires_at_ms().unwrap();
    assert!(ends > now_ms() && ends <= now_ms() + 3_600_000);
    assert_eq!(server.shutdown().await.requests, 3);
}

/// What a browser would do: open the address.
async fn open(page: &str) -> String {
    let (host, target) = page.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("GET /{target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn a_login_is_confirmed_on_its_page_and_by_nobody_else() {
    let server = serve("[sign_in]\npage = true").await;
    let auth = auth(&server);
    let mine = auth.login().unwrap().options(quick());
    let answer = open(&mine.page()).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("signed in"), "{answer}");
    assert!(soon(mine.wait(std::future::pending())).await.is_ok());

    // The page of this one was opened with another challenge: whoever did that has no verifier.
    let mut few = quick();
    few.attempts = 3;
    let mine = auth.login().unwrap().options(few);
    let page = mine.page();
    let (before, after) = page.split_once("challenge=").unwrap();
    let after = after.split_once('&').unwrap().1;
    open(&format!("{before}challenge=another&{after}")).await;
    let error = soon(mine.wait(std::future::pending())).await.unwrap_err();
    assert_eq!(error.kind(), &Kind::DeadlineExceeded);
    assert!(open(&format!("{}/loginDeepControl", server.url())).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn answers_that_are_none_end_the_login_within_limits() {
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let trap_url = format!("http://{}", trap.local_addr().unwrap());
    for (fault, check) in faults(&trap_url) {
        let server = serve(&format!("[sign_in.poll]\n{fault}")).await;
        let mut options = quick();
        options.request = Duration::from_millis(300);
        let login = auth(&server).login().unwrap().options(options);
        let error = soon(login.wait(std::future::pending())).await.expect_err(&fault);
        assert!(check(&error), "{fault}: {error:?}");
    }
    // Nobody followed the redirect.
    let mut trapped = Box::pin(trap.accept());
    tokio::select! {
        biased;
        _ = &mut trapped => panic!("somebody came"),
        () = tokio::task::yield_now() => {}
    }
}

#[tokio::test]
async fn a_failure_now_and_then_is_survived() {
    let fault = "[sign_in]\npending = 1\n[sign_in.poll]\ntimes = 2\nstatus = { status = 500 }";
    assert!(login(&auth(&serve(fault).await)).await.is_ok());
    let refused = "[sign_in.poll]\nstatus = { status = 403, body = { message = \"not you\" } }";
    let server = serve(refused).await;
    let error = login(&auth(&server)).await.unwrap_err();
    assert_eq!((error.http_status(), server.shutdown().await.requests), (Some(403), 1));
}

#[tokio::test]
async fn a_login_can_be_cancelled_and_a_service_can_be_away() {
    let server = serve("[sign_in.poll]\nsilence = true").await;
    let login = auth(&server).login().unwrap().options(quick());
    let cancelled: Error = soon(login.wait(std::future::ready(()))).await.unwrap_err();
    assert_eq!(cancelled.kind(), &Kind::Cancelled);

    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let auth = Auth::builder().endpoint(format!("http://{away}")).build().unwrap();
    let error = soon(auth.login().unwrap().options(quick()).wait(std::future::pending())).await;
    assert_eq!(error.unwrap_err().kind(), &Kind::Network(NetworkFault::Connect));
}

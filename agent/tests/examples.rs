//! The examples that need no account do what they say.
#![allow(clippy::unwrap_used, dead_code, reason = "a test; nobody calls the examples' `main` here")]

use agentwire_agent::Stop;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[path = "../examples/cancellation.rs"]
mod cancellation;
#[path = "../examples/sse.rs"]
mod sse;
#[path = "../examples/structured-output.rs"]
mod structured_output;
#[path = "../examples/typed-tool.rs"]
mod typed_tool;

#[tokio::test]
async fn a_typed_tool() {
    assert_eq!(typed_tool::ask().await.unwrap(), "In Paris it is 18 degrees, rain.");
}

#[tokio::test]
async fn structured_output() {
    let review = structured_output::review().await.unwrap();
    assert_eq!(review.findings, ["The lock is held across an await."]);
    assert!(!review.approved);
}

#[tokio::test]
async fn cancellation() {
    let ended = cancellation::build().await.unwrap();
    assert_eq!(ended.outcome.stop, Stop::Cancelled);
    assert_eq!(ended.outcome.text, "I build it. ");
    // What was asked, the call, and the result that closes it.
    assert_eq!(ended.session.messages().len(), 3);
}

#[tokio::test]
async fn server_sent_events() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = sse::app().unwrap();
    let serving = tokio::spawn(async { axum::serve(listener, app).await });
    let mut browser = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "GET /?q=hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    browser.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    browser.read_to_string(&mut page).await.unwrap();
    assert!(page.contains("content-type: text/event-stream"), "{page}");
    assert!(page.contains("data: {\"event\":\"text\""), "{page}");
    let last = page.lines().rfind(|line| line.starts_with("data: ")).unwrap();
    assert!(last.starts_with("data: {\"event\":\"finished\""), "{last}");
    assert!(last.contains("\"stop\":\"completed\""), "{last}");
    serving.abort();
}

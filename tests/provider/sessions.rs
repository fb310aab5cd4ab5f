//! Conversations of sessions, and the end of everything.

use agentwire::context::{Context, Image, Message, Part, UserContent};
use agentwire::error::Kind;
use agentwire::models::{Level, Source};
use agentwire::provider::{Account, Ask, SessionRun};
use agentwire::run::Event;

use super::rig::{cached, client, provider, serve, soon};

/// Answers with what it knows of earlier turns.
const TALKS: &str = r#"
    models = [{ id = "composer-2.5" }, { id = "gpt-9-high" }, { id = "gpt-9-low" }, { id = "default" }]
    [[rules]]
    steps = ["history", { text = "{{turn}} {{model}}" }, { checkpoint = {} }, { turn_end = {} }]
"#;
/// Says something, then nothing more.
const SILENT: &str = r#"
    models = [{ id = "composer-2.5" }]
    [[rules]]
    steps = [{ text = "a" }, "silence"]
"#;

async fn start(account: &Account, ask: &Ask) -> agentwire::Result<SessionRun> {
    account.start(ask, account.client()?.prompt("hi")).await
}

async fn text(run: &mut SessionRun) -> String {
    let mut text = String::new();
    while let Some(event) = soon(run.next()).await {
        if let Event::Text(delta) = event {
            text.push_str(&delta);
        }
    }
    text
}

fn ask() -> Ask {
    Ask::new("composer-2.5").session("0b6fd1a0-0000-4000-8000-000000000001")
}

#[tokio::test]
async fn c027_a_session_goes_on_until_it_ends() {
    let server = serve(TALKS).await;
    let provider = provider(None);
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    for turn in ["1", "2"] {
        let mut run = start(&account, &ask()).await.unwrap();
        assert_eq!(text(&mut run).await, format!("{turn} composer-2.5"));
        assert!(soon(run.finish()).await.is_ok());
    }
    assert_eq!(provider.idle_conversations(), 1);
    provider.end_session(&format!(" {}\n", ask().session.unwrap()));
    assert_eq!(provider.idle_conversations(), 0);
    let mut run = start(&account, &ask()).await.unwrap();
    assert_eq!(text(&mut run).await, "1 composer-2.5");
    soon(provider.dispose()).await;
}

#[tokio::test]
async fn a_session_is_with_one_run_at_a_time() {
    let server = serve(SILENT).await;
    let provider = provider(None);
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    let run = start(&account, &ask()).await.unwrap();
    let error = start(&account, &ask()).await.unwrap_err();
    assert_eq!(error.kind(), &Kind::InvalidRequest);
    assert!(start(&account, &Ask::new("composer-2.5")).await.is_ok(), "no session, no wait");
    run.cancel();
    let again = ask();
    let (ended, next) = soon(async { tokio::join!(run.finish(), start(&account, &again)) }).await;
    assert_eq!(ended.unwrap_err().kind(), &Kind::Cancelled);
    drop(next.unwrap());
    assert!(start(&account, &ask()).await.is_ok(), "one that was dropped is gone at once");
}

#[tokio::test]
async fn ending_a_session_cancels_its_run_and_nothing_comes_back() {
    let server = serve(SILENT).await;
    let provider = provider(None);
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    let run = start(&account, &ask()).await.unwrap();
    let other = start(&account, &Ask::new("composer-2.5").session("another")).await.unwrap();
    provider.end_session(ask().session.as_deref().unwrap());
    assert_eq!(soon(run.finish()).await.unwrap_err().kind(), &Kind::Cancelled);
    assert_eq!(provider.idle_conversations(), 0);
    other.cancel();
    assert!(soon(other.finish()).await.is_err());
    assert_eq!(provider.idle_conversations(), 1, "the other session has its own");
}

#[tokio::test]
async fn c033_dispose_cancels_runs_keeps_the_list_and_is_final() {
    let (server, dir) = (serve(SILENT).await, tempfile::tempdir().unwrap());
    let provider = provider(Some(dir.path()));
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    soon(account.refresh()).await.unwrap();
    let mut run = start(&account, &ask()).await.unwrap();
    // A second one that nobody reads: ending does not wait for its reader.
    let unread = start(&account, &Ask::new("composer-2.5")).await.unwrap();
    assert!(soon(run.next()).await.is_some(), "it is under way");
    let ((), ended) = soon(async { tokio::join!(provider.dispose(), run.finish()) }).await;
    assert_eq!(ended.unwrap_err().kind(), &Kind::Cancelled);
    assert_eq!(cached(dir.path(), &server, "anna").unwrap().entries.len(), 1);
    assert_eq!(provider.idle_conversations(), 0);
    for error in [start(&account, &ask()).await.unwrap_err(), account.client().unwrap_err()] {
        assert_eq!(error.kind(), &Kind::Cancelled);
    }
    drop(unread);
    assert!(server.shutdown().await.cancelled >= 1);
}

#[tokio::test]
async fn c040_the_first_run_has_the_models_asked_for() {
    let server = serve(TALKS).await;
    let provider = provider(None);
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    let mut watch = account.watch_models().unwrap();
    let run = start(&account, &ask()).await.unwrap();
    soon(watch.wait_for(|roster| roster.catalog().source == Source::Live)).await.unwrap();
    assert!(soon(run.finish()).await.is_ok());
    // From here on what was not served is not sent, and the level finds its id.
    let error = start(&account, &Ask::new("composer-2")).await.unwrap_err();
    assert_eq!(error.kind(), &Kind::ModelNotAvailable);
    let high = Ask::new("gpt-9").level(Level::High);
    let mut run = start(&account, &high).await.unwrap();
    assert_eq!(text(&mut run).await, "1 gpt-9-high");
    soon(provider.dispose()).await;
    assert_eq!(server.shutdown().await.requests, 3, "one list and two runs");
}

#[tokio::test]
async fn c066_a_model_of_text_is_not_sent_an_image() {
    let server = serve(TALKS).await;
    let provider = provider(None);
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    soon(account.refresh()).await.unwrap();
    let image = Image { data: "aGk=".into(), mime_type: "image/png".into() };
    let content = UserContent::Parts(vec![Part::Image(image)]);
    let context = Context::default().message(Message::User { content });
    let run = |model: &str| {
        let run = account.client().unwrap().ask(context.clone());
        let (account, ask) = (account.clone(), Ask::new(model));
        async move { account.start(&ask, run).await }
    };
    assert_eq!(run("default").await.unwrap_err().kind(), &Kind::InvalidRequest);
    assert!(soon(run("composer-2.5").await.unwrap().finish()).await.is_ok());
    soon(provider.dispose()).await;
    assert_eq!(server.shutdown().await.requests, 2, "one list and one run");
}

#[tokio::test]
async fn a_run_tells_how_large_the_context_is_and_that_is_kept() {
    let script = r#"
        models = [{ id = "composer-2.5" }]
        [[rules]]
        steps = [{ text = "a" }, { checkpoint = { used_tokens = 7, max_tokens = 123456 } }, { turn_end = {} }]
    "#;
    let (server, dir) = (serve(script).await, tempfile::tempdir().unwrap());
    let provider = provider(Some(dir.path()));
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    soon(account.refresh()).await.unwrap();
    let window = || account.models().models()[0].context_window();
    assert_eq!(window(), 200_000);
    assert!(soon(start(&account, &ask()).await.unwrap().finish()).await.is_ok());
    assert_eq!(window(), 123_456);
    // The service's next list does not say it, and it stays.
    soon(account.refresh()).await.unwrap();
    assert_eq!(window(), 123_456);
    let kept = cached(dir.path(), &server, "anna").unwrap();
    assert_eq!(kept.entries[0].context_window, Some(123_456.0));
}

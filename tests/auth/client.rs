//! A client whose token is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agentwire::auth::{TokenFuture, TokenSource};
use agentwire::error::{Error, Kind};
use agentwire::run::Event;
use agentwire::secret::Secret;
use agentwire::transport::Client;
use agentwire::transport::Run;

use super::support::{auth, serve, signed_in, soon};

/// Every token is good for one call; what is asked is answered with "hello".
const ONE_USE: &str = "[sign_in]\nrequire = true\nuses = 1\n\
    [[rules]]\nsteps = [{ text = \"hello\" }, { turn_end = {} }]\n";

async fn text(mut run: Run) -> (String, Option<Error>) {
    let mut text = String::new();
    while let Some(event) = soon(run.next()).await {
        match event {
            Event::Text(delta) => text.push_str(&delta),
            Event::Ended(end) => return (text, end.err()),
            _ => {}
        }
    }
    panic!("no end");
}

async fn ask(client: &Client) -> (String, Option<Error>) {
    text(client.prompt("hi").model("m").start().await.unwrap()).await
}

#[tokio::test]
async fn a_run_whose_token_was_revoked_begins_again_with_a_fresh_one() {
    let server = serve(ONE_USE).await;
    let (account, _) = signed_in(auth(&server)).await;
    let client = Client::builder().endpoint(server.url()).tokens(account.clone()).build().unwrap();
    let mut tokens = vec![account.tokens().access];
    for _ in 0..3 {
        let (answer, error) = ask(&client).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(answer, "hello");
        tokens.push(account.tokens().access);
    }
    assert!(tokens[0] == tokens[1] && tokens[1] != tokens[2] && tokens[2] != tokens[3]);
    assert!(server.shutdown().await.violations.is_empty());
}

#[tokio::test]
async fn a_unary_call_is_made_again_with_a_fresh_token() {
    let server = serve(ONE_USE).await;
    let (account, _) = signed_in(auth(&server)).await;
    let client = Client::builder().endpoint(server.url()).tokens(account).build().unwrap();
    for _ in 0..3 {
        assert!(!soon(client.usable_models()).await.unwrap().entries.is_empty());
    }
    // Login, then one call, and twice: refused, refreshed, made again.
    assert_eq!(server.shutdown().await.requests, 1 + 1 + 2 * 3);
}

#[tokio::test]
async fn when_no_other_token_can_be_had_the_call_ends_and_says_what_to_do() {
    let script = format!("{ONE_USE}[sign_in.refresh]\nstatus = {{ status = 401 }}\n");
    let server = serve(&script).await;
    let (account, _) = signed_in(auth(&server)).await;
    let client = Client::builder().endpoint(server.url()).tokens(account).build().unwrap();
    assert_eq!(ask(&client).await.0, "hello");
    let (answer, error) = ask(&client).await;
    let error = error.unwrap();
    assert_eq!((answer.as_str(), error.kind()), ("", &Kind::Unauthenticated));
    assert!(error.to_string().contains("agentwire login"), "{error}");
    // From now on nothing is sent at all.
    let refused = client.prompt("hi").model("m").start().await.unwrap_err();
    assert_eq!(refused.error.kind(), &Kind::Unauthenticated);
    assert_eq!(soon(client.usable_models()).await.unwrap_err().kind(), &Kind::Unauthenticated);
    assert_eq!(server.shutdown().await.requests, 1 + 1 + 2);
}

#[tokio::test]
async fn a_token_that_was_given_by_hand_is_refused_once() {
    let server = serve(ONE_USE).await;
    let client = Client::builder().endpoint(server.url()).token("tok-by-hand").build().unwrap();
    let (_, error) = ask(&client).await;
    assert_eq!(error.unwrap().kind(), &Kind::Unauthenticated);
    assert_eq!(server.shutdown().await.requests, 1);
}

/// Counts, and gives `t-1`, `t-2`, …
#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

impl TokenSource for Counter {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(async { Ok(Secret::new(format!("t-{}", self.0.load(Ordering::SeqCst)))) })
    }

    fn instead_of<'a>(&'a self, _refused: &'a Secret) -> TokenFuture<'a> {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.token()
    }
}

#[tokio::test]
async fn a_refusal_in_the_end_of_the_stream_counts_before_anything_was_given_and_only_once() {
    let table = [
        // steps of the first attempt, times, answer, refused in the end, tokens drawn
        ("[{ error = \"unauthenticated\" }]", 1, "hello", false, 1),
        ("[{ error = \"unauthenticated\" }]", 9, "", true, 1),
        ("[{ text = \"half\" }, { error = \"unauthenticated\" }]", 9, "half", true, 0),
    ];
    for (steps, times, answer, refused, drawn) in table {
        let server = serve(&format!(
            "[[rules]]\ntimes = {times}\nsteps = {steps}\n\
             [[rules]]\nsteps = [{{ text = \"hello\" }}, {{ turn_end = {{}} }}]\n"
        ))
        .await;
        let source = Counter::default();
        let client =
            Client::builder().endpoint(server.url()).tokens(source.clone()).build().unwrap();
        let (text, error) = ask(&client).await;
        assert_eq!((text.as_str(), error.is_some()), (answer, refused), "{steps}: {error:?}");
        assert_eq!(source.0.load(Ordering::SeqCst), drawn, "{steps}");
    }
}

/// Has a token, and never another.
struct Stuck;

impl TokenSource for Stuck {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(async { Ok(Secret::from("tok-stuck")) })
    }

    fn instead_of<'a>(&'a self, _refused: &'a Secret) -> TokenFuture<'a> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_cancel_ends_the_wait_for_another_token() {
    let server = serve(ONE_USE).await;
    let client = Client::builder().endpoint(server.url()).tokens(Stuck).build().unwrap();
    let run = client.prompt("hi").model("m").start().await.unwrap();
    soon(async {
        while server.report().requests == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    run.cancel();
    let (ended, _) = soon(run.finish()).await;
    assert_eq!(ended.unwrap_err().kind(), &Kind::Cancelled);
    // Nobody hangs when the consumer goes away meanwhile, either.
    drop(client.prompt("hi").model("m").start().await.unwrap());
}

//! Accounts: tokens that stay fresh.

use std::sync::Arc;
use std::time::Duration;

use agentwire::auth::{Account, AuthLimits, FileStore, TokenSource, TokenStore, Tokens};
use agentwire::error::Kind;
use agentwire::secret::Secret;
use tokio::net::TcpListener;

use super::support::{account, auth, auth_at, faults, jwt, now_ms, serve, signed_in, soon};

/// Ended an hour ago.
fn old(refresh: &Secret) -> Tokens {
    let (received, ended) = (now_ms() - 7_200_000, now_ms() / 1_000 - 3_600);
    Tokens::new(jwt(&format!("{{\"exp\":{ended}}}")), refresh.clone(), received)
}

#[tokio::test]
async fn c003_a_token_that_has_ended_is_refreshed_before_it_is_used() {
    for (rotate, path) in [(true, "/auth/exchange_user_api_key"), (false, "/auth/refresh")] {
        let server = serve(&format!("[sign_in]\nrotate = {rotate}")).await;
        let auth = auth_at(&server).refresh_path(path).build().unwrap();
        let (first, _) = signed_in(auth.clone()).await;
        let before = first.tokens();
        assert_eq!(soon(first.token()).await.unwrap(), before.access, "fresh: nothing is asked");

        let (account, store) = account(auth, old(&before.refresh)).await;
        let token = soon(account.token()).await.unwrap();
        let now = account.tokens();
        assert_eq!(token, now.access);
        assert!(now.due_at_ms() > now_ms());
        // Without a new refresh token the old one is kept.
        assert_eq!(now.refresh == before.refresh, !rotate);
        assert_eq!(store.load(account.key()).unwrap(), Some(now));
        assert_eq!(server.shutdown().await.requests, 2);
    }
}

#[tokio::test]
async fn however_many_ask_one_refresh_is_made() {
    // A second refresh with the same token would be refused: it is used up.
    let server = serve("[sign_in.refresh]\ndelay_ms = 20\n").await;
    let (account, _) = signed_in(auth(&server)).await;
    let refused = account.tokens().access;
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (account, refused) = (account.clone(), refused.clone());
            tokio::spawn(async move { account.instead_of(&refused).await.unwrap() })
        })
        .collect();
    for task in tasks {
        let token = soon(task).await.unwrap();
        assert!(token != refused && token == account.tokens().access);
    }
    assert_eq!(server.shutdown().await.requests, 2);
}

#[tokio::test]
async fn c006_refreshes_that_fail_say_so_within_limits_and_without_the_token() {
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let trap_url = format!("http://{}", trap.local_addr().unwrap());
    let refresh = Secret::from("refresh-token-of-this-test");
    for (fault, check) in faults(&trap_url) {
        let server = serve(&format!("[sign_in.refresh]\n{fault}")).await;
        let auth = auth_at(&server).request_timeout(Duration::from_millis(300)).build().unwrap();
        let (account, store) = account(auth, old(&refresh)).await;
        let error = soon(account.token()).await.expect_err(&fault);
        assert!(check(&error), "{fault}: {error:?}");
        assert!(!format!("{error:?}").contains("refresh-token-of-this-test"), "{error:?}");
        // It may work later: the sign-in is kept.
        assert!(store.load(account.key()).unwrap().is_some());
    }
    let mut trapped = Box::pin(trap.accept());
    tokio::select! {
        biased;
        _ = &mut trapped => panic!("the token was sent elsewhere"),
        () = tokio::task::yield_now() => {}
    }
}

#[tokio::test]
async fn how_long_answers_may_be_can_be_set() {
    let refresh = Secret::from("refresh-token-of-this-test");
    let reply = |status: u16, filler: usize| {
        let filler = "x".repeat(filler);
        format!(
            "[sign_in.refresh]\nstatus = {{ status = {status}, headers = {{ content-type = \
             \"application/json\", x-filler = \"{filler}\" }} }}\n\
             bytes = {{ text = '{{\"accessToken\":\"a\",\"message\":\"said\",\"code\":\"internal\"}}' }}"
        )
    };
    let ask = async |script: String, limits: AuthLimits| {
        let server = serve(&script).await;
        soon(auth_at(&server).limits(limits).build().unwrap().refresh(&refresh)).await
    };
    let with = |change: fn(&mut AuthLimits)| {
        let mut limits = AuthLimits::default();
        change(&mut limits);
        limits
    };
    assert!(ask(reply(200, 0), AuthLimits::default()).await.is_ok());
    let error = ask(reply(200, 0), with(|limits| limits.answer = 10)).await.unwrap_err();
    assert_eq!(error.kind(), &Kind::LimitExceeded, "{error}");

    assert!(ask(reply(200, 9_000), AuthLimits::default()).await.is_ok());
    let error = ask(reply(200, 9_000), with(|limits| limits.head = 8 << 10)).await.unwrap_err();
    assert!(error.message().contains("did not answer in HTTP/1.1"), "{error}");

    let said = ask(reply(500, 0), AuthLimits::default()).await.unwrap_err();
    assert!(said.message().ends_with("said"), "{said}");
    let cut = ask(reply(500, 0), with(|limits| limits.error_body = 10)).await.unwrap_err();
    assert!(!cut.message().contains("said") && cut.http_status() == Some(500), "{cut}");

    let silent = "[sign_in.refresh]\nsilence = true".to_owned();
    let late = with(|limits| limits.request = Duration::from_millis(50));
    let error = ask(silent, late).await.unwrap_err();
    assert!(error.message().contains("within 50ms"), "{error}");
}

#[tokio::test]
async fn c004_a_revoked_sign_in_ends_and_asks_for_a_new_one() {
    let echo = "[sign_in.refresh]\nstatus = { status = 500, headers = { content-type = \"text/plain\" }, \
                body = \"cannot take refresh-token-of-this-test now\" }";
    let server = serve(echo).await;
    let refresh = Secret::from("refresh-token-of-this-test");
    let (first, _) = account(auth(&server), old(&refresh)).await;
    let error = soon(first.token()).await.unwrap_err();
    assert_eq!(error.http_status(), Some(500));
    assert!(!error.to_string().contains("refresh-token-of-this-test"), "{error}");

    // The plain server has never given this one.
    let server = serve("").await;
    let (revoked, _) = account(auth(&server), old(&refresh)).await;
    for _ in 0..2 {
        let error = soon(revoked.token()).await.unwrap_err();
        assert_eq!(error.kind(), &Kind::Unauthenticated);
        assert!(error.to_string().contains("agentwire login"), "{error}");
    }
    assert_eq!(server.shutdown().await.requests, 1, "it is not asked again");
}

#[tokio::test]
async fn a_refresh_ahead_of_time_that_fails_leaves_a_good_token_in_use() {
    let server = serve("[sign_in.refresh]\nstatus = { status = 503 }").await;
    let ends = now_ms() / 1_000 + 60;
    let access = jwt(&format!("{{\"exp\":{ends}}}"));
    let tokens = Tokens::new(access.as_str(), "r-1", now_ms() - 3_600_000);
    let (account, _) = account(auth(&server), tokens).await;
    for _ in 0..3 {
        assert_eq!(soon(account.token()).await.unwrap().expose(), &access);
    }
    assert_eq!(server.shutdown().await.requests, 1, "once in half a minute");
}

#[tokio::test]
async fn what_another_program_refreshed_is_used() {
    let server = serve("").await;
    let (first, store) = signed_in(auth(&server)).await;
    let before = first.tokens();
    let (key, shared) = (first.key().clone(), Arc::clone(&store) as Arc<dyn TokenStore>);
    let second = Account::load(auth(&server), shared, key).await.unwrap().unwrap();
    let new = soon(first.instead_of(&before.access)).await.unwrap();
    // The refresh token that the second knows is used up.
    assert_eq!(soon(second.instead_of(&before.access)).await.unwrap(), new);
    assert_eq!(server.shutdown().await.requests, 2);
}

#[tokio::test]
async fn a_refresh_goes_on_when_nobody_waits_for_it_any_more() {
    let server = serve("[sign_in.refresh]\ndelay_ms = 20").await;
    let (account, store) = signed_in(auth(&server)).await;
    let before = account.tokens();
    {
        let mut asking = account.instead_of(&before.access);
        tokio::select! {
            biased;
            _ = &mut asking => panic!("the answer takes 20 ms"),
            () = tokio::task::yield_now() => {}
        }
    }
    let token = soon(account.instead_of(&before.access)).await.unwrap();
    assert_eq!(store.load(account.key()).unwrap().unwrap().access, token);
    assert_eq!(server.shutdown().await.requests, 2);
}

#[tokio::test]
async fn a_sign_in_survives_the_program_and_ends_with_sign_out() {
    let server = serve("").await;
    let dir = tempfile::tempdir().unwrap();
    let store = || Arc::new(FileStore::new(dir.path())) as Arc<dyn TokenStore>;
    let auth = auth(&server);
    let key = Account::key_of(&auth);
    assert!(Account::load(auth.clone(), store(), key.clone()).await.unwrap().is_none());
    let tokens = signed_in(auth.clone()).await.0.tokens();
    Account::keep(auth.clone(), store(), key.clone(), tokens.clone()).await.unwrap();
    let again = Account::load(auth.clone(), store(), key.clone()).await.unwrap().unwrap();
    assert_eq!(again.tokens(), tokens);
    assert!(again.sign_out().await.unwrap());
    assert_eq!(soon(again.token()).await.unwrap_err().kind(), &Kind::Unauthenticated);
    assert!(Account::load(auth, store(), key).await.unwrap().is_none());
}

//! Models: at the start, when the service lists them, and when it does not.

use agentwire::error::Kind;
use agentwire::models::{Catalog, DiscoveryOptions, Entry, Level, Source, save_cache};
use agentwire::provider::{Provider, ProviderOptions};
use agentwire::transport::{Client, UnaryLimits};

use super::rig::{MODELS, cached, client, ids, key, options, provider, serve, soon, unix_ms};

const SILENT: &str = "[unary.usable_models]\nsilence = true";

#[tokio::test]
async fn c026_without_a_cache_it_starts_with_the_list_built_in() {
    let server = serve(SILENT).await;
    let provider = provider(None);
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    let roster = account.models();
    let composer = roster.model("composer-2").unwrap();
    assert_eq!(composer.label(), "Composer 2 (estimated)");
    assert_eq!((roster.models().len(), roster.catalog().source), (36, Source::Estimated));
    // What nobody knows goes out as typed.
    assert_eq!(roster.resolve("new-9", None).unwrap().id, "new-9");
}

#[tokio::test]
async fn c028_c029_a_kept_list_is_there_at_once_and_nothing_is_added_or_asked() {
    let (server, dir) = (serve(SILENT).await, tempfile::tempdir().unwrap());
    let entry = Entry {
        display_name: Some("Kept".into()),
        context_window: Some(1234.0),
        ..Entry::new("composer-2.5")
    };
    let catalog = Catalog::live(vec![entry], unix_ms());
    save_cache(dir.path(), &key(&server, "anna"), &catalog).unwrap();
    let provider = provider(Some(dir.path()));
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    let roster = soon(account.ready()).await;
    assert_eq!(ids(&account), ["composer-2.5"]);
    assert_eq!(
        (roster.models()[0].label().as_str(), roster.models()[0].context_window()),
        ("Kept", 1234)
    );
    assert_eq!(roster.resolve("composer-2", None).unwrap_err().kind(), &Kind::ModelNotAvailable);
    // Another account of the same service has nothing of it (BEHAVIOUR 13, H57).
    assert_eq!(ids(&provider.sign_in("bert", client(&server, "tok-2"))).len(), 36);
}

#[tokio::test]
async fn c030_what_was_listed_is_kept_for_the_next_start() {
    let (server, dir) = (serve(MODELS).await, tempfile::tempdir().unwrap());
    let first = provider(Some(dir.path()));
    let account = first.sign_in("anna", client(&server, "tok-1"));
    soon(account.refresh()).await.unwrap();
    assert_eq!(ids(&account), ["composer-2.5", "default", "gpt-9"]);
    let roster = account.models();
    assert_eq!(roster.resolve("gpt-9", Some(Level::High)).unwrap().id, "gpt-9-high");
    assert_eq!(roster.resolve("gpt-8", None).unwrap_err().hint(), Some("near it are gpt-9"));
    soon(first.dispose()).await;

    let second = provider(Some(dir.path()));
    let account = second.sign_in("anna", client(&server, "tok-1"));
    assert_eq!(ids(&account), ["composer-2.5", "default", "gpt-9"]);
    soon(second.dispose()).await;
    assert_eq!(server.shutdown().await.requests, 1, "the second start asks nobody");
}

/// The limits of the client hold for the whole way of a list, in both directions.
#[tokio::test]
async fn how_many_models_there_may_be_is_the_clients_to_say() {
    let ids = (0..5_000).map(|n| format!("{{ id = \"m{n}\" }}")).collect::<Vec<_>>();
    let server = serve(&format!("models = [{}]", ids.join(","))).await;
    for (name, most, expected) in [("anna", None, 4_096), ("bert", Some(5_000), 5_000)] {
        let mut limits = UnaryLimits::default();
        limits.models.models = most.unwrap_or(limits.models.models);
        let client = Client::builder().endpoint(server.url()).unary_limits(limits).build().unwrap();
        let account = provider(None).sign_in(name, client);
        soon(account.refresh()).await.unwrap();
        assert_eq!(account.models().catalog().entries.len(), expected);
    }
}

#[tokio::test]
async fn c031_c035_one_question_for_each_account() {
    let server = serve(MODELS).await;
    let provider = provider(None);
    let anna = provider.sign_in("anna", client(&server, "tok-1"));
    let bert = provider.sign_in("bert", client(&server, "tok-2"));
    anna.discover();
    anna.discover();
    soon(async { tokio::join!(anna.ready(), anna.ready(), bert.ready()) }).await;
    anna.discover();
    assert_eq!(ids(&anna), ids(&bert));
    soon(provider.dispose()).await;
    assert_eq!(server.shutdown().await.requests, 2);
}

#[tokio::test]
async fn c032_dispose_waits_for_a_list_that_is_under_way() {
    let script = format!("{MODELS}\n[unary.usable_models]\ndelay_ms = 50");
    let (server, dir) = (serve(&script).await, tempfile::tempdir().unwrap());
    let provider = provider(Some(dir.path()));
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    // One turn for the driver to ask.
    tokio::task::yield_now().await;
    soon(provider.dispose()).await;
    assert_eq!(cached(dir.path(), &server, "anna").unwrap().entries.len(), 4);
    assert_eq!(ids(&account).len(), 36, "the account is gone with the provider");
}

#[tokio::test]
async fn c034_who_is_not_signed_in_is_not_asked_for() {
    let (server, dir) = (serve(MODELS).await, tempfile::tempdir().unwrap());
    let provider = provider(Some(dir.path()));
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    soon(account.refresh()).await.unwrap();
    assert!(cached(dir.path(), &server, "anna").is_some());
    provider.sign_out(&account).unwrap();
    assert!(cached(dir.path(), &server, "anna").is_none());
    account.discover();
    assert_eq!(ids(&account).len(), 36, "nothing of the account is left");
    assert_eq!(soon(account.refresh()).await.unwrap_err().kind(), &Kind::Cancelled);
    assert!(account.client().is_err() && account.watch_models().is_none());
    soon(provider.dispose()).await;
    assert_eq!(server.shutdown().await.requests, 1);
}

#[tokio::test]
async fn c037_new_credentials_ask_again() {
    let server = serve(MODELS).await;
    let provider = provider(None);
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    let mut watch = account.watch_models().unwrap();
    soon(watch.changed()).await.unwrap();
    soon(account.refresh()).await.unwrap();
    watch.mark_unchanged();
    let same = provider.sign_in("anna", client(&server, "tok-2"));
    soon(watch.changed()).await.unwrap();
    assert_eq!(ids(&account), ids(&same));
}

#[tokio::test]
async fn c038_a_list_that_cannot_be_kept_counts_all_the_same() {
    let (server, dir) = (serve(MODELS).await, tempfile::tempdir().unwrap());
    let blocked = dir.path().join("file");
    std::fs::write(&blocked, "no directory").unwrap();
    let provider = provider(Some(&blocked));
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    soon(account.ready()).await;
    assert_eq!(ids(&account), ["composer-2.5", "default", "gpt-9"]);
    // And it is not asked for again and again (BEHAVIOUR 13, H34).
    soon(account.ready()).await;
    soon(provider.dispose()).await;
    assert_eq!(server.shutdown().await.requests, 1);
}

#[tokio::test]
async fn c039_a_refresh_that_fails_changes_nothing() {
    let fails = "[unary.usable_models]\nerror = { code = \"internal\" }";
    let (server, dir) = (serve(fails).await, tempfile::tempdir().unwrap());
    let catalog = Catalog::live(vec![Entry::new("composer-2.5")], unix_ms());
    save_cache(dir.path(), &key(&server, "anna"), &catalog).unwrap();
    let provider = provider(Some(dir.path()));
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    let before = account.models();
    assert!(soon(account.refresh()).await.is_err());
    assert!(std::sync::Arc::ptr_eq(&before, &account.models()));
    assert_eq!(cached(dir.path(), &server, "anna").unwrap(), catalog);
}

#[tokio::test]
async fn c041_after_a_failure_it_is_asked_again() {
    let script = format!("{MODELS}\n[unary.usable_models]\ntimes = 1\nbase64 = \"\"");
    let server = serve(&script).await;
    let discovery =
        DiscoveryOptions { first_pause: std::time::Duration::ZERO, ..DiscoveryOptions::default() };
    let provider = Provider::new(ProviderOptions { discovery, ..options(None) });
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    let mut watch = account.watch_models().unwrap();
    soon(watch.wait_for(|roster| roster.catalog().source == Source::Live)).await.unwrap();
    let composer = account.models();
    assert!(composer.model("composer-2.5").unwrap().reasoning);
    assert_eq!(server.report().requests, 2);
}

#[tokio::test]
async fn c042_dispose_does_not_wait_for_a_service_that_is_silent() {
    let server = serve(SILENT).await;
    let grace = std::time::Duration::from_millis(10);
    let provider = Provider::new(ProviderOptions { grace, ..options(None) });
    let account = provider.sign_in("anna", client(&server, "tok-1"));
    let waiting = tokio::spawn({
        let account = account.clone();
        async move { account.refresh().await }
    });
    tokio::task::yield_now().await;
    soon(provider.dispose()).await;
    soon(provider.clone().dispose()).await;
    assert_eq!(soon(waiting).await.unwrap().unwrap_err().kind(), &Kind::Cancelled);
    assert_eq!(soon(account.refresh()).await.unwrap_err().kind(), &Kind::Cancelled);
}

#[tokio::test]
async fn c043_signing_in_does_not_fail_for_want_of_a_list() {
    let failures = [
        ("error = { code = \"unauthenticated\" }", Kind::Unauthenticated),
        ("error = { code = \"permission_denied\" }", Kind::PermissionDenied),
        ("error = { code = \"internal\" }", Kind::Rejected),
        ("base64 = \"\"", Kind::ModelNotAvailable),
        ("base64 = \"PGh0bWw+\"", Kind::Protocol),
        ("status = { status = 404 }", Kind::Rejected),
    ];
    for (answer, kind) in failures {
        let server = serve(&format!("[unary.usable_models]\n{answer}")).await;
        let provider = provider(None);
        let account = provider.sign_in("anna", client(&server, "tok-1"));
        let roster = soon(account.ready()).await;
        assert_eq!(roster.catalog().source, Source::Estimated, "{answer}");
        let error = soon(account.refresh()).await.unwrap_err();
        assert_eq!(error.kind(), &kind, "{answer}: {error}");
        assert!(account.models().models().iter().all(|model| model.estimated));
    }
}

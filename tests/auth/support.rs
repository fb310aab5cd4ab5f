//! A server whose sign-in goes as a test says, and those who sign in there.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agentwire::auth::{Account, Auth, AuthBuilder, MemoryStore, PollOptions, TokenStore, Tokens};
use agentwire::error::{Error, Kind, NetworkFault};
use agentwire::server::Script;
use agentwire::server::serve::Server;
use base64::Engine as _;

/// Nothing here takes a tenth of this; a hang is for ever.
const HANG: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, work).await.expect("it hangs")
}

/// A server in clear text that plays this TOML.
pub(crate) async fn serve(script: &str) -> Server {
    let script = Script::from_toml(script).unwrap();
    Server::builder().cleartext().script(script).bind().await.unwrap()
}

pub(crate) fn auth_at(server: &Server) -> AuthBuilder {
    Auth::builder().endpoint(server.url()).web_base(server.url())
}

pub(crate) fn auth(server: &Server) -> Auth {
    auth_at(server).build().unwrap()
}

/// Polls without a pause worth speaking of.
pub(crate) fn quick() -> PollOptions {
    let mut options = PollOptions::default();
    options.first_delay = Duration::from_millis(1);
    options.longest_delay = Duration::from_millis(1);
    options
}

/// Whether an error is the one that was to come.
pub(crate) type Check = fn(&Error) -> bool;

/// The faults of an answer, as members of `[sign_in.poll]` or `[sign_in.refresh]`: what is said, and
/// what it has to end in.
pub(crate) fn faults(trap: &str) -> Vec<(String, Check)> {
    fn stalled(error: &Error) -> bool {
        *error.kind() == Kind::Network(NetworkFault::Stalled)
    }
    let redirect =
        format!("status = {{ status = 302, headers = {{ location = \"{trap}/auth/poll\" }} }}");
    vec![
        (redirect, |error| error.http_status() == Some(302) && error.message().contains("redirect")),
        (
            "status = { status = 200, headers = { content-type = \"text/html\" }, body = \"<html>\" }".into(),
            |error| *error.kind() == Kind::Protocol && error.message().contains("content type"),
        ),
        (
            "status = { status = 200, body = \"{}\" }".into(),
            |error| error.message().contains("content type is missing"),
        ),
        ("bytes = { text = \"{\\\"accessToken\\\":\" }".into(), |error| *error.kind() == Kind::Protocol),
        ("bytes = { zeros = 5000000 }".into(), |error| *error.kind() == Kind::LimitExceeded),
        (
            "status = { status = 500, headers = { content-type = \"text/plain\" } }\nbytes = { zeros = 5000000 }".into(),
            |error| error.http_status() == Some(500) && error.message().len() < 2_000,
        ),
        ("bytes = { text = \"{\" }\nstall = true".into(), stalled),
        ("silence = true".into(), stalled),
        ("status = { status = 503, headers = { retry-after = \"0\" } }".into(), Error::is_retryable),
    ]
}

/// A token that says so, for a test's own pairs.
pub(crate) fn jwt(claims: &str) -> String {
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.c2lnbmF0dXJl", part("{}"), part(claims))
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// An account with these tokens, and the store it is kept in.
pub(crate) async fn account(auth: Auth, tokens: Tokens) -> (Account, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::default());
    let key = Account::key_of(&auth);
    let shared = Arc::clone(&store) as Arc<dyn TokenStore>;
    (Account::keep(auth, shared, key, tokens).await.unwrap(), store)
}

/// Signs in at the server, whose sign-in confirms it.
pub(crate) async fn signed_in(auth: Auth) -> (Account, Arc<MemoryStore>) {
    let login = auth.login().unwrap().options(quick());
    let tokens = soon(login.wait(std::future::pending())).await.unwrap();
    account(auth, tokens).await
}

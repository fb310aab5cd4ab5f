//! A local server and a provider that talks to it.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use agentwire::models::{CacheKey, CacheOptions, Catalog, DiscoveryOptions, load_cache};
use agentwire::provider::{Account, Provider, ProviderOptions};
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::Client;

/// Generous: a loaded machine is slow, a hang is for ever.
const HANG: Duration = Duration::from_secs(60);

/// What must come, comes.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future).await.expect("it hangs")
}

/// Two models of which only one id was served as it is.
pub(crate) const MODELS: &str = r#"
    models = [{ id = "composer-2.5", name = "Composer 2.5", thinking = true },
              { id = "gpt-9-high" }, { id = "gpt-9-low" }, { id = "default" }]
"#;

/// Serves a script.
pub(crate) async fn serve(script: &str) -> Server {
    let script = Script::from_toml(script).unwrap();
    Server::builder().script(script).cleartext().bind().await.unwrap()
}

pub(crate) fn client(server: &Server, token: &str) -> Client {
    Client::builder().endpoint(server.url()).token(token).build().unwrap()
}

/// Options of a test: real time never decides, but for `grace` where a test says so.
pub(crate) fn options(cache: Option<&Path>) -> ProviderOptions {
    ProviderOptions {
        cache_dir: cache.map(Path::to_owned),
        grace: HANG,
        discovery: DiscoveryOptions { deadline: HANG, ..DiscoveryOptions::default() },
        ..ProviderOptions::default()
    }
}

pub(crate) fn provider(cache: Option<&Path>) -> Provider {
    Provider::new(options(cache))
}

pub(crate) fn ids(account: &Account) -> Vec<String> {
    account.models().models().iter().map(|model| model.id.clone()).collect()
}

#[allow(clippy::disallowed_methods, reason = "the age of a list is told by the real clock")]
pub(crate) fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

pub(crate) fn key(server: &Server, name: &str) -> CacheKey {
    CacheKey::new(name, &server.url())
}

/// What the cache has of an account.
pub(crate) fn cached(dir: &Path, server: &Server, name: &str) -> Option<Catalog> {
    load_cache(dir, &key(server, name), unix_ms(), &CacheOptions::default()).catalog
}

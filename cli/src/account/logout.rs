//! `logout`: forget a sign-in.

use agentwire::auth::Tokens;
use agentwire::models::{CacheKey, remove_cache};

use super::{Place, Way, catalog_owner, store};
use crate::failure::Failure;
use crate::models::cache_dir;
use crate::output::Look;

/// Sign out: remove the tokens of an account and its list of models from this machine.
///
/// The service is not told: it knows no such call. Whoever copied the tokens can use them until they
/// end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  agentwire logout

Environment:
  AGENTWIRE_ENDPOINT    base URL, where --endpoint is not given
  AGENTWIRE_CONFIG_DIR  where sign-ins are kept
  AGENTWIRE_CACHE_DIR   where lists of models are kept")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    // Nothing is sent, so any endpoint that can be named can be signed out of.
    let auth = args.place.auth(Way { allow_cleartext: true, ..Way::default() })?;
    let key = args.place.key(&auth);
    let (store, look) = (store()?.tokens, Look::detect());
    // A sign-in that cannot be read is removed all the same.
    let tokens = store.load(&key).ok().flatten();
    let text = match store.remove(&key)? {
        true => format!("signed out of {}", key.endpoint),
        false => format!("nobody was signed in at {}", key.endpoint),
    };
    look.remark(&text);
    if let Some(tokens) = tokens {
        forget_models(&tokens, &key.account, &auth.endpoint().to_string(), look);
    }
    Ok(())
}

/// Removes the account's list of models. The tokens are gone by now, so a failure is only told.
fn forget_models(tokens: &Tokens, account: &str, endpoint: &str, look: Look) {
    let Some(dir) = cache_dir() else { return };
    let cached = CacheKey::new(&catalog_owner(tokens, account), endpoint);
    if let Err(error) = remove_cache(&dir, &cached) {
        let path = dir.join(cached.file_name());
        look.remark(&format!("its list of models is still in {}: {error}", path.display()));
    }
}

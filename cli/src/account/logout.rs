//! `logout`: forget a sign-in.

use agentwire::auth::TokenStore as _;

use super::{Place, Way, store};
use crate::failure::Failure;
use crate::output::Look;

/// Sign out: remove the tokens of an account from this machine.
///
/// The service is not told: it knows no such call. Whoever copied the tokens can use them until they
/// end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  agentwire logout

Environment:
  AGENTWIRE_ENDPOINT    base URL, where --endpoint is not given
  AGENTWIRE_CONFIG_DIR  where sign-ins are kept")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    // Nothing is sent, so any endpoint that can be named can be signed out of.
    let auth = args.place.auth(Way { allow_cleartext: true, ..Way::default() })?;
    let key = args.place.key(&auth);
    let text = match store()?.remove(&key)? {
        true => format!("signed out of {}", key.endpoint),
        false => format!("nobody was signed in at {}", key.endpoint),
    };
    Look::detect().remark(&text);
    Ok(())
}

//! `login`: sign in on a page in the browser.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agentwire::auth::{Account, Auth, TokenStore};
use agentwire::error::Kind;
use agentwire::transport::Endpoint;

use super::status::summary;
use super::{Place, Way, endpoint, store};
use crate::failure::{Failure, exit};
use crate::interrupt::Interrupt;
use crate::output::{self, Look};
use crate::runtime;

/// Sign in: confirm it on a page in the browser.
///
/// The page's address is the first line on stdout; it is opened, too. The tokens are kept in a file
/// that only this user can read, and refreshed when they are due. Ctrl-C gives up.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentwire login
  agentwire login --no-browser                        # open the address elsewhere
  agentwire login --endpoint http://127.0.0.1:8080    # against `agentwire serve --cleartext`

Environment:
  AGENTWIRE_ENDPOINT      base URL, where --endpoint is not given
  AGENTWIRE_CONFIG_DIR    where sign-ins are kept [default: `agentwire` in the user's configuration]
  AGENTWIRE_TOKEN_STORE   `file`, or `keyring` in builds with that feature [default: file]
  AGENTWIRE_REFRESH_PATH  path of the refresh call [default: /auth/exchange_user_api_key]")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,

    /// Base URL of the page [default: https://cursor.com, or the endpoint when it is on this machine]
    #[arg(long, value_name = "URL")]
    web_base: Option<String>,

    /// Do not open the page, only print its address
    #[arg(long)]
    no_browser: bool,

    /// Further root certificate(s) to trust, PEM
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// Allow an http:// endpoint beyond this machine: the tokens then travel in clear
    #[arg(long)]
    allow_cleartext: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let look = Look::detect();
    let web_base = web_base(args)?;
    let way = Way {
        web_base: web_base.as_deref(),
        tls_ca: args.tls_ca.as_deref(),
        allow_cleartext: args.allow_cleartext,
    };
    let auth = args.place.auth(way)?;
    // Before a person goes to the page: a place to keep the tokens is needed.
    let store = store()?.tokens;
    store.check(&args.place.key(&auth))?;
    runtime::block_on(async {
        let mut interrupt = Interrupt::install()?;
        let account = sign_in(args, &auth, store, look, &mut interrupt).await?;
        say(&format!("Signed in{}.", summary(&account)))
    })
}

async fn sign_in(
    args: &Args,
    auth: &Auth,
    store: Arc<dyn TokenStore>,
    look: Look,
    interrupt: &mut Interrupt,
) -> Result<Account, Failure> {
    let login = auth.login()?;
    let page = login.page();
    say(&page)?;
    if !args.no_browser && open::that_detached(&page).is_err() {
        look.remark("no browser could be started; open the address above");
    }
    let tokens = tokio::select! {
        tokens = login.wait(interrupt.wait()) => tokens,
        never = waiting(look) => match never {},
    };
    clear(look);
    match tokens {
        Ok(tokens) => {
            let key = args.place.key(auth);
            Ok(Account::keep(auth.clone(), store, key, tokens).await?)
        }
        Err(error) if *error.kind() == Kind::Cancelled => Err(Failure::Said(exit::INTERRUPTED)),
        Err(error) => Err(error.into()),
    }
}

/// The page is the service's own, but for a server on this machine, which plays it itself.
fn web_base(args: &Args) -> Result<Option<String>, Failure> {
    if args.web_base.is_some() {
        return Ok(args.web_base.clone());
    }
    let Some(url) = endpoint(args.place.endpoint.as_deref())? else { return Ok(None) };
    let is_here = Endpoint::parse(&url)?.is_loopback();
    Ok(is_here.then_some(url))
}

/// Shows that it goes on: a moving sign for a person, a line now and then for a log.
async fn waiting(look: Look) -> std::convert::Infallible {
    const FRAMES: [&str; 4] = ["|", "/", "-", "\\"];
    /// Fast enough to look alive.
    const FRAME: Duration = Duration::from_millis(125);
    /// Rare enough for a log.
    const LINE: Duration = Duration::from_secs(60);
    let text = "waiting for the sign-in to be confirmed on that page; Ctrl-C gives up";
    if !look.color {
        look.remark(text);
    }
    let mut ticks = tokio::time::interval(if look.color { FRAME } else { LINE });
    let mut seconds = 0.0;
    for frame in FRAMES.iter().cycle() {
        ticks.tick().await;
        if look.color {
            let line = format!("\r{frame} {text} ({seconds:.0} s) ");
            // A sign that nobody can see is not worth failing for.
            let _unseen = std::io::stderr().write_all(line.as_bytes());
        } else if seconds > 0.0 {
            look.remark(&format!("still waiting ({seconds:.0} s)"));
        }
        seconds += ticks.period().as_secs_f64();
    }
    // The frames never end.
    std::future::pending().await
}

/// Takes the moving sign away.
fn clear(look: Look) {
    if look.color {
        let _unseen = std::io::stderr().write_all(b"\r\x1b[K");
    }
}

fn say(line: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(output::failed)
}

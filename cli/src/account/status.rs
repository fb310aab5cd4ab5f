//! `status`: who is signed in, where, and until when. Never a token.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::io::Write as _;
use std::time::SystemTime;

use agentwire::auth::{Account, Claims};
use serde::Serialize;

use super::when::{span, utc};
use super::{Place, Way, store};
use crate::failure::{Failure, Report, exit};
use crate::output;
use crate::{runtime, token};

/// Show who is signed in, where, and until when; never a token.
///
/// The exit code is 3 when nobody is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  agentwire status --json

Environment:
  AGENTWIRE_TOKEN       a token that is used instead of a sign-in
  AGENTWIRE_ENDPOINT    base URL, where --endpoint is not given
  AGENTWIRE_CONFIG_DIR  where sign-ins are kept")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,

    /// Print one JSON object (docs/CLI.md)
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn report(&self) -> Report {
        if self.json { Report::Json } else { Report::Text }
    }
}

/// The shape that docs/CLI.md promises.
#[derive(Debug, Serialize)]
struct Status {
    endpoint: String,
    account: String,
    signed_in: bool,
    /// `environment`, `file` or `keyring`.
    source: Option<&'static str>,
    subject: Option<String>,
    expires_at: Option<String>,
    expires_in_s: Option<u64>,
    file: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    // Nothing is sent here.
    let way = Way { allow_cleartext: true, ..Way::default() };
    let auth = args.place.auth(way)?;
    let key = args.place.key(&auth);
    let mut status = Status {
        endpoint: key.endpoint.clone(),
        account: key.account.clone(),
        signed_in: false,
        source: None,
        subject: None,
        expires_at: None,
        expires_in_s: None,
        file: None,
    };
    if let Some(token) = token::from_environment()? {
        status.fill("environment", Claims::of(token.expose()));
    } else if let Some(account) = runtime::block_on(args.place.stored(way))? {
        let files = store()?.files;
        let source = if files.is_some() { "file" } else { "keyring" };
        status.fill(source, account.tokens().claims());
        status.file = files.map(|files| files.path(&key).display().to_string());
    }
    status.print(args.json)?;
    if status.signed_in { Ok(()) } else { Err(Failure::Said(exit::NOT_SIGNED_IN)) }
}

impl Status {
    fn fill(&mut self, source: &'static str, claims: Claims) {
        self.signed_in = true;
        self.source = Some(source);
        let ends_s = claims.expires_s.map(|exp| exp as u64);
        self.subject = claims.subject;
        self.expires_at = ends_s.map(utc);
        self.expires_in_s = ends_s.map(|end| end.saturating_sub(now_s()));
    }

    fn print(&self, json: bool) -> Result<(), Failure> {
        let text = if json {
            // Text and numbers can always be written.
            serde_json::to_string(self).unwrap_or_default() + "\n"
        } else {
            self.text()
        };
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(output::failed)
    }

    fn text(&self) -> String {
        let token = match (&self.expires_at, self.expires_in_s) {
            (Some(at), Some(0)) if self.source != Some("environment") => {
                format!("ended at {at}; it is refreshed when it is next used")
            }
            (Some(at), Some(0)) => format!("ended at {at}"),
            (Some(at), Some(left)) => format!("good until {at} (for {})", span(left)),
            _ => "does not say how long it is good".to_owned(),
        };
        let who = match (self.signed_in, &self.subject) {
            (false, _) => "nobody; sign in with `agentwire login`".to_owned(),
            (true, Some(subject)) => subject.clone(),
            (true, None) => "somebody: the token does not say who".to_owned(),
        };
        let from = match (&self.file, self.source) {
            (Some(file), _) => file.clone(),
            (None, Some("keyring")) => "the system's keyring".to_owned(),
            (None, _) => format!("the variable {}", token::VARIABLE),
        };
        let mut rows =
            vec![("endpoint", &self.endpoint), ("account", &self.account), ("who", &who)];
        if self.signed_in {
            rows.extend([("token", &token), ("kept in", &from)]);
        }
        let line = |(name, value): (&str, &String)| {
            format!("{:<10}{}\n", format!("{name}:"), output::printable(value))
        };
        rows.into_iter().map(line).collect()
    }
}

/// ` as WHO at WHERE, until WHEN`, as far as it is known.
pub(super) fn summary(account: &Account) -> String {
    let claims = account.tokens().claims();
    let who = claims.subject.map(|subject| format!(" as {subject}")).unwrap_or_default();
    let at = &account.key().endpoint;
    let text = format!("{who} at {at}");
    output::printable(&text).into_owned()
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs()
}

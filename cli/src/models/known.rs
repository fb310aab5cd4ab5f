//! The models as they are known: kept, asked for, or built in.
#![allow(clippy::disallowed_methods, reason = "a driver: it looks at the clock")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agentwire::Error;
use agentwire::codec::Model;
use agentwire::context::Context;
use agentwire::models::{
    CacheNote, Catalog, Choice, DiscoveryOptions, Policy, Reason, Roster, Source,
};
use agentwire::provider::{Account, Provider, ProviderOptions};
use agentwire::server::Script;
use etcetera::BaseStrategy as _;

use super::Named;
use crate::connect::{Connected, Target};
use crate::failure::{self, Failure};
use crate::output::Look;

/// The directory of kept lists, instead of the user's.
const CACHE_DIR: &str = "AGENTWIRE_CACHE_DIR";

/// How long the service may take to list its models where the list is what is asked for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a run waits for the list where none is known: with none the model goes out as typed.
const BEFORE_A_RUN: Duration = Duration::from_secs(5);

/// Models, and what keeps them up to date.
pub(crate) struct Known {
    provider: Provider,
    account: Account,
}

impl Known {
    /// Opens the kept list of this account; the service is asked in the background where that is old.
    pub(crate) fn open(connected: &Connected, look: Look) -> Self {
        let cache_dir = if connected.server.is_some() { None } else { cache_dir() };
        let discovery = DiscoveryOptions { deadline: PATIENCE, ..DiscoveryOptions::default() };
        let options = ProviderOptions { cache_dir, discovery, ..ProviderOptions::default() };
        let provider = Provider::new(options);
        let account = provider.sign_in(&connected.account, connected.client.clone());
        match account.cache_note() {
            // That one grows old is the course of things.
            None | Some(CacheNote::Expired) => {}
            Some(note) => look.remark(&note.to_string()),
        }
        Self { provider, account }
    }

    /// The model for a run on `context`, within `patience`: with no list by then it goes out as typed.
    /// What may surprise is said on stderr.
    pub(crate) async fn model(
        &self,
        name: &str,
        named: &Named,
        context: &Context,
        look: Look,
        patience: Duration,
    ) -> Result<Model, Error> {
        let patience = patience.min(BEFORE_A_RUN);
        let ready = tokio::time::timeout(patience, self.account.ready()).await;
        let roster = ready.unwrap_or_else(|_| self.account.models());
        let choice = roster.resolve(name, named.thinking)?;
        roster.check_images(&choice, context)?;
        if let (Some(level), Reason::Nearest(_) | Reason::NoLevels) =
            (named.thinking, choice.reason)
        {
            look.remark(&format!("{name} at level {level} is {}: {}", choice.id, choice.reason));
        }
        roster.model_for(&choice, &named.form())
    }

    /// Ends what is under way in the background, keeping what comes within a second.
    pub(crate) async fn close(self) {
        self.provider.dispose().await;
    }
}

/// The models for a command that shows them.
pub(super) struct Shown {
    pub(super) roster: Arc<Roster>,
    pub(super) endpoint: String,
    pub(super) now_ms: u64,
}

impl Shown {
    /// What is known of the account; asks the service where that is old or nothing, or where
    /// `refresh` wants it.
    pub(super) async fn find(target: &Target, refresh: bool, look: Look) -> Result<Self, Failure> {
        let connected = match target.connect(look, Script::assistant()).await {
            Ok(connected) => connected,
            Err(Failure::NotSignedIn(error)) if !refresh => {
                look.remark(&format!("{}; these are the models built in", failure::text(&error)));
                let endpoint = target.endpoint()?.to_string();
                return Ok(Self::new(Arc::new(estimated()), endpoint));
            }
            Err(failure) => return Err(failure),
        };
        let endpoint = connected.client.endpoint().to_string();
        let known = Known::open(&connected, look);
        let mut roster = known.account.models();
        if refresh || !roster.catalog().is_authoritative() {
            match known.account.refresh().await {
                Ok(fresh) => roster = fresh,
                Err(error) if refresh => return Err(Failure::from(error)),
                Err(error) => look.remark(&format!(
                    "the service did not list its models: {}",
                    failure::text(&error)
                )),
            }
        }
        known.close().await;
        Ok(Self::new(roster, endpoint))
    }

    fn new(roster: Arc<Roster>, endpoint: String) -> Self {
        Self { roster, endpoint, now_ms: unix_ms() }
    }

    /// How old the list is; none for the one built in, and for one that does not say.
    pub(super) fn age(&self) -> Option<Duration> {
        let catalog = self.roster.catalog();
        let known = catalog.source == Source::Live && catalog.fetched_at_ms > 0;
        known.then(|| Duration::from_millis(self.now_ms.saturating_sub(catalog.fetched_at_ms)))
    }

    /// Where the list is from and how old it is, in words.
    pub(super) fn origin(&self) -> String {
        match (self.roster.catalog().source, self.age()) {
            (Source::Estimated, _) => "built in, not of an account".to_owned(),
            (Source::Live, None) => format!("of {}, of unknown age", self.endpoint),
            (Source::Live, Some(age)) => {
                let old = if self.roster.catalog().stale { ", out of date" } else { "" };
                format!("of {}, {} old{old}", self.endpoint, in_words(age))
            }
        }
    }

    pub(super) fn choose(&self, name: &str, named: &Named) -> Result<(Choice, Model), Failure> {
        let choice = self.roster.resolve(name, named.thinking)?;
        let model = self.roster.model_for(&choice, &named.form())?;
        Ok((choice, model))
    }
}

fn estimated() -> Roster {
    Roster::new(Catalog::estimated(Policy::Current, unix_ms()), Policy::Current)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Where lists are kept: nowhere when the user has no home, or wants none.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os(CACHE_DIR) {
        return (!dir.is_empty()).then(|| dir.into());
    }
    let dirs = etcetera::choose_base_strategy().ok()?;
    Some(dirs.cache_dir().join("agentwire"))
}

fn in_words(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        for (seconds, words) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (7_199, "1 h"),
            (86_399, "23 h"),
            (200_000, "2 days"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}

//! One sign-in: a page for a person, then polls until it was confirmed there.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::future::Future;
use std::pin::pin;

use http::Method;
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use super::call::{Ask, Auth};
use super::pkce::{ENTROPY, Pkce};
use super::poll::{Poll, PollOptions, PollStep};
use super::tokens::Tokens;
use crate::error::{Blame, Error, Kind, Result};
use crate::ids::{IdSource as _, RandomIds};
use crate::redact::Redactor;

/// A sign-in that was begun.
///
/// ```no_run
/// # async fn example() -> agentwire::Result<()> {
/// use agentwire::auth::Auth;
///
/// let login = Auth::builder().build()?.login()?;
/// println!("confirm it on {}", login.page());
/// let tokens = login.wait(std::future::pending()).await?;
/// # drop(tokens);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nobody is signed in before `wait`"]
pub struct Login {
    auth: Auth,
    pkce: Pkce,
    options: PollOptions,
}

impl Auth {
    /// Begins a sign-in. Nothing is sent before [`Login::wait`].
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn login(&self) -> Result<Login> {
        let mut entropy = Zeroizing::new([0; ENTROPY]);
        let provider = tokio_rustls::rustls::crypto::ring::default_provider();
        provider.secure_random.fill(entropy.as_mut()).map_err(|_| {
            Error::new(Kind::Rejected, "the system gives no random bytes for the sign-in")
                .with_blame(Blame::Local)
        })?;
        let pkce = Pkce::new(&entropy, RandomIds.next_id().to_string());
        Ok(Login { auth: self.clone(), pkce, options: PollOptions::default() })
    }
}

impl Login {
    /// Other times than the reference's.
    pub fn options(mut self, options: PollOptions) -> Self {
        self.options = options;
        self
    }

    /// The address of the page on which a person confirms the sign-in. Not a secret: it holds no key
    /// to the tokens.
    pub fn page(&self) -> String {
        self.pkce.page(&self.auth.web_base().to_string())
    }

    /// Waits until the sign-in was confirmed, or `cancelled` is ready; dropping the future gives up,
    /// too.
    ///
    /// # Errors
    /// [`Kind::Cancelled`], [`Kind::DeadlineExceeded`] when nobody confirmed it in 24 minutes, and
    /// what the calls ran into three times in a row, or once for good.
    pub async fn wait(self, cancelled: impl Future<Output = ()>) -> Result<Tokens> {
        let redactor = Redactor::new(self.pkce.secrets());
        let now = || Instant::now().into_std();
        let mut poll = Poll::new(self.options.clone(), redactor, now());
        let mut cancelled = pin!(cancelled);
        let mut over = false;
        loop {
            let work = async {
                match poll.step(now()) {
                    PollStep::Wait(until) => {
                        sleep_until(Instant::from_std(until)).await;
                        None
                    }
                    PollStep::Ask { until } => {
                        self.ask(&mut poll, until).await;
                        None
                    }
                    PollStep::Done(tokens) => Some(Ok(tokens)),
                    PollStep::Failed(error) => Some(Err(error)),
                }
            };
            let end = tokio::select! {
                biased;
                end = work => end,
                () = &mut cancelled, if !over => {
                    over = true;
                    poll.cancel();
                    None
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn ask(&self, poll: &mut Poll, until: std::time::Instant) {
        let ask = Ask {
            method: Method::GET,
            target: self.pkce.poll_target(),
            bearer: None,
            limit: until.saturating_duration_since(Instant::now().into_std()),
        };
        let answer = self.auth.ask(ask).await;
        let now = Instant::now().into_std();
        match answer {
            Ok(answer) => {
                tracing::debug!(status = answer.status, "asked whether the sign-in was confirmed");
                poll.answered(&answer, now);
            }
            Err(error) => {
                tracing::debug!(%error, "could not ask whether the sign-in was confirmed");
                poll.failed(error, now);
            }
        }
    }
}

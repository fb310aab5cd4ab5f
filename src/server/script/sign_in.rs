//! How the sign-in of the local server goes.

use serde::{Deserialize, Serialize};

use super::step::{Bytes, Status};
use crate::{Error, Result};

/// The sign-in: page, poll, refresh, and the tokens that they give. The default confirms every login
/// at the first poll.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignIn {
    /// Polls of a login that are answered with 404 ("not yet") before the tokens come. Default 0.
    pub pending: u32,
    /// Confirm a login only after its page was opened. Default off.
    pub page: bool,
    /// `sub` of the tokens. Default `local-user`.
    pub subject: String,
    /// Seconds that an access token lives. Default 3 600.
    pub lifetime_s: u64,
    /// Calls that an access token is good for; after that it counts as revoked (401). Default no
    /// limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// A refresh gives a new refresh token, and the old one is used up. Default on.
    pub rotate: bool,
    /// Runs and unary calls need a token that was given here, or that of the server. Default off.
    pub require: bool,
    /// Logins that go on, access tokens and refresh tokens that are remembered, each; the oldest is
    /// forgotten first. Default 1 024: far more than one person or test needs.
    pub remembered: usize,
    /// The answer to a poll, where it is to differ.
    pub poll: JsonReply,
    /// The answer to a refresh, where it is to differ.
    pub refresh: JsonReply,
}

impl Default for SignIn {
    fn default() -> Self {
        Self {
            pending: 0,
            page: false,
            subject: "local-user".into(),
            lifetime_s: 3_600,
            uses: None,
            rotate: true,
            require: false,
            remembered: 1_024,
            poll: JsonReply::default(),
            refresh: JsonReply::default(),
        }
    }
}

/// How a call of the sign-in answers. The default is the plain answer at once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JsonReply {
    /// Milliseconds before the answer.
    pub delay_ms: u64,
    /// Another HTTP answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Another body: bytes as they are. With `status`, after its body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
    /// The body never ends.
    pub stall: bool,
    /// Never answer.
    pub silence: bool,
    /// How often this holds; after that the answer is the plain one. Without it: always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

impl SignIn {
    pub(super) fn check(&self) -> Result<()> {
        for (name, reply) in [("poll", &self.poll), ("refresh", &self.refresh)] {
            reply
                .check()
                .map_err(|error| Error::invalid(format!("script: sign_in.{name}: {error}")))?;
        }
        Ok(())
    }
}

impl JsonReply {
    fn check(&self) -> Result<(), String> {
        if let Some(status) = &self.status {
            status.check()?;
        }
        match &self.bytes {
            Some(bytes) => bytes.content().map(drop),
            None => Ok(()),
        }
    }
}

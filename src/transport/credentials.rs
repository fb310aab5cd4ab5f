//! What a call says about who makes it, and where that comes from.

use std::sync::{Arc, Mutex, PoisonError};

use http::header::HeaderValue;

use crate::auth::TokenSource;
use crate::error::Result;
use crate::redact::Redactor;
use crate::secret::Secret;

use super::headers::bearer;

/// A token, as a header and as what must not come back in a text.
#[derive(Default)]
pub(super) struct Credentials {
    token: Option<Secret>,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) redactor: Redactor,
}

impl Credentials {
    pub(super) fn new(token: Option<&Secret>) -> Result<Self> {
        let authorization = token.map(bearer).transpose()?;
        let redactor = Redactor::new(token.map(|token| token.expose().as_str()));
        Ok(Self { token: token.cloned(), authorization, redactor })
    }
}

/// Where a client's credentials come from.
pub(super) enum Access {
    /// They are always these.
    Fixed(Arc<Credentials>),
    /// A source gives a token for each call; those of the last one are kept while it is the same.
    Source { source: Arc<dyn TokenSource>, last: Mutex<Arc<Credentials>> },
}

impl Access {
    pub(super) fn from_source(source: Arc<dyn TokenSource>) -> Self {
        Self::Source { source, last: Mutex::default() }
    }

    /// Whether there may be others when these are refused.
    pub(super) fn has_others(&self) -> bool {
        matches!(self, Self::Source { .. })
    }

    /// For a call that begins now.
    pub(super) async fn now(&self) -> Result<Arc<Credentials>> {
        match self {
            Self::Fixed(credentials) => Ok(Arc::clone(credentials)),
            Self::Source { source, last } => with(last, &source.token().await?),
        }
    }

    /// In the place of credentials that the service refused; `None` when there are no others.
    pub(super) async fn instead_of(
        &self,
        refused: &Credentials,
    ) -> Result<Option<Arc<Credentials>>> {
        match (self, &refused.token) {
            (Self::Source { source, last }, Some(token)) => {
                let other = source.instead_of(token).await?;
                if other == *token { Ok(None) } else { with(last, &other).map(Some) }
            }
            _ => Ok(None),
        }
    }

    /// A redactor for texts outside a call.
    pub(super) fn redactor(&self) -> Redactor {
        match self {
            Self::Fixed(credentials) => credentials.redactor.clone(),
            Self::Source { last, .. } => {
                last.lock().unwrap_or_else(PoisonError::into_inner).redactor.clone()
            }
        }
    }
}

/// The credentials for `token`: the last ones, if they are for the same.
fn with(last: &Mutex<Arc<Credentials>>, token: &Secret) -> Result<Arc<Credentials>> {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if last.token.as_ref() != Some(token) {
        *last = Arc::new(Credentials::new(Some(token))?);
    }
    Ok(Arc::clone(&last))
}

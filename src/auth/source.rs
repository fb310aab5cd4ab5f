//! Where a client gets its tokens from.

use std::future::Future;
use std::pin::Pin;

use crate::error::Result;
use crate::secret::Secret;

/// What a [`TokenSource`] gives.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<Secret>> + Send + 'a>>;

/// Gives a client its access tokens, one for each call; `Account` is the usual one, and a host with
/// tokens of its own brings its own.
pub trait TokenSource: Send + Sync + 'static {
    /// A token that can be used now.
    fn token(&self) -> TokenFuture<'_>;

    /// A token in the place of `refused`, which the service did not take (401). A source that has no
    /// other gives `refused` back, and the call ends with what the service said; when it gives an
    /// error, the call ends with that.
    fn instead_of<'a>(&'a self, refused: &'a Secret) -> TokenFuture<'a>;
}

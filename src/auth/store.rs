//! Where tokens are kept between two starts of a program.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use super::tokens::Tokens;
use crate::error::Result;

/// Whose tokens: a name at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The base URL that the tokens are for, in its shortest form.
    pub endpoint: String,
    /// A name that a person gave this account; not a secret, and not sent anywhere.
    pub account: String,
}

impl Key {
    /// The one account that most people have.
    pub const DEFAULT_ACCOUNT: &'static str = "default";

    /// The default account at `endpoint`, a base URL: case and slashes at its end do not count.
    pub fn new(endpoint: &str) -> Self {
        let endpoint = endpoint.trim_end_matches('/').to_ascii_lowercase();
        Self { endpoint, account: Self::DEFAULT_ACCOUNT.to_owned() }
    }

    /// Another account there.
    #[must_use]
    pub fn account(mut self, name: impl Into<String>) -> Self {
        self.account = name.into();
        self
    }
}

/// Keeps tokens. Calls may block (a disk, a keyring): drivers make them away from the runtime.
pub trait TokenStore: Debug + Send + Sync + 'static {
    /// The tokens of `key`; `None` when there are none.
    ///
    /// # Errors
    /// They cannot be read, or what is there cannot be used; a save replaces it.
    fn load(&self, key: &Key) -> Result<Option<Tokens>>;

    /// Whether tokens of `key` could be kept, as far as that can be told without keeping any: asked
    /// before a person is sent to a page. By default yes.
    ///
    /// # Errors
    /// They could not be kept.
    fn check(&self, key: &Key) -> Result<()> {
        let _ = key;
        Ok(())
    }

    /// Keeps `tokens`, in the place of older ones.
    ///
    /// # Errors
    /// They could not be kept; the older ones are still there.
    fn save(&self, key: &Key, tokens: &Tokens) -> Result<()>;

    /// Forgets the tokens of `key`; says whether there were any, usable or not.
    ///
    /// # Errors
    /// They are still there.
    fn remove(&self, key: &Key) -> Result<bool>;
}

/// Keeps tokens as long as it lives: for tests, and for programs that must leave no trace.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<HashMap<Key, Tokens>>);

impl MemoryStore {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Tokens>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenStore for MemoryStore {
    fn load(&self, key: &Key) -> Result<Option<Tokens>> {
        Ok(self.map().get(key).cloned())
    }

    fn save(&self, key: &Key, tokens: &Tokens) -> Result<()> {
        self.map().insert(key.clone(), tokens.clone());
        Ok(())
    }

    fn remove(&self, key: &Key) -> Result<bool> {
        Ok(self.map().remove(key).is_some())
    }
}

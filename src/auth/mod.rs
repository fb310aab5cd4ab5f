//! Sign-in: from a page in the browser to tokens that stay fresh.
//!
//! The rules are functions and machines without I/O: the secret of a login and its page ([`Pkce`]),
//! when to ask whether it was confirmed ([`Poll`]), what the answers mean ([`Answer`]), how long a
//! token is good for ([`expiry_ms`], [`Tokens::due_at_ms`]), when it is refreshed ([`Keeper`]), and
//! what a file of tokens looks like ([`encode`], [`decode`]). Clock and entropy are arguments.
//!
//! The drivers: [`FileStore`] touches the disk, `KeyringStore` (feature `keyring`) the system's
//! keyring; `Auth` (feature `auth`) makes the two HTTP calls;
//! `Account` (feature `auth`) is the one source of fresh tokens that all runs of a client share.
//! Only files that this library wrote itself are ever read: no other program's credentials.

#[cfg(feature = "auth")]
mod account;
mod answer;
#[cfg(feature = "auth")]
mod call;
mod claims;
mod file;
mod format;
#[cfg(feature = "testing")]
pub mod fuzz;
mod keeper;
#[cfg(feature = "keyring")]
mod keyring;
#[cfg(feature = "auth")]
mod login;
mod pkce;
mod poll;
#[cfg(feature = "client")]
mod source;
mod store;
mod tokens;

#[cfg(feature = "auth")]
pub use account::Account;
pub use answer::Answer;
#[cfg(feature = "auth")]
pub use call::{Auth, AuthBuilder, AuthLimits, DEFAULT_WEB_BASE, REFRESH_PATH};
pub use claims::Claims;
pub use file::FileStore;
pub use format::{decode, encode};
pub use keeper::{Keeper, RETRY_AFTER_MS, Want};
#[cfg(feature = "keyring")]
pub use keyring::KeyringStore;
#[cfg(feature = "auth")]
pub use login::Login;
pub use pkce::{ENTROPY, LOGIN_PATH, POLL_PATH, Pkce};
pub use poll::{Poll, PollOptions, PollStep};
#[cfg(feature = "client")]
pub use source::{TokenFuture, TokenSource};
pub use store::{Key, MemoryStore, TokenStore};
pub use tokens::{LIFE_MS, SKEW_MS, Tokens, expiry_ms};

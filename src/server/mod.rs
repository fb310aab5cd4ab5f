//! The server side of the protocol: what a service says, so that clients can be tried without one.
//!
//! - [`Session`] mirrors one Run stream: it asks, sends and records what the client answers, and
//!   holds every answer against the rules. Tests and fuzzers use it as the oracle.
//! - [`Script`] says what to answer; [`Player`] plays one over a session, under a clock that is
//!   handed in.
//! - [`Exchange`] is one HTTP request of any path: a run, a unary call, a call of the sign-in, or a refusal.
//! - [`serve`] (feature `server`) puts exchanges on sockets.
//!
//! Everything but `serve` is pure: no clock, no I/O, no tokio.

mod exchange;
#[cfg(feature = "testing")]
pub mod fuzz;
mod player;
mod reflect;
pub mod script;
#[cfg(feature = "server")]
pub mod serve;
pub mod session;
mod sign_in;
mod unary;

pub use self::exchange::{Exchange, Options};
pub use self::player::{Playbook, Player};
pub use self::script::Script;
pub use self::session::{Event, Output, RequestHead, Session, Violation};
pub use self::sign_in::Seed;

//! Models: which there are, what they can do, and which id goes on the wire.
//!
//! The service lists ids, and an id holds more than a model: `gpt-5.4-high-fast` is the model
//! `gpt-5.4`, fast, with effort `high`. This room takes ids apart ([`Variant`]), puts the variants of
//! one model together ([`map`]), and finds the id for a model and a thinking level ([`Roster`]).
//! All of it is functions of their arguments, but for [`load_cache`],
//! [`save_cache`] and [`remove_cache`], which touch the disk.
//!
//! ```
//! use agentwire::models::{Catalog, Entry, Level, Policy, Roster};
//!
//! let ids = ["gpt-5.4-low", "gpt-5.4-medium", "gpt-5.4-high", "composer-2"];
//! let catalog = Catalog::live(ids.map(Entry::new).into(), 0);
//! let roster = Roster::new(catalog, Policy::Current);
//!
//! assert_eq!(roster.resolve("gpt-5.4", Some(Level::High))?.id, "gpt-5.4-high");
//! // The service does not know `gpt-5.4`, so without a level the least effort goes out.
//! assert_eq!(roster.resolve("gpt-5.4", None)?.id, "gpt-5.4-low");
//! // An id that was not served is not sent.
//! assert!(roster.resolve("gpt-5.5", None).is_err());
//! # Ok::<(), agentwire::Error>(())
//! ```

mod cache;
mod catalog;
mod discovery;
mod file;
mod form;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod images;
mod intake;
mod json;
mod known;
mod level;
mod listing;
mod mapper;
mod nearest;
mod roster;
#[rustfmt::skip]
mod table;
mod variant;

pub use cache::{
    CacheKey, CacheNote, CacheOptions, Loaded, decode as decode_cache, encode as encode_cache,
};
pub use catalog::{Catalog, Entry, Source};
pub use discovery::{Discovery, DiscoveryOptions, Outcome, Step, Ticket, Trigger, Wanted};
pub use file::{load_cache, remove_cache, save_cache};
pub use form::FormOptions;
pub use intake::{Dropped, IntakeLimits, MAX_ID_BYTES, is_sendable};
pub use json::{map_json, provider_json};
pub use known::{DEFAULT_CONTEXT, DEFAULT_OUTPUT, LimitSource};
pub use level::{Level, LevelMap, Leveled, Target, UnknownLevel, resolve_level};
pub use listing::{Listing, decode_listing};
pub use mapper::{Model, map};
pub use nearest::nearest;
pub use roster::{Choice, Reason, Roster};
pub use variant::{Effort, Variant, title_case, with_effort};

/// Which rules count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// The later corrections (BEHAVIOUR 8.5) and what this library adds to them.
    #[default]
    Current,
    /// The reference of 2026-06 (BEHAVIOUR 8.1 to 8.4), defects and all: for comparing with it.
    Reference,
}

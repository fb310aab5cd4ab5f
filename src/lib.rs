//! The LLM transport of an agent runtime: the `agent.v1` protocol (protobuf messages in Connect
//! envelopes on one bidirectional HTTP/2 stream), client and server.
//!
//! The service drives the client: it asks for blobs, tool results and permissions, and waits. All
//! rules of that conversation live in machines that do no I/O, so the same [`run::Session`] runs
//! over HTTP/2, in a test with a virtual clock, and under a fuzzer. This tour joins a client
//! session and a server in memory: no socket, no clock.
//!
//! ```
//! use std::time::{Instant, SystemTime};
//!
//! use agentwire::codec::RunRequest;
//! use agentwire::context::Context;
//! use agentwire::conversation::Conversation;
//! use agentwire::ids::CountingIds;
//! use agentwire::redact::Redactor;
//! use agentwire::run::{self, Event, Flow, Head, Session};
//! use agentwire::server::session::{RUN_PATH, STREAM_TYPE};
//! use agentwire::server::{self, Exchange, Playbook, RequestHead, Script};
//!
//! // The server plays a script.
//! let script = r#"{"rules": [{"steps": [{"text": "Hello, world"}, {"turn_end": {}}]}]}"#;
//! let playbook = Playbook::new(Script::from_json(script)?)?;
//! let mut server = Exchange::new(playbook, server::Options::default());
//!
//! // The client asks. The conversation (checkpoint and blobs) is a value: moved in, taken back.
//! let request = RunRequest {
//!     request_id: "req-1".into(),
//!     model: "composer-2".into(),
//!     context: Context::prompt("Say hello").system("Be brief."),
//!     ..RunRequest::default()
//! };
//! let mut now = Instant::now();
//! let options = run::Options::default();
//! let ids = Box::new(CountingIds::hex());
//! let conversation = Conversation::new();
//! let mut client =
//!     Session::new(&request, conversation, options, Redactor::default(), ids, now)
//!         .map_err(|refused| refused.0)?;
//!
//! let headers = [("content-type", STREAM_TYPE), ("connect-protocol-version", "1")];
//! server.handle_head(&RequestHead::post(RUN_PATH, headers), now);
//! let mut answer = String::new();
//! let mut finish = None;
//! while finish.is_none() {
//!     // Events out of the client, then what it wants sent.
//!     client.poll_events(now, |event| {
//!         match event.to_event() {
//!             Event::Text(text) => answer.push_str(&text),
//!             Event::Ended(end) => finish = Some(end),
//!             _ => {}
//!         }
//!         Flow::Continue
//!     });
//!     loop {
//!         match client.poll_output() {
//!             run::Output::Send(bytes) => {
//!                 server.handle_body(&bytes, now);
//!                 client.handle_sent(bytes.len(), now);
//!             }
//!             run::Output::Wait(_) => break,
//!             _ => {}
//!         }
//!     }
//!     // And the other way round; when the server waits, its time comes.
//!     match server.poll_output(now) {
//!         server::Output::Head { status, headers } => {
//!             let head = Head { status, headers, received_at: SystemTime::UNIX_EPOCH };
//!             client.handle_head(head, now);
//!         }
//!         server::Output::Send(bytes) => client.handle_body(bytes, now),
//!         server::Output::End { .. } => client.handle_end(now),
//!         server::Output::Wait(Some(at)) => {
//!             now = at;
//!             server.handle_timeout(now);
//!         }
//!         _ => {}
//!     }
//! }
//! assert_eq!(answer, "Hello, world");
//! assert!(finish.is_some_and(|end| end.is_ok()));
//! assert!(server.violations().is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Over the network it is shorter: see [`transport`] (feature `client`, on by default) and the
//! `examples/` folder.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `client` | yes | [`transport`]: HTTP/2 over TLS, one shared connection, runs as streams of events |
//! | `auth` | no | `auth::Auth` and `auth::Account`: signing in, tokens that stay fresh |
//! | `keyring` | no | `auth::KeyringStore`: sign-ins in the system's keyring |
//! | `metrics` | no | counters of connections and calls through the `metrics` facade |
//! | `server` | no | [`server::serve`]: a listener that plays scripts, for tests and offline use |
//! | `testing` | no | fuzz bodies; nothing that a program needs |
//!
//! Without features the pure core builds: no runtime, no HTTP, no TLS.
#![forbid(unsafe_code)]
// The docs are those of all features; without one, a link to what it brings leads nowhere.
#![cfg_attr(
    not(all(feature = "client", feature = "server")),
    allow(rustdoc::broken_intra_doc_links)
)]

pub mod auth;
pub mod codec;
pub mod connect;
pub mod context;
pub mod conversation;
mod disk;
pub mod error;
pub mod exec;
#[cfg(any(feature = "auth", feature = "server"))]
mod http1;
pub mod ids;
pub mod inspect;
pub mod models;
pub mod proto;
#[cfg(feature = "client")]
pub mod provider;
pub mod recording;
pub mod redact;
#[cfg(feature = "net")]
pub mod rpc;
pub mod run;
pub mod secret;
pub mod server;
#[cfg(feature = "client")]
pub mod transport;
pub mod wire;

pub use error::{Error, Result};
pub use secret::Secret;
#[cfg(feature = "client")]
pub use transport::{Client, Run};

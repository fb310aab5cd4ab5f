//! `rpc/` over in-memory links: byte streams, and calls of all shapes. Time is tokio's paused clock
//! wherever it matters.

// Helpers of a test may panic as the tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod breaches;
mod calls;
mod floods;
mod http2;
mod raw;
mod served;

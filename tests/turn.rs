//! One turn over several streams, on a virtual clock: retry, resume, repair, pause (PROTOCOL 3
//! "Retry" and "End of a turn", 4; FAULTS M46-M52, M61, M85, M86).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on"
)]

#[path = "turn/restart.rs"]
mod restart;
#[path = "turn/rig.rs"]
mod rig;
#[path = "turn/rules.rs"]
mod rules;
#[path = "turn/text.rs"]
mod text;
#[path = "turn/tools.rs"]
mod tools;

//! The machine alone: transcripts and random interleavings under a virtual clock.

#[path = "turn/interleavings.rs"]
mod interleavings;
#[path = "turn/rig.rs"]
mod rig;
#[path = "turn/rules.rs"]
mod rules;

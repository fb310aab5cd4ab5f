//! Agents at work, over scripted models and over the local server in memory.

#[path = "agent/control.rs"]
mod control;
#[path = "agent/sessions.rs"]
mod sessions;
#[path = "agent/stages.rs"]
mod stages;
#[path = "agent/support.rs"]
mod support;
#[path = "agent/tools.rs"]
mod tools;

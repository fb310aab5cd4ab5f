//! What the goals and the network benches share: data, rivals, a canned server and its clients.

pub mod data;
pub mod net;
pub mod rivals;

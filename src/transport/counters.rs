//! What is counted, through the [`metrics`](https://docs.rs/metrics) facade with the feature of that
//! name; nothing without it.
//!
//! | name | kind | what |
//! |---|---|---|
//! | `agentwire_connections_opened_total` | counter | connections that were made |
//! | `agentwire_connections_failed_total` | counter, by `fault` | dials that failed |
//! | `agentwire_connections_closed_total` | counter, by `cause` | connections that ended |
//! | `agentwire_connections_open` | gauge | connections that are open |
//! | `agentwire_received_bytes_total` | counter | bytes read from closed connections |
//! | `agentwire_calls_total` | counter | calls that got a place on a connection |
//! | `agentwire_calls_open` | gauge | calls on a connection |
//! | `agentwire_call_seconds` | histogram | how long calls held their place |
//! | `agentwire_wait_seconds` | histogram | how long calls waited for a place, dialling included |
//!
//! Labels are names out of this code, never text of a peer.

use std::time::Duration;

use crate::error::Error;
use crate::rpc::http2::Lost;

#[cfg(feature = "metrics")]
mod facade {
    use super::{Duration, Error, Lost};
    use crate::error::{Kind, NetworkFault};
    use crate::rpc::http2::LostCause;
    use metrics::{counter, gauge, histogram};

    pub(crate) fn opened() {
        counter!("agentwire_connections_opened_total").increment(1);
        gauge!("agentwire_connections_open").increment(1);
    }

    pub(crate) fn failed(error: &Error) {
        use NetworkFault::{Alpn, Connect, Dns, Proxy, Tls};
        let fault = match error.kind() {
            Kind::Network(fault @ (Dns | Connect | Proxy | Tls | Alpn)) => fault.as_str(),
            _ => "other",
        };
        counter!("agentwire_connections_failed_total", "fault" => fault).increment(1);
    }

    pub(crate) fn closed(lost: Option<&Lost>, received: u64) {
        let cause = match lost.map(Lost::cause) {
            Some(LostCause::GoAway { code: 0, .. }) => "in order",
            Some(LostCause::GoAway { local: true, .. }) => "breach",
            Some(LostCause::GoAway { .. }) => "goaway",
            Some(LostCause::Cut) => "cut",
            Some(LostCause::NoPong) => "no pong",
            Some(LostCause::NoSettings) => "no settings",
            Some(LostCause::Http1) => "http/1",
            Some(_) | None => "abandoned",
        };
        counter!("agentwire_connections_closed_total", "cause" => cause).increment(1);
        counter!("agentwire_received_bytes_total").increment(received);
        gauge!("agentwire_connections_open").decrement(1);
    }

    pub(crate) fn placed(waited: Duration) {
        counter!("agentwire_calls_total").increment(1);
        gauge!("agentwire_calls_open").increment(1);
        histogram!("agentwire_wait_seconds").record(waited);
    }

    pub(crate) fn released(held: Duration) {
        gauge!("agentwire_calls_open").decrement(1);
        histogram!("agentwire_call_seconds").record(held);
    }
}

#[cfg(not(feature = "metrics"))]
mod facade {
    use super::{Duration, Error, Lost};

    pub(crate) fn opened() {}
    pub(crate) fn failed(_: &Error) {}
    pub(crate) fn closed(_: Option<&Lost>, _: u64) {}
    pub(crate) fn placed(_: Duration) {}
    pub(crate) fn released(_: Duration) {}
}

pub(crate) use facade::{closed, failed, opened, placed, released};

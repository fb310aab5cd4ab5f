//! How a stream or its connection was lost, and what error that is.

use std::fmt;

use crate::Error;
use crate::connect::Code;
use crate::error::{Blame, Kind, NetworkFault};

/// Why a stream or a connection ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostCause {
    /// RST_STREAM with this code: the peer's, or our own stack's when the peer broke the rules of
    /// HTTP/2 on this stream (`local`).
    Reset {
        /// The HTTP/2 error code.
        code: u32,
        /// Whether our side noticed a breach, rather than the peer having sent the reset.
        local: bool,
    },
    /// The peer did nothing with the request: REFUSED_STREAM before any answer, GOAWAY with a last
    /// stream id below ours, or the connection was gone before the request could be written.
    Refused,
    /// The connection ended with an HTTP/2 error: the peer's GOAWAY, or ours when it broke the
    /// rules (`local`).
    GoAway {
        /// The HTTP/2 error code.
        code: u32,
        /// Whether our side ended the connection because of a breach.
        local: bool,
    },
    /// The connection was closed or reset under the stream.
    Cut,
    /// Silence, and then no answer to a PING.
    NoPong,
    /// The peer never sent its SETTINGS.
    NoSettings,
    /// The peer answered in HTTP/1.
    Http1,
    /// The task that drives the connection ended (the client was dropped, the runtime shut down).
    Abandoned,
    /// The request cannot be sent as it is: nothing was written.
    Unsendable,
}

/// The loss of a stream or a connection, with what is known about it.
///
/// `detail` is text of the system or of the peer (GOAWAY debug data): escaped, at most 200 bytes,
/// but not searched for secrets. Whoever knows the secrets cleans it (FAULTS M51, M88).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    cause: LostCause,
    detail: String,
    in_response: bool,
}

/// Bytes of a peer's debug data that are kept.
const DETAIL: usize = 200;

impl Lost {
    pub(super) fn new(cause: LostCause) -> Self {
        Self { cause, detail: String::new(), in_response: false }
    }

    pub(super) fn with_detail(mut self, detail: &str) -> Self {
        for c in detail.chars() {
            let escaped = c.escape_default();
            let plain = c == ' ' || c.is_ascii_graphic();
            let width = if plain { 1 } else { escaped.len() };
            if self.detail.len() + width > DETAIL {
                break;
            }
            if plain {
                self.detail.push(c);
            } else {
                self.detail.extend(escaped);
            }
        }
        self
    }

    /// The same loss as a stream sees it whose response had (or had not) begun.
    pub(super) fn seen_by(mut self, in_response: bool) -> Self {
        self.in_response = in_response;
        self
    }

    /// What happened.
    pub fn cause(&self) -> LostCause {
        self.cause
    }

    /// What the system or the peer said about it; may be empty.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Whether the peer certainly did nothing with the request, so that sending it again is safe
    /// (FAULTS, promises: retry).
    pub fn is_unprocessed(&self) -> bool {
        !self.in_response && self.cause == LostCause::Refused
    }

    /// What h2 says about one stream. `death` is what ended the connection, where known.
    /// `None`: the connection is ending and its reason is still to come.
    pub(super) fn of_stream(error: &h2::Error, death: Option<&Self>) -> Option<Self> {
        let code = error.reason().map(u32::from);
        match code {
            Some(code) if error.is_go_away() && error.is_remote() => {
                let name = reason_name(code).unwrap_or("unknown code");
                let text = format!("GOAWAY {name} {}", debug_text(error));
                Some(Self::new(LostCause::Refused).with_detail(text.trim_end()))
            }
            Some(code) if error.is_go_away() => death.cloned().or_else(|| {
                let cause = LostCause::GoAway { code, local: true };
                Some(Self::new(cause).with_detail(&debug_text(error)))
            }),
            Some(REFUSED_STREAM) if error.is_remote() => Some(Self::new(LostCause::Refused)),
            Some(code) => Some(Self::new(LostCause::Reset { code, local: !error.is_remote() })),
            None => death.cloned(),
        }
    }

    /// What h2 says about the whole connection.
    pub(super) fn of_connection(error: &h2::Error) -> Self {
        match error.reason() {
            Some(code) => {
                let local = !error.is_remote();
                Self::new(LostCause::GoAway { code: code.into(), local })
                    .with_detail(&debug_text(error))
            }
            None => Self::new(LostCause::Cut).with_detail(&error.to_string()),
        }
    }

    fn sentence(&self) -> String {
        let coded = |who: &str, what: &str, code: u32| match reason_name(code) {
            Some(name) => format!("{who} {what} (HTTP/2 {name})"),
            None => format!("{who} {what} (HTTP/2 code {code})"),
        };
        let mut text = match self.cause {
            LostCause::Reset { code, local: false } => coded("the peer", "reset the stream", code),
            LostCause::Reset { code, local: true } => {
                coded("the peer", "broke the rules of HTTP/2 on the stream", code)
            }
            LostCause::Refused if self.in_response => {
                "the peer refused the stream after it had begun to answer".to_owned()
            }
            LostCause::Refused => "the peer did not take up the request".to_owned(),
            LostCause::GoAway { code: 0, local: false } => {
                "the peer closed the connection".to_owned()
            }
            LostCause::GoAway { code, local: false } => {
                coded("the peer", "ended the connection", code)
            }
            LostCause::GoAway { code, local: true } => {
                coded("the peer", "broke the rules of HTTP/2; connection closed", code)
            }
            LostCause::Cut => "the connection was cut".to_owned(),
            LostCause::NoPong => "the connection is dead: no answer to a PING".to_owned(),
            LostCause::NoSettings => {
                "no answer from the peer: waiting for its HTTP/2 SETTINGS".to_owned()
            }
            LostCause::Http1 => "the peer speaks HTTP/1, not HTTP/2".to_owned(),
            LostCause::Abandoned => "the connection was closed on this side".to_owned(),
            LostCause::Unsendable => "the request cannot be sent over HTTP/2".to_owned(),
        };
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

impl std::error::Error for Lost {}

const REFUSED_STREAM: u32 = 7;

impl From<Lost> for Error {
    /// FAULTS M46–M57: the kind names the fault, the Connect code follows the HTTP/2 code.
    fn from(lost: Lost) -> Self {
        let text = lost.sentence();
        match lost.cause {
            LostCause::Reset { code, local } => Self::network(NetworkFault::Reset(code), text)
                .with_code(if local { Code::Internal } else { code_of_reset(code) }),
            LostCause::Refused if lost.in_response => {
                Self::network(NetworkFault::Reset(REFUSED_STREAM), text)
            }
            LostCause::Refused => Self::network(NetworkFault::Refused, text),
            LostCause::GoAway { code: 0, local: false } | LostCause::Cut | LostCause::NoPong => {
                Self::network(NetworkFault::Cut, text)
            }
            LostCause::GoAway { code, .. } => Self::network(NetworkFault::GoAway(code), text),
            LostCause::NoSettings => {
                Self::network(NetworkFault::Stalled, text).with_code(Code::DeadlineExceeded)
            }
            LostCause::Http1 => Self::network(NetworkFault::Alpn, text)
                .with_hint("something on the way does not pass HTTP/2 through"),
            LostCause::Abandoned => Self::network(NetworkFault::Cut, text).with_blame(Blame::Local),
            LostCause::Unsendable => Self::new(Kind::InvalidRequest, text),
        }
    }
}

/// The Connect code of a reset by the peer (FAULTS M46; Connect protocol, HTTP/2 error codes).
fn code_of_reset(code: u32) -> Code {
    match code {
        REFUSED_STREAM => Code::Unavailable,
        8 => Code::Canceled,
        11 => Code::ResourceExhausted,
        12 => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

/// The name of an HTTP/2 error code (RFC 9113, 7).
fn reason_name(code: u32) -> Option<&'static str> {
    Some(match code {
        0 => "NO_ERROR",
        1 => "PROTOCOL_ERROR",
        2 => "INTERNAL_ERROR",
        3 => "FLOW_CONTROL_ERROR",
        4 => "SETTINGS_TIMEOUT",
        5 => "STREAM_CLOSED",
        6 => "FRAME_SIZE_ERROR",
        7 => "REFUSED_STREAM",
        8 => "CANCEL",
        9 => "COMPRESSION_ERROR",
        10 => "CONNECT_ERROR",
        11 => "ENHANCE_YOUR_CALM",
        12 => "INADEQUATE_SECURITY",
        13 => "HTTP_1_1_REQUIRED",
        _ => return None,
    })
}

/// The debug data of a GOAWAY. h2 shows it in `Display` only, as the last thing and escaped:
/// `… (b"too_many_pings")`.
fn debug_text(error: &h2::Error) -> String {
    let text = error.to_string();
    text.split_once(" (b\"")
        .and_then(|(_, rest)| rest.strip_suffix("\")"))
        .map(|debug| format!("\"{debug}\""))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_map_to_the_codes_of_m46() {
        let cases = [
            (0, Code::Internal),
            (1, Code::Internal),
            (2, Code::Internal),
            (3, Code::Internal),
            (5, Code::Internal),
            (7, Code::Unavailable),
            (8, Code::Canceled),
            (11, Code::ResourceExhausted),
            (12, Code::PermissionDenied),
            (13, Code::Internal),
            (99, Code::Internal),
        ];
        for (code, expected) in cases {
            let error = Error::from(Lost::new(LostCause::Reset { code, local: false }));
            assert_eq!(error.code(), expected, "code {code}");
            assert_eq!(*error.kind(), Kind::Network(NetworkFault::Reset(code)));
            let named = reason_name(code).map_or_else(|| code.to_string(), str::to_owned);
            assert!(error.message().contains(&named), "{error}");
        }
    }

    #[test]
    fn refused_is_safe_to_repeat_only_before_the_answer() {
        let refused = Lost::new(LostCause::Refused);
        assert!(refused.is_unprocessed());
        assert_eq!(*Error::from(refused.clone()).kind(), Kind::Network(NetworkFault::Refused));
        let late = refused.seen_by(true);
        assert!(!late.is_unprocessed());
        let error = Error::from(late);
        assert_eq!(*error.kind(), Kind::Network(NetworkFault::Reset(7)));
        assert_eq!(error.code(), Code::Unavailable);
    }

    #[test]
    fn debug_data_is_escaped_and_cut() {
        let lost = Lost::new(LostCause::Cut).with_detail("a\u{1b}[31m\r\nb\u{202e}");
        assert_eq!(lost.detail(), "a\\u{1b}[31m\\r\\nb\\u{202e}");
        let lost = Lost::new(LostCause::Cut).with_detail(&"\u{7}x".repeat(1000));
        assert!(lost.detail().len() <= DETAIL);
        assert!(!lost.to_string().contains('\u{7}'));
    }
}

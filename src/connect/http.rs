//! The error for an HTTP answer that is no answer: a status that is not 200, on a unary call or on
//! a stream (FAULTS M38 to M41).

use std::time::{Duration, SystemTime};

use super::Code;
use super::classify::{self, Circumstances};
use super::stated::Stated;
use crate::error::{Blame, Error, Kind, NetworkFault};
use crate::redact::Redactor;

/// How much of an error body is read by default, in bytes; the rest is dropped and the stream reset
/// (FAULTS, promises). An option of whoever reads: [`run::Options::error_body`], of a call of `rpc`,
/// of a sign-in.
///
/// [`run::Options::error_body`]: crate::run::Options::error_body
pub const MAX_ERROR_BODY: usize = 64 * 1024;

/// The error for an answer with `status`, its headers (names in any case) and the start of its
/// body: all that is given is looked at.
///
/// A JSON error object in the body counts for code, message and details; where it has no code, and
/// for any other body, the status decides. `now` is the wall clock, for a `retry-after` that names
/// a date.
pub fn error_from_http(
    status: u16,
    headers: &[(String, String)],
    body: &[u8],
    redactor: &Redactor,
    now: SystemTime,
) -> Error {
    let text = String::from_utf8_lossy(body);
    let at = Circumstances { run: None, retry_after: retry_after(headers, now) };
    let fallback = Code::from_http_status(status);
    let mut stated = Stated::parse(text.trim(), redactor).unwrap_or_default();
    stated.code.get_or_insert(fallback);
    let said = stated.message.take().filter(|message| !message.is_empty());
    let is_stated = said.is_some();
    stated.message = Some(said.unwrap_or_else(|| describe(status, headers, &text, redactor)));
    let error = classify::stated_error(stated, &at).with_http_status(status);
    let error = if is_stated { error } else { by_status(error, status, &at) };
    let hidden = headers.iter().map(|(name, value)| (name.clone(), redactor.hide(value)));
    error.with_metadata(hidden.collect())
}

/// What a status says beyond its Connect code, where the body stated nothing.
fn by_status(error: Error, status: u16, at: &Circumstances) -> Error {
    let retry_after = at.retry_after;
    match status {
        401 => error.with_kind(Kind::Unauthenticated),
        408 => error.with_kind(Kind::DeadlineExceeded),
        413 => error
            .with_kind(Kind::PayloadTooLarge)
            .with_blame(Blame::Caller)
            .with_hint("shorten the history, the tools or the images"),
        426 => error
            .with_kind(Kind::ClientOutdated)
            .with_blame(Blame::Local)
            .with_hint("set `client_version` to that of a current client"),
        429 => error.with_kind(Kind::RateLimited { retry_after }).with_blame(Blame::Caller),
        // A load balancer's own: it does not take this call over HTTP/1.1 (PROTOCOL 1).
        464 => error
            .with_kind(Kind::Network(NetworkFault::Alpn))
            .with_hint("something on the way does not speak HTTP/2"),
        _ => error,
    }
}

/// The sentence for an answer whose body states no Connect error.
fn describe(status: u16, headers: &[(String, String)], body: &str, redactor: &Redactor) -> String {
    if matches!(status, 300..=399) {
        return format!("the peer answered HTTP {status}, a redirect, which is not followed");
    }
    let content_type = header(headers, "content-type").unwrap_or_default();
    let is_html = content_type.contains("html") || body.trim_start().starts_with('<');
    let body = body.trim();
    match body.is_empty() || is_html {
        false => redactor.clean(&format!("the peer answered HTTP {status}: {body}")),
        true if is_html => format!("the peer answered HTTP {status} with a web page"),
        true => format!("the peer answered HTTP {status}"),
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// How long `retry-after` asks to wait: seconds, or a date in the form that RFC 9110 prefers. A
/// date in the past is no wait; what cannot be read is no wish.
pub fn retry_after(headers: &[(String, String)], now: SystemTime) -> Option<Duration> {
    let value = header(headers, "retry-after")?.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let then = SystemTime::UNIX_EPOCH.checked_add(http_date(value)?)?;
    Some(then.duration_since(now).unwrap_or_default())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as time since 1970.
fn http_date(text: &str) -> Option<Duration> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.split(' ');
    let day: i64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|known| *known == month)? as i64;
    let year: i64 = words.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if words.next()? != "GMT" || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days of a year that starts in March, so that the leap day comes last.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let days = u64::try_from(days - 719_468).ok()?;
    Some(Duration::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Error {
        error_from_http(status, &[], body.as_bytes(), &Redactor::default(), SystemTime::UNIX_EPOCH)
    }

    fn wait(value: &str, now: u64) -> Option<u64> {
        let headers = [("Retry-After".to_owned(), value.to_owned())];
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        retry_after(&headers, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn m38_kind_and_code_by_status() {
        let retry_after = None;
        let cases = [
            (400, Kind::Rejected, Code::Internal),
            (401, Kind::Unauthenticated, Code::Unauthenticated),
            (403, Kind::PermissionDenied, Code::PermissionDenied),
            (404, Kind::Rejected, Code::Unimplemented),
            (413, Kind::PayloadTooLarge, Code::Unknown),
            (426, Kind::ClientOutdated, Code::Unknown),
            (429, Kind::RateLimited { retry_after }, Code::Unavailable),
            (464, Kind::Network(NetworkFault::Alpn), Code::Unknown),
            (500, Kind::Rejected, Code::Unknown),
            (502, Kind::Overloaded { retry_after }, Code::Unavailable),
            (503, Kind::Overloaded { retry_after }, Code::Unavailable),
            (599, Kind::Rejected, Code::Unknown),
        ];
        for (status, kind, code) in cases {
            for body in ["", "<html>no</html>", "null", "[]", "{\"code\":7}", "{}"] {
                let error = answer(status, body);
                assert_eq!((error.kind(), error.code()), (&kind, code), "{status} {body}");
                assert_eq!(error.http_status(), Some(status));
                assert!(error.message().contains(&status.to_string()));
                assert!(!error.message().contains("<html>"));
            }
        }
    }

    #[test]
    fn m38_a_json_error_counts_more_than_the_status() {
        let error = answer(500, r#"{"code":"unauthenticated","message":"who are you"}"#);
        assert_eq!(error.kind(), &Kind::Unauthenticated);
        assert_eq!(error.message(), "who are you");
        let error = answer(429, r#"{"code":"made_up","message":"slow down"}"#);
        assert_eq!((error.code(), error.message()), (Code::Unavailable, "slow down"));
    }

    #[test]
    fn m40_a_redirect_is_named_and_not_repeated() {
        let error = answer(302, "go to http://evil");
        assert_eq!(
            error.message(),
            "the peer answered HTTP 302, a redirect, which is not followed"
        );
    }

    #[test]
    fn h39_the_hint_survives_a_long_body() {
        let error = answer(403, &"x".repeat(100_000));
        assert!(error.message().len() < 1300);
        assert!(error.hint().is_some_and(|hint| hint.contains("client_version")));
    }

    #[test]
    fn retry_after_in_seconds_and_as_a_date() {
        assert_eq!(wait("120", 0), Some(120));
        assert_eq!(wait(" 0 ", 0), Some(0));
        assert_eq!(wait("Thu, 01 Jan 1970 00:01:40 GMT", 40), Some(60));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777 - 5), Some(5));
        assert_eq!(wait("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199), Some(0));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", 999_999_999), Some(0));
        for bad in ["", "soon", "-1", "1e3", "Sun, 06 Nov 1994", "x, 99 Nov 1994 0:0:0 GMT"] {
            assert_eq!(wait(bad, 0), None, "{bad}");
        }
    }
}

//! [`Endpoint`]: where the service is, checked before any I/O (FAULTS M87, M90).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

use crate::error::{Error, Result};

/// Longest base URL that is looked at, in bytes: a DNS name has at most 253. No option: the
/// caller gives it.
const MAX_URL: usize = 1_024;

/// The base URL of a service: scheme, host and port, nothing else.
///
/// `https://` speaks HTTP/2 over TLS; `http://` speaks it in clear text with prior knowledge, and
/// only to this machine unless the client was told otherwise
/// ([`ClientBuilder::allow_cleartext`](super::ClientBuilder::allow_cleartext)).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    tls: bool,
    host: Host,
    port: u16,
}

/// A host as the URL names it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Name(String),
    Ip(IpAddr),
}

impl Endpoint {
    /// The service's own base URL (PROTOCOL 1).
    pub const DEFAULT_URL: &'static str = "https://api2.cursor.sh";

    /// Parses `https://host[:port]` or `http://host[:port]`; one `/` may follow.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`](crate::error::Kind::InvalidRequest) for anything else: another
    /// scheme, user information, a path, a query, a fragment, control or non-ASCII characters. The
    /// URL itself is never part of the error, it may hold a password.
    pub fn parse(url: &str) -> Result<Self> {
        if url.len() > MAX_URL {
            return Err(refuse("is longer than 1,024 bytes"));
        }
        if let Some(bad) = url.chars().find(|c| !c.is_ascii_graphic()) {
            let what = if bad.is_ascii() {
                "a blank or a control character"
            } else {
                "a character that is not ASCII (use the punycode form of the name)"
            };
            return Err(refuse(format!("contains {what}")));
        }
        if url.contains(['#', '?', '\\']) {
            return Err(refuse(
                "has a query, a fragment or a backslash; only scheme, host and port count",
            ));
        }
        let uri =
            Uri::from_str(url).map_err(|_| refuse("is not of the form https://host[:port]"))?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(refuse("does not begin with https:// or http://")),
        };
        if !matches!(uri.path(), "" | "/") {
            return Err(refuse("has a path; only scheme, host and port count"));
        }
        let authority = uri.authority().ok_or_else(|| refuse("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("has a user name or a password in it"));
        }
        let port = port_of(authority, tls)?;
        Ok(Self { tls, host: Host::parse(authority.host())?, port })
    }

    /// Whether the endpoint is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Host name or address, without brackets.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::Ip(ip) => ip.to_string(),
        }
    }

    /// TCP port: the one of the URL, or 443 and 80.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the host can only be this machine. `localhost` counts (RFC 6761 section 6.3); where
    /// it resolves to something else, dialling in clear text refuses.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
        }
    }

    pub(crate) fn host_ref(&self) -> &Host {
        &self.host
    }

    /// Refuses clear text to another machine unless it was asked for by name.
    pub(crate) fn check_cleartext(&self, allowed: bool) -> Result<()> {
        if self.tls || allowed || self.is_loopback() {
            return Ok(());
        }
        Err(Error::invalid(
            "an http:// base URL outside this machine sends the token in clear text",
        )
        .with_hint("use https://, or allow clear text explicitly"))
    }

    /// The URI of a request: `path` begins with a slash and is one of ours. Parses the authority, so
    /// what is asked for again and again is kept.
    pub(crate) fn uri(&self, path: &'static str) -> Result<Uri> {
        let scheme = if self.tls { Scheme::HTTPS } else { Scheme::HTTP };
        let bad = |_| refuse("cannot be put into a request");
        Uri::builder()
            .scheme(scheme)
            .authority(Authority::from_str(&self.authority()).map_err(|_| refuse("has no host"))?)
            .path_and_query(PathAndQuery::from_static(path))
            .build()
            .map_err(bad)
    }

    /// `host[:port]` as in `:authority`: the port only where it is not the scheme's own.
    pub(crate) fn authority(&self) -> String {
        if self.port == default_port(self.tls) {
            self.bracketed_host()
        } else {
            self.host_and_port()
        }
    }

    /// `host:port`, as a proxy is told.
    pub(crate) fn host_and_port(&self) -> String {
        format!("{}:{}", self.bracketed_host(), self.port)
    }

    fn bracketed_host(&self) -> String {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.clone(),
        }
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        let host = Self::DEFAULT_URL.trim_start_matches("https://");
        Self { tls: true, host: Host::Name(host.to_owned()), port: 443 }
    }
}

impl Host {
    fn parse(host: &str) -> Result<Self> {
        if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let ip = Ipv6Addr::from_str(inner).map_err(|_| refuse("has a broken IPv6 address"))?;
            return Ok(Self::Ip(ip.into()));
        }
        if let Ok(ip) = IpAddr::from_str(host) {
            return Ok(Self::Ip(ip));
        }
        let name = host.to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let dotted = name.strip_suffix('.').unwrap_or(&name);
        if name.len() > 253 || !dotted.split('.').all(label) {
            return Err(refuse("has no valid host name"));
        }
        Ok(Self::Name(name))
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::parse(url)
    }
}

impl fmt::Display for Endpoint {
    /// The URL in its shortest form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

fn port_of(authority: &Authority, tls: bool) -> Result<u16> {
    let text = authority.as_str();
    let after_host = text.get(authority.host().len()..).unwrap_or_default();
    match after_host.strip_prefix(':') {
        None => Ok(default_port(tls)),
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => Err(refuse("has no valid port")),
            Ok(port) => Ok(port),
        },
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

fn refuse(why: impl fmt::Display) -> Error {
    Error::invalid(format!("the base URL {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_parsed() {
        let cases = [
            ("https://api2.cursor.sh", "https://api2.cursor.sh", 443, false),
            ("HTTPS://API2.cursor.sh:443/", "https://api2.cursor.sh", 443, false),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", 8080, true),
            ("http://[::1]:81/", "http://[::1]:81", 81, true),
            ("https://[2001:db8::2]", "https://[2001:db8::2]", 443, false),
            ("http://localhost", "http://localhost", 80, true),
            ("http://[::ffff:127.0.0.1]", "http://[::ffff:127.0.0.1]", 80, true),
            ("https://agent.localhost:1", "https://agent.localhost:1", 1, true),
        ];
        for (url, shown, port, loopback) in cases {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!((endpoint.to_string().as_str(), endpoint.port()), (shown, port), "{url}");
            assert_eq!(endpoint.is_loopback(), loopback, "{url}");
        }
        assert_eq!(Endpoint::default(), Endpoint::parse(Endpoint::DEFAULT_URL).unwrap());
    }

    #[test]
    fn anything_else_is_refused_and_never_shown() {
        let long = format!("https://{}", "zz9.".repeat(300));
        let cases = [
            "",
            "zz9",
            "zz9.example",
            "ftp://zz9",
            "//zz9",
            "https://",
            "https://:443",
            "https://zz9:secret@host",
            "https://zz9@host",
            "https://zz9/path",
            "https://host/../zz9",
            "https://host//zz9",
            "https://host?zz9",
            "https://host#zz9",
            "https://zz9:0",
            "https://zz9:65536",
            "https://zz9:",
            "https://zz9:8o",
            "https://zz9\r\nx: y",
            "https://zz9\0",
            "https://zz9 b",
            "https://zz9\u{fc}",
            "https://[::zz9]",
            "https://[::1",
            "https://zz9..b",
            "https://zz9\\b",
            "https://zz9%41",
            "https://-zz9,b",
            long.as_str(),
        ];
        for url in cases {
            let error = Endpoint::parse(url).expect_err(url);
            assert_eq!(error.kind(), &crate::error::Kind::InvalidRequest);
            assert!(!format!("{error} {error:?}").contains("zz9"), "{url}: {error}");
        }
    }

    #[test]
    fn clear_text_stays_on_this_machine_unless_asked_by_name() {
        let check = |url: &str, allowed| Endpoint::parse(url).unwrap().check_cleartext(allowed);
        assert!(check("http://10.0.0.1", false).is_err());
        assert!(check("http://localhost.example", false).is_err());
        assert!(check("http://10.0.0.1", true).is_ok());
        assert!(check("http://localhost", false).is_ok());
        assert!(check("https://10.0.0.1", false).is_ok());
    }

    #[test]
    fn the_uri_of_a_request_names_scheme_and_authority() {
        let uri = Endpoint::parse("http://[::1]:81").unwrap().uri("/a.B/C").unwrap();
        assert_eq!(uri.to_string(), "http://[::1]:81/a.B/C");
    }
}

//! [`ProxyUrl`]: where a proxy is, and who asks it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroize as _;

use crate::error::Result;
use crate::secret::Secret;
use crate::transport::endpoint::Endpoint;

use super::refuse;

/// A proxy: an endpoint, and perhaps the credentials for it. Prints without them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ProxyUrl {
    endpoint: Endpoint,
    /// The value of `proxy-authorization`.
    authorization: Option<Secret>,
}

impl ProxyUrl {
    /// Parses `[http[s]://][user[:password]@]host[:port]`. The parts of the user information may be
    /// percent-encoded.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            let scheme = crate::transport::shown(scheme);
            return Err(refuse(format!("has the scheme {scheme}; only HTTP proxies can be used")));
        }
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        // The endpoint's own message would speak of the base URL.
        let endpoint = Endpoint::parse(&format!("{scheme}://{place}"))
            .map_err(|_| refuse("is not of the form http://[user:password@]host:port"))?;
        let authorization = user.map(authorization).transpose()?;
        Ok(Self { endpoint, authorization })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn authorization(&self) -> Option<&Secret> {
        self.authorization.as_ref()
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

/// `Basic …` (RFC 7617).
fn authorization(user: &str) -> Result<Secret> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let (Some(mut pair), Some(mut password)) = (unescape(name), unescape(password)) else {
        return Err(refuse("has a broken percent sign in its user or password"));
    };
    // A colon in the name would end it; control characters end more than that.
    let broken = pair.contains(&b':') || pair.iter().chain(&password).any(u8::is_ascii_control);
    pair.push(b':');
    pair.append(&mut password);
    let value = Secret::new(format!("Basic {}", STANDARD.encode(&pair)));
    pair.zeroize();
    if broken {
        return Err(refuse("has a user or password that cannot be sent"));
    }
    Ok(value)
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push(match byte {
            b'%' => u8::try_from(digit()? * 16 + digit()?).ok()?,
            plain => plain,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed() {
        let cases = [
            ("http://proxy:3128", "http://proxy:3128", None),
            ("proxy:3128", "http://proxy:3128", None),
            ("proxy", "http://proxy", None),
            ("HTTPS://proxy/", "https://proxy", None),
            ("http://[fd00::1]:8", "http://[fd00::1]:8", None),
            ("http://me:pass@proxy:1", "http://proxy:1", Some("me:pass")),
            ("me@proxy:1", "http://proxy:1", Some("me:")),
            ("http://me:a%40b%3a%2Fc:d@proxy:1", "http://proxy:1", Some("me:a@b:/c:d")),
            ("http://me:p@ss@proxy:1", "http://proxy:1", Some("me:p@ss")),
            ("http://@proxy:1", "http://proxy:1", Some(":")),
        ];
        for (url, shown, user) in cases {
            let proxy = ProxyUrl::parse(url).unwrap();
            assert_eq!(proxy.to_string(), shown, "{url}");
            let expected = user.map(|user| format!("Basic {}", STANDARD.encode(user)));
            let given = proxy.authorization().map(|secret| secret.expose().clone());
            assert_eq!(given, expected, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_not_shown() {
        let cases = [
            "",
            "http://",
            "socks5://zz9:zz9@proxy:1",
            "ftp://zz9",
            "http://zz9:zz9@",
            "http://me:zz9@proxy:port",
            "http://me:zz9@proxy:1/path",
            "http://me:zz9%4@proxy:1",
            "http://me:zz9%0d%0ax@proxy:1",
            "http://a%3azz9:b@proxy:1",
            "http://zz9 b:1",
        ];
        for url in cases {
            let error = ProxyUrl::parse(url).expect_err(url);
            assert_eq!(error.kind(), &crate::error::Kind::InvalidRequest);
            assert!(!format!("{error} {error:?}").contains("zz9"), "{url}: {error}");
        }
        let proxy = ProxyUrl::parse("http://me:zz9@proxy:1").unwrap();
        assert!(!format!("{proxy} {proxy:?}").contains("me"));
    }
}

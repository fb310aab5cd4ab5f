//! Which proxy, if any, stands before the service: rules over texts, no environment, no I/O.
//! [`tunnel`] speaks to it.

mod no_proxy;
pub(crate) mod tunnel;
mod url;

use std::fmt;

use crate::error::{Error, Result};

use super::endpoint::Endpoint;
use no_proxy::is_exempt;
pub(crate) use url::ProxyUrl;

/// Which HTTP proxy the connections of a client go through (`CONNECT`).
///
/// By default the environment says: `https_proxy` (for an `http://` endpoint `http_proxy`), else
/// `all_proxy`, except for the hosts in `no_proxy`. The lower-case name of a variable wins over the
/// upper-case one, and `HTTP_PROXY` is not read, as curl has it: a CGI request can set that one.
/// Hosts of this machine are then always reached directly.
///
/// A proxy URL is `http://[user[:password]@]host[:port]`, or `https://` for one that is itself
/// spoken to over TLS; without a scheme it is `http://`. The host of the service is resolved by the
/// proxy. User and password are never shown.
#[derive(Clone, Default)]
pub struct Proxy(Choice);

#[derive(Clone, Default)]
enum Choice {
    #[default]
    Environment,
    Off,
    Url {
        url: String,
        exempt: String,
    },
}

impl Proxy {
    /// As the environment says at the time of [`ClientBuilder::build`](super::ClientBuilder::build).
    pub fn environment() -> Self {
        Self(Choice::Environment)
    }

    /// None, whatever the environment says.
    pub fn off() -> Self {
        Self(Choice::Off)
    }

    /// This one for every host, whatever the environment says.
    pub fn url(url: impl Into<String>) -> Self {
        Self(Choice::Url { url: url.into(), exempt: String::new() })
    }

    /// Reaches these hosts directly, beside a [`Proxy::url`]: a list as in `NO_PROXY`. Entries are
    /// separated by commas or blanks: `*` for all, a name for itself and everything below it, an
    /// address, or a range as `10.0.0.0/8`; each with a port for that port only.
    #[must_use]
    pub fn except(mut self, hosts: impl Into<String>) -> Self {
        if let Choice::Url { exempt, .. } = &mut self.0 {
            *exempt = hosts.into();
        }
        self
    }

    /// The rules that come of it; `variable` reads the environment.
    pub(crate) fn rules(&self, variable: impl Fn(&str) -> Option<String>) -> ProxyRules {
        match &self.0 {
            Choice::Off => ProxyRules::default(),
            Choice::Url { url, exempt } => ProxyRules {
                tls: Some(url.clone()),
                cleartext: Some(url.clone()),
                exempt: exempt.clone(),
                local: true,
            },
            Choice::Environment => ProxyRules::of_environment(&variable),
        }
    }
}

impl fmt::Debug for Proxy {
    /// Not the URL: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Choice::Environment => "Proxy(environment)",
            Choice::Off => "Proxy(off)",
            Choice::Url { .. } => "Proxy(url)",
        })
    }
}

/// Proxies by scheme of the endpoint, and who goes without.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct ProxyRules {
    tls: Option<String>,
    cleartext: Option<String>,
    exempt: String,
    /// Whether hosts of this machine go through it as well.
    local: bool,
}

impl ProxyRules {
    fn of_environment(variable: &impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&str]| {
            names.iter().filter_map(|name| variable(name)).find(|value| !value.trim().is_empty())
        };
        let all = || first(&["all_proxy", "ALL_PROXY"]);
        Self {
            tls: first(&["https_proxy", "HTTPS_PROXY"]).or_else(all),
            cleartext: first(&["http_proxy"]).or_else(all),
            exempt: first(&["no_proxy", "NO_PROXY"]).unwrap_or_default(),
            local: false,
        }
    }

    /// The proxy on the way to `endpoint`; `None` is the direct way.
    ///
    /// # Errors
    /// The proxy URL that counts here cannot be used; it is not in the error.
    pub(crate) fn of(&self, endpoint: &Endpoint) -> Result<Option<ProxyUrl>> {
        let url = if endpoint.is_tls() { &self.tls } else { &self.cleartext };
        let Some(url) = url else { return Ok(None) };
        let local = endpoint.is_loopback() && !self.local;
        if local || is_exempt(&self.exempt, endpoint.host_ref(), endpoint.port()) {
            return Ok(None);
        }
        ProxyUrl::parse(url.trim()).map(Some)
    }
}

pub(super) fn refuse(why: impl fmt::Display) -> Error {
    Error::invalid(format!("the proxy URL {why}")).with_hint(
        "it is http://[user:password@]host:port, from https_proxy or all_proxy; \
         no_proxy names hosts that are reached without it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables = &'static [(&'static str, &'static str)];

    fn proxy_of(proxy: &Proxy, variables: Variables, url: &str) -> Option<String> {
        let read = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let rules = proxy.rules(read);
        let endpoint = Endpoint::parse(url).unwrap();
        rules.of(&endpoint).unwrap().map(|proxy| proxy.to_string())
    }

    #[test]
    fn the_environment_names_the_proxy() {
        const SERVICE: &str = "https://api2.cursor.sh";
        let cases: [(Variables, &str, Option<&str>); 11] = [
            (&[], SERVICE, None),
            (&[("HTTPS_PROXY", "http://a:1")], SERVICE, Some("http://a:1")),
            (&[("HTTPS_PROXY", "http://a:1"), ("https_proxy", "b:2")], SERVICE, Some("http://b:2")),
            (&[("https_proxy", " "), ("HTTPS_PROXY", "http://a:1")], SERVICE, Some("http://a:1")),
            (&[("ALL_PROXY", "http://c:3")], SERVICE, Some("http://c:3")),
            (&[("all_proxy", "http://c:3"), ("HTTPS_PROXY", "a:1")], SERVICE, Some("http://a:1")),
            (&[("http_proxy", "http://a:1")], SERVICE, None),
            (&[("HTTP_PROXY", "http://a:1")], "http://10.0.0.1", None),
            (&[("http_proxy", "http://a:1")], "http://10.0.0.1", Some("http://a:1")),
            (&[("https_proxy", "a:1"), ("NO_PROXY", "x, .cursor.sh")], SERVICE, None),
            (&[("https_proxy", "a:1")], "https://localhost:8443", None),
        ];
        for (variables, url, expected) in cases {
            let found = proxy_of(&Proxy::environment(), variables, url);
            assert_eq!(found.as_deref(), expected, "{variables:?} {url}");
        }
    }

    #[test]
    fn a_builders_choice_wins_over_the_environment() {
        const SET: Variables = &[("https_proxy", "http://a:1"), ("no_proxy", "*")];
        let service = "https://api2.cursor.sh";
        assert_eq!(proxy_of(&Proxy::off(), SET, service), None);
        let mine = Proxy::url("http://mine:9").except("internal");
        assert_eq!(proxy_of(&mine, SET, service).as_deref(), Some("http://mine:9"));
        assert_eq!(proxy_of(&mine, SET, "https://127.0.0.1").as_deref(), Some("http://mine:9"));
        assert_eq!(proxy_of(&mine, SET, "https://a.internal"), None);
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_where_it_counts() {
        let rules = Proxy::url("socks5://me:zz9@a:1").except("direct").rules(|_| None);
        assert!(rules.of(&Endpoint::parse("https://direct").unwrap()).unwrap().is_none());
        let error = rules.of(&Endpoint::default()).unwrap_err();
        assert!(error.message().contains("socks5"), "{error}");
        assert!(!format!("{error} {error:?}").contains("zz9"), "{error:?}");
        assert!(!format!("{:?}", Proxy::url("http://me:zz9@a")).contains("zz9"));
    }
}

//! Whom to trust, and the TLS configuration made of it, once.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use tokio::sync::OnceCell;
use tokio_rustls::rustls;

use crate::error::{Error, NetworkFault, Result};

use super::endpoint::{Endpoint, Host};

/// Which certificate authorities are trusted, apart from those a caller adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Roots {
    /// Those of the operating system, company ones included; the bundled set where the system has
    /// none (an empty container, for instance).
    #[default]
    Platform,
    /// The set of Mozilla that is compiled in.
    Bundled,
    /// None but those a caller adds.
    OnlyAdded,
}

/// Largest PEM file of extra authorities, in bytes: 4 MiB, several times a full system bundle. No
/// option: it is this side's own file, and the limit only tells one that was named by mistake.
pub(crate) const MAX_PEM: usize = 4 << 20;

/// What is spoken on a connection, and offered in ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http2,
    /// For the JSON calls of sign-in. A peer that knows no ALPN speaks this, too.
    #[cfg(feature = "auth")]
    Http1,
}

impl Speaks {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            #[cfg(feature = "auth")]
            Self::Http1 => b"http/1.1",
        }
    }

    /// Whether what the peer chose is what will be spoken.
    pub(crate) fn accepts(self, chosen: Option<&[u8]>) -> bool {
        match chosen {
            Some(name) => name == self.alpn(),
            None => self != Self::Http2,
        }
    }
}

/// Trust, and the configuration that is made of it at the first connection.
#[derive(Debug)]
pub(crate) struct Tls {
    speaks: Speaks,
    roots: Roots,
    added: Vec<CertificateDer<'static>>,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Tls {
    pub(crate) fn new(speaks: Speaks, roots: Roots, added: Vec<CertificateDer<'static>>) -> Self {
        Self { speaks, roots, added, config: OnceCell::new() }
    }

    pub(crate) fn speaks(&self) -> Speaks {
        self.speaks
    }

    /// The configuration, made by the first caller away from the runtime's threads: reading the
    /// system's certificates takes milliseconds.
    pub(crate) async fn config(&self) -> Result<Arc<ClientConfig>> {
        self.config
            .get_or_try_init(async || {
                let (speaks, roots, added) = (self.speaks, self.roots, self.added.clone());
                tokio::task::spawn_blocking(move || build(speaks, roots, &added))
                    .await
                    .unwrap_or_else(|_| Err(fault("the TLS configuration could not be made")))
            })
            .await
            .cloned()
    }

    /// The same trust for a proxy, which speaks HTTP/1.1.
    pub(crate) async fn proxy_config(&self) -> Result<Arc<ClientConfig>> {
        let mut config = ClientConfig::clone(self.config().await?.as_ref());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn build(
    speaks: Speaks,
    roots: Roots,
    added: &[CertificateDer<'static>],
) -> Result<Arc<ClientConfig>> {
    // Named, never the process default: that one panics when two providers are linked.
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(format!("TLS cannot be set up: {error}")))?;
    let mut config = match platform_verifier(roots, added, &provider)? {
        Some(verifier) => {
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        None => builder.with_root_certificates(store(roots, added)?).with_no_client_auth(),
    };
    // Sessions are resumed as rustls does by default: from memory, 256 servers, for the life of this
    // configuration, which all connections of a client share.
    config.alpn_protocols = vec![speaks.alpn().to_vec()];
    Ok(Arc::new(config))
}

/// The operating system's verifier; `None` when it is not wanted or the system knows no authority.
fn platform_verifier(
    roots: Roots,
    added: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ServerCertVerifier>>> {
    if roots != Roots::Platform {
        return Ok(None);
    }
    // Asked without the added ones first: with them it no longer says that the system has none.
    match Verifier::new(Arc::clone(provider)) {
        Ok(verifier) if added.is_empty() => Ok(Some(Arc::new(verifier))),
        Ok(_) => Verifier::new_with_extra_roots(added.iter().cloned(), Arc::clone(provider))
            .map(|verifier| Some(Arc::new(verifier) as Arc<dyn ServerCertVerifier>))
            .map_err(|error| unusable_ca(&error)),
        Err(error) => {
            tracing::debug!(%error, "no system roots; the bundled ones are used");
            Ok(None)
        }
    }
}

fn store(roots: Roots, added: &[CertificateDer<'static>]) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    if roots != Roots::OnlyAdded {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for certificate in added {
        store.add(certificate.clone()).map_err(|error| unusable_ca(&error))?;
    }
    Ok(store)
}

fn unusable_ca(error: &rustls::Error) -> Error {
    Error::invalid(format!("an added certificate authority cannot be used: {error}"))
}

/// The certificates of a PEM text; other sections are passed over.
pub(crate) fn parse_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    if pem.len() > MAX_PEM {
        return Err(Error::invalid("the certificate file is larger than 4 MiB"));
    }
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| Error::invalid("the certificate file is not valid PEM"))?;
    if certificates.is_empty() {
        return Err(Error::invalid("the certificate file holds no certificate")
            .with_hint("it needs PEM sections that begin with -----BEGIN CERTIFICATE-----"));
    }
    // Checked now, so that a broken file is the caller's error and not a failed connection later.
    store(Roots::OnlyAdded, &certificates)?;
    Ok(certificates)
}

/// The name that the certificate must be for.
pub(crate) fn server_name(endpoint: &Endpoint) -> Result<ServerName<'static>> {
    match endpoint.host_ref() {
        Host::Ip(ip) => Ok(ServerName::IpAddress((*ip).into())),
        Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(|_| Error::invalid("the base URL's host cannot be the name of a certificate")),
    }
}

/// What went wrong in a handshake, in words (FAULTS M58, M59).
pub(crate) fn handshake_error(error: &std::io::Error, endpoint: &Endpoint) -> Error {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => certificate_error(why, endpoint),
        Some(rustls::Error::NoApplicationProtocol) => alpn_error(endpoint, None),
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => {
            alpn_error(endpoint, None)
        }
        Some(rustls::Error::InvalidMessage(_)) => fault(format!("{endpoint} does not speak TLS"))
            .with_hint("is this the right port, or a proxy that answers in clear text?"),
        Some(other) => fault(format!("the TLS handshake with {endpoint} failed: {other}")),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            fault(format!("{endpoint} closed the connection during the TLS handshake"))
        }
        None => fault(format!("the TLS handshake with {endpoint} failed: {}", error.kind())),
    }
}

fn certificate_error(why: &CertificateError, endpoint: &Endpoint) -> Error {
    use CertificateError as C;
    let (text, hint) = match why {
        C::Expired | C::ExpiredContext { .. } => {
            ("has expired", Some("if it should be valid, check this machine's clock"))
        }
        C::NotValidYet | C::NotValidYetContext { .. } => {
            ("is not valid yet", Some("check this machine's clock"))
        }
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            ("is for another name", Some("check the host in the base URL"))
        }
        C::UnknownIssuer => (
            "comes from an authority that is not trusted here",
            Some("if a proxy inspects TLS, add its authority (--tls-ca FILE)"),
        ),
        C::Revoked => ("was revoked", None),
        C::BadSignature => ("is not signed by its issuer", None),
        _ => ("cannot be accepted", None),
    };
    // rustls words the details (dates, names): they are the peer's text, shown in one escaped line.
    let details = crate::transport::shown(&why.to_string());
    let error = fault(format!("the certificate of {endpoint} {text} ({details})"));
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// The peer did not agree to HTTP/2: nothing has been sent yet.
pub(crate) fn alpn_error(endpoint: &Endpoint, chosen: Option<&[u8]>) -> Error {
    let chosen = match chosen {
        Some(name) => format!("chose \"{}\"", name.escape_ascii()),
        None => "chose nothing".to_owned(),
    };
    Error::network(
        NetworkFault::Alpn,
        format!("{endpoint} was offered HTTP/2 (ALPN h2) and {chosen}; nothing was sent"),
    )
    .with_hint("something on the way (a proxy or a virus scanner) may only speak HTTP/1.1")
}

fn fault(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::network(NetworkFault::Tls, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_the_callers_error() {
        for pem in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let error = parse_pem(pem.as_bytes()).expect_err(pem);
            assert_eq!(error.kind(), &crate::error::Kind::InvalidRequest, "{error}");
        }
        assert!(parse_pem(&vec![b'\n'; MAX_PEM + 1]).is_err());
    }

    #[test]
    fn every_choice_of_roots_makes_a_configuration_that_offers_h2() {
        for roots in [Roots::Platform, Roots::Bundled, Roots::OnlyAdded] {
            let config = build(Speaks::Http2, roots, &[]).unwrap();
            assert_eq!(config.alpn_protocols, [b"h2".to_vec()]);
        }
    }
}

//! Certificates: one made at start, or given files.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{Error, Result};

/// The largest certificate or key file, in bytes. No option: it is this side's own file, and the limit
/// only tells one that was named by mistake.
const MAX_FILE: u64 = 1 << 20;

/// How a server encrypts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// With a certificate made at start, for `localhost`, 127.0.0.1 and ::1. It is signed by a
    /// root that is made with it, and whose key is forgotten.
    #[default]
    SelfSigned,
    /// With these PEM files.
    Files {
        /// The certificate, then those between it and the root.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// Not at all.
    Off,
}

/// What TLS needs.
pub(super) struct Identity {
    pub(super) acceptor: TlsAcceptor,
    pub(super) certificate_pem: Option<String>,
}

impl Tls {
    /// Makes or reads the certificate; `None` without encryption.
    pub(super) fn identity(&self) -> Result<Option<Identity>> {
        let (chain, key, pem) = match self {
            Self::Off => return Ok(None),
            Self::SelfSigned => made()
                .map_err(|error| Error::invalid(format!("cannot make a certificate: {error}")))?,
            Self::Files { certificate, key } => read(certificate, key)?,
        };
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config
            .map_err(|error| Error::invalid(format!("cannot use the certificate: {error}")))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(Identity {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificate_pem: Some(pem),
        }))
    }
}

type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, String);

/// A root, and a certificate for this machine signed by it.
fn made() -> std::result::Result<Chain, rcgen::Error> {
    let mut root = CertificateParams::new(Vec::new())?;
    root.distinguished_name.push(DnType::CommonName, "agentwire local root");
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;

    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, "agentwire local server");
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
    let key = KeyPair::generate()?;
    let leaf = leaf.signed_by(&key, &root)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok((vec![leaf.der().clone()], key, root.pem()))
}

fn read(certificate: &PathBuf, key: &PathBuf) -> Result<Chain> {
    let pem = read_file(certificate)?;
    let wrong = |path: &PathBuf, what: &str| Error::invalid(format!("{}: {what}", path.display()));
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|_| wrong(certificate, "not PEM"))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "holds no certificate"));
    }
    let secret = zeroize::Zeroizing::new(read_file(key)?);
    let key = PrivateKeyDer::from_pem_slice(secret.as_bytes())
        .map_err(|_| wrong(key, "holds no private key in PEM"))?;
    Ok((chain, key, pem))
}

/// Reads a small text file.
fn read_file(path: &PathBuf) -> Result<String> {
    let cannot =
        |error: &std::io::Error| Error::invalid(format!("cannot read {}: {error}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| cannot(&error))?.len();
    if length > MAX_FILE {
        return Err(Error::invalid(format!("{}: larger than {MAX_FILE} bytes", path.display())));
    }
    std::fs::read_to_string(path).map_err(|error| cannot(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_certificates_work_and_files_are_read() {
        let identity = Tls::SelfSigned.identity().unwrap().unwrap();
        let pem = identity.certificate_pem.unwrap();
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(Tls::Off.identity().unwrap().is_none());

        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&certificate, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        let files = |certificate: &PathBuf, key: &PathBuf| {
            Tls::Files { certificate: certificate.clone(), key: key.clone() }.identity()
        };
        assert!(files(&certificate, &key).is_ok());
        for (certificate, key, part) in [
            (&folder.path().join("none"), &key, "cannot read"),
            (&key, &key, "holds no certificate"),
            (&certificate, &certificate, "holds no private key"),
        ] {
            let error = files(certificate, key).err().unwrap();
            assert!(error.message().contains(part), "{error}");
        }
    }
}

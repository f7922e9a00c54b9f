//! Whom a connection trusts, and how it shows who it is.

use std::path::{Path, PathBuf};

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use crate::EgressError;

/// Certificates for a server of one's own, beside those of the machine.
#[derive(Debug, Default)]
pub struct Certificates {
    extra_roots: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// Where they are read from. All files are PEM.
#[derive(Clone, Debug, Default)]
pub struct CertificateFiles {
    /// Certificate authorities that are trusted beside the machine's own.
    pub ca: Option<PathBuf>,
    /// The client's certificate, then its chain.
    pub client: Option<PathBuf>,
    /// The client's private key, if it is not in the file of its certificate.
    pub client_key: Option<PathBuf>,
}

impl CertificateFiles {
    /// Whether no file is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ca.is_none() && self.client.is_none() && self.client_key.is_none()
    }
}

/// Why a file of certificates cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CertificateError {
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{}: there is no {what} in it; a PEM file is needed", path.display())]
    Nothing { path: PathBuf, what: &'static str },
    #[error("a client key is named, but no client certificate")]
    KeyAlone,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read or holds no certificate or key.
    pub fn read(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let extra_roots = files.ca.as_deref().map(certificates).transpose()?.unwrap_or_default();
        let client = match (&files.client, &files.client_key) {
            (None, None) => None,
            (None, Some(_)) => return Err(CertificateError::KeyAlone),
            (Some(chain), key) => Some((certificates(chain)?, private_key(key.as_deref().unwrap_or(chain))?)),
        };
        Ok(Self { extra_roots, client })
    }

    /// The machine's authorities and these.
    pub(crate) fn roots(&self) -> Result<RootCertStore, EgressError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        for certificate in &self.extra_roots {
            roots.add(certificate.clone()).map_err(|e| EgressError::Tls(e.to_string()))?;
        }
        if roots.is_empty() {
            let reason =
                found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
            return Err(EgressError::Tls(reason));
        }
        Ok(roots)
    }

    /// Adds the client's certificate, if there is one.
    pub(crate) fn authenticate(
        &self,
        tls: ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Result<ClientConfig, EgressError> {
        match &self.client {
            None => Ok(tls.with_no_client_auth()),
            Some((chain, key)) => tls
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(|e| EgressError::Tls(e.to_string())),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found = CertificateDer::pem_file_iter(path).map_err(|e| unusable(path, "certificate", &e))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|e| unusable(path, "certificate", &e))?;
    if found.is_empty() {
        return Err(CertificateError::Nothing { path: path.to_owned(), what: "certificate" });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| unusable(path, "private key", &e))
}

fn unusable(path: &Path, what: &'static str, error: &pem::Error) -> CertificateError {
    let path = path.to_owned();
    match error {
        pem::Error::NoItemsFound => CertificateError::Nothing { path, what },
        pem::Error::Io(error) => CertificateError::File { path, reason: error.to_string() },
        other => CertificateError::File { path, reason: other.to_string() },
    }
}

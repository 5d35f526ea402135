//! Certificates and keys in PEM files, and the mistakes in them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::model::is_open_to_all;

/// The largest file, in bytes: a bundle of all public authorities has less.
const MAX_BYTES: u64 = 1024 * 1024;

/// How long before its end a certificate is warned of.
const WARNED_BEFORE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The files of a listener's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The section of the configuration, for errors: `tls` or `tls.api`.
    pub section: &'static str,
    /// The certificate, and behind it the authorities between it and a root that clients know.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The authorities of which every client must show a certificate; `None` asks for none.
    pub client_ca: Option<PathBuf>,
}

/// A mistake in one of the files.
#[derive(Debug, thiserror::Error)]
#[error("{section}.{key}: {path} {problem}")]
pub struct FileError {
    section: &'static str,
    key: &'static str,
    path: String,
    problem: String,
}

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    /// The certificate's end, in seconds since 1970.
    pub(super) expires: u64,
}

impl TlsFiles {
    /// All files that are in use.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).map(PathBuf::as_path)
    }

    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// With the file and its mistake.
    pub(super) fn identity(&self) -> Result<Identity, FileError> {
        let chain = self.certificates("certificate_file", &self.certificate)?;
        let wrong_key = |problem: String| self.wrong("key_file", &self.key, problem);
        let pem = read(&self.key).map_err(wrong_key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| wrong_key(key_problem(&error, &pem)))?;
        let certificate = chain.first().map(|first| Certificate::from_der(first)).transpose();
        let validity = match certificate {
            Ok(Some(certificate)) => certificate.tbs_certificate.validity,
            Ok(None) | Err(_) => {
                let problem = "holds a certificate that cannot be parsed: X.509 in PEM is expected";
                return Err(self.wrong("certificate_file", &self.certificate, problem.to_owned()));
            }
        };
        let key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => wrong_key(format!(
                "is not the key of the certificate in {}: give the two files of one certificate (the host's own \
                 certificate first, then those that signed it)",
                self.certificate.display()
            )),
            error => wrong_key(format!("cannot be used: {error}")),
        })?;
        Ok(Identity { key: Arc::new(key), expires: validity.not_after.to_unix_duration().as_secs() })
    }

    /// The authorities of clients' certificates.
    ///
    /// # Errors
    /// With the file and its mistake.
    pub(super) fn client_roots(&self) -> Result<Option<RootCertStore>, FileError> {
        let Some(path) = &self.client_ca else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates("client_ca_file", path)? {
            roots.add(certificate).map_err(|error| {
                self.wrong("client_ca_file", path, format!("holds a certificate that cannot be used: {error}"))
            })?;
        }
        Ok(Some(roots))
    }

    /// What is wrong with files that can be used nevertheless.
    pub(super) fn warnings(&self, identity: &Identity) -> Vec<String> {
        let mut warnings = Vec::new();
        let left = identity.expires.checked_sub(unix_now());
        let ends = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(identity.expires));
        let (section, path) = (self.section, self.certificate.display());
        match left {
            None | Some(0) => warnings.push(format!(
                "{section}.certificate_file: the certificate in {path} has expired ({ends}), and clients refuse it: \
                 replace it, which needs no restart"
            )),
            Some(left) if left < WARNED_BEFORE.as_secs() => warnings
                .push(format!("{section}.certificate_file: the certificate in {path} expires soon ({ends}): renew it")),
            Some(_) => {}
        }
        if is_open_to_all(&self.key) {
            warnings.push(format!(
                "{section}.key_file: {0} can be read by every user of this machine: run `chmod 600 {0}`",
                self.key.display()
            ));
        }
        warnings
    }

    fn certificates(&self, key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
        let wrong = |problem| self.wrong(key, path, problem);
        let pem = read(path).map_err(wrong)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) => Err(wrong("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned())),
            Err(error) => Err(wrong(format!("is not well-formed PEM: {error}"))),
        }
    }

    /// The error of settings that rustls refuses, which are made of the certificate.
    pub(super) fn unusable(&self, error: &dyn std::error::Error) -> FileError {
        self.wrong("certificate_file", &self.certificate, format!("cannot be used: {error}"))
    }

    fn wrong(&self, key: &'static str, path: &Path, problem: String) -> FileError {
        FileError { section: self.section, key, path: path.display().to_string(), problem }
    }
}

/// The problem of a private key. The error itself could repeat a line of the file.
fn key_problem(error: &PemError, pem: &[u8]) -> String {
    let text = String::from_utf8_lossy(pem);
    if text.contains("ENCRYPTED") {
        return "is locked by a passphrase: give a key without one (`openssl pkey -in … -out …`)".to_owned();
    }
    match error {
        PemError::NoItemsFound => "holds no private key in PEM (-----BEGIN PRIVATE KEY-----)".to_owned(),
        _ => "is not well-formed PEM".to_owned(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error: io::Error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("is larger than {MAX_BYTES} bytes: is it the right file?"));
    }
    Ok(bytes)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

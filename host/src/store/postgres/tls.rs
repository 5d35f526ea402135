//! TLS to PostgreSQL, with libpq's parameters `sslmode` and `sslrootcert` (PostgreSQL's manual, libpq, "SSL Support").

use std::str::FromStr as _;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use postgres::config::SslMode;
use postgres::error::SqlState;
use postgres::{Client, Config, NoTls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A server, and the TLS configuration for it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

impl Target {
    /// Reads a connection string.
    ///
    /// # Errors
    /// Where it is malformed, or names certificates that cannot be read.
    pub(super) fn parse(url: &str) -> anyhow::Result<Self> {
        let (url, Parameters { mode, root }) = Parameters::take_out_of(url)?;
        let mut config = Config::from_str(&url).context("it is not a PostgreSQL connection string")?;
        let (ssl_mode, trust) = match (&*mode, root) {
            ("disable", _) => (SslMode::Disable, Trust::Anybody),
            ("prefer", None) => (SslMode::Prefer, Trust::Anybody),
            ("require", None) => (SslMode::Require, Trust::Anybody),
            // As in libpq: a named certificate is verified.
            ("prefer" | "require" | "verify-ca", root) => (SslMode::Require, Trust::SignedBy(roots(root.as_deref())?)),
            ("verify-full", root) => (SslMode::Require, Trust::Named(roots(root.as_deref())?)),
            _ => bail!("sslmode={mode}: it must be disable, prefer, require, verify-ca or verify-full"),
        };
        config.ssl_mode(ssl_mode);
        Ok(Self { config, tls: MakeRustlsConnect::new(trust.into_config()?) })
    }

    /// Connects. Waits for the server.
    ///
    /// # Errors
    /// Where the server cannot be reached, refuses the host, or is not trusted.
    pub(super) fn connect(&self) -> Result<Client, postgres::Error> {
        let connected = self.config.connect(self.tls.clone());
        match &connected {
            Err(error) if self.config.get_ssl_mode() == SslMode::Prefer && is_about_tls(error) => {
                // `prefer` connects without TLS if TLS fails.
                self.config.clone().ssl_mode(SslMode::Disable).connect(NoTls).or(connected)
            }
            _ => connected,
        }
    }
}

/// Whether a connection that failed may succeed without TLS: the TLS handshake failed, or the server refused the
/// connection.
fn is_about_tls(error: &postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) || error.to_string().contains("TLS")
}

/// The TLS parameters of a connection string.
struct Parameters {
    mode: String,
    /// The file of the trusted certificates.
    root: Option<String>,
}

impl Parameters {
    /// Removes the parameters that the library does not support, or not with all of their values.
    fn take_out_of(url: &str) -> anyhow::Result<(String, Self)> {
        let mut found = Self { mode: "prefer".to_owned(), root: None };
        // A password may contain a question mark.
        let host = url.find('@').unwrap_or(0);
        let Some(at) = url[host..].find('?').map(|at| host + at) else { return Ok((url.to_owned(), found)) };
        let mut others = Vec::new();
        for pair in url[at + 1..].split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = || percent_encoding::percent_decode_str(value).decode_utf8().map(String::from);
            match name {
                "sslmode" => found.mode = value()?,
                "sslrootcert" => found.root = Some(value()?),
                "sslcert" | "sslkey" | "sslpassword" | "sslcrl" => {
                    bail!("{name} is not supported: sslmode and sslrootcert are")
                }
                _ => others.push(pair),
            }
        }
        let base = &url[..at];
        Ok((if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) }, found))
    }
}

/// The trusted certificates: those in a file, or the system's.
fn roots(file: Option<&str>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match file {
        None | Some("system") => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            ensure!(!roots.is_empty(), "this system has no certificates that are trusted: name a file by sslrootcert");
        }
        Some(file) => {
            let about = || format!("sslrootcert={file} cannot be used");
            for certificate in CertificateDer::pem_file_iter(file).with_context(about)? {
                roots.add(certificate.with_context(about)?).with_context(about)?;
            }
            ensure!(!roots.is_empty(), "sslrootcert={file} has no certificate in it (PEM)");
        }
    }
    Ok(roots)
}

/// The servers that are trusted.
enum Trust {
    /// Any server: TLS prevents only passive eavesdropping.
    Anybody,
    /// Servers with a certificate of a trusted authority.
    SignedBy(RootCertStore),
    /// Servers with such a certificate, issued for the server's name.
    Named(RootCertStore),
}

impl Trust {
    fn into_config(self) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let roots = match self {
            Self::Named(roots) => return Ok(config.with_root_certificates(roots).with_no_client_auth()),
            Self::SignedBy(roots) => Some(roots),
            Self::Anybody => None,
        };
        let verifier = Arc::new(Lenient { provider, roots });
        Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }
}

/// A verifier that checks less than the server's name, as the operator configured.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    /// The trusted authorities. `None` accepts all certificates.
    roots: Option<RootCertStore>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let certificate = ParsedCertificate::try_from(certificate)?;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        Target::parse(url).err().map(|error| format!("{error:#}")).unwrap_or_default()
    }

    #[test]
    fn url_parameters_set_tls_mode_and_timeout() {
        for (parameters, mode) in [
            ("", SslMode::Prefer),
            ("?sslmode=disable", SslMode::Disable),
            ("?sslmode=prefer&connect_timeout=3", SslMode::Prefer),
            ("?connect_timeout=3&sslmode=require", SslMode::Require),
        ] {
            let target = Target::parse(&format!("postgres://ana:a%3Fb?c@db.example/chat{parameters}")).unwrap();
            assert_eq!(target.config.get_ssl_mode(), mode, "{parameters}");
            assert_eq!(target.config.get_dbname(), Some("chat"), "{parameters}");
            assert_eq!(target.config.get_password(), Some(&b"a?b?c"[..]), "{parameters}");
            assert_eq!(target.config.get_connect_timeout().is_some(), parameters.contains("timeout"), "{parameters}");
        }
    }

    #[test]
    fn unsupported_parameters_are_refused() {
        for (parameters, said) in [
            ("sslmode=allow", "verify-full"),
            ("sslcert=/x.pem", "sslcert is not supported"),
            ("sslmode=verify-full&sslrootcert=/no/such.pem", "sslrootcert=/no/such.pem"),
            ("sslmode=require&sslrootcert=%2Fno%2Fsuch.pem", "sslrootcert=/no/such.pem"),
            ("sslrootcert=/dev/null", "no certificate in it"),
            ("ssl=true", "not a PostgreSQL connection string"),
        ] {
            let refusal = refusal(&format!("postgres://ana@db.example/chat?{parameters}"));
            assert!(refusal.contains(said), "{parameters}: {refusal}");
        }
    }
}

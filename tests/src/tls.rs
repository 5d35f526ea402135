//! Certificates for hosts with TLS, and clients that reach such hosts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate authority of one test, with its files in a folder of their own.
#[derive(Debug)]
pub struct TestAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

/// A certificate with its key, in PEM files.
#[derive(Debug)]
pub struct TestCertificate {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
    der: CertificateDer<'static>,
    key_der: PrivateKeyDer<'static>,
}

impl TestAuthority {
    /// A new authority.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("a file can be written");
        Self { issuer, dir }
    }

    /// The folder of the files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file with the authority's own certificate.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Issues a certificate for this machine, which replaces the files of an earlier one of the same name.
    pub fn issue(&self, name: &str) -> TestCertificate {
        self.issue_until(name, 2096)
    }

    /// As [`TestAuthority::issue`], valid until the begin of a year.
    pub fn issue_until(&self, name: &str, year: i32) -> TestCertificate {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |extension: &str| self.dir.path().join(format!("{name}.{extension}"));
        let (certificate, key_file) = (path("pem"), path("key"));
        fs::write(&certificate, signed.pem()).expect("a file can be written");
        fs::write(&key_file, key.serialize_pem()).expect("a file can be written");
        let key_der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        TestCertificate { certificate, key: key_file, der: signed.der().clone(), key_der }
    }

    /// The settings of a client that trusts this authority, and shows a certificate of its own if there is one.
    pub fn client(&self, own: Option<&TestCertificate>) -> ClientConfig {
        self.client_of(own, rustls::ALL_VERSIONS)
    }

    /// As [`TestAuthority::client`], with these versions of TLS.
    pub fn client_of(
        &self,
        own: Option<&TestCertificate>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        match own {
            None => config.with_no_client_auth(),
            Some(own) => {
                config.with_client_auth_cert(vec![own.der.clone()], own.key_der.clone_key()).expect("a certificate")
            }
        }
    }
}

impl Default for TestAuthority {
    fn default() -> Self {
        Self::new()
    }
}

impl TestCertificate {
    /// The section of a configuration, `tls` or `tls.api`, that names these files.
    pub fn section(&self, section: &str) -> String {
        let Self { certificate, key, .. } = self;
        format!("{section}.certificate_file = {certificate:?}\n{section}.key_file = {key:?}\n")
    }

    /// The certificate as a peer gets it.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

/// Connects to a host with TLS.
///
/// # Errors
/// Where the handshake fails.
pub async fn connect_tls(url: &str, config: ClientConfig) -> anyhow::Result<TlsStream<TcpStream>> {
    let address = url.split_once("://").map_or(url, |(_, address)| address);
    Ok(connect_tls_on(TcpStream::connect(address).await?, config).await?)
}

/// As [`connect_tls`], on a connected socket.
///
/// # Errors
/// Where the handshake fails.
pub async fn connect_tls_on(socket: TcpStream, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

/// A local port whose connections reach a host by TLS, so that each client without TLS can be tested with it.
#[derive(Debug)]
pub struct Tunnel {
    /// The port's address, as `ws://127.0.0.1:PORT`.
    pub ws: String,
    task: JoinHandle<()>,
}

impl Tunnel {
    /// Opens a port to the host at `url`.
    pub async fn to(url: &str, config: ClientConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let ws = format!("ws://{}", listener.local_addr().expect("an address"));
        let url = url.to_owned();
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (url, config) = (url.clone(), config.clone());
                tokio::spawn(async move {
                    if let Ok(mut host) = connect_tls(&url, config).await {
                        // Both ends notice the end of the other.
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut host).await;
                    }
                });
            }
        });
        Self { ws, task }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

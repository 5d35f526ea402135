//! Calls to the API of a running host, from the command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::output::eprint;
use crate::config::{Address, PRIVATE_DIR};
use crate::plugin::digest;

/// Timeout of a call: on a busy machine a component compiles for up to five minutes, and may wait for another
/// compilation.
const CALL_TIMEOUT: Duration = Duration::from_secs(600);

/// How to reach a host's API.
#[derive(Debug, Args)]
pub(super) struct ApiArgs {
    /// The host's API: an address or a host name, and a port; http:// or https:// may stand before it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081", value_parser = parse_api)]
    api: ApiAddress,
    /// File with the API key, which has the scope admin. Default: .roundhouse/api-key.
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    key_file: Option<PathBuf>,
    /// API key with the scope admin. Other users of this machine can see it: --key-file is safer.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// With https://: PEM file of the authorities that are trusted. Default: those of the system.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// With https://: PEM file of a client certificate, where the host asks for one.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// With https://: PEM file of the client certificate's key.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

#[derive(Debug, Clone)]
struct ApiAddress {
    address: Address,
    is_tls: bool,
}

fn parse_api(text: &str) -> Result<ApiAddress, String> {
    let (is_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, rest) => (false, rest.unwrap_or(text)),
    };
    let address = rest.trim_end_matches('/').parse().map_err(|error| {
        format!("{error}: it is an address or a host name, and a port, as 127.0.0.1:8081 or https://host:8081")
    })?;
    Ok(ApiAddress { address, is_tls })
}

impl ApiArgs {
    fn key(&self) -> anyhow::Result<String> {
        if let Some(key) = &self.key {
            ensure!(
                !key.is_empty(),
                "--key is empty: give a key, or leave it out to take the one in {PRIVATE_DIR}/api-key"
            );
            eprint("other users of this machine can see a key given by --key: put it into a file, and give --key-file");
            return Ok(key.clone());
        }
        let path = self.key_file.clone().unwrap_or_else(|| Path::new(PRIVATE_DIR).join("api-key"));
        let key = fs::read_to_string(&path);
        let key = key.with_context(|| match self.key_file {
            Some(_) => format!("--key-file: {} cannot be read", path.display()),
            None => format!("no --key-file was given, and {} cannot be read", path.display()),
        })?;
        ensure!(!key.trim().is_empty(), "{} is empty: it must hold an API key", path.display());
        Ok(key.trim().to_owned())
    }

    /// Calls the API. Returns the answer.
    ///
    /// # Errors
    /// Where the host cannot be reached, or refuses the call.
    pub(super) fn call(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.api.address.to_string())
            .header("authorization", format!("Bearer {}", self.key()?))
            .header("x-content-sha256", digest(&body))
            .body(Full::new(body))?;
        tokio.block_on(async {
            tokio::time::timeout(CALL_TIMEOUT, self.send(request)).await.context("the host did not answer in time")?
        })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Value> {
        let address = &self.api.address;
        let socket = TcpStream::connect(address.to_string());
        let socket =
            socket.await.with_context(|| format!("cannot reach a host's API at {address}: does it run there?"))?;
        if !self.api.is_tls {
            let is_given = self.ca.is_some() || self.client_cert.is_some();
            ensure!(!is_given, "--ca and --client-cert are for TLS: write --api https://{address}");
            return exchange(socket, request).await;
        }
        let text = address.to_string();
        let host = text.rsplit_once(':').map_or(&*text, |(host, _)| host).trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).context("--api")?;
        let connector = TlsConnector::from(Arc::new(self.tls()?));
        let socket = connector.connect(name, socket).await.with_context(|| {
            format!("the TLS handshake with {address} failed (--ca names the authority of a certificate of your own)")
        })?;
        exchange(socket, request).await
    }

    fn tls(&self) -> anyhow::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                for certificate in certificates(path).context("--ca")? {
                    roots.add(certificate).with_context(|| format!("--ca: {} cannot be used", path.display()))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) else {
            return Ok(config.with_no_client_auth());
        };
        // The error could repeat a line of the file.
        let key_of_client = PrivateKeyDer::from_pem_file(key)
            .map_err(|_| anyhow::anyhow!("--client-key: {} holds no private key in PEM", key.display()))?;
        let chain = certificates(certificate).context("--client-cert")?;
        config.with_client_auth_cert(chain, key_of_client).context("--client-cert and --client-key")
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.with_context(|| format!("{} cannot be read as PEM", path.display()))?;
    ensure!(!found.is_empty(), "{} holds no certificate in PEM", path.display());
    Ok(found)
}

async fn exchange<S>(socket: S, request: Request<Full<Bytes>>) -> anyhow::Result<Value>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.context("the host did not answer: does it speak TLS?")?;
    let status = response.status();
    let body = response.into_body().collect().await.context("the host's answer broke off")?.to_bytes();
    connection.abort();
    let answer: Value = serde_json::from_slice(&body)
        .context("the host's answer is not JSON: is this the API's address, and should it be https:// or http://?")?;
    if status.is_success() {
        return Ok(answer);
    }
    let message = answer["message"].as_str().unwrap_or("no reason given");
    match answer["step"].as_str() {
        Some(step) => bail!("refused at the step {step}: {message}"),
        None => bail!("{message} ({status})"),
    }
}

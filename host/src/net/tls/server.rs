//! The TLS of a listener: its settings, which are exchanged while the host runs, and the handshake.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::IntCounterVec;
use rustls::ServerConfig;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::{ProducesTickets, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;

use super::files::{FileError, TlsFiles};
use super::session::TlsSession;
use super::stream::{Stream, TryWrite};
use crate::metrics::{Limit, Metrics};
use crate::net::budget::{Budget, Holding};

/// Memory of a handshake, in bytes: the task, the buffers of the messages, and the keys.
const HANDSHAKE_BYTES: usize = 16 * 1024;

/// The first byte of a TLS connection: the type of a record with a handshake message.
const HANDSHAKE_RECORD: u8 = 22;

/// The answer to a client that speaks HTTP without TLS.
const PLAIN_REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\
    Content-Length: 55\r\n\r\nthis port speaks TLS: connect with https:// or wss://\r\n";

/// The TLS of a listener. Clones share the certificate.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    listener: &'static str,
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    timeout: Duration,
    metrics: Metrics,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.0.files).finish_non_exhaustive()
    }
}

/// The end of a handshake that did not complete.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeFailure {
    /// The time was over.
    #[error("the TLS handshake took too long")]
    TimedOut,
    /// Other input needed the memory.
    #[error("the TLS handshake had to make room for others")]
    Evicted,
    /// The client left.
    #[error("the client left within the TLS handshake")]
    Left,
    /// The client speaks no TLS.
    #[error("the client speaks no TLS")]
    NotTls,
    /// The client broke the protocol, offers nothing that is supported, or refuses the certificate.
    #[error("the TLS handshake failed: {0}")]
    Refused(#[from] rustls::Error),
    /// The socket failed.
    #[error("the socket failed within the TLS handshake: {0}")]
    Socket(#[from] io::Error),
}

impl HandshakeFailure {
    fn outcome(&self) -> &'static str {
        match self {
            Self::TimedOut => "timed_out",
            Self::Evicted => "evicted",
            Self::Left | Self::Socket(_) => "left",
            Self::NotTls => "not_tls",
            Self::Refused(_) => "refused",
        }
    }
}

impl Tls {
    /// Reads the files of a listener, `clients` or `api`. A handshake may take `timeout`.
    ///
    /// # Errors
    /// With the file that cannot be used, and its mistake.
    pub fn load(
        listener: &'static str,
        files: TlsFiles,
        timeout: Duration,
        metrics: Metrics,
    ) -> Result<Self, FileError> {
        let config = build(listener, &files, &metrics, None)?;
        let handshakes = &metrics.tls_handshakes;
        // An outcome that has not occurred is exported as zero, so that its rate is defined from the start.
        for outcome in ["ok", "refused", "not_tls", "left", "timed_out", "evicted"] {
            handshakes.with_label_values(&[listener, outcome]);
        }
        Ok(Self(Arc::new(Inner { listener, files, config: ArcSwap::from_pointee(config), timeout, metrics })))
    }

    /// The files in use.
    pub(super) fn files(&self) -> &TlsFiles {
        &self.0.files
    }

    /// The listener's name.
    pub(super) fn listener(&self) -> &'static str {
        self.0.listener
    }

    /// Reads the files again, for new connections. If they cannot be used, the certificate stays.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub(super) fn reload(&self) -> Result<(), FileError> {
        let Inner { listener, files, config, metrics, .. } = &*self.0;
        let tickets = config.load().ticketer.clone();
        config.store(Arc::new(build(listener, files, metrics, Some(tickets))?));
        Ok(())
    }

    /// Completes the handshake with a client. Until then the connection is held within `budget`, whose slowest holder
    /// gives way.
    ///
    /// # Errors
    /// Where the handshake does not complete.
    pub async fn accept(&self, tcp: TcpStream, budget: &Budget) -> Result<Stream, HandshakeFailure> {
        let holding = budget.holding();
        holding.begin(HANDSHAKE_BYTES);
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(self.0.timeout, self.handshake(tcp, &holding)) => {
                accepted.unwrap_or(Err(HandshakeFailure::TimedOut))
            }
            () = holding.evicted() => Err(HandshakeFailure::Evicted),
        };
        let outcome = accepted.as_ref().err().map_or("ok", HandshakeFailure::outcome);
        if matches!(accepted, Err(HandshakeFailure::TimedOut)) {
            self.0.metrics.limited(Limit::Handshake);
        }
        count(&self.0.metrics.tls_handshakes, self.0.listener, outcome);
        accepted
    }

    async fn handshake(&self, tcp: TcpStream, holding: &Holding) -> Result<Stream, HandshakeFailure> {
        // The session is created with the first byte: a silent connection costs no keys.
        tcp.readable().await?;
        let mut session = TlsSession::new(self.0.config.load_full())?;
        let (mut plain, mut is_first) = (Vec::new(), true);
        while session.is_handshaking() {
            let mut received = [0; 4096];
            let n = match tcp.try_read(&mut received) {
                Ok(0) => return Err(HandshakeFailure::Left),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tcp.readable().await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if is_first && received[0] != HANDSHAKE_RECORD {
                // Best effort: the client may have left.
                let _ = tcp.try_write(PLAIN_REFUSED);
                return Err(HandshakeFailure::NotTls);
            }
            is_first = false;
            let outcome = session.read(&mut received[..n], &mut plain);
            holding.grow(HANDSHAKE_BYTES + session.incomplete(), n);
            if let Err(refused) = outcome {
                // The alert tells the client why; the client may have left.
                let _ = session.flush_to(TryWrite(&tcp));
                return Err(refused.into());
            }
            while !session.flush_to(TryWrite(&tcp))? {
                tcp.writable().await?;
            }
        }
        Ok(Stream::tls(tcp, session, plain))
    }
}

fn count(handshakes: &IntCounterVec, listener: &str, outcome: &str) {
    handshakes.with_label_values(&[listener, outcome]).inc();
}

/// Builds the settings from the files, logs their warnings, and exports the certificate's end. `tickets` are those of
/// the settings before, so that clients resume their sessions over an exchange.
fn build(
    listener: &'static str,
    files: &TlsFiles,
    metrics: &Metrics,
    tickets: Option<Arc<dyn ProducesTickets>>,
) -> Result<ServerConfig, FileError> {
    let identity = files.identity()?;
    let roots = files.client_roots()?;
    let tickets = match (&roots, tickets) {
        // A resumed session has no certificate of its client checked again, so none outlives an exchange of them.
        (None, Some(tickets)) => tickets,
        _ => Ticketer::new().map_err(|error| files.unusable(&error))?,
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| files.unusable(&error))?;
    let builder = match roots {
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::new(default_provider()))
                .build()
                .map_err(|error| files.unusable(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key.clone())));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = tickets;
    // One ticket: a client of the host has one connection, or few.
    config.send_tls13_tickets = 1;
    for warning in files.warnings(&identity) {
        tracing::warn!("{warning}");
    }
    metrics.tls_certificate_expiry.with_label_values(&[listener]).set(identity.expires as i64);
    Ok(config)
}

//! The socket of an HTTP connection, plain or with TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::session::TlsSession;

/// Bytes that are read from a socket with TLS at once: the longest record and what rustls adds to it fit almost.
const READ_BYTES: usize = 16 * 1024;

/// The most plain bytes that are encrypted before the socket has accepted those before.
const WRITE_BYTES: usize = 16 * 1024;

/// The socket of an HTTP connection.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS, after the handshake.
    Tls(Box<TlsStream>),
}

/// A socket with TLS.
#[derive(Debug)]
pub struct TlsStream {
    tcp: TcpStream,
    session: TlsSession,
    /// Decrypted bytes that were not read, from `read` on.
    plain: Vec<u8>,
    read: usize,
}

/// A socket after an upgrade, for a shard's poller.
#[derive(Debug)]
pub struct RawSocket {
    /// The socket.
    pub tcp: std::net::TcpStream,
    /// Its TLS, if any.
    pub tls: Option<TlsSession>,
}

impl Stream {
    /// A socket whose handshake is complete, with the plain bytes that came behind the handshake.
    pub(super) fn tls(tcp: TcpStream, session: TlsSession, plain: Vec<u8>) -> Self {
        Self::Tls(Box::new(TlsStream { tcp, session, plain, read: 0 }))
    }

    /// Waits until bytes have arrived, or the end of the stream. With TLS the bytes may be of the protocol alone.
    ///
    /// # Errors
    /// Where the socket failed.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.readable().await,
            Self::Tls(tls) if tls.read < tls.plain.len() => Ok(()),
            Self::Tls(tls) => tls.tcp.readable().await,
        }
    }

    /// Takes the socket out of the runtime, with the plain bytes that were received and not read.
    ///
    /// # Errors
    /// Where the socket was closed.
    pub fn into_raw(self) -> io::Result<(RawSocket, Vec<u8>)> {
        match self {
            Self::Plain(tcp) => Ok((RawSocket { tcp: tcp.into_std()?, tls: None }, Vec::new())),
            Self::Tls(tls) => {
                let TlsStream { tcp, session, mut plain, read } = *tls;
                plain.drain(..read);
                Ok((RawSocket { tcp: tcp.into_std()?, tls: Some(session) }, plain))
            }
        }
    }
}

impl TlsStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // What the protocol itself has to say. The rest is written with the next bytes.
        let _ = self.poll_pending(cx)?;
        while self.read == self.plain.len() {
            // The capacity is freed as well: an idle connection keeps none.
            (self.plain, self.read) = (Vec::new(), 0);
            if self.session.is_closed_by_peer() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.tcp.poll_read_ready(cx))?;
            let mut received = [0; READ_BYTES];
            let n = match self.tcp.try_read(&mut received) {
                // An end without TLS' own: the lengths of requests and frames tell whether they are complete.
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(error)),
            };
            let outcome = self.session.read(&mut received[..n], &mut self.plain);
            let _ = self.poll_pending(cx)?;
            outcome.map_err(io::Error::other)?;
        }
        let n = buffer.remaining().min(self.plain.len() - self.read);
        buffer.put_slice(&self.plain[self.read..self.read + n]);
        self.read += n;
        Poll::Ready(Ok(()))
    }

    /// Writes the pending bytes.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.has_pending() {
            ready!(self.tcp.poll_write_ready(cx))?;
            self.session.flush_to(TryWrite(&self.tcp))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        let n = bytes.len().min(WRITE_BYTES);
        self.session.write(&bytes[..n]).map_err(io::Error::other)?;
        match self.poll_pending(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What the socket did not accept is written by the next call or flush.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(n)),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        // An error means that nothing can be sent any more. A second close writes nothing.
        let _ = self.session.close();
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Writes to a socket of the runtime without waiting.
#[derive(Debug)]
pub(super) struct TryWrite<'a>(pub(super) &'a TcpStream);

impl io::Write for TryWrite<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => tls.poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => tls.poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Tls(tls) => {
                tls.poll_write(cx, slices.iter().find(|slice| !slice.is_empty()).map_or(&[], |slice| slice))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => tls.poll_pending(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_shutdown(cx),
        }
    }
}

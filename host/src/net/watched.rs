//! A socket that parses the framing of arriving HTTP requests, for incomplete heads and for requests with two lengths.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::budget::Holding;
use super::deadline::Deadline;
use super::framing::Framing;
use super::tls::Stream;

/// Memory of an HTTP connection that waits for a request, in bytes: the library's buffer, and the task.
pub const CONNECTION_BYTES: usize = 8192 + 2048;

/// Memory of a connection without any input, in bytes: the task.
const SILENT_BYTES: usize = 4096;

/// The state shared by the socket and the service of a connection.
#[derive(Debug)]
pub(super) struct Watch {
    /// The index of the first request with two lengths; `u64::MAX` is none.
    ambiguous: AtomicU64,
    /// Whether the last bytes belong to a head whose rest has not arrived.
    is_in_head: AtomicBool,
    pub(super) holding: Arc<Holding>,
    pub(super) deadline: Deadline,
}

impl Watch {
    pub(super) fn new(holding: Holding, deadline: Deadline) -> Self {
        holding.begin(SILENT_BYTES);
        Self {
            ambiguous: AtomicU64::new(u64::MAX),
            is_in_head: AtomicBool::new(false),
            holding: Arc::new(holding),
            deadline,
        }
    }

    /// Whether the request of this index has two lengths.
    pub(super) fn is_ambiguous(&self, number: u64) -> bool {
        self.ambiguous.load(Ordering::Relaxed) == number
    }

    /// Whether a head has arrived in part.
    pub(super) fn is_in_head(&self) -> bool {
        self.is_in_head.load(Ordering::Relaxed)
    }

    fn saw(&self, framing: &Framing, came: usize, had: usize) {
        if let Some(number) = framing.ambiguous() {
            self.ambiguous.store(number, Ordering::Relaxed);
        }
        let incomplete = framing.incomplete();
        self.is_in_head.store(incomplete > 0, Ordering::Relaxed);
        if incomplete > 0 {
            if had == 0 {
                self.deadline.head_begins();
            }
            self.holding.grow(CONNECTION_BYTES + incomplete, came);
        }
    }
}

/// A client's socket.
#[derive(Debug)]
pub struct WatchedSocket {
    socket: Stream,
    framing: Framing,
    watch: Arc<Watch>,
}

impl WatchedSocket {
    pub(super) fn new(socket: Stream, watch: Arc<Watch>) -> Self {
        Self { socket, framing: Framing::default(), watch }
    }

    /// The socket, after an upgrade to another protocol.
    pub fn into_inner(self) -> Stream {
        self.socket
    }
}

impl AsyncRead for WatchedSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Self { socket, framing, watch } = &mut *self;
        let read = Pin::new(socket).poll_read(cx, buffer);
        let came = &buffer.filled()[before..];
        if !came.is_empty() {
            let had = framing.incomplete();
            framing.read(came);
            watch.saw(framing, came.len(), had);
        }
        read
    }
}

impl AsyncWrite for WatchedSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

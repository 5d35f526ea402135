//! Which sockets of a shard have something to read, or take more: the kernel is asked once for all of them.
//!
//! A socket has no task and no place in the runtime's own reactor. The shard's sockets are in a poller of the shard's,
//! and the runtime watches that poller alone. An idle connection costs its own few bytes, and readiness costs one look
//! at the kernel's list, however many are ready.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Poll, Registry, Token};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::parts::{READ_BUFFER_BYTES, Shard};
use crate::conn::state::transport::{Phase, Transport, TransportId};

/// Sockets that are looked after in one turn. The kernel keeps the rest for the next.
const SOCKETS_PER_TURN: usize = 256;

/// Frames that were queued while sockets were read, after which they are written.
const FRAMES_PER_FLUSH: usize = 1024;

/// Tells which sockets are ready.
#[derive(Debug)]
pub(in crate::conn) struct Sockets {
    poll: AsyncFd<Poll>,
    ready: Events,
}

impl Sockets {
    /// Watches no socket yet. To be called within the runtime. Gives what sockets are registered with.
    ///
    /// # Errors
    /// Where the kernel has no poller to give.
    #[expect(unsafe_code, reason = "the runtime cannot know that a poller keeps its descriptor")]
    pub(in crate::conn) fn new() -> io::Result<(Self, Registry)> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        // SAFETY: a poller has one descriptor, which it closes when it is dropped, and this one is given away whole.
        let poll = unsafe { AsyncFd::register_with_interest(poll, Interest::READABLE) }?;
        Ok((Self { poll, ready: Events::with_capacity(SOCKETS_PER_TURN) }, registry))
    }

    /// Waits until some sockets are ready, and gives them. May be cancelled.
    pub(in crate::conn) async fn ready(&mut self) -> io::Result<&Events> {
        let mut guard = self.poll.readable_mut().await?;
        guard.get_inner_mut().poll(&mut self.ready, Some(Duration::ZERO))?;
        if self.ready.iter().count() < SOCKETS_PER_TURN {
            guard.clear_ready();
        }
        Ok(&self.ready)
    }
}

impl TransportId {
    pub(in crate::conn) fn token(self) -> Token {
        const { assert!(usize::BITS >= u64::BITS, "a token holds a slot and a stamp") };
        Token((self.stamp as usize) << u32::BITS | self.slot as usize)
    }

    pub(in crate::conn) fn of_token(token: Token) -> Self {
        Self { slot: token.0 as u32, stamp: (token.0 >> u32::BITS) as u32 }
    }
}

impl Shard {
    /// Has the shard hear of what happens on a transport's socket. What is there to read already counts.
    pub(in crate::conn) fn watch(self: &Rc<Self>, transport: &Rc<Transport>) {
        let Some(socket) = transport.socket().filter(|_| transport.phase.get() != Phase::Ended) else { return };
        let interests = mio::Interest::READABLE | mio::Interest::WRITABLE;
        let mut source = SourceFd(&socket.tcp.as_raw_fd());
        if let Err(error) = self.registry.register(&mut source, transport.id.token(), interests) {
            tracing::warn!(%error, peer = %transport.peer, "a connection cannot be watched, and is dropped");
            self.shutdown_transport(transport, true);
        }
    }

    /// Has the shard hear no more of a socket that another shard takes over.
    pub(in crate::conn) fn unwatch(&self, socket: &TcpStream) {
        // One that was never watched is none the worse for it.
        let _ = self.registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
    }

    /// Looks after sockets that are ready.
    pub(in crate::conn) fn serve_ready(self: &Rc<Self>, ready: &Events) {
        for event in ready {
            let Some(transport) = self.find_transport(TransportId::of_token(event.token())) else { continue };
            if event.is_writable() || event.is_error() {
                self.unblock(&transport);
            }
            let is_last = event.is_read_closed() || event.is_error();
            // One that is known to have more has its turn with its like.
            if (event.is_readable() || is_last) && !transport.unread.get() {
                self.read_socket(&transport, is_last);
            }
        }
        self.flush_dirty();
    }

    /// Goes on with sockets that had more to read than their turn allowed.
    pub(in crate::conn) fn serve_unread(self: &Rc<Self>) {
        for transport in self.unread.take() {
            transport.unread.set(false);
            // What told of it is gone, and may have told of the end as well.
            self.read_socket(&transport, true);
        }
        self.flush_dirty();
    }

    /// Reads what has arrived, as much as one turn allows. Where that may not be all, nothing tells of the rest again, and
    /// the transport is noted: after a full buffer, and wherever the end may be behind what was read (`to_the_end`).
    fn read_socket(self: &Rc<Self>, transport: &Rc<Transport>, to_the_end: bool) {
        let is_read = transport.phase.get() != Phase::Ended && !transport.muted.get();
        let Some(socket) = transport.socket().filter(|_| is_read) else { return };
        if !self.may_read(transport) {
            return;
        }
        let read = {
            let mut buffer = self.read_buffer.borrow_mut();
            let read = (&socket.tcp).read(&mut buffer);
            if let Ok(n @ 1..) = read {
                self.charge_read(transport, n);
                self.read(transport, &mut buffer[..n]);
            }
            read
        };
        let may_have_more = match read {
            Ok(0) => return self.shutdown_transport(transport, true),
            // A kernel that had more would have filled the buffer. It tells of what comes from here on.
            Ok(n) => to_the_end || n == READ_BUFFER_BYTES,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(_) => return self.shutdown_transport(transport, true),
        };
        if may_have_more && !transport.unread.replace(true) {
            self.unread.borrow_mut().push(transport.clone());
        }
        // What many small messages at once are answered must not pile up until the turn is over.
        if self.queue.borrow().len() >= FRAMES_PER_FLUSH || !self.over_limit.borrow().is_empty() {
            self.flush_dirty();
        }
    }
}

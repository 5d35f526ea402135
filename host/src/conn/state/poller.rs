//! Readiness of a shard's sockets, by one epoll instance.
//!
//! A socket has no task and no registration in the runtime's reactor. The shard's sockets are registered in the shard's
//! own poller, and the runtime watches that poller alone. So an idle connection costs no more than its own state, and
//! one system call reports all ready sockets.

use std::cell::{RefCell, RefMut};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry};
use tokio::io::unix::AsyncFd;

use super::ids::TransportId;
use super::transport::Transport;

/// The most sockets that are served in one turn. The kernel keeps the others for the next.
const SOCKETS_PER_TURN: usize = 256;

/// The buffer that all transports of a shard read into, in bytes.
pub(crate) const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The poller of a shard, which reports ready sockets.
#[derive(Debug)]
pub(crate) struct ReadySockets {
    poll: AsyncFd<Poll>,
    ready: Events,
}

impl ReadySockets {
    /// A poller without sockets, and the registry by which to watch sockets. To be called within the runtime.
    ///
    /// # Errors
    /// Where the kernel refuses a poller.
    #[expect(unsafe_code, reason = "the runtime cannot know that a poller keeps its descriptor")]
    pub(crate) fn new() -> io::Result<(Self, Registry)> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        // SAFETY: a poller has one descriptor, which it closes on drop, and the poller is moved into the `AsyncFd`
        // whole.
        let poll = unsafe { AsyncFd::register_with_interest(poll, tokio::io::Interest::READABLE) }?;
        Ok((Self { poll, ready: Events::with_capacity(SOCKETS_PER_TURN) }, registry))
    }

    /// Waits until sockets are ready, and returns their events. Cancel-safe.
    pub(crate) async fn ready(&mut self) -> io::Result<&Events> {
        let mut guard = self.poll.readable_mut().await?;
        guard.get_inner_mut().poll(&mut self.ready, Some(Duration::ZERO))?;
        if self.ready.iter().count() < SOCKETS_PER_TURN {
            guard.clear_ready();
        }
        Ok(&self.ready)
    }
}

/// The registry of a shard's sockets, the transports with unread input, and the read buffer.
#[derive(Debug)]
pub(crate) struct Poller {
    registry: Registry,
    /// Transports whose sockets may have more to read than one turn allows.
    unread: RefCell<Vec<Rc<Transport>>>,
    read_buffer: RefCell<Box<[u8]>>,
    /// The buffer that bytes are decrypted into, empty until a socket with TLS is read.
    plain_buffer: RefCell<Vec<u8>>,
}

impl Poller {
    pub(crate) fn new(registry: Registry) -> Self {
        let read_buffer = RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice());
        Self { registry, unread: RefCell::default(), read_buffer, plain_buffer: RefCell::default() }
    }

    /// Watches the socket of a transport. Bytes that are readable already cause an event, too.
    pub(crate) fn watch(&self, id: TransportId, tcp: &TcpStream) -> io::Result<()> {
        let interests = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut SourceFd(&tcp.as_raw_fd()), id.token(), interests)
    }

    /// Stops watching a socket that another shard takes over.
    pub(crate) fn unwatch(&self, tcp: &TcpStream) {
        // An error means that the socket was never watched.
        let _ = self.registry.deregister(&mut SourceFd(&tcp.as_raw_fd()));
    }

    /// Lists a transport that has more to read.
    pub(crate) fn note_unread(&self, transport: &Rc<Transport>) {
        if !transport.unread.replace(true) {
            self.unread.borrow_mut().push(transport.clone());
        }
    }

    pub(crate) fn has_unread(&self) -> bool {
        !self.unread.borrow().is_empty()
    }

    /// Takes the transports that have more to read. They count as unread until their flags are cleared.
    pub(crate) fn take_unread(&self) -> Vec<Rc<Transport>> {
        self.unread.take()
    }

    /// Takes the buffer for decrypted bytes, which is empty.
    pub(crate) fn take_plain_buffer(&self) -> Vec<u8> {
        self.plain_buffer.take()
    }

    /// Gives the buffer for decrypted bytes back.
    pub(crate) fn put_plain_buffer(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.plain_buffer.replace(buffer);
    }

    pub(crate) fn read_buffer(&self) -> RefMut<'_, Box<[u8]>> {
        self.read_buffer.borrow_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unread_transports_are_listed_once() {
        let (_, registry) = ReadySockets::new().unwrap();
        let (poller, transport) = (Poller::new(registry), Transport::idle());
        poller.note_unread(&transport);
        poller.note_unread(&transport);
        assert!(poller.has_unread());
        assert_eq!(poller.take_unread().len(), 1);
        assert!(!poller.has_unread());
    }
}

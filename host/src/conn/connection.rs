//! One connection: its socket, what waits to be written to it, and what is known about it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use governor::clock::{Clock as _, ReasonablyRealtime};
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::members::Place;
use crate::model::{Clock, ConnId, Identity};
use crate::protocol::Protocol;
use crate::protocol::websocket::Decoder;

/// Frames that leave in one system call at most. Linux takes 1,024; beyond some dozens the call costs less than the copying.
const FRAMES_PER_WRITE: usize = 64;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is to say who it is.
    Authenticating,
    /// It sends and receives events.
    Open,
    /// Our close is on its way; what it sends is not looked at any more, but for its own close.
    Closing,
    /// Its socket is gone, or about to be.
    Ended,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, Uptime, governor::middleware::NoOpMiddleware<Nanos>>;

/// A WebSocket connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    pub(super) peer: SocketAddr,
    pub(super) protocol: Protocol,
    pub(super) socket: TcpStream,
    pub(super) phase: Cell<Phase>,
    pub(super) identity: RefCell<Option<Arc<Identity>>>,
    pub(super) decoder: RefCell<Decoder>,
    pub(super) outbox: RefCell<Outbox>,
    /// Whether it is on the shard's list of connections to flush.
    pub(super) dirty: Cell<bool>,
    /// Whether the socket took no more, and a task waits until it does.
    pub(super) blocked: Cell<bool>,
    pub(super) places: RefCell<Vec<Place>>,
    /// The last delivery that it was considered for.
    pub(super) delivery: Cell<u64>,
    pub(super) times: Times,
    limiter: Option<Box<Limiter>>,
    /// Whether it was let in, and so is counted.
    pub(super) counted: Cell<bool>,
    /// The task that reads from the socket.
    pub(super) reader: RefCell<Option<AbortHandle>>,
}

/// When what happened and is due, in milliseconds of the clock's uptime.
#[derive(Debug)]
pub(super) struct Times {
    /// Something was last read.
    pub(super) heard: Cell<u64>,
    /// The last ping went out.
    pub(super) pinged: Cell<u64>,
    /// The token expires.
    pub(super) expires: Cell<u64>,
    /// Authentication, or our close, must be done.
    pub(super) limit: Cell<u64>,
    /// The earliest deadline that the shard has noted.
    pub(super) armed: Cell<u64>,
}

impl Connection {
    pub(super) fn new(id: ConnId, peer: SocketAddr, socket: TcpStream, clock: &Clock, quota: Option<Quota>) -> Self {
        let now = clock.uptime_ms();
        Self {
            id,
            peer,
            protocol: Protocol::Plain,
            socket,
            phase: Cell::new(Phase::Authenticating),
            identity: RefCell::default(),
            decoder: RefCell::default(),
            outbox: RefCell::default(),
            dirty: Cell::new(false),
            blocked: Cell::new(false),
            places: RefCell::default(),
            delivery: Cell::new(0),
            times: Times {
                heard: Cell::new(now),
                pinged: Cell::new(now),
                expires: Cell::new(u64::MAX),
                limit: Cell::new(u64::MAX),
                armed: Cell::new(u64::MAX),
            },
            limiter: quota.map(|quota| Box::new(RateLimiter::direct_with_clock(quota, Uptime(clock.clone())))),
            counted: Cell::new(false),
            reader: RefCell::default(),
        }
    }

    /// Whether it may send one more event now.
    pub(super) fn may_send(&self) -> bool {
        self.limiter.as_ref().is_none_or(|limiter| limiter.check().is_ok())
    }

    /// Writes what waits, as far as the socket takes it. Says whether all of it is written.
    pub(super) fn write_out(&self) -> io::Result<bool> {
        let mut outbox = self.outbox.borrow_mut();
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE];
            let n_slices = outbox.slices(&mut slices);
            match self.socket.try_write_vectored(&slices[..n_slices]) {
                Ok(written) => outbox.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        outbox.shrink();
        Ok(true)
    }
}

/// Frames that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Whether the first frame was written in part: it must be finished before anything else.
    started: bool,
}

impl Outbox {
    /// An idle connection keeps no more slots than this for frames.
    const IDLE_SLOTS: usize = 4;

    pub(super) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Drops every frame of which nothing was written yet.
    pub(super) fn drop_unsent(&mut self) {
        self.frames.truncate(usize::from(self.started));
        self.bytes = self.frames.iter().map(Bytes::len).sum();
    }

    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        slices.iter_mut().zip(&self.frames).map(|(slice, frame)| *slice = IoSlice::new(frame)).count()
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(frame) = self.frames.front_mut() {
            if written < frame.len() {
                self.started |= written > 0;
                frame.advance(written);
                return;
            }
            written -= frame.len();
            self.frames.pop_front();
            self.started = false;
        }
    }

    fn shrink(&mut self) {
        if self.frames.capacity() > Self::IDLE_SLOTS {
            self.frames.shrink_to(Self::IDLE_SLOTS);
        }
    }
}

/// The host's clock, as the rate limiter reads it.
#[derive(Debug, Clone)]
pub(super) struct Uptime(Clock);

impl governor::clock::Clock for Uptime {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(std::time::Duration::from_millis(self.0.uptime_ms()))
    }
}

impl ReasonablyRealtime for Uptime {
    fn reference_point(&self) -> Nanos {
        self.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_was_begun_is_finished_though_the_rest_is_dropped() {
        let mut outbox = Outbox::default();
        for frame in ["abc", "def", "ghi"] {
            outbox.push(Bytes::from_static(frame.as_bytes()));
        }
        outbox.advance(4);
        assert_eq!(outbox.bytes(), 5);
        outbox.drop_unsent();
        assert_eq!((outbox.bytes(), outbox.frames.len()), (2, 1));
        outbox.advance(2);
        assert!(outbox.is_empty());
        outbox.push(Bytes::from_static(b"x"));
        outbox.drop_unsent();
        assert!(outbox.is_empty());
    }
}

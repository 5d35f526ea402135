//! A client that breaks its protocol: it is told why, and the log has a line of it, of many a few.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::rc::Rc;

use governor::Quota;

use super::link::{Limiter, Link};
use super::shard::Shard;
use crate::model::{Clock, CloseCode, ErrorCode, Failure};
use crate::protocol::{plain, socketio};

/// Lines of one shard a second, in the long run, and at once. A client that does it again and again fills no disk.
const LINES_PER_SECOND: NonZeroU32 = NonZeroU32::MIN;
const BURST: NonZeroU32 = NonZeroU32::new(20).expect("not zero");

/// Which of a shard's violations are logged.
#[derive(Debug)]
pub(super) struct Violations {
    limiter: Limiter,
    /// Not logged since the last that was.
    n_silent: Cell<u64>,
}

impl Violations {
    pub(super) fn new(clock: &Clock) -> Self {
        let quota = Quota::per_second(LINES_PER_SECOND).allow_burst(BURST);
        Self { limiter: Limiter::new(quota, clock), n_silent: Cell::new(0) }
    }

    /// Logs that a client broke the protocol, unless there were many.
    pub(super) fn log(&self, link: &Link, reason: &str) {
        if !self.limiter.allows() {
            return self.n_silent.set(self.n_silent.get() + 1);
        }
        let connection = link.only_connection();
        let user = connection.map(|connection| connection.identity.borrow().user.clone()).unwrap_or_default();
        let not_logged = self.n_silent.take();
        tracing::info!(peer = %link.peer, %user, not_logged, "a client broke the protocol: {reason}");
    }
}

impl Shard {
    /// Ends a link whose client broke the protocol.
    pub(super) fn violated(self: &Rc<Self>, link: &Rc<Link>, reason: &str) {
        self.complain(link, reason);
        self.close(link, CloseCode::ProtocolError, reason);
    }

    /// Says that a client broke the protocol, before its link is ended: to the log, and by an event to a Socket.IO client, which
    /// does not show the reason of a close.
    pub(super) fn complain(self: &Rc<Self>, link: &Rc<Link>, reason: &str) {
        if !link.is_up() {
            return;
        }
        self.violations.log(link, reason);
        if link.engine().is_some()
            && let Some(connection) = link.only_connection()
        {
            let why = plain::error_data(&Failure::new(ErrorCode::BadRequest, reason), None);
            self.enqueue(link, socketio::event_frames(connection.namespace(), "error", &why, None, None));
        }
    }
}

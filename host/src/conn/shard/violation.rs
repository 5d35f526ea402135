//! A client that breaks its protocol: it is told why, and the log has a line of it, of many a few.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::rc::Rc;

use governor::Quota;

use super::parts::Shard;
use crate::conn::state::transport::{Limiter, Transport};
use crate::model::{Clock, CloseCode, ErrorCode, Failure};
use crate::protocol::{plain, socketio};

/// Lines of one shard a second, in the long run, and at once. A client that does it again and again fills no disk.
const LINES_PER_SECOND: NonZeroU32 = NonZeroU32::MIN;
const BURST: NonZeroU32 = NonZeroU32::new(20).expect("not zero");

/// Which of a shard's violations are logged.
#[derive(Debug)]
pub(in crate::conn) struct Violations {
    limiter: Limiter,
    /// Not logged since the last that was.
    n_silent: Cell<u64>,
}

impl Violations {
    pub(in crate::conn) fn new(clock: &Clock) -> Self {
        let quota = Quota::per_second(LINES_PER_SECOND).allow_burst(BURST);
        Self { limiter: Limiter::new(quota, clock), n_silent: Cell::new(0) }
    }

    /// Logs that a client broke the protocol, unless there were many.
    pub(in crate::conn) fn log(&self, transport: &Transport, reason: &str) {
        if !self.limiter.allows() {
            return self.n_silent.set(self.n_silent.get() + 1);
        }
        let connection = transport.only_connection();
        let user = connection.map(|connection| connection.identity.borrow().user.clone()).unwrap_or_default();
        let not_logged = self.n_silent.take();
        tracing::info!(peer = %transport.peer, %user, not_logged, "a client broke the protocol: {reason}");
    }
}

impl Shard {
    /// Ends a transport whose client broke the protocol.
    pub(in crate::conn) fn close_for_violation(self: &Rc<Self>, transport: &Rc<Transport>, reason: &str) {
        self.report_violation(transport, reason);
        self.close(transport, CloseCode::ProtocolError, reason);
    }

    /// Says that a client broke the protocol, before its transport is ended: to the log, and by an event to a Socket.IO client, which
    /// does not show the reason of a close.
    pub(in crate::conn) fn report_violation(self: &Rc<Self>, transport: &Rc<Transport>, reason: &str) {
        if !transport.is_up() {
            return;
        }
        self.violations.log(transport, reason);
        if transport.eio().is_some()
            && let Some(connection) = transport.only_connection()
        {
            let why = plain::error_data(&Failure::new(ErrorCode::BadRequest, reason), None);
            self.enqueue(transport, socketio::event_frames(connection.namespace(), "error", &why, None, None));
        }
    }
}

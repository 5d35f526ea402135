//! The end of a shard: a drain closes connections one after another, a stop closes all that are left.

use std::convert::Infallible;
use std::ops::Range;
use std::rc::Rc;

use tokio::sync::mpsc;

use super::parts::Shard;
use crate::conn::state::{Timer, Transport, TransportId};

impl Shard {
    /// Begins to close connections, spread evenly over a range of time in milliseconds of uptime. `working` is dropped
    /// when all are closed.
    pub(super) fn begin_drain(self: &Rc<Self>, over: Range<u64>, working: mpsc::Sender<Infallible>) {
        // The clients of those may come back to another node.
        let detached = if self.shared().plugins.has_other_nodes() { Vec::new() } else { self.detached().ids() };
        self.shutdown().begin_drain(over, self.transports_up(), detached, working);
        self.drain_some(self.now());
    }

    fn transports_up(&self) -> Vec<TransportId> {
        self.transports().filtered(Transport::is_up).iter().map(|transport| transport.id).collect()
    }

    /// Closes the connections that are due, and sets the timer for the next ones.
    pub(super) fn drain_some(self: &Rc<Self>, now: u64) {
        let Some((transports, detached)) = self.shutdown().take_due(now) else { return };
        for transport in transports.into_iter().filter_map(|id| self.transport(id)) {
            self.close_for_restart(&transport);
        }
        for id in detached {
            self.drop_detached(id, None);
        }
        let is_awaited = self.detached().count() > 0 && self.shared().plugins.has_other_nodes();
        if let Some(next) = self.shutdown().next_due(now, is_awaited, || self.transports_up()) {
            self.timers().schedule(next, Timer::Drain);
        }
    }

    /// Begins to close all connections. The shard ends after the last.
    pub(super) fn stop(self: &Rc<Self>) {
        if !self.shutdown().stop() {
            return;
        }
        let limit = self.now() + self.config().shutdown_timeout.as_millis() as u64;
        for transport in self.transports().filtered(|_| true) {
            self.close_for_restart(&transport);
            // A transport that was closing already may have a later limit.
            if limit < transport.times.limit.get() {
                transport.times.limit.set(limit);
                self.arm(&transport, limit);
            }
        }
    }
}

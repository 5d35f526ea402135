//! Messages that are too large: their clients hear of it by a code at most, and so the log says it.

use std::cell::Cell;
use std::net::SocketAddr;

use super::parts::Shard;
use crate::conn::state::transport::Transport;

/// Time between such lines of one shard, in milliseconds: what a client does must not fill a disk.
const PAUSE_MS: u64 = 1000;

/// When that was last said, and how often it was not.
#[derive(Debug, Default)]
pub(in crate::conn) struct Oversize {
    logged_at: Cell<Option<u64>>,
    n_unlogged: Cell<u64>,
}

impl Shard {
    /// Says in the log that a message on a transport was longer than this transport's may be.
    pub(in crate::conn) fn log_oversize(&self, transport: &Transport) {
        let user = transport.only_connection().map(|connection| connection.identity.borrow().user.to_string());
        self.log_oversize_from(transport.peer, user.as_deref(), self.longest_message(transport));
    }

    /// As that, of a request that belongs to no transport yet.
    pub(in crate::conn) fn log_oversize_from(&self, peer: SocketAddr, user: Option<&str>, limit: usize) {
        let now = self.shared.clock.uptime_ms();
        if self.oversize.logged_at.get().is_some_and(|last| now < last.saturating_add(PAUSE_MS)) {
            return self.oversize.n_unlogged.set(self.oversize.n_unlogged.get() + 1);
        }
        self.oversize.logged_at.set(Some(now));
        let unlogged = self.oversize.n_unlogged.take();
        let which =
            if limit < self.shared.config.message_bytes { "before it signed in" } else { "limits.message_bytes" };
        tracing::info!(%peer, user, limit, which, unlogged, "a client's message was too large, and it was told so");
    }
}

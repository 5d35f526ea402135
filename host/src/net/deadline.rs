//! The deadline of an HTTP connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Deadline of an HTTP connection, in milliseconds from its start; `u64::MAX` while a request is answered, which has
/// bounds of its own.
#[derive(Debug, Clone)]
pub(super) struct Deadline {
    begun: Instant,
    at: Arc<AtomicU64>,
    /// Time for the head of a request, from the start of a new connection or from the head's first byte.
    head: Duration,
}

impl Deadline {
    /// A deadline for the first head, which may take `head`, as each later one.
    pub(super) fn new(head: Duration) -> Self {
        let deadline = Self { begun: Instant::now(), at: Arc::default(), head };
        deadline.set(head);
        deadline
    }

    pub(super) fn set(&self, time: Duration) {
        let at = self.begun.elapsed().saturating_add(time);
        self.at.store(at.as_millis() as u64, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.at.store(u64::MAX, Ordering::Relaxed);
    }

    /// Whether a request is being answered.
    pub(super) fn is_clear(&self) -> bool {
        self.at.load(Ordering::Relaxed) == u64::MAX
    }

    /// Notes the first byte of a request, whose head is due within its time.
    pub(super) fn head_begins(&self) {
        if !self.is_clear() && self.left() > self.head {
            self.set(self.head);
        }
    }

    /// The time left until the deadline.
    pub(super) fn left(&self) -> Duration {
        let at = Duration::from_millis(self.at.load(Ordering::Relaxed));
        at.saturating_sub(self.begun.elapsed())
    }
}

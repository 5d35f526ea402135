//! The limits of the write queue.

/// The most queued documents, and separately scopes: a minute of a busy host's writes while its database restarts.
pub(super) const MAX_WAITING: usize = 100_000;

/// The most bytes of queued documents, and separately of states.
pub(super) const MAX_WAITING_BYTES: usize = 256 * 1024 * 1024;

/// Batch size, in documents and in scopes: large enough to amortise a commit, small enough that a failed one repeats little
/// work.
pub(super) const BATCH: usize = 1000;

//! The limits of the write queue.

/// Documents, and scopes, that wait, at most: a minute of what a busy host is sent while its database restarts.
pub(super) const MAX_WAITING: usize = 100_000;

/// Bytes of documents, and of states, that wait, at most.
pub(super) const MAX_WAITING_BYTES: usize = 256 * 1024 * 1024;

/// Batch size, in documents and in scopes: large enough to amortise a commit, small enough that a failed one repeats little
/// work.
pub(super) const BATCH: usize = 1000;

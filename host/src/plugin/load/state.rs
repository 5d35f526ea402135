//! The state of a scope.

use bytes::Bytes;

/// A state, and the version of its schema.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) version: u32,
    pub(crate) bytes: Bytes,
}

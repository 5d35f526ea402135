//! What other threads read of the link's state.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU16};

use arc_swap::ArcSwap;

use super::nodes::View;

/// What other threads read of the link's state.
#[derive(Default)]
pub(super) struct Status {
    pub(super) me: AtomicU16,
    pub(super) is_up: AtomicBool,
    pub(super) view: ArcSwap<View>,
    /// The secret from which all nodes derive the secrets of connections' sessions.
    pub(super) secret: ArcSwap<Vec<u8>>,
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status").field("me", &self.me).field("is_up", &self.is_up).finish_non_exhaustive()
    }
}

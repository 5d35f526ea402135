//! What other threads read of the link's state.

use std::sync::atomic::{AtomicBool, AtomicU16};

use arc_swap::ArcSwap;

use super::nodes::View;

/// What other threads read of the link's state.
#[derive(Debug, Default)]
pub(super) struct Status {
    pub(super) me: AtomicU16,
    pub(super) is_up: AtomicBool,
    pub(super) view: ArcSwap<View>,
}

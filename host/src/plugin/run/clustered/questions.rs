//! What nodes ask each other on behalf of operators and services.

use std::sync::Arc;

use crate::plugin::run::shared::Shared;

/// Answers another node.
pub(super) fn answer(_shared: &Arc<Shared>, _request: &[u8]) -> Vec<u8> {
    Vec::new()
}

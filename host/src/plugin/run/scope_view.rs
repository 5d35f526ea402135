//! What operators see of one scope.

use std::sync::Arc;

use crate::model::{ConnId, Identity};
use crate::plugin::load::call::Call;
use crate::plugin::load::state::State;

/// What is in memory of a scope.
#[derive(Debug, Default)]
pub(crate) struct ScopeView {
    /// Whether another node of the cluster has the scope.
    pub(crate) is_elsewhere: bool,
    /// The scope itself; none if it is not in memory.
    pub(crate) scope: Option<InMemory>,
    /// Its recent calls, the oldest first.
    pub(crate) calls: Vec<Arc<Call>>,
}

/// A scope in memory.
#[derive(Debug)]
pub(crate) struct InMemory {
    pub(crate) state: Option<State>,
    /// Events handled so far.
    pub(crate) sequence: u64,
    /// The name, due time in milliseconds since 1970, and payload of each timer.
    pub(crate) timers: Vec<(Box<str>, u64, Box<str>)>,
    /// The members, and whether each is in the scope's room.
    pub(crate) members: Vec<(ConnId, Option<Arc<Identity>>, bool)>,
    /// Events that wait until the feature can handle them.
    pub(crate) n_waiting: usize,
}

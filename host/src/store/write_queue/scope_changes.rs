//! The queue of durable scopes to be written.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::limits::{BATCH, MAX_WAITING, MAX_WAITING_BYTES};
use crate::ledger::Charge;
use crate::store::StoreFailure;
use crate::store::backend::{AnsweredCall, ScopeRecord};

/// Called when a scope's change is on disk, or has failed.
pub type Acknowledge = Box<dyn FnOnce(Result<(), StoreFailure>) + Send>;

/// A change of a scope.
#[derive(Debug)]
pub(in crate::store) enum Change {
    /// The scope is written. The charge is held until then, or until a later change replaces this one.
    Put {
        record: ScopeRecord,
        _charge: Charge,
        /// Whether it replaces a deletion that was not written, after which the sequence starts at one again.
        is_anew: bool,
    },
    /// The scope is deleted by the owner of this epoch, if it expires by then.
    Drop { epoch: u64, expires_ms: u64 },
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Put { record, .. } => {
                let before = record.before.as_ref().map_or(0, |(_, state)| state.len());
                record.state.as_ref().map_or(0, Vec::len) + before
            }
            Self::Drop { .. } => 0,
        }
    }
}

/// A plugin's name and the key of one of its scopes.
pub(in crate::store) type ScopeId = (String, String);

/// A scope in a batch.
pub(in crate::store) struct PendingScope {
    pub(in crate::store) id: ScopeId,
    pub(in crate::store) change: Arc<Change>,
    pub(in crate::store) callers: Callers,
}

/// The callers behind a change, which is written once for all of them.
#[derive(Default)]
pub(in crate::store) struct Callers {
    pub(in crate::store) acknowledge: Vec<Acknowledge>,
    pub(in crate::store) answered: Vec<AnsweredCall>,
}

impl Callers {
    fn bytes(&self) -> usize {
        self.answered.iter().map(|call| call.answer.len()).sum()
    }
}

/// The queue of scopes: only the last change of each is written.
#[derive(Default)]
pub(super) struct ScopeChanges {
    changes: HashMap<ScopeId, (Arc<Change>, Callers)>,
    /// The scopes in the order in which they were queued.
    order: VecDeque<ScopeId>,
    /// Bytes of states and answers that are queued or being written.
    bytes: usize,
    /// Callers that wait to be acknowledged, including those of changes that are being written.
    n_acknowledging: usize,
    /// Scopes that are being written.
    writing: HashMap<ScopeId, Arc<Change>>,
}

impl ScopeChanges {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.changes.len() >= MAX_WAITING || self.n_acknowledging >= MAX_WAITING || self.bytes >= MAX_WAITING_BYTES
    }

    pub(super) fn push(
        &mut self,
        id: ScopeId,
        mut change: Change,
        acknowledge: Option<Acknowledge>,
        answered: Option<AnsweredCall>,
    ) {
        self.bytes += change.bytes() + answered.as_ref().map_or(0, |call| call.answer.len());
        self.n_acknowledging += usize::from(acknowledge.is_some());
        match self.changes.entry(id) {
            Entry::Occupied(mut pending) => {
                let (current, callers) = pending.get_mut();
                self.bytes -= current.bytes();
                if let Change::Put { is_anew, .. } = &mut change {
                    *is_anew = matches!(**current, Change::Drop { .. } | Change::Put { is_anew: true, .. });
                }
                *current = Arc::new(change);
                callers.acknowledge.extend(acknowledge);
                callers.answered.extend(answered);
            }
            Entry::Vacant(free) => {
                self.order.push_back(free.key().clone());
                let callers = Callers { acknowledge: Vec::from_iter(acknowledge), answered: Vec::from_iter(answered) };
                free.insert((Arc::new(change), callers));
            }
        }
    }

    /// The last change of a scope, if it is not on disk yet.
    pub(super) fn pending(&self, id: &ScopeId) -> Option<&Change> {
        let waiting = self.changes.get(id).map(|(change, _)| change);
        waiting.or_else(|| self.writing.get(id)).map(|change| &**change)
    }

    pub(super) fn is_any_pending_of(&self, plugin: &str) -> bool {
        self.changes.keys().chain(self.writing.keys()).any(|(of_plugin, _)| of_plugin == plugin)
    }

    /// Takes the scopes of a batch, which count as waiting until they are finished.
    pub(super) fn take(&mut self) -> Vec<PendingScope> {
        let n_scopes = self.order.len().min(BATCH);
        let mut scopes = Vec::with_capacity(n_scopes);
        for id in self.order.drain(..n_scopes) {
            if let Some((change, callers)) = self.changes.remove(&id) {
                self.writing.insert(id.clone(), change.clone());
                scopes.push(PendingScope { id, change, callers });
            }
        }
        scopes
    }

    /// Removes finished scopes. Returns the callers to acknowledge.
    pub(super) fn finish(&mut self, scopes: Vec<PendingScope>) -> Vec<Acknowledge> {
        let mut acknowledging = Vec::new();
        for PendingScope { id, change, callers } in scopes {
            self.writing.remove(&id);
            self.bytes -= change.bytes() + callers.bytes();
            self.n_acknowledging -= callers.acknowledge.len();
            acknowledging.extend(callers.acknowledge);
        }
        acknowledging
    }
}

//! New plain connections that may be about to resume another: their users have sessions, and a client says only after
//! `connected` that it wants to resume one.
//!
//! The frames for such a connection are held until its client's first frame. If the client resumes, they are in the other
//! connection's replay, in order and once; if not, they are sent then. Where the user has as many connections as it may,
//! the new one counts only if it does not resume.

use std::cell::RefCell;
use std::collections::HashMap;

use super::ids::TransportId;
use crate::model::ConnId;

/// The connections whose clients' first frames are awaited.
#[derive(Debug, Default)]
pub(crate) struct PendingResumes(RefCell<HashMap<ConnId, PendingResume>>);

#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingResume {
    pub(crate) transport: TransportId,
    /// Whether its user had as many connections as it may.
    pub(crate) is_over_limit: bool,
}

impl PendingResumes {
    pub(crate) fn insert(&self, id: ConnId, pending: PendingResume) {
        self.0.borrow_mut().insert(id, pending);
    }

    pub(crate) fn contains(&self, id: ConnId) -> bool {
        self.0.borrow().contains_key(&id)
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<PendingResume> {
        self.0.borrow().get(&id).copied()
    }

    pub(crate) fn remove(&self, id: ConnId) -> Option<PendingResume> {
        self.0.borrow_mut().remove(&id)
    }
}

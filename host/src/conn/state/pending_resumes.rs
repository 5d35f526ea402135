//! New plain connections whose clients may be about to resume another connection: their users have sessions, and a
//! client sends `resume` only after `connected`.
//!
//! The frames for such a connection are held until its client's first frame. If the client resumes, the same frames are
//! in the resumed connection's replay buffer; if not, the held frames are sent. At the user's limit of connections, the
//! new one counts only if its client does not resume.

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
    /// Whether the user was at the limit of connections.
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

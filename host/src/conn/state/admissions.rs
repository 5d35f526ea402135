//! New connections that wait for the features that decide whether they open.
//!
//! Such a connection is in the hub, so that features can name it, and on no transport: events for it are held in its replay
//! buffer, and what a plain client sends meanwhile is held here.

use std::cell::RefCell;
use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::held_text::HeldText;
use super::ids::TransportId;
use crate::model::ConnId;

/// The connections that wait.
#[derive(Debug, Default)]
pub(crate) struct Admissions(RefCell<HashMap<ConnId, Admission>>);

/// A connection that waits.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) transport: TransportId,
    /// The number of features that have not answered.
    pub(crate) n_waiting: usize,
    pub(crate) welcome: Welcome,
    /// What a plain client has sent.
    pub(crate) held: HeldText,
}

/// What a connection needs to be told when it opens.
#[derive(Debug)]
pub(crate) enum Welcome {
    Plain {
        /// The id of `authenticate`, whose acknowledgement follows.
        id: Option<i128>,
        may_resume: bool,
        is_over_limit: bool,
    },
    /// A plain client that was handed off to resume a connection that is not there any more.
    Resumed {
        /// The id of `resume`, whose acknowledgement follows.
        id: Option<i128>,
        /// Frames that were held for it on the other shard.
        held: Vec<Bytes>,
    },
    SocketIo {
        /// The key by which the client may recover.
        pid: Option<String>,
        auth: Option<Box<RawValue>>,
    },
}

impl Admission {
    pub(crate) fn new(transport: TransportId, welcome: Welcome) -> Self {
        Self { transport, n_waiting: usize::MAX, welcome, held: HeldText::default() }
    }
}

impl Admissions {
    pub(crate) fn insert(&self, id: ConnId, admission: Admission) {
        self.0.borrow_mut().insert(id, admission);
    }

    pub(crate) fn remove(&self, id: ConnId) -> Option<Admission> {
        self.0.borrow_mut().remove(&id)
    }

    pub(crate) fn contains(&self, id: ConnId) -> bool {
        self.0.borrow().contains_key(&id)
    }

    /// Has another transport wait for a connection.
    pub(crate) fn replace(&self, id: ConnId, transport: TransportId) {
        if let Some(admission) = self.0.borrow_mut().get_mut(&id) {
            admission.transport = transport;
        }
    }

    /// Sets the number of features that are asked.
    pub(crate) fn set_waiting(&self, id: ConnId, n: usize) {
        if let Some(admission) = self.0.borrow_mut().get_mut(&id) {
            admission.n_waiting = n;
        }
    }

    /// Notes that a feature allows a connection. Returns whether all have.
    pub(crate) fn allow(&self, id: ConnId) -> bool {
        self.0.borrow_mut().get_mut(&id).is_some_and(|admission| {
            admission.n_waiting = admission.n_waiting.saturating_sub(1);
            admission.n_waiting == 0
        })
    }

    /// Holds what a plain client sends before its connection opens. Returns whether there was room for it.
    pub(crate) fn hold(&self, id: ConnId, text: &str) -> bool {
        self.0.borrow_mut().get_mut(&id).is_some_and(|admission| admission.held.push(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_opens_when_all_features_allow_it() {
        let (admissions, id, transport) = (Admissions::default(), ConnId::new(0, 1, 1), TransportId::new(1, 1));
        let welcome = Welcome::Plain { id: None, may_resume: false, is_over_limit: false };
        admissions.insert(id, Admission::new(transport, welcome));
        admissions.set_waiting(id, 2);
        assert!(!admissions.allow(id) && admissions.allow(id) && !admissions.allow(ConnId::new(0, 2, 1)));
        assert!(admissions.hold(id, "a"));
        assert_eq!(admissions.remove(id).unwrap().held.into_texts(), [Box::from("a")]);
    }
}

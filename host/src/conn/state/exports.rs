//! Connections that other nodes have claimed, because their clients have come back there.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::model::ConnId;

/// The time within which a connection that was claimed is released, in milliseconds. After it, the client may go on here.
const CLAIM_MS: u64 = 5000;

/// The connections that were claimed.
#[derive(Debug, Default)]
pub(crate) struct Exports(RefCell<HashMap<ConnId, Export>>);

#[derive(Debug, Clone, Copy)]
struct Export {
    /// The position in the replay buffer up to which the client received.
    position: u64,
    /// When the claim lapses, in milliseconds of uptime.
    until: u64,
}

impl Exports {
    pub(crate) fn claim(&self, id: ConnId, position: u64, now: u64) {
        let mut exports = self.0.borrow_mut();
        exports.retain(|_, export| export.until > now);
        exports.insert(id, Export { position, until: now + CLAIM_MS });
    }

    /// Whether a connection waits to be released.
    pub(crate) fn is_claimed(&self, id: ConnId, now: u64) -> bool {
        self.0.borrow().get(&id).is_some_and(|export| export.until > now)
    }

    /// Takes a claim that has not lapsed. Returns the position up to which the client received.
    pub(crate) fn take(&self, id: ConnId, now: u64) -> Option<u64> {
        self.0.borrow_mut().remove(&id).filter(|export| export.until > now).map(|export| export.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_lapses() {
        let (exports, id) = (Exports::default(), ConnId::new(0, 1, 1));
        exports.claim(id, 7, 100);
        assert!(exports.is_claimed(id, 100 + CLAIM_MS - 1) && !exports.is_claimed(id, 100 + CLAIM_MS));
        assert_eq!((exports.take(id, 101), exports.take(id, 101)), (Some(7), None));
        exports.claim(id, 7, 100);
        assert_eq!(exports.take(id, 100 + CLAIM_MS), None);
    }
}

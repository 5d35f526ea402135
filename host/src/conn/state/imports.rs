//! Connections of other nodes whose clients have come back to this one, until they go on here.
//!
//! At first such a connection is only asked for. Then it is in the hub and on no transport: its frames are held, because
//! those of the other node come before.

use std::cell::RefCell;
use std::collections::HashMap;

use super::held_text::HeldText;
use super::ids::TransportId;
use crate::model::ConnId;

/// The connections that are on their way.
#[derive(Debug, Default)]
pub(crate) struct Imports(RefCell<HashMap<ConnId, Import>>);

/// A connection that is on its way.
#[derive(Debug)]
pub(crate) struct Import {
    transport: TransportId,
    /// The Socket.IO namespace that the client enters.
    namespace: String,
    /// What a plain client has sent meanwhile.
    pub(crate) held: HeldText,
}

impl Import {
    pub(crate) fn new(transport: TransportId, namespace: &str) -> Self {
        Self { transport, namespace: namespace.to_owned(), held: HeldText::default() }
    }
}

impl Imports {
    /// Returns whether the connection was not on its way before.
    pub(crate) fn insert(&self, id: ConnId, import: Import) -> bool {
        let mut imports = self.0.borrow_mut();
        let is_new = !imports.contains_key(&id);
        if is_new {
            imports.insert(id, import);
        }
        is_new
    }

    pub(crate) fn remove(&self, id: ConnId) -> Option<Import> {
        self.0.borrow_mut().remove(&id)
    }

    pub(crate) fn contains(&self, id: ConnId) -> bool {
        self.0.borrow().contains_key(&id)
    }

    /// Whether a transport waits for a connection in this namespace.
    pub(crate) fn is_awaited(&self, transport: TransportId, namespace: &str) -> bool {
        self.0.borrow().values().any(|import| import.transport == transport && import.namespace == namespace)
    }

    /// Holds what a plain client sends while its transport waits for a connection. Returns whether there was room for it;
    /// `None` where it waits for none.
    pub(crate) fn hold(&self, transport: TransportId, text: &str) -> Option<bool> {
        let mut imports = self.0.borrow_mut();
        imports.values_mut().find(|import| import.transport == transport).map(|import| import.held.push(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transport_waits_for_its_connection() {
        let (imports, id, other) = (Imports::default(), ConnId::new(0, 1, 1), TransportId::new(2, 1));
        let transport = TransportId::new(1, 1);
        assert!(imports.insert(id, Import::new(transport, "/")) && !imports.insert(id, Import::new(other, "/")));
        assert!(imports.is_awaited(transport, "/") && !imports.is_awaited(transport, "/a"));
        assert_eq!((imports.hold(transport, "x"), imports.hold(other, "x")), (Some(true), None));
        assert_eq!(imports.remove(id).unwrap().held.into_texts(), [Box::from("x")]);
        assert!(!imports.contains(id));
    }
}

//! Connections of other nodes whose clients have come back to this one, until they go on here.
//!
//! At first such a connection is only asked for, by a key that nobody has verified. Then it **arrives**: it is in the hub and on
//! no transport, and its frames are held, because those of the other node come before.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::held_text::HeldText;
use super::ids::TransportId;
use crate::model::ConnId;

/// The most that are on their way at once.
const MAX_IMPORTS: usize = 16_384;

/// The transport that waits for a connection: another one after an upgrade.
pub(crate) type Waiting = Rc<Cell<TransportId>>;

/// The connections that are on their way.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    by_transport: RefCell<HashMap<TransportId, Vec<Import>>>,
    n_waiting: Cell<usize>,
    arriving: RefCell<HashSet<ConnId>>,
}

/// A connection that is on its way.
#[derive(Debug)]
struct Import {
    /// The Socket.IO namespace that the client enters.
    namespace: String,
    transport: Waiting,
    /// What a plain client has sent meanwhile.
    held: HeldText,
}

impl Imports {
    /// Has a transport wait for a connection in a namespace. `None` if too many wait.
    pub(crate) fn begin(&self, transport: TransportId, namespace: &str) -> Option<Waiting> {
        if self.n_waiting.get() >= MAX_IMPORTS {
            return None;
        }
        self.n_waiting.set(self.n_waiting.get() + 1);
        let waiting = Waiting::new(Cell::new(transport));
        let import = Import { namespace: namespace.to_owned(), transport: waiting.clone(), held: HeldText::default() };
        self.by_transport.borrow_mut().entry(transport).or_default().push(import);
        Some(waiting)
    }

    /// Ends the wait for a connection. Returns what a plain client has sent meanwhile.
    pub(crate) fn end(&self, transport: TransportId, namespace: &str) -> HeldText {
        let mut by_transport = self.by_transport.borrow_mut();
        let Some(imports) = by_transport.get_mut(&transport) else { return HeldText::default() };
        let at = imports.iter().position(|import| import.namespace == namespace);
        let import = at.map(|at| imports.swap_remove(at));
        if imports.is_empty() {
            by_transport.remove(&transport);
        }
        self.n_waiting.set(self.n_waiting.get() - usize::from(import.is_some()));
        import.map(|import| import.held).unwrap_or_default()
    }

    /// Has one transport wait for what another has waited for, which it replaces.
    pub(crate) fn replace(&self, old: TransportId, new: TransportId) {
        let mut by_transport = self.by_transport.borrow_mut();
        if let Some(imports) = by_transport.remove(&old) {
            imports.iter().for_each(|import| import.transport.set(new));
            by_transport.entry(new).or_default().extend(imports);
        }
    }

    /// Whether a transport waits for a connection in any namespace.
    pub(crate) fn is_waiting(&self, transport: TransportId) -> bool {
        self.n_waiting.get() > 0 && self.by_transport.borrow().contains_key(&transport)
    }

    /// Whether a transport waits for a connection in this namespace.
    pub(crate) fn is_awaited(&self, transport: TransportId, namespace: &str) -> bool {
        let by_transport = self.by_transport.borrow();
        by_transport.get(&transport).is_some_and(|imports| imports.iter().any(|import| import.namespace == namespace))
    }

    /// Holds what a plain client sends while its transport waits for a connection. Returns whether there was room for it;
    /// `None` where it waits for none.
    pub(crate) fn hold(&self, transport: TransportId, text: &str) -> Option<bool> {
        if self.n_waiting.get() == 0 {
            return None;
        }
        let mut by_transport = self.by_transport.borrow_mut();
        by_transport.get_mut(&transport)?.first_mut().map(|import| import.held.push(text))
    }

    /// Notes that a connection is in the hub.
    pub(crate) fn arrive(&self, id: ConnId) {
        self.arriving.borrow_mut().insert(id);
    }

    /// Notes that a connection goes on, or has ended.
    pub(crate) fn arrived(&self, id: ConnId) {
        self.arriving.borrow_mut().remove(&id);
    }

    /// Whether a connection is in the hub, and does not go on yet.
    pub(crate) fn is_arriving(&self, id: ConnId) -> bool {
        self.arriving.borrow().contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transport_waits_for_its_connection() {
        let imports = Imports::default();
        let (transport, other) = (TransportId::new(1, 1), TransportId::new(2, 1));
        let waiting = imports.begin(transport, "/").unwrap();
        assert!(imports.is_awaited(transport, "/") && !imports.is_awaited(transport, "/a"));
        assert_eq!((imports.hold(transport, "x"), imports.hold(other, "x")), (Some(true), None));
        imports.replace(transport, other);
        assert!(imports.is_waiting(other) && !imports.is_waiting(transport));
        assert_eq!(waiting.get(), other);
        assert_eq!(imports.end(other, "/").into_texts(), [Box::from("x")]);
        assert!(!imports.is_waiting(other) && imports.n_waiting.get() == 0);
    }
}

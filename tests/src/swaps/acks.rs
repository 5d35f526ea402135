//! The events that a client waits to have acknowledged: each is acknowledged once, and those of a scope in order.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::group::Scope;
use super::tally::Kind;

/// What an acknowledgement belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// An event whose answer is not compared.
    Other,
    /// `ticket:view`.
    View,
    /// `ticket:leave`.
    Leave,
    /// `timeline:subscribe`.
    Subscribe,
    /// `subscribe:campaign`.
    Snapshot,
    /// A chat message, by its number.
    Say(u64),
    /// A page of the history.
    History,
}

#[derive(Debug)]
struct Pending {
    id: i64,
    asked: Asked,
    /// Whether the connection was cut since, so that the event or its acknowledgement may be lost.
    may_be_lost: bool,
}

/// The events of one client that are not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Acknowledgements {
    pending: BTreeMap<Scope, VecDeque<Pending>>,
    scopes: HashMap<i64, Scope>,
    last_id: i64,
    /// The number of acknowledgements that have arrived.
    pub(super) n_arrived: u64,
}

impl Acknowledgements {
    /// Notes an event that is sent. Returns its id.
    pub(super) fn ask(&mut self, scope: Scope, asked: Asked) -> i64 {
        self.last_id += 1;
        self.pending.entry(scope).or_default().push_back(Pending { id: self.last_id, asked, may_be_lost: false });
        self.scopes.insert(self.last_id, scope);
        self.last_id
    }

    /// Notes that the connection was cut. Returns the messages that have to be sent again.
    pub(super) fn cut(&mut self) -> Vec<u64> {
        let mut again = Vec::new();
        for pending in self.pending.values_mut().flatten().filter(|pending| !pending.may_be_lost) {
            pending.may_be_lost = true;
            if let Asked::Say(number) = pending.asked {
                again.push(number);
            }
        }
        again
    }

    /// Takes an acknowledgement. Returns what it belongs to.
    pub(super) fn take(&mut self, id: i64) -> Result<Asked, (Kind, String)> {
        self.n_arrived += 1;
        let Some(scope) = self.scopes.remove(&id) else {
            return Err((Kind::Doubled, format!("acknowledgement {id} of {} came, which has come", self.last_id)));
        };
        let queue = self.pending.entry(scope).or_default();
        let at = queue.iter().position(|pending| pending.id == id);
        let before: Vec<Pending> = queue.drain(..at.unwrap_or_default()).collect();
        let Some(pending) = queue.pop_front() else {
            return Err((Kind::Wrong, format!("acknowledgement {id} is of no event to {scope:?}")));
        };
        let (lost, late): (Vec<Pending>, Vec<Pending>) = before.into_iter().partition(|before| before.may_be_lost);
        for pending in lost {
            self.scopes.remove(&pending.id);
        }
        let n_late = late.len();
        for pending in late.into_iter().rev() {
            queue.push_front(pending);
        }
        match n_late {
            0 => Ok(pending.asked),
            _ => {
                Err((Kind::Disordered, format!("acknowledgement {id} of {scope:?} came before {n_late} earlier ones")))
            }
        }
    }

    /// Whether all have arrived that must.
    pub(super) fn is_settled(&self) -> bool {
        self.missing().next().is_none()
    }

    /// What has not arrived.
    pub(super) fn missing(&self) -> impl Iterator<Item = String> {
        let all = self.pending.iter().flat_map(|(scope, queue)| queue.iter().map(move |pending| (scope, pending)));
        all.filter(|(_, pending)| !pending.may_be_lost)
            .map(|(scope, pending)| format!("acknowledgement {} ({:?} to {scope:?})", pending.id, pending.asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_come_once_and_in_order() {
        let mut all = Acknowledgements::default();
        let ids = [(); 3].map(|()| all.ask(Scope::Chat, Asked::Other));
        let other = all.ask(Scope::Ticket, Asked::View);
        assert_eq!(all.take(other), Ok(Asked::View), "scopes are apart");
        assert_eq!(all.take(ids[1]).map_err(|(kind, _)| kind), Err(Kind::Disordered));
        assert_eq!(all.take(ids[1]).map_err(|(kind, _)| kind), Err(Kind::Doubled));
        assert!(!all.is_settled());
        assert_eq!((all.take(ids[0]), all.take(ids[2])), (Ok(Asked::Other), Ok(Asked::Other)));
        assert!(all.is_settled());
    }

    #[test]
    fn acknowledgement_may_be_lost_with_its_connection() {
        let mut all = Acknowledgements::default();
        let ids = [7, 8].map(|number| all.ask(Scope::Chat, Asked::Say(number)));
        assert_eq!(all.cut(), [7, 8]);
        assert!(all.is_settled() && all.cut().is_empty());
        let again = all.ask(Scope::Chat, Asked::Say(7));
        assert_eq!(all.take(ids[0]), Ok(Asked::Say(7)), "it was replayed");
        assert_eq!(all.take(again), Ok(Asked::Say(7)));
        assert_eq!(all.take(ids[1]).map_err(|(kind, _)| kind), Err(Kind::Doubled), "it comes too late");
    }
}

//! A ticket as one of its viewers sees it: each list differs from the one before by exactly one change, which was
//! announced.

use std::collections::BTreeMap;

use serde_json::Value;

use super::board::Check;
use super::group::client_of;
use super::tally::Kind;

/// A change of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// A client views the ticket.
    Joined,
    /// A client has left it.
    Left,
    /// A client types.
    Typed,
    /// A client types no more.
    Stopped,
}

/// The events by which changes are announced to the others.
const ANNOUNCEMENTS: [(&str, Change); 4] = [
    ("agent:joined", Change::Joined),
    ("agent:left", Change::Left),
    ("agent:typing", Change::Typed),
    ("agent:stopped_typing", Change::Stopped),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Out,
    Entering,
    In,
}

/// What a client has seen of a ticket.
#[derive(Debug)]
pub(super) struct Viewers {
    me: usize,
    place: Place,
    /// By client, whether it types.
    list: BTreeMap<usize, bool>,
    /// Announced changes whose list has not come.
    announced: Vec<(Change, usize)>,
    warnings: usize,
    /// All changes since the last [`Viewers::forget`].
    pub(super) changes: Vec<(Change, usize)>,
}

impl Viewers {
    /// A client that does not view the ticket.
    pub(super) fn new(me: usize) -> Self {
        let (list, announced, changes) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { me, place: Place::Out, list, announced, warnings: 0, changes }
    }

    /// Whether the client types.
    pub(super) fn types(&self) -> bool {
        self.list.get(&self.me).copied().unwrap_or_default()
    }

    /// The number of changes of one kind by one client.
    pub(super) fn n_changes(&self, change: Change, client: usize) -> u64 {
        self.changes.iter().filter(|seen| **seen == (change, client)).count() as u64
    }

    /// Forgets the changes so far.
    pub(super) fn forget(&mut self) {
        self.changes.clear();
    }

    /// The client sends `ticket:view`, or has left.
    pub(super) fn enter(&mut self) {
        if self.place == Place::Out {
            self.place = Place::Entering;
        }
    }

    /// The leave of the client was acknowledged.
    pub(super) fn left(&mut self) {
        self.place = Place::Out;
    }

    /// An event of the ticket has arrived.
    pub(super) fn see(&mut self, event: &str, data: &Value) -> Check {
        if self.place == Place::Out {
            return Err((Kind::Wrong, format!("{event} came after the client had left")));
        }
        match event {
            "collision:warning" => {
                self.warnings += 1;
                Ok(())
            }
            "viewers:updated" => self.see_list(&data["viewers"]),
            _ => self.see_announcement(event, data),
        }
    }

    fn see_announcement(&mut self, event: &str, data: &Value) -> Check {
        let change = ANNOUNCEMENTS.iter().find(|(name, _)| *name == event);
        let announced = change.zip(client_of(&data["agentId"]));
        let ((_, change), agent) = announced.ok_or_else(|| (Kind::Wrong, format!("{event} {data} is unknown")))?;
        if agent == self.me {
            return Err((Kind::Wrong, format!("{event} is for the others")));
        }
        if self.place == Place::Entering {
            return Err((Kind::Disordered, format!("{event} came before the first list")));
        }
        self.announced.push((*change, agent));
        Ok(())
    }

    fn see_list(&mut self, viewers: &Value) -> Check {
        let list = listed(viewers)?;
        let before = std::mem::replace(&mut self.list, list);
        let announced = std::mem::take(&mut self.announced);
        let warnings = std::mem::take(&mut self.warnings);
        let others = self.list.iter().filter(|(client, _)| **client != self.me);
        let (n_others, n_typing) =
            others.fold((0, 0), |(all, typing), (_, types)| (all + 1, typing + usize::from(*types)));
        if self.place == Place::Entering {
            self.place = Place::In;
            let expected = (Some(&false), usize::from(n_others > 0));
            let got = (self.list.get(&self.me), warnings);
            return same("the first list and the warning before it", &got, &expected);
        }
        let changes = changes(&before, &self.list);
        let [change] = changes.as_slice() else {
            let kind = if changes.is_empty() { Kind::Doubled } else { Kind::Lost };
            return Err((kind, format!("a list with the changes {changes:?} to the one before: {viewers}")));
        };
        self.changes.push(*change);
        let is_own = change.1 == self.me;
        let expected = (
            if is_own { vec![] } else { vec![*change] },
            match change {
                (Change::Typed, _) if is_own => usize::from(n_typing > 0),
                _ => 0,
            },
        );
        same("the announcements and warnings before a list", &(announced, warnings), &expected)
    }

    /// The acknowledgement of `ticket:view` has arrived, which has the last list.
    pub(super) fn see_answer(&self, data: &Value) -> Check {
        same("the list in an acknowledgement", &listed(&data["viewers"])?, &self.list)
    }

    /// Checks that the clients view the ticket, and that nobody types.
    pub(super) fn check_end(&self, clients: impl Iterator<Item = usize>) -> Check {
        same("the last list", &self.list, &clients.map(|client| (client, false)).collect())
    }
}

/// Compares with the model.
pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, expected: &T) -> Check {
    match got == expected {
        true => Ok(()),
        false => Err((Kind::Wrong, format!("{what}: {got:?}, and {expected:?} was expected"))),
    }
}

fn listed(viewers: &Value) -> Result<BTreeMap<usize, bool>, (Kind, String)> {
    let all = viewers.as_array().map(Vec::as_slice).unwrap_or_default();
    let viewer = |viewer: &Value| Some((client_of(&viewer["agentId"])?, viewer["status"] == "typing"));
    let list: Option<BTreeMap<usize, bool>> = all.iter().map(viewer).collect();
    let is_whole = |list: &BTreeMap<usize, bool>| !list.is_empty() && list.len() == all.len();
    list.filter(is_whole).ok_or_else(|| (Kind::Wrong, format!("a list that makes no sense: {viewers}")))
}

fn changes(before: &BTreeMap<usize, bool>, after: &BTreeMap<usize, bool>) -> Vec<(Change, usize)> {
    let gone = before.keys().filter(|client| !after.contains_key(client)).map(|client| (Change::Left, *client));
    let changed = after.iter().filter_map(|(client, types)| match (before.get(client), types) {
        (None, _) => Some((Change::Joined, *client)),
        (Some(false), true) => Some((Change::Typed, *client)),
        (Some(true), false) => Some((Change::Stopped, *client)),
        _ => None,
    });
    gone.chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Client 1, which has entered a ticket that client 2 views.
    fn entered() -> Viewers {
        let mut viewers = Viewers::new(1);
        viewers.enter();
        assert_eq!(viewers.see("collision:warning", &json!({})), Ok(()));
        assert_eq!(viewers.see("viewers:updated", &list(&[(2, "viewing"), (1, "viewing")])), Ok(()));
        viewers
    }

    fn list(viewers: &[(usize, &str)]) -> Value {
        let viewer = |(client, status): &(usize, &str)| json!({ "agentId": format!("u{client}"), "status": status });
        json!({ "viewers": viewers.iter().map(viewer).collect::<Vec<_>>() })
    }

    fn kind(check: Check) -> Option<Kind> {
        check.err().map(|(kind, _)| kind)
    }

    #[test]
    fn each_change_is_announced_and_listed_once() {
        let mut viewers = entered();
        let typing = list(&[(2, "typing"), (1, "viewing")]);
        assert_eq!(viewers.see("agent:typing", &json!({ "agentId": "u2" })), Ok(()));
        assert_eq!(viewers.see("viewers:updated", &typing), Ok(()));
        assert_eq!(kind(viewers.see("viewers:updated", &typing)), Some(Kind::Doubled));
        assert_eq!(viewers.n_changes(Change::Typed, 2), 1);
        assert_eq!(viewers.see("collision:warning", &json!({})), Ok(()));
        assert_eq!(viewers.see("viewers:updated", &list(&[(2, "typing"), (1, "typing")])), Ok(()), "its own change");
    }

    #[test]
    fn lost_list_and_lost_announcement_are_found() {
        let mut viewers = entered();
        assert_eq!(kind(viewers.see("viewers:updated", &list(&[(1, "viewing")]))), Some(Kind::Wrong), "not announced");
        let mut viewers = entered();
        let two = list(&[(2, "typing"), (1, "viewing"), (3, "viewing")]);
        assert_eq!(kind(viewers.see("viewers:updated", &two)), Some(Kind::Lost));
        viewers.left();
        assert_eq!(kind(viewers.see("viewers:updated", &two)), Some(Kind::Wrong), "it has left");
    }
}

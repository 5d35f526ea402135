//! The permissions that a feature needs or is granted beyond its own scopes' rooms.

use std::cmp::Reverse;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::is_valid_room;
use crate::uses::Uses;

/// The action of storing and fetching documents.
pub(crate) const SAVE_ACTION: &str = "save";

/// The action of closing connections.
pub(crate) const DISCONNECT_ACTION: &str = "disconnect";

/// The action of handling `connect`, the event of each new connection.
pub const CONNECT_ACTION: &str = "connect";

/// The action of letting connections join a room although they have sent the feature nothing.
pub(crate) const JOIN_ACTION: &str = "join";

/// The greatest number of rooms in one list: many more than a large feature reaches.
const MAX_ROOMS: usize = 256;

/// What a feature may reach beyond its own scopes' rooms and the connections that send to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Rooms: names, or prefixes followed by `*`.
    pub rooms: Vec<String>,
    /// Wider audiences: `user`, `roles`, `all`.
    pub audiences: Vec<String>,
    /// `save` (to store and to fetch documents), `disconnect`, `connect` (to see every new connection), `join` (to let
    /// connections join rooms that sent the feature nothing).
    pub actions: Vec<String>,
}

/// The kind of a single grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantKind {
    /// A room, or all rooms with a prefix.
    Room,
    /// A wider audience.
    Audience,
    /// An action.
    Action,
}

/// A single grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant<'a> {
    /// Its kind.
    pub kind: GrantKind,
    /// The room, audience or action.
    pub name: &'a str,
}

impl Grant<'_> {
    /// Whether this grant allows all that another one does.
    pub fn covers(self, other: Grant<'_>) -> bool {
        self.kind == other.kind
            && match self.kind {
                GrantKind::Room => covers_pattern(self.name, other.name),
                GrantKind::Audience | GrantKind::Action => self.name == other.name,
            }
    }
}

/// Whether a name is the one of a pattern, or begins as a pattern that ends with `*`.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// Whether one pattern of rooms allows all that another one does.
fn covers_pattern(wider: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        // Only a prefix as short covers a prefix.
        Some(prefix) => wider.strip_suffix('*').is_some_and(|wider| prefix.starts_with(wider)),
        None => matches_pattern(wider, pattern),
    }
}

impl Grants {
    const AUDIENCES: [&str; 3] = ["user", "roles", "all"];
    const ACTIONS: [&str; 4] = [SAVE_ACTION, DISCONNECT_ACTION, CONNECT_ACTION, JOIN_ACTION];

    /// All grants one by one: rooms, audiences, actions.
    pub fn iter(&self) -> impl Iterator<Item = Grant<'_>> {
        let rooms = self.rooms.iter().map(|name| Grant { kind: GrantKind::Room, name });
        let audiences = self.audiences.iter().map(|name| Grant { kind: GrantKind::Audience, name });
        let actions = self.actions.iter().map(|name| Grant { kind: GrantKind::Action, name });
        rooms.chain(audiences).chain(actions)
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.audiences.is_empty() && self.actions.is_empty()
    }

    /// The place in [`iter`](Self::iter) of the grant to emit to the room, and to let connections join it; of several
    /// the narrowest, if the grants are those of a checked manifest.
    pub fn place_of_room(&self, room: &str) -> Option<usize> {
        self.rooms.iter().position(|granted| matches_pattern(granted, room))
    }

    /// The place in [`iter`](Self::iter) of the grant to emit to the audience.
    pub fn place_of_audience(&self, audience: &str) -> Option<usize> {
        let place = self.audiences.iter().position(|granted| granted == audience)?;
        Some(self.rooms.len() + place)
    }

    /// The place in [`iter`](Self::iter) of the grant to perform the action.
    pub fn place_of_action(&self, action: &str) -> Option<usize> {
        let place = self.actions.iter().position(|granted| granted == action)?;
        Some(self.rooms.len() + self.audiences.len() + place)
    }

    /// Whether these grants allow all that a single one does.
    pub fn cover(&self, grant: Grant<'_>) -> bool {
        self.iter().any(|own| own.covers(grant))
    }

    /// The grants for which `keep` is true of the place in [`iter`](Self::iter) and the grant.
    pub fn filtered(&self, mut keep: impl FnMut(usize, Grant<'_>) -> bool) -> Self {
        let mut kept = Self::default();
        for (place, grant) in self.iter().enumerate() {
            if keep(place, grant) {
                kept.names_of(grant.kind).push(grant.name.to_owned());
            }
        }
        kept
    }

    /// The needs in `self` that `granted` does not cover.
    pub fn missing_from(&self, granted: &Self) -> Self {
        self.filtered(|_, need| !granted.cover(need))
    }

    /// These grants, and those of `others` that are not among them.
    pub fn with(&self, others: &Self) -> Self {
        let mut all = self.clone();
        for grant in others.iter() {
            let names = all.names_of(grant.kind);
            if !names.iter().any(|name| name == grant.name) {
                names.push(grant.name.to_owned());
            }
        }
        all
    }

    fn names_of(&mut self, kind: GrantKind) -> &mut Vec<String> {
        match kind {
            GrantKind::Room => &mut self.rooms,
            GrantKind::Audience => &mut self.audiences,
            GrantKind::Action => &mut self.actions,
        }
    }

    /// Leaves each name in place once, and sorts rooms such that a room is found by the narrowest of its patterns: names
    /// before prefixes, and longer prefixes before shorter ones.
    pub(crate) fn sort(&mut self) {
        let mut sorted = Self::default().with(self);
        sorted.rooms.sort_by_key(|room| (room.ends_with('*'), Reverse(room.len())));
        *self = sorted;
    }

    /// Checks the patterns of rooms, and the names of audiences and actions.
    ///
    /// # Errors
    /// With the first wrong room or unknown name, and the rule or the known names.
    pub fn check(&self) -> Result<(), String> {
        if self.rooms.len() > MAX_ROOMS {
            return Err(format!("it lists {} rooms, and may list {MAX_ROOMS}", self.rooms.len()));
        }
        if let Some(wrong) = self.rooms.iter().find(|room| !is_valid_room(room)) {
            return Err(format!("the room {wrong:?} must be 1 to 512 printable characters without whitespace"));
        }
        for (kind, names, known) in
            [("audience", &self.audiences, &Self::AUDIENCES[..]), ("action", &self.actions, &Self::ACTIONS[..])]
        {
            if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
                return Err(format!("there is no {kind} {unknown:?}: it is one of {}", known.join(", ")));
            }
        }
        Ok(())
    }
}

// All needs of a manifest have a place in a set of uses.
const _: () = assert!(MAX_ROOMS + Grants::AUDIENCES.len() + Grants::ACTIONS.len() <= Uses::CAPACITY);

impl GrantKind {
    /// The kind in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Audience => "audience",
            Self::Action => "action",
        }
    }
}

impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {}", self.kind.as_str(), self.name)
    }
}

impl fmt::Display for Grants {
    /// A list in words, or `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, grant) in self.iter().enumerate() {
            write!(f, "{}{grant}", if place == 0 { "" } else { ", " })?;
        }
        if self.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(rooms: &[&str], audiences: &[&str]) -> Grants {
        let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Grants { rooms: strings(rooms), audiences: strings(audiences), actions: Vec::new() }
    }

    #[test]
    fn missing_from_lists_uncovered_needs() {
        let needs = grants(&["contact:*", "system"], &["user", "all"]);
        assert!(needs.missing_from(&grants(&["cont*", "system"], &["all", "user"])).is_empty());
        let missing = needs.missing_from(&grants(&["contact:5", "contact:a*"], &["user"]));
        assert_eq!(missing, needs.filtered(|place, _| place != 2));
        assert_eq!(missing.to_string(), "the room contact:*, the room system, the audience all");
        assert_eq!(Grants::default().to_string(), "nothing");
    }

    #[test]
    fn places_count_rooms_audiences_and_actions() {
        let mut needs = grants(&["*", "hall:*", "hall:5", "hall:*"], &["user", "all"]);
        needs.actions.push(SAVE_ACTION.to_owned());
        needs.sort();
        assert_eq!(needs.rooms, ["hall:5", "hall:*", "*"]);
        let places = ["hall:5", "hall:6", "lobby"].map(|room| needs.place_of_room(room));
        assert_eq!(places, [Some(0), Some(1), Some(2)], "the narrowest pattern counts");
        assert_eq!((needs.place_of_audience("all"), needs.place_of_audience("roles")), (Some(4), None));
        assert_eq!((needs.place_of_action(SAVE_ACTION), needs.place_of_action(JOIN_ACTION)), (Some(5), None));
        let names: Vec<&str> = needs.iter().map(|grant| grant.name).collect();
        assert_eq!(names, ["hall:5", "hall:*", "*", "user", "all", "save"]);
    }

    #[test]
    fn with_adds_what_is_not_there() {
        let both = grants(&["a"], &["user"]).with(&grants(&["b*", "a"], &["user", "all"]));
        assert_eq!(both, grants(&["a", "b*"], &["user", "all"]));
    }

    #[test]
    fn unknown_audience_error_lists_the_known() {
        let error = grants(&[], &["everybody"]).check().unwrap_err();
        assert!(error.contains("everybody") && error.contains("user, roles, all"), "{error}");
    }

    #[test]
    fn unprintable_or_too_many_rooms_are_refused() {
        for room in ["", "a b", "a\nb*", "\u{202e}*"] {
            let error = grants(&[room], &[]).check().unwrap_err();
            assert!(error.contains("must be 1 to 512 printable"), "{error}");
        }
        assert!(grants(&["*", "hall:*", "hall"], &[]).check().is_ok());
        assert!(grants(&["a"; 257], &[]).check().unwrap_err().contains("257 rooms, and may list 256"));
    }
}

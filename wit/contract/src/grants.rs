//! The permissions that a feature needs or is granted beyond its own scopes' rooms.

use serde::{Deserialize, Serialize};

/// The action of storing and fetching documents.
pub(crate) const SAVE_ACTION: &str = "save";

/// The action of closing connections.
pub(crate) const DISCONNECT_ACTION: &str = "disconnect";

/// The action of handling `connect`, the event of each new connection.
pub(crate) const CONNECT_ACTION: &str = "connect";

/// The action of letting connections join a room although they have sent the feature nothing.
pub(crate) const JOIN_ACTION: &str = "join";

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

/// Whether a name is the one of a pattern, or begins as a pattern that ends with `*`.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

impl Grants {
    const AUDIENCES: [&str; 3] = ["user", "roles", "all"];
    const ACTIONS: [&str; 4] = [SAVE_ACTION, DISCONNECT_ACTION, CONNECT_ACTION, JOIN_ACTION];

    /// Whether the feature may emit to the room, and let connections join it.
    pub fn allows_room(&self, room: &str) -> bool {
        self.rooms.iter().any(|granted| matches_pattern(granted, room))
    }

    /// Whether the feature may emit to the audience.
    pub fn allows_audience(&self, audience: &str) -> bool {
        self.audiences.iter().any(|granted| granted == audience)
    }

    /// Whether the feature may perform the action.
    pub fn allows_action(&self, action: &str) -> bool {
        self.actions.iter().any(|granted| granted == action)
    }

    /// The needs in `self` that `granted` does not cover, in words.
    pub fn missing_from(&self, granted: &Self) -> Vec<String> {
        let rooms = self.rooms.iter().filter(|room| match room.strip_suffix('*') {
            // Only a shorter prefix covers a prefix.
            Some(prefix) => !granted.rooms.iter().any(|g| g.strip_suffix('*').is_some_and(|g| prefix.starts_with(g))),
            None => !granted.allows_room(room),
        });
        let audiences = self.audiences.iter().filter(|audience| !granted.allows_audience(audience));
        let actions = self.actions.iter().filter(|action| !granted.allows_action(action));
        rooms
            .map(|room| format!("the room {room}"))
            .chain(audiences.map(|audience| format!("the audience {audience}")))
            .chain(actions.map(|action| format!("the action {action}")))
            .collect()
    }

    /// Checks the names of audiences and actions.
    ///
    /// # Errors
    /// With the first unknown name and the known ones.
    pub fn check(&self) -> Result<(), String> {
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
        assert_eq!(
            needs.missing_from(&grants(&["contact:5", "contact:a*"], &["user"])),
            ["the room contact:*", "the room system", "the audience all"]
        );
    }

    #[test]
    fn unknown_audience_error_lists_the_known() {
        let error = grants(&[], &["everybody"]).check().unwrap_err();
        assert!(error.contains("everybody") && error.contains("user, roles, all"), "{error}");
    }
}

//! What a feature is granted, and what of its needs is not.

use serde::{Deserialize, Serialize};

/// The action of hearing of each connection that opens.
pub(crate) const CONNECT_ACTION: &str = "connect";

/// The action of letting connections join rooms that did not come to the feature by themselves.
pub(crate) const JOIN_ACTION: &str = "join";

/// What a feature may reach beyond its own scopes' rooms and the connections that it hears from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Rooms: names, or prefixes followed by `*`.
    pub rooms: Vec<String>,
    /// Wider audiences: `user`, `roles`, `all`.
    pub audiences: Vec<String>,
    /// `save` (documents: to store and to fetch them), `disconnect`, `connect` (to be told of each connection that opens),
    /// `join` (to let connections join rooms that sent it nothing).
    pub actions: Vec<String>,
}

impl Grants {
    const AUDIENCES: [&str; 3] = ["user", "roles", "all"];
    const ACTIONS: [&str; 4] = ["save", "disconnect", CONNECT_ACTION, JOIN_ACTION];

    /// Whether it may emit to the room, or let connections join it.
    pub fn allows_room(&self, room: &str) -> bool {
        self.rooms.iter().any(|granted| match granted.strip_suffix('*') {
            Some(prefix) => room.starts_with(prefix),
            None => room == granted,
        })
    }

    /// Whether it may emit to such an audience.
    pub fn allows_audience(&self, audience: &str) -> bool {
        self.audiences.iter().any(|granted| granted == audience)
    }

    /// Whether it may do this.
    pub fn allows_action(&self, action: &str) -> bool {
        self.actions.iter().any(|granted| granted == action)
    }

    /// What of `self` is not within `granted`, in words.
    pub fn missing_from(&self, granted: &Self) -> Vec<String> {
        let rooms = self.rooms.iter().filter(|room| match room.strip_suffix('*') {
            // A prefix is covered by a shorter one alone.
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

    /// # Errors
    /// Where it names an audience or an action that there is not.
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
    fn what_is_needed_and_not_granted_is_named() {
        let needs = grants(&["contact:*", "system"], &["user", "all"]);
        assert!(needs.missing_from(&grants(&["cont*", "system"], &["all", "user"])).is_empty());
        assert_eq!(
            needs.missing_from(&grants(&["contact:5", "contact:a*"], &["user"])),
            ["the room contact:*", "the room system", "the audience all"]
        );
    }

    #[test]
    fn an_unknown_audience_is_an_error_that_names_the_known() {
        let error = grants(&[], &["everybody"]).check().unwrap_err();
        assert!(error.contains("everybody") && error.contains("user, roles, all"), "{error}");
    }
}

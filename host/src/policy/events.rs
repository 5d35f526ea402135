//! Who may send an event, beyond what its feature's manifest says.

use serde::Deserialize;

use super::expression::{Expression, identity_value, text_value};
use crate::model::{ErrorCode, Failure, Identity};

/// The variables of a condition.
const VARIABLES: [&str; 3] = ["identity", "event", "room"];

/// An operator's narrowing of one event: it never allows what the manifest does not.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Section")]
pub struct EventPermission {
    /// Roles of which a client needs one; any client where this is empty.
    roles: Vec<String>,
    /// A condition, besides.
    allow: Option<Expression>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    allow: Option<String>,
}

impl TryFrom<Section> for EventPermission {
    type Error = String;

    fn try_from(Section { roles, allow }: Section) -> Result<Self, String> {
        if roles.is_empty() && allow.is_none() {
            return Err("it narrows nothing: give it roles or allow".to_owned());
        }
        let allow = allow.map(|text| Expression::compile(&text, &VARIABLES)).transpose();
        Ok(Self { roles, allow: allow.map_err(|error| format!("allow: {error:#}"))? })
    }
}

impl EventPermission {
    /// Checks that a user may send the event to the scope of a room.
    ///
    /// # Errors
    /// `forbidden`, with what is missing. A condition that cannot be evaluated is a no.
    pub fn check(&self, identity: &Identity, event: &str, room: &str) -> Result<(), Failure> {
        let refuse = |why: String| Err(Failure::new(ErrorCode::Forbidden, format!("you may not send {event}: {why}")));
        if !self.roles.is_empty() && !self.roles.iter().any(|role| identity.roles.contains(role)) {
            return refuse(format!("it is for the roles {}", self.roles.join(", ")));
        }
        let Some(condition) = &self.allow else { return Ok(()) };
        let variables =
            [("identity", identity_value(identity)), ("event", text_value(event)), ("room", text_value(room))];
        match condition.evaluate(&variables) {
            Ok(true) => Ok(()),
            Ok(false) => refuse("the host's configuration does not allow it".to_owned()),
            Err(error) => {
                tracing::debug!(event, user = %identity.user, error, "the condition of an event cannot be evaluated");
                refuse("the host's configuration does not allow it".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(json: &str) -> Result<EventPermission, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn roles_and_condition_must_both_hold() {
        let permission = permission(r#"{"roles":["agent","admin"],"allow":"room != 'ticket:secret'"}"#).unwrap();
        let with = |role: &str| Identity { roles: vec![role.to_owned()], ..Identity::of_user("ana") };
        let may = |role: &str, room: &str| permission.check(&with(role), "ticket:assign", room).is_ok();
        assert!(may("agent", "ticket:1") && may("admin", "ticket:1"));
        assert!(!may("guest", "ticket:1") && !may("agent", "ticket:secret"));
        let refused = permission.check(&with("guest"), "ticket:assign", "ticket:1").unwrap_err();
        assert_eq!(refused.message, "you may not send ticket:assign: it is for the roles agent, admin");
    }

    #[test]
    fn mistakes_are_refused() {
        for (json, said) in [
            ("{}", "narrows nothing"),
            (r#"{"allow":"user == 1"}"#, "allow: the expression"),
            (r#"{"role":["a"]}"#, "role"),
        ] {
            let error = permission(json).unwrap_err();
            assert!(error.contains(said), "{json}: {error}");
        }
    }
}

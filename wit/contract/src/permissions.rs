//! Who may send which event, beyond its origins: the extension `permissions`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The name of the extension.
pub(crate) const EXTENSION: &str = "permissions";

/// The most roles of one event.
const MAX_ROLES: usize = 64;

/// Who may send an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// The roles of which a client has to have one.
    pub roles: Vec<String>,
}

impl Permission {
    /// Checks the roles of a client that sends an event.
    ///
    /// # Errors
    /// With the roles that would do, for the sender.
    pub fn check<R: AsRef<str>>(&self, event: &str, roles: &[R]) -> Result<(), String> {
        if roles.iter().any(|role| self.roles.iter().any(|wanted| wanted == role.as_ref())) {
            return Ok(());
        }
        Err(format!("you may not send {event}: it takes one of the roles {}", self.roles.join(", ")))
    }
}

/// The permissions of a manifest, by event.
pub(crate) type Permissions = BTreeMap<String, Permission>;

/// Reads the extension's value.
///
/// # Errors
/// If the value is not JSON of the form that the contract describes.
pub(crate) fn read(value: &str) -> Result<Permissions, String> {
    let permissions: Permissions = serde_json::from_str(value).map_err(|error| {
        format!("the extension {EXTENSION} must be a JSON object of events, each an object of roles: {error}")
    })?;
    for (event, Permission { roles }) in &permissions {
        if roles.is_empty() || roles.len() > MAX_ROLES || roles.iter().any(|role| role.trim().is_empty()) {
            return Err(format!(
                "the extension {EXTENSION} lists for {event} no role, an empty one, or more than {MAX_ROLES}"
            ));
        }
    }
    Ok(permissions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_the_roles_is_needed() {
        let permissions = read(r#"{"ticket:close":{"roles":["lead","admin"]}}"#).unwrap();
        let close = &permissions["ticket:close"];
        assert_eq!(close.check("ticket:close", &["agent", "admin"]), Ok(()));
        let refused = close.check::<&str>("ticket:close", &[]).unwrap_err();
        assert_eq!(refused, "you may not send ticket:close: it takes one of the roles lead, admin");
    }

    #[test]
    fn malformed_permissions_are_refused() {
        for value in
            ["[]", r#"{"a":{}}"#, r#"{"a":{"roles":[]}}"#, r#"{"a":{"roles":[" "]}}"#, r#"{"a":{"role":["x"]}}"#]
        {
            assert!(read(value).is_err(), "{value}");
        }
    }
}

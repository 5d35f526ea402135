//! Who is behind a connection.

use std::sync::Arc;

/// An authenticated person. Features and other clients see this, never what a payload claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's id.
    pub user: Arc<str>,
    /// The display name, where the token carries one.
    pub name: Option<String>,
    /// Roles, for events that are addressed to them.
    pub roles: Vec<String>,
    /// Everything else that the token carries: a JSON object.
    pub claims: String,
}

impl Identity {
    /// A person of whom nothing but an id is known.
    pub fn of_user(user: impl Into<Arc<str>>) -> Self {
        Self { user: user.into(), name: None, roles: Vec::new(), claims: "{}".to_owned() }
    }
}

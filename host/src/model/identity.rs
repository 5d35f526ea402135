//! The identity of a connection.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::network::network_of;

/// An authenticated user. Features and other clients see this identity, never one claimed in a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's id.
    pub user: Arc<str>,
    /// The display name, if the token has one.
    pub name: Option<String>,
    /// Roles, for events that are addressed to them.
    pub roles: Vec<String>,
    /// The token's other claims: a JSON object.
    pub claims: String,
    /// The principal whose account the connection's use is charged to: the user, or the network of an anonymous connection.
    pub principal: Arc<str>,
}

impl Identity {
    /// A user by its id alone.
    pub fn of_user(user: impl Into<Arc<str>>) -> Self {
        let user = user.into();
        Self { principal: user.clone(), user, name: None, roles: Vec::new(), claims: "{}".to_owned() }
    }

    /// The user as JSON, for operators and their services.
    pub fn to_json(&self) -> Value {
        let claims: Value = serde_json::from_str(&self.claims).unwrap_or_default();
        json!({ "id": &*self.user, "name": self.name, "roles": self.roles, "claims": claims })
    }

    /// An anonymous user, on a connection from this address. The network is the principal, because a client can open
    /// any number of anonymous connections, and few clients have many networks.
    pub fn anonymous(name: String, address: IpAddr) -> Self {
        // User ids have no whitespace, so no user can have this principal.
        Self { principal: format!("address {}", network_of(address)).into(), ..Self::of_user(name) }
    }
}

//! Who is behind a connection.

use std::net::IpAddr;
use std::sync::Arc;

use super::network::network_of;

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
    /// To whom what the connection uses is charged: the user, or, where nobody is signed in, the network that it comes from.
    pub principal: Arc<str>,
}

impl Identity {
    /// A person of whom nothing but an id is known.
    pub fn of_user(user: impl Into<Arc<str>>) -> Self {
        let user = user.into();
        Self { principal: user.clone(), user, name: None, roles: Vec::new(), claims: "{}".to_owned() }
    }

    /// A person who has not signed in, on a connection from this address. Anybody may have many such names, and few have many
    /// networks.
    pub fn anonymous(name: String, address: IpAddr) -> Self {
        // No id of a user contains whitespace.
        Self { principal: format!("address {}", network_of(address)).into(), ..Self::of_user(name) }
    }
}

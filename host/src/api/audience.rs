//! Audiences in the bodies of services' calls.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::given;
use super::schema::{ConnectionId, Id, Room};
use crate::hub::Audience;
use crate::model::{ConnId, ErrorCode, Failure, is_valid_id, is_valid_room};

/// Whom something is for: the union of everything that is named.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "To", extend("minProperties" = 1))]
pub(super) struct AudienceSpec {
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Id")]
    user: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Vec<Id>")]
    users: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Vec<Id>")]
    roles: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Room")]
    room: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Vec<Room>")]
    rooms: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    #[schemars(with = "ConnectionId")]
    connection: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schemars(with = "bool", extend("const" = true))]
    all: Option<bool>,
}

impl AudienceSpec {
    /// The named audiences, checked. `field` is the field's name, for messages.
    ///
    /// # Errors
    /// `bad_request` where no audience is named, or a name is malformed.
    pub(super) fn into_audiences(self, field: &str) -> Result<Vec<Audience>, Failure> {
        let bad = |what: &str| Err(Failure::new(ErrorCode::BadRequest, format!("{field}.{what}")));
        if self == Self::default() {
            return Err(Failure::new(ErrorCode::BadRequest, format!("{field} names nobody: {KINDS}")));
        }
        const KINDS: &str = "name user, users, roles, room, rooms, connection or all";
        const AN_ID: &str = "must be 1 to 128 printable characters without whitespace";
        const A_ROOM: &str = "must be 1 to 512 printable characters without whitespace";
        let Self { user, users, roles, room, rooms, connection, all } = self;
        let mut audiences = Vec::with_capacity(1);
        if let Some(user) = user {
            if !is_valid_id(&user) {
                return bad(&format!("user {AN_ID}"));
            }
            audiences.push(Audience::Users(vec![user]));
        }
        let (users, roles, rooms) = (users.unwrap_or_default(), roles.unwrap_or_default(), rooms.unwrap_or_default());
        if let Some(at) = users.iter().position(|user| !is_valid_id(user)) {
            return bad(&format!("users[{at}] {AN_ID}"));
        }
        if let Some(at) = roles.iter().position(|role| !is_valid_id(role)) {
            return bad(&format!("roles[{at}] {AN_ID}"));
        }
        if !users.is_empty() {
            audiences.push(Audience::Users(users));
        }
        if !roles.is_empty() {
            audiences.push(Audience::Roles(roles));
        }
        if room.as_deref().is_some_and(|room| !is_valid_room(room)) {
            return bad(&format!("room {A_ROOM}"));
        }
        if let Some(at) = rooms.iter().position(|room| !is_valid_room(room)) {
            return bad(&format!("rooms[{at}] {A_ROOM}"));
        }
        audiences.extend(room.into_iter().chain(rooms).map(Audience::Room));
        if let Some(connection) = connection {
            match connection_id(&connection) {
                Some(id) => audiences.push(Audience::Connection(id)),
                None => return bad("connection must be 16 lower-case hexadecimal digits, as connected says"),
            }
        }
        match all {
            Some(true) => audiences.push(Audience::All),
            Some(false) => return bad("all must be true, or left out"),
            None => {}
        }
        Ok(audiences)
    }
}

/// A connection's id: 16 lower-case hexadecimal digits.
pub(super) fn connection_id(text: &str) -> Option<ConnId> {
    let is_id = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    text.parse().ok().filter(|_| is_id)
}

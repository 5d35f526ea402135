//! Connections, users and rooms, as operators see and disconnect them.

use std::borrow::Cow;
use std::collections::BTreeSet;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::audience::connection_id;
use super::route::OperatorCall;
use super::schema::ConnectionId;
use super::state::{Api, wait_while};
use crate::hub::{ConnectionInfo, Page, USER_ROOM_PREFIX};
use crate::model::{ConnId, ErrorCode, Failure, is_valid_id, is_valid_room};
use crate::net::response::{Answer, json};

/// Connections in one answer: at most, and by default.
pub(super) const MAX_LIMIT: usize = 1000;
pub(super) const DEFAULT_LIMIT: usize = 100;

/// Rooms of a user in one answer, at most.
pub(super) const MAX_ROOMS: usize = 1000;

/// The reason in the close of a connection that an operator disconnects.
const REASON: &str = "disconnected by an operator";

/// A connection, as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connection {
    #[schemars(with = "ConnectionId")]
    connection_id: String,
    user_id: String,
    name: Option<String>,
    roles: Vec<String>,
    /// When it was opened, in epoch milliseconds.
    since: u64,
    rooms: Vec<String>,
}

/// Some of the connections that there are.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Connections {
    #[schemars(length(max = MAX_LIMIT))]
    connections: Vec<Connection>,
    /// Where there is more: what to give as `after` to get it.
    next: Option<String>,
}

/// A user, who has one connection at least.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct User {
    user_id: String,
    /// The name and the roles of the connection that was opened first.
    name: Option<String>,
    roles: Vec<String>,
    /// When that was, in epoch milliseconds.
    since: u64,
    connection_count: usize,
    #[schemars(length(max = MAX_LIMIT))]
    connections: Vec<Connection>,
    /// Where there are more connections: what to give as `after` to get them.
    next: Option<String>,
    room_count: usize,
    /// The rooms of all connections.
    #[schemars(length(max = MAX_ROOMS))]
    rooms: Vec<String>,
}

/// A room, in which one connection is at least.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RoomMembers")]
pub(super) struct Members {
    room: String,
    connection_count: usize,
    user_count: usize,
    #[schemars(length(max = MAX_LIMIT))]
    members: Vec<Member>,
    /// Where there are more: what to give as `after` to get them.
    next: Option<String>,
}

/// How many connections were closed.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Disconnected {
    disconnected: usize,
}

/// A member of a room, as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Member {
    #[schemars(with = "ConnectionId")]
    connection_id: String,
    user_id: String,
    name: Option<String>,
    /// When the connection was opened, in epoch milliseconds.
    since: u64,
}

/// The part of a list that a query asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageQuery<'a, T = ConnId> {
    user: Option<Cow<'a, str>>,
    pub(super) after: Option<T>,
    pub(super) limit: usize,
}

impl<'a> PageQuery<'a> {
    /// Reads a URL's query, whose parameters are `limit`, `after` and, where it `may_name_user`, `user`.
    fn read(query: Option<&'a str>, may_name_user: bool) -> Result<Self, Failure> {
        Self::read_by(query, may_name_user, connection_id)
    }
}

impl<'a, T> PageQuery<'a, T> {
    /// As [`PageQuery::read`], with the ids of another list in `after`.
    pub(super) fn read_by(
        query: Option<&'a str>,
        may_name_user: bool,
        parse_id: fn(&str) -> Option<T>,
    ) -> Result<Self, Failure> {
        let bad = |message: String| Failure::new(ErrorCode::BadRequest, message);
        let mut page = Self { user: None, after: None, limit: DEFAULT_LIMIT };
        let mut seen = BTreeSet::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                    page.limit = limit.ok_or_else(|| bad(format!("limit must be a number from 1 to {MAX_LIMIT}")))?;
                }
                "after" => {
                    let id = parse_id(&value);
                    page.after = Some(id.ok_or_else(|| bad("after must be the next of the page before".to_owned()))?);
                }
                "user" if may_name_user => {
                    if !is_valid_id(&value) {
                        return Err(bad("user must be 1 to 128 printable characters without whitespace".to_owned()));
                    }
                    page.user = Some(value);
                }
                _ => {
                    let known = if may_name_user { "user, limit and after" } else { "limit and after" };
                    return Err(bad(format!("there is no parameter {name:?}: there are {known}")));
                }
            }
            if !seen.insert(name.clone()) {
                return Err(bad(format!("the parameter {name} is given twice")));
            }
        }
        Ok(page)
    }
}

impl Api {
    pub(super) async fn connections(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let PageQuery { user, after, limit } = PageQuery::read(call.query, true)?;
        let Page { connections, next } = self.runtime.page_of_connections(user.as_deref(), after, limit).await?;
        let connections = connections.iter().map(Connection::of).collect();
        Ok(json(StatusCode::OK, &Connections { connections, next: next.map(|id| id.to_string()) }))
    }

    pub(super) async fn connection(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let id = call.name()?;
        let known = connection_id(&id).ok_or_else(|| no_connection(&id))?;
        let found = self.runtime.connection(known).await?;
        Ok(json(StatusCode::OK, &Connection::of(&found.ok_or_else(|| no_connection(&id))?)))
    }

    pub(super) async fn user(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let user = &*call.name()?;
        let PageQuery { after, limit, .. } = PageQuery::read(call.query, false)?;
        let all = self.runtime.connections_of(user).await?;
        let Some(first) = all.iter().min_by_key(|connection| connection.since_ms) else { return Err(no_user(user)) };
        // They are in the order of their ids.
        let mut rest = all.iter().filter(|connection| after.is_none_or(|after| connection.id > after));
        let connections: Vec<&ConnectionInfo> = rest.by_ref().take(limit).collect();
        let next = rest.next().and(connections.last()).map(|connection| connection.id);
        let mut rooms: BTreeSet<&str> =
            all.iter().flat_map(|connection| &connection.rooms).map(|room| &**room).collect();
        let own = format!("{USER_ROOM_PREFIX}{user}");
        rooms.insert(&own);
        let answer = User {
            user_id: user.to_owned(),
            name: first.identity.name.clone(),
            roles: first.identity.roles.clone(),
            since: first.since_ms,
            connection_count: all.len(),
            connections: connections.into_iter().map(Connection::of).collect(),
            next: next.map(|id| id.to_string()),
            room_count: rooms.len(),
            rooms: rooms.into_iter().take(MAX_ROOMS).map(str::to_owned).collect(),
        };
        Ok(json(StatusCode::OK, &answer))
    }

    pub(super) async fn room(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let room = &*call.name()?;
        let PageQuery { after, limit, .. } = PageQuery::read(call.query, false)?;
        let found = if is_valid_room(room) { self.runtime.page_of_room(room, after, limit).await? } else { None };
        let found = found.ok_or_else(|| {
            let message = format!("nobody is in the room {room:?}");
            Failure::new(ErrorCode::NotFound, message)
        })?;
        let answer = Members {
            room: room.to_owned(),
            connection_count: found.size.connections,
            user_count: found.size.users,
            members: found.page.connections.iter().map(Member::of).collect(),
            next: found.page.next.map(|id| id.to_string()),
        };
        Ok(json(StatusCode::OK, &answer))
    }

    pub(super) async fn close_connection(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let id = &*call.name()?;
        let found = connection_id(id).ok_or_else(|| no_connection(id))?;
        tracing::info!(connection = %found, key = call.caller.name, "asked to disconnect a connection");
        if !self.runtime.close_connection(found, REASON).await? {
            return Err(no_connection(id));
        }
        self.wait_while_open(&[found]).await;
        Ok(json(StatusCode::OK, &Disconnected { disconnected: 1 }))
    }

    pub(super) async fn close_user(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let user = &*call.name()?;
        let here = self.hub.connections_of(user);
        let disconnected = self.runtime.close_user(user, REASON).await?;
        if disconnected == 0 {
            return Err(no_user(user));
        }
        tracing::info!(user, key = call.caller.name, connections = disconnected, "asked to disconnect a user");
        self.wait_while_open(&here).await;
        Ok(json(StatusCode::OK, &Disconnected { disconnected }))
    }

    /// Waits for the shards of this host, so that a caller that lists connections after the answer sees none of the closed
    /// ones, unless a shard is overloaded.
    async fn wait_while_open(&self, connections: &[ConnId]) {
        wait_while(|| connections.iter().any(|id| self.hub.identity(*id).is_some())).await;
    }
}

fn no_connection(id: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("there is no connection {id:?}"))
}

fn no_user(user: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("the user {user:?} is not connected"))
}

impl Connection {
    fn of(connection: &ConnectionInfo) -> Self {
        let identity = &connection.identity;
        // Every connection is in its user's room, of which the hub keeps no list.
        let own = format!("{USER_ROOM_PREFIX}{}", identity.user);
        let mut rooms: Vec<String> = connection.rooms.iter().map(|room| (**room).to_owned()).chain([own]).collect();
        rooms.sort_unstable();
        Self {
            connection_id: connection.id.to_string(),
            user_id: (*identity.user).to_owned(),
            name: identity.name.clone(),
            roles: identity.roles.clone(),
            since: connection.since_ms,
            rooms,
        }
    }
}

impl Member {
    fn of(connection: &ConnectionInfo) -> Self {
        let ConnectionInfo { id, identity, since_ms, .. } = connection;
        let (user_id, name) = ((*identity.user).to_owned(), identity.name.clone());
        Self { connection_id: id.to_string(), user_id, name, since: *since_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_page_queries_are_refused_by_parameter() {
        let read = |query| PageQuery::read(Some(query), true);
        let nothing = PageQuery { user: None, after: None, limit: DEFAULT_LIMIT };
        assert_eq!(PageQuery::read(None, true).unwrap(), nothing);
        let page = read("user=a%3Ab&limit=1000&after=0000100000000001").unwrap();
        assert_eq!((page.user.as_deref(), page.limit), (Some("a:b"), 1000));
        assert_eq!(page.after, Some(ConnId::new(1, 0, 1)));
        for (query, said) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=x", "limit"),
            ("after=1", "after"),
            ("after=%2B10000000000000a", "after"),
            ("user=", "user"),
            ("user=a%20b", "user"),
            ("usr=a", "usr"),
            ("limit=1&limit=1", "twice"),
        ] {
            assert!(read(query).unwrap_err().message.contains(said), "{query}");
        }
        assert!(PageQuery::read(Some("user=a"), false).is_err(), "a room's members are not listed by user");
    }
}

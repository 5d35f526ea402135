//! An agent who views a ticket: its connections, those of them that are away, and its typing.

use roundhouse_sdk::Failure;
use serde::{Deserialize, Serialize};

use crate::wire::{Status, ViewerShown};

/// The greatest number of connections from which one agent views a ticket: more than a user's tabs.
const MAX_CONNECTIONS: usize = 16;

/// The greatest number of connections of one agent that are kept as those at which it types.
const MAX_TYPING_AT: usize = 2;

/// The bytes by which an agent grows in the state when it types and is away, besides ids of connections.
const MAX_GROWTH_BYTES: usize = 112;

/// The bytes of a connection in the state besides its id.
const CONNECTION_BYTES: usize = 3;

/// An agent who views a ticket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Viewer {
    pub(crate) agent_id: String,
    pub(crate) agent_name: String,
    /// Connections that are away come first.
    pub(crate) connections: Vec<String>,
    since: u64,
    pub(crate) last_activity: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) typing: Option<Typing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) away: Option<Away>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Typing {
    since: u64,
    /// The time of the last `ticket:typing`.
    pub(crate) last: u64,
    /// The connections at which the agent types, the latest last. The typing ends when the last of them goes.
    connections: Vec<String>,
}

/// The connections of an agent that are away: their clients have lost the transport and may resume.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Away {
    /// The number of these connections.
    n: usize,
    /// The time at which the last of them was lost.
    pub(crate) since: u64,
    /// Whether the agent is out: `agent:left` was sent to the others.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_out: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Viewer {
    pub(crate) fn new(agent_id: &str, agent_name: &str, connection: &str, now: u64) -> Self {
        Self {
            agent_id: agent_id.to_owned(),
            agent_name: agent_name.to_owned(),
            connections: vec![connection.to_owned()],
            since: now,
            last_activity: now,
            typing: None,
            away: None,
        }
    }

    pub(crate) fn is_typing(&self) -> bool {
        self.typing.is_some()
    }

    /// Whether the agent is out: away, and `agent:left` was sent to the others.
    pub(crate) fn is_out(&self) -> bool {
        self.away.is_some_and(|away| away.is_out)
    }

    /// The time since which all connections of the agent are away, if they are.
    pub(crate) fn away_since(&self) -> Option<u64> {
        self.away.filter(|away| away.n == self.connections.len()).map(|away| away.since)
    }

    pub(crate) fn shown(&self) -> ViewerShown<'_> {
        ViewerShown {
            agent_id: &self.agent_id,
            agent_name: &self.agent_name,
            status: match self.typing {
                Some(_) => Status::Typing,
                None => Status::Viewing,
            },
            since: self.since,
            typing_started_at: self.typing.as_ref().map(|typing| typing.since),
        }
    }

    pub(crate) fn place_of(&self, connection: &str) -> Option<usize> {
        self.connections.iter().position(|own| own == connection)
    }

    /// Adds a connection. Returns whether it is new.
    pub(crate) fn add(&mut self, connection: &str) -> Result<bool, Failure> {
        if self.place_of(connection).is_some() {
            return Ok(false);
        }
        if self.connections.len() == MAX_CONNECTIONS {
            return Err(Failure::conflict(format!(
                "you view this ticket from {MAX_CONNECTIONS} connections already; close one"
            )));
        }
        self.connections.push(connection.to_owned());
        Ok(true)
    }

    /// Removes a connection. Returns whether the agent's typing ends with it.
    pub(crate) fn remove(&mut self, place: usize) -> bool {
        let connection = self.take(place);
        let Some(typing) = &mut self.typing else { return false };
        typing.connections.retain(|own| *own != connection);
        let is_over = typing.connections.is_empty();
        if is_over {
            self.typing = None;
        }
        is_over
    }

    /// Marks a connection as away since `now`.
    pub(crate) fn lose(&mut self, place: usize, now: u64) {
        let n = self.away.map_or(0, |away| away.n);
        if place >= n {
            self.connections[n..=place].rotate_right(1);
            self.away = Some(Away { n: n + 1, since: now, is_out: false });
        }
    }

    /// Marks a connection as back.
    pub(crate) fn regain(&mut self, place: usize) {
        let connection = self.take(place);
        self.connections.push(connection);
    }

    fn take(&mut self, place: usize) -> String {
        if let Some(away) = self.away.as_mut().filter(|away| place < away.n) {
            away.n -= 1;
        }
        self.away = self.away.filter(|away| away.n > 0);
        self.connections.remove(place)
    }

    /// Notes that the agent types at a connection. Returns whether it did not type before.
    pub(crate) fn type_at(&mut self, connection: &str, now: u64) -> bool {
        let Some(typing) = &mut self.typing else {
            self.typing = Some(Typing { since: now, last: now, connections: vec![connection.to_owned()] });
            return true;
        };
        typing.last = now;
        if typing.connections.last().is_none_or(|last| last != connection) {
            typing.connections.retain(|other| other != connection);
            typing.connections.push(connection.to_owned());
            if typing.connections.len() > MAX_TYPING_AT {
                typing.connections.remove(0);
            }
        }
        false
    }

    /// The bytes by which the agent may grow in the state without a refusal: when it types and is away.
    pub(crate) fn max_growth(&self) -> usize {
        let longest = self.connections.iter().map(String::len).max().unwrap_or_default();
        MAX_GROWTH_BYTES + MAX_TYPING_AT * (longest + CONNECTION_BYTES)
    }
}

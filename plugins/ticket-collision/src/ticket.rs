//! A ticket's state: which agents view it, from which connections, and which of them type. Nothing here
//! tells anybody of it.

use std::time::Duration;

use roundhouse_sdk::{Failure, Member};
use serde::{Deserialize, Serialize};

use crate::wire::{Status, ViewerShown};

/// Agents on one ticket. A ticket with so many viewers is no longer anybody's to answer, and each change of
/// the list is sent to all of them.
const MAX_VIEWERS: usize = 250;

/// Connections that one agent views a ticket from: more than anybody has tabs.
const MAX_CONNECTIONS: usize = 16;

/// Connections of one agent that are remembered as those where it types.
const MAX_TYPING_AT: usize = 2;

/// Bytes of state beyond which no agent is let in. With each of [`MAX_VIEWERS`] typing, which takes some 110
/// bytes more, the state stays below the host's limit of 64 KiB.
const MAX_STATE_BYTES: usize = 36 * 1024;

/// A ticket: who is viewing it, in the order of their coming.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Ticket {
    viewers: Vec<Viewer>,
}

/// An agent who is viewing a ticket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Viewer {
    pub(crate) agent_id: String,
    pub(crate) agent_name: String,
    pub(crate) connections: Vec<String>,
    since: u64,
    last_activity: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    typing: Option<Typing>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Typing {
    since: u64,
    /// When it was last said that the agent types.
    last: u64,
    /// Where the agent types, the last one last: when all of these are gone, the typing ends.
    connections: Vec<String>,
}

/// What a `ticket:view` was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    NewAgent,
    /// Another connection of an agent who is viewing already.
    NewConnection,
    /// The same connection once more.
    Again,
}

/// What came of a connection's going.
#[derive(Debug)]
pub(crate) enum Departure {
    /// It was not viewing.
    Nothing,
    /// The agent goes on viewing from another connection, and typing if it did so there.
    Connection,
    /// The agent goes on viewing, but typed nowhere but at the connection that went.
    Typist(Viewer),
    /// It was the agent's last.
    Agent(Viewer),
}

/// What a `ticket:typing` was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TypingStart {
    Begun,
    /// The agent was typing already.
    Prolonged,
}

impl Viewer {
    pub(crate) fn is_typing(&self) -> bool {
        self.typing.is_some()
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
}

impl Viewer {
    /// Adds a connection that the agent views the ticket from. Says whether it is a new one.
    fn add(&mut self, connection: &str) -> Result<bool, Failure> {
        if self.connections.iter().any(|own| own == connection) {
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
}

impl Ticket {
    pub(crate) fn is_empty(&self) -> bool {
        self.viewers.is_empty()
    }

    pub(crate) fn n_viewers(&self) -> usize {
        self.viewers.len()
    }

    pub(crate) fn n_typing(&self) -> usize {
        self.viewers.iter().filter(|viewer| viewer.is_typing()).count()
    }

    pub(crate) fn shown(&self) -> Vec<ViewerShown<'_>> {
        self.viewers.iter().map(Viewer::shown).collect()
    }

    pub(crate) fn viewer(&self, agent_id: &str) -> Option<&Viewer> {
        self.viewers.iter().find(|viewer| viewer.agent_id == agent_id)
    }

    pub(crate) fn others(&self, agent_id: &str) -> Vec<&Viewer> {
        self.viewers.iter().filter(|viewer| viewer.agent_id != agent_id).collect()
    }

    /// An agent looks at the ticket.
    pub(crate) fn view(&mut self, member: &Member, name: &str, now: u64) -> Result<Arrival, Failure> {
        if let Some(viewer) = self.viewer_mut(member.user_id()) {
            viewer.last_activity = now;
            let is_new = viewer.add(&member.connection)?;
            return Ok(if is_new { Arrival::NewConnection } else { Arrival::Again });
        }
        self.viewers.push(Viewer {
            agent_id: member.user_id().to_owned(),
            agent_name: name.to_owned(),
            connections: vec![member.connection.clone()],
            since: now,
            last_activity: now,
            typing: None,
        });
        if self.viewers.len() > MAX_VIEWERS || self.n_bytes() > MAX_STATE_BYTES {
            return Err(Failure::conflict("too many agents view this ticket already; come back later"));
        }
        Ok(Arrival::NewAgent)
    }

    /// An agent types. A connection that has not said that it views the ticket does so from now on.
    pub(crate) fn typing(&mut self, member: &Member, now: u64) -> Result<TypingStart, Failure> {
        let viewer = self.viewing(member)?;
        viewer.last_activity = now;
        viewer.add(&member.connection)?;
        let Some(typing) = &mut viewer.typing else {
            viewer.typing = Some(Typing { since: now, last: now, connections: vec![member.connection.clone()] });
            return Ok(TypingStart::Begun);
        };
        typing.last = now;
        if typing.connections.last() != Some(&member.connection) {
            typing.connections.retain(|other| *other != member.connection);
            typing.connections.push(member.connection.clone());
            if typing.connections.len() > MAX_TYPING_AT {
                typing.connections.remove(0);
            }
        }
        Ok(TypingStart::Prolonged)
    }

    /// An agent says that it types no longer. `None` where it did not.
    pub(crate) fn stop_typing(&mut self, member: &Member, now: u64) -> Result<Option<Viewer>, Failure> {
        let viewer = self.viewing(member)?;
        viewer.last_activity = now;
        Ok(viewer.typing.take().map(|_| viewer.clone()))
    }

    /// How long an agent's typing still lasts; `None` where it does not type.
    pub(crate) fn typing_left(&self, agent_id: &str, now: u64, lasts: Duration) -> Option<Duration> {
        let typing = self.viewer(agent_id)?.typing.as_ref()?;
        Some(lasts.saturating_sub(Duration::from_millis(now.saturating_sub(typing.last))))
    }

    /// An agent's typing is over for it said nothing more of it.
    pub(crate) fn typing_over(&mut self, agent_id: &str) -> Option<Viewer> {
        let viewer = self.viewer_mut(agent_id)?;
        viewer.typing.take().map(|_| viewer.clone())
    }

    /// A connection goes.
    pub(crate) fn depart(&mut self, connection: &str) -> Departure {
        let Some(position) =
            self.viewers.iter().position(|viewer| viewer.connections.iter().any(|own| own == connection))
        else {
            return Departure::Nothing;
        };
        let viewer = &mut self.viewers[position];
        if viewer.connections.len() == 1 {
            return Departure::Agent(self.viewers.remove(position));
        }
        viewer.connections.retain(|own| own != connection);
        if let Some(typing) = &mut viewer.typing {
            typing.connections.retain(|own| own != connection);
            if typing.connections.is_empty() {
                viewer.typing = None;
                return Departure::Typist(viewer.clone());
            }
        }
        Departure::Connection
    }

    /// Takes out the agents who have done nothing for so long.
    pub(crate) fn take_stale(&mut self, now: u64, stale: Duration) -> Vec<Viewer> {
        let stale = u64::try_from(stale.as_millis()).unwrap_or(u64::MAX);
        self.viewers.extract_if(.., |viewer| now.saturating_sub(viewer.last_activity) >= stale).collect()
    }

    fn viewing(&mut self, member: &Member) -> Result<&mut Viewer, Failure> {
        self.viewer_mut(member.user_id())
            .ok_or_else(|| Failure::conflict("you are not viewing this ticket; send ticket:view first"))
    }

    fn viewer_mut(&mut self, agent_id: &str) -> Option<&mut Viewer> {
        self.viewers.iter_mut().find(|viewer| viewer.agent_id == agent_id)
    }

    fn n_bytes(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |bytes| bytes.len())
    }
}

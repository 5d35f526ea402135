//! The state of a ticket: the agents who view it, and their connections. This file emits nothing.

use std::time::Duration;

use roundhouse_sdk::{Failure, Member};
use serde::{Deserialize, Serialize};

use crate::viewer::Viewer;
use crate::wire::ViewerShown;

/// The greatest number of agents on one ticket. Each change of the list is sent to all of them.
const MAX_VIEWERS: usize = 250;

/// The greatest size of the state, in bytes: the host's limit.
const MAX_STATE_BYTES: usize = 64 * 1024;

/// A ticket: its viewers, in the order in which they came.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Ticket {
    viewers: Vec<Viewer>,
}

/// The effect of a `ticket:view`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    NewAgent,
    /// Another connection of an agent who is viewing already.
    NewConnection,
    /// A connection that is viewing already.
    Again,
}

/// The effect of a connection's departure.
#[derive(Debug)]
pub(crate) enum Departure {
    /// The connection was not viewing.
    Nothing,
    /// The agent views the ticket from another connection, and its typing goes on.
    Connection,
    /// The agent views the ticket from another connection, and its typing ends with this one.
    Typist(Viewer),
    /// The connection was the agent's last one.
    Agent(Viewer),
}

/// The effect of a `ticket:typing`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TypingStart {
    Begun,
    /// The agent was typing already.
    Prolonged,
}

impl Ticket {
    pub(crate) fn is_empty(&self) -> bool {
        self.viewers.is_empty()
    }

    /// The agents who are shown: those who are not out.
    fn present(&self) -> impl Iterator<Item = &Viewer> {
        self.viewers.iter().filter(|viewer| !viewer.is_out())
    }

    pub(crate) fn n_viewers(&self) -> usize {
        self.present().count()
    }

    pub(crate) fn n_typing(&self) -> usize {
        self.present().filter(|viewer| viewer.is_typing()).count()
    }

    pub(crate) fn shown(&self) -> Vec<ViewerShown<'_>> {
        self.present().map(Viewer::shown).collect()
    }

    /// The agents who are out.
    pub(crate) fn out(&self) -> impl Iterator<Item = &Viewer> {
        self.viewers.iter().filter(|viewer| viewer.is_out())
    }

    pub(crate) fn viewer(&self, agent_id: &str) -> Option<&Viewer> {
        self.viewers.iter().find(|viewer| viewer.agent_id == agent_id)
    }

    pub(crate) fn others(&self, agent_id: &str) -> Vec<&Viewer> {
        self.present().filter(|viewer| viewer.agent_id != agent_id).collect()
    }

    /// An agent views the ticket.
    pub(crate) fn view(&mut self, member: &Member, name: &str, now: u64) -> Result<Arrival, Failure> {
        let Some(viewer) = self.viewer_mut(member.user_id()) else {
            self.viewers.push(Viewer::new(member.user_id(), name, &member.connection, now));
            self.check_size()?;
            return Ok(Arrival::NewAgent);
        };
        viewer.last_activity = now;
        if !viewer.add(&member.connection)? {
            return Ok(Arrival::Again);
        }
        self.check_size()?;
        Ok(Arrival::NewConnection)
    }

    /// An agent types. A connection that does not view the ticket yet does so from now on.
    pub(crate) fn typing(&mut self, member: &Member, now: u64) -> Result<TypingStart, Failure> {
        let viewer = self.viewing(member)?;
        viewer.last_activity = now;
        let is_new = viewer.add(&member.connection)?;
        let has_begun = viewer.type_at(&member.connection, now);
        if is_new {
            self.check_size()?;
        }
        Ok(if has_begun { TypingStart::Begun } else { TypingStart::Prolonged })
    }

    /// Ends an agent's typing at its own request. `None` if the agent did not type.
    pub(crate) fn stop_typing(&mut self, member: &Member, now: u64) -> Result<Option<Viewer>, Failure> {
        let viewer = self.viewing(member)?;
        viewer.last_activity = now;
        Ok(viewer.typing.take().map(|_| viewer.clone()))
    }

    /// The time of an agent's last `ticket:typing`, in epoch milliseconds; `None` if the agent does not type.
    pub(crate) fn last_typing(&self, agent_id: &str) -> Option<u64> {
        Some(self.viewer(agent_id)?.typing.as_ref()?.last)
    }

    /// Ends an agent's typing after its time. `None` if the agent does not type.
    pub(crate) fn typing_over(&mut self, agent_id: &str) -> Option<Viewer> {
        let viewer = self.viewer_mut(agent_id)?;
        viewer.typing.take().map(|_| viewer.clone())
    }

    /// Removes a connection.
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
        let ends_typing = viewer.place_of(connection).is_some_and(|place| viewer.remove(place));
        if ends_typing { Departure::Typist(viewer.clone()) } else { Departure::Connection }
    }

    /// Marks a connection as away.
    pub(crate) fn lose(&mut self, member: &Member, now: u64) {
        if let Some((viewer, place)) = self.place_of(member) {
            viewer.lose(place, now);
        }
    }

    /// Marks a connection as back.
    pub(crate) fn regain(&mut self, member: &Member) {
        if let Some((viewer, place)) = self.place_of(member) {
            viewer.regain(place);
        }
    }

    /// The time since which an agent is away, in epoch milliseconds; `None` if it is not away, or is out already.
    pub(crate) fn away_since(&self, agent_id: &str) -> Option<u64> {
        self.viewer(agent_id).filter(|viewer| !viewer.is_out())?.away_since()
    }

    /// Takes an agent whose connections are away out of the list, until one is back. Returns the viewer as it was
    /// before.
    pub(crate) fn take_out(&mut self, agent_id: &str) -> Option<Viewer> {
        let viewer = self.viewer_mut(agent_id)?;
        let before = viewer.clone();
        viewer.away.as_mut()?.is_out = true;
        viewer.typing = None;
        Some(before)
    }

    /// Puts an agent back into the list. Returns whether it was out.
    pub(crate) fn bring_back(&mut self, agent_id: &str) -> bool {
        let away = self.viewer_mut(agent_id).and_then(|viewer| viewer.away.as_mut());
        away.is_some_and(|away| std::mem::take(&mut away.is_out))
    }

    /// Removes the agents without activity for `stale`.
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

    /// The viewer of a connection, and the connection's position in it.
    fn place_of(&mut self, member: &Member) -> Option<(&mut Viewer, usize)> {
        let viewer = self.viewer_mut(member.user_id())?;
        let place = viewer.place_of(&member.connection)?;
        Some((viewer, place))
    }

    /// Refuses an addition that would let the state exceed its limit if all agents typed and were away.
    fn check_size(&self) -> Result<(), Failure> {
        let growth = self.viewers.iter().map(Viewer::max_growth).sum();
        let n_bytes = serde_json::to_vec(self).map_or(usize::MAX, |bytes| bytes.len().saturating_add(growth));
        if self.viewers.len() > MAX_VIEWERS || n_bytes > MAX_STATE_BYTES {
            return Err(Failure::conflict("too many agents view this ticket already; come back later"));
        }
        Ok(())
    }
}

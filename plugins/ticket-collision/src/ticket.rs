//! A ticket's state: which agents view it, and what comes and goes with their connections. Nothing here tells
//! anybody of it.

use std::time::Duration;

use roundhouse_sdk::{Failure, Member};
use serde::{Deserialize, Serialize};

use crate::viewer::Viewer;
use crate::wire::ViewerShown;

/// Agents on one ticket. A ticket with so many viewers is no longer anybody's to answer, and each change of
/// the list is sent to all of them.
const MAX_VIEWERS: usize = 250;

/// Bytes that the state may come to take: the host's limit.
const MAX_STATE_BYTES: usize = 64 * 1024;

/// A ticket: who is viewing it, in the order of their coming.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Ticket {
    viewers: Vec<Viewer>,
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

    /// The agents who are out: they are told nothing that would confuse them when they come back.
    pub(crate) fn out(&self) -> impl Iterator<Item = &Viewer> {
        self.viewers.iter().filter(|viewer| viewer.is_out())
    }

    pub(crate) fn viewer(&self, agent_id: &str) -> Option<&Viewer> {
        self.viewers.iter().find(|viewer| viewer.agent_id == agent_id)
    }

    pub(crate) fn others(&self, agent_id: &str) -> Vec<&Viewer> {
        self.present().filter(|viewer| viewer.agent_id != agent_id).collect()
    }

    /// An agent looks at the ticket.
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

    /// An agent types. A connection that has not said that it views the ticket does so from now on.
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

    /// An agent says that it types no longer. `None` where it did not.
    pub(crate) fn stop_typing(&mut self, member: &Member, now: u64) -> Result<Option<Viewer>, Failure> {
        let viewer = self.viewing(member)?;
        viewer.last_activity = now;
        Ok(viewer.typing.take().map(|_| viewer.clone()))
    }

    /// When an agent last said that it types, in epoch milliseconds; `None` where it does not type.
    pub(crate) fn last_typing(&self, agent_id: &str) -> Option<u64> {
        Some(self.viewer(agent_id)?.typing.as_ref()?.last)
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
        let ends_typing = viewer.place_of(connection).is_some_and(|place| viewer.remove(place));
        if ends_typing { Departure::Typist(viewer.clone()) } else { Departure::Connection }
    }

    /// The client of a connection is away.
    pub(crate) fn lose(&mut self, member: &Member, now: u64) {
        if let Some((viewer, place)) = self.place_of(member) {
            viewer.lose(place, now);
        }
    }

    /// The client of a connection is back.
    pub(crate) fn regain(&mut self, member: &Member) {
        if let Some((viewer, place)) = self.place_of(member) {
            viewer.regain(place);
        }
    }

    /// Since when an agent is away, in epoch milliseconds; `None` where it is not, or the others have been told.
    pub(crate) fn away_since(&self, agent_id: &str) -> Option<u64> {
        self.viewer(agent_id).filter(|viewer| !viewer.is_out())?.away_since()
    }

    /// Takes an agent who is away out of the list, until it is back. Gives it as it was.
    pub(crate) fn take_out(&mut self, agent_id: &str) -> Option<Viewer> {
        let viewer = self.viewer_mut(agent_id)?;
        let before = viewer.clone();
        viewer.away.as_mut()?.is_out = true;
        viewer.typing = None;
        Some(before)
    }

    /// An agent is heard of again. Says whether it was out.
    pub(crate) fn bring_back(&mut self, agent_id: &str) -> bool {
        let away = self.viewer_mut(agent_id).and_then(|viewer| viewer.away.as_mut());
        away.is_some_and(|away| std::mem::take(&mut away.is_out))
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

    /// An agent's connection, and the agent.
    fn place_of(&mut self, member: &Member) -> Option<(&mut Viewer, usize)> {
        let viewer = self.viewer_mut(member.user_id())?;
        let place = viewer.place_of(&member.connection)?;
        Some((viewer, place))
    }

    /// Whether there is room for what was added, though all come to type and to be away.
    fn check_size(&self) -> Result<(), Failure> {
        let growth = self.viewers.iter().map(Viewer::max_growth).sum();
        let n_bytes = serde_json::to_vec(self).map_or(usize::MAX, |bytes| bytes.len().saturating_add(growth));
        if self.viewers.len() > MAX_VIEWERS || n_bytes > MAX_STATE_BYTES {
            return Err(Failure::conflict("too many agents view this ticket already; come back later"));
        }
        Ok(())
    }
}

//! Messages, events, answers and settings, as they are on the wire.

use std::num::NonZeroU32;
use std::time::Duration;

use roundhouse_sdk::{Failure, FromClient, Identity, check_name};
use serde::{Deserialize, Serialize};

/// The operator's settings.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// The time after the last `ticket:typing` at which typing ends by itself.
    typing_seconds: NonZeroU32,
    /// The time without activity after which a viewer is stale.
    stale_minutes: NonZeroU32,
    /// The time that an agent whose connections are all away stays in the list; at 0 the agent leaves it at once.
    away_seconds: u32,
    /// The time between two sweeps of stale viewers.
    sweep_minutes: NonZeroU32,
}

impl Default for Settings {
    fn default() -> Self {
        const fn of(number: u32) -> NonZeroU32 {
            NonZeroU32::new(number).expect("a default is not 0")
        }
        Self {
            typing_seconds: const { of(10) },
            stale_minutes: const { of(30) },
            away_seconds: 10,
            sweep_minutes: const { of(5) },
        }
    }
}

impl Settings {
    pub(crate) fn typing(&self) -> Duration {
        Duration::from_secs(self.typing_seconds.get().into())
    }

    pub(crate) fn stale(&self) -> Duration {
        Duration::from_secs(60 * u64::from(self.stale_minutes.get()))
    }

    pub(crate) fn away(&self) -> Duration {
        Duration::from_secs(self.away_seconds.into())
    }

    pub(crate) fn sweep(&self) -> Duration {
        Duration::from_secs(60 * u64::from(self.sweep_minutes.get()))
    }
}

roundhouse_sdk::messages! {
    /// Messages of clients.
    #[derive(Debug)]
    pub enum Message {
        /// The agent opens the ticket.
        client "ticket:view" => View(FromClient<OnTicket>),
        /// The agent types an answer.
        client "ticket:typing" => Typing(FromClient<OnTicket>),
        /// The agent stops typing.
        client "ticket:stop_typing" => StopTyping(FromClient<OnTicket>),
        /// The agent closes the ticket.
        client "ticket:leave" => Leave(FromClient<OnTicket>),
    }
}

/// The payload of every message. The host has read the ticket's id from it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnTicket {
    agent_name: Option<String>,
}

impl OnTicket {
    /// Refuses a name that cannot be shown.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.agent_name.as_deref().map_or(Ok(()), |name| check_name("agentName", name, MAX_NAME_CHARS))
    }

    /// The agent's name: the identity's, else the payload's, else the agent's id.
    pub(crate) fn name_of<'a>(&'a self, identity: &'a Identity) -> &'a str {
        identity.name_or(self.agent_name.as_deref())
    }
}

/// The greatest length of a display name, in characters: that of an id, because a name is shown in one line.
const MAX_NAME_CHARS: usize = 128;

/// The activity of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Viewing,
    Typing,
}

/// A viewer as other agents see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ViewerShown<'a> {
    pub(crate) agent_id: &'a str,
    pub(crate) agent_name: &'a str,
    pub(crate) status: Status,
    pub(crate) since: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) typing_started_at: Option<u64>,
}

/// The viewers of a ticket: an event, an acknowledgement and an answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ViewersUpdated<'a> {
    pub(crate) ticket_id: &'a str,
    pub(crate) viewers: Vec<ViewerShown<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CollisionWarning<'a> {
    pub(crate) ticket_id: &'a str,
    pub(crate) severity: Status,
    /// The other agents.
    pub(crate) viewers: Vec<ViewerShown<'a>>,
    pub(crate) message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentJoined<'a> {
    pub(crate) ticket_id: &'a str,
    pub(crate) agent_id: &'a str,
    pub(crate) agent_name: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentLeft<'a> {
    pub(crate) ticket_id: &'a str,
    pub(crate) agent_id: &'a str,
    pub(crate) agent_name: &'a str,
    pub(crate) reason: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentTyping<'a> {
    pub(crate) ticket_id: &'a str,
    pub(crate) agent_id: &'a str,
    pub(crate) agent_name: &'a str,
    pub(crate) warning: &'static str,
    pub(crate) message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentStoppedTyping<'a> {
    pub(crate) ticket_id: &'a str,
    pub(crate) agent_id: &'a str,
    pub(crate) agent_name: &'a str,
}

roundhouse_sdk::outgoing! {
    pub(crate) const EMITS;
    ViewersUpdated<'_> => "viewers:updated",
    CollisionWarning<'_> => "collision:warning",
    AgentJoined<'_> => "agent:joined",
    AgentLeft<'_> => "agent:left",
    AgentTyping<'_> => "agent:typing",
    AgentStoppedTyping<'_> => "agent:stopped_typing",
}

/// One ticket's figures.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TicketStats {
    pub(crate) ticket_id: String,
    pub(crate) viewer_count: usize,
    pub(crate) typing_count: usize,
}

/// The stats: the figures of all tickets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    pub(crate) active_tickets: usize,
    pub(crate) total_viewers: usize,
    pub(crate) typing_count: usize,
    pub(crate) tickets: Vec<TicketStats>,
}

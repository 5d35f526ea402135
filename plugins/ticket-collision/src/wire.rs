//! What crosses the wire: messages, questions and settings that come in, events that go out.

use std::num::NonZeroU32;
use std::time::Duration;

use roundhouse_sdk::{Claimed, Failure, Identity, check_name};
use serde::{Deserialize, Serialize};

/// The operator's settings.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// Typing ends by itself so long after the last `ticket:typing`.
    typing_seconds: NonZeroU32,
    /// Viewers with no activity for so long go.
    stale_minutes: NonZeroU32,
    /// An agent whose connections are all away is shown for so long; 0 is not at all.
    away_seconds: u32,
    /// How often stale viewers are looked for.
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

/// What clients send.
#[derive(Debug, Deserialize)]
pub enum Message {
    /// The agent opens the ticket.
    #[serde(rename = "ticket:view")]
    View(OnTicket),
    /// The agent types an answer.
    #[serde(rename = "ticket:typing")]
    Typing(OnTicket),
    /// The agent no longer does.
    #[serde(rename = "ticket:stop_typing")]
    StopTyping(OnTicket),
    /// The agent closes the ticket.
    #[serde(rename = "ticket:leave")]
    Leave(OnTicket),
}

impl Message {
    pub(crate) fn payload(&self) -> &OnTicket {
        match self {
            Self::View(payload) | Self::Typing(payload) | Self::StopTyping(payload) | Self::Leave(payload) => payload,
        }
    }
}

/// The payload of every message. The ticket's id is in it too; the host made the scope of that.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnTicket {
    agent_name: Option<String>,
    agent_id: Option<Claimed>,
    user_id: Option<Claimed>,
    sender_id: Option<Claimed>,
}

impl OnTicket {
    /// Refuses a payload that claims to come from somebody else, or a name that is none.
    pub(crate) fn check(&self, identity: &Identity) -> Result<(), Failure> {
        identity.must_be("agentId", self.agent_id.as_deref())?;
        identity.must_be("userId", self.user_id.as_deref())?;
        identity.must_be("senderId", self.sender_id.as_deref())?;
        self.agent_name.as_deref().map_or(Ok(()), |name| check_name("agentName", name, MAX_NAME_CHARS))
    }

    /// The agent's name: the identity's, else the payload's, else the agent's id.
    pub(crate) fn name_of<'a>(&'a self, identity: &'a Identity) -> &'a str {
        identity.name_or(self.agent_name.as_deref())
    }
}

/// As long as an id may be; a display name is shown in one line.
const MAX_NAME_CHARS: usize = 128;

/// What services ask.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Query {
    /// Who is viewing a ticket.
    Viewers,
    /// How many view and type, over all tickets.
    Stats,
}

/// What an agent is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Viewing,
    Typing,
}

/// An agent as others see it.
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

/// Who is viewing a ticket: an event, an acknowledgement and an answer.
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
    /// The others.
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

/// The figures of all tickets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    pub(crate) active_tickets: usize,
    pub(crate) total_viewers: usize,
    pub(crate) typing_count: usize,
    pub(crate) tickets: Vec<TicketStats>,
}

//! Keeps two agents from answering the same ticket at once: it shows the agents who view a ticket and those who type, and
//! warns of collisions.
//!
//! # Layout
//! - this file: the handling of events, and the recipients of emits
//! - `ticket`: the state of one ticket; `viewer`: an agent who views it
//! - `wire`: messages, events, answers and settings

mod ticket;
mod viewer;
mod wire;

use std::borrow::Cow;
use std::time::Duration;

use roundhouse_sdk::{
    Answer, Answers, Audiences, Context, EventLimits, Failure, Feature, FromClient, LeaveReason, Manifest, Member,
    Query, Scope, Sender, Timer,
};
use serde::{Deserialize, Serialize};

pub use ticket::Ticket;
use ticket::{Arrival, Departure, TypingStart};
use viewer::Viewer;
use wire::{
    AgentJoined, AgentLeft, AgentStoppedTyping, AgentTyping, CollisionWarning, EMITS, Stats, Status, TicketStats,
    ViewersUpdated,
};
pub use wire::{Message, OnTicket, Settings};

/// The feature.
#[derive(Debug)]
pub struct TicketCollision;

roundhouse_sdk::export!(TicketCollision);

/// The data of a timer.
#[derive(Debug, Serialize, Deserialize)]
enum Due<'a> {
    /// The agent has not sent `ticket:typing` for a while.
    TypingEnds { agent_id: Cow<'a, str> },
    /// All connections of the agent may have been away for `awaySeconds`.
    AwayTooLong { agent_id: Cow<'a, str> },
    /// The next sweep of stale viewers is due.
    Sweep,
}

type Cx<'a> = Context<'a, TicketCollision>;

/// A ticket without viewers has no state: its scope may go soon.
const IDLE: Duration = Duration::from_secs(60);

/// The query for the viewers of a ticket.
const VIEWERS: &str = "viewers";

const SWEEP_TIMER: &str = "sweep";

impl Feature for TicketCollision {
    type Settings = Settings;
    type State = Ticket;
    type Message = Message;

    fn describe() -> Manifest {
        roundhouse_sdk::manifest!()
            .scope(Scope::volatile("ticket:{ticketId}").idle(IDLE).on_away().takes::<Message>().queries([VIEWERS]))
            .limits(EventLimits::default().bytes(16 * 1024).values(256).keys(256).depth(8))
            .gathers("stats")
            .emits(EMITS)
    }

    fn message(ticket: &mut Ticket, cx: &mut Cx, sender: &Sender, message: Message) -> Result<(), Failure> {
        match message {
            Message::View(payload) => {
                let (member, on_ticket) = verify(payload, sender)?;
                view(ticket, cx, member, on_ticket.name_of(&member.identity))
            }
            Message::Typing(payload) => typing(ticket, cx, verify(payload, sender)?.0),
            Message::StopTyping(payload) => {
                let (member, _) = verify(payload, sender)?;
                if let Some(viewer) = ticket.stop_typing(member, cx.now())? {
                    emit_stopped_typing(cx, &viewer);
                    emit_viewers(ticket, cx);
                }
                Ok(())
            }
            Message::Leave(payload) => {
                let (member, _) = verify(payload, sender)?;
                cx.leave(member);
                depart(ticket, cx, member, LeaveReason::Left);
                Ok(())
            }
        }
    }

    fn left(ticket: &mut Ticket, cx: &mut Cx, member: &Member, reason: LeaveReason) -> Result<(), Failure> {
        depart(ticket, cx, member, reason);
        Ok(())
    }

    fn away(ticket: &mut Ticket, cx: &mut Cx, member: &Member) -> Result<(), Failure> {
        ticket.lose(member, cx.now());
        check_absence(ticket, cx, member.user_id());
        Ok(())
    }

    fn back(ticket: &mut Ticket, cx: &mut Cx, member: &Member) -> Result<(), Failure> {
        let was_out = ticket.bring_back(member.user_id());
        ticket.regain(member);
        check_absence(ticket, cx, member.user_id());
        if was_out {
            emit_joined(ticket, cx, member);
            emit_viewers(ticket, cx);
        }
        Ok(())
    }

    fn timer(ticket: &mut Ticket, cx: &mut Cx, timer: &Timer) -> Result<(), Failure> {
        match timer.decode()? {
            Due::AwayTooLong { agent_id } => check_absence(ticket, cx, &agent_id),
            Due::TypingEnds { agent_id } => end_typing(ticket, cx, &agent_id),
            Due::Sweep => sweep(ticket, cx),
        }
        Ok(())
    }

    fn query(ticket: &Ticket, cx: &Cx, query: &Query) -> Result<Answer, Failure> {
        let ticket_id = cx.param("ticketId");
        Ok(match query.name.as_str() {
            VIEWERS => Answer::of(&ViewersUpdated { ticket_id, viewers: ticket.shown() }),
            _ => Answer::of(&TicketStats {
                ticket_id: ticket_id.to_owned(),
                viewer_count: ticket.n_viewers(),
                typing_count: ticket.n_typing(),
            }),
        })
    }

    fn gathered(_: &Cx, _: &Query, answers: &Answers) -> Result<Answer, Failure> {
        let mut tickets: Vec<TicketStats> = answers.decode()?;
        tickets.retain(|ticket| ticket.viewer_count > 0);
        tickets.sort_by(|a, b| a.ticket_id.cmp(&b.ticket_id));
        Ok(Answer::of(&Stats {
            active_tickets: tickets.len(),
            total_viewers: tickets.iter().map(|ticket| ticket.viewer_count).sum(),
            typing_count: tickets.iter().map(|ticket| ticket.typing_count).sum(),
            tickets,
        }))
    }
}

/// The connection that sent the payload, and the payload with a name that can be shown.
fn verify(payload: FromClient<OnTicket>, sender: &Sender) -> Result<(&Member, OnTicket), Failure> {
    let (member, on_ticket) = payload.verify(sender)?;
    on_ticket.check()?;
    Ok((member, on_ticket))
}

fn view(ticket: &mut Ticket, cx: &mut Cx, member: &Member, name: &str) -> Result<(), Failure> {
    if ticket.is_empty() {
        cx.set_timer(SWEEP_TIMER, cx.settings().sweep(), &Due::Sweep);
    }
    let was_out = ticket.bring_back(member.user_id());
    let arrival = ticket.view(member, name, cx.now())?;
    let ticket_id = ticket_id(cx);
    // Joining again is harmless, and right if the connection was removed from the room unnoticed.
    cx.join(member);
    // An agent whose absence was announced has left for the others, and joins again.
    if was_out || arrival == Arrival::NewAgent {
        emit_newcomer(ticket, cx, member);
    } else if arrival == Arrival::NewConnection {
        // The others' lists have not changed.
        cx.emit(member, &ViewersUpdated { ticket_id, viewers: ticket.shown() });
    }
    cx.reply(&ViewersUpdated { ticket_id, viewers: ticket.shown() });
    Ok(())
}

fn typing(ticket: &mut Ticket, cx: &mut Cx, member: &Member) -> Result<(), Failure> {
    let was_out = ticket.bring_back(member.user_id());
    let start = ticket.typing(member, cx.now())?;
    if !cx.in_room() {
        cx.join(member);
    }
    if was_out {
        emit_joined(ticket, cx, member);
    }
    let agent_id = member.user_id();
    cx.set_timer(typing_timer(agent_id), cx.settings().typing(), &Due::TypingEnds { agent_id: agent_id.into() });
    if start == TypingStart::Prolonged {
        return Ok(());
    }
    if ticket.others(member.user_id()).iter().any(|other| other.is_typing()) {
        warn(ticket, cx, member);
    }
    if let Some(viewer) = ticket.viewer(member.user_id()) {
        let event = AgentTyping {
            ticket_id: ticket_id(cx),
            agent_id: &viewer.agent_id,
            agent_name: &viewer.agent_name,
            warning: "COLLISION_RISK",
            message: format!("{} is typing an answer to this ticket", viewer.agent_name),
        };
        cx.emit(cx.room(), &event).except(connections(viewer));
    }
    emit_viewers(ticket, cx);
    Ok(())
}

/// A connection has left, was removed, or has disconnected.
fn depart(ticket: &mut Ticket, cx: &mut Cx, member: &Member, reason: LeaveReason) {
    match ticket.depart(&member.connection) {
        Departure::Nothing => return,
        Departure::Connection => {}
        Departure::Typist(viewer) => {
            emit_stopped_typing(cx, &viewer);
            emit_viewers(ticket, cx);
        }
        Departure::Agent(viewer) => {
            // For the others, an agent who is out has left already.
            if !viewer.is_out() {
                emit_left(cx, &viewer, reason.as_str());
                emit_viewers(ticket, cx);
            }
            if ticket.is_empty() {
                cx.cancel_timer(SWEEP_TIMER);
            }
        }
    }
    // The agent's other connections may all be away.
    check_absence(ticket, cx, member.user_id());
}

/// Takes an agent out of the list if all its connections have been away for `awaySeconds`; until then sets the timer for it.
fn check_absence(ticket: &mut Ticket, cx: &mut Cx, agent_id: &str) {
    let Some(since) = ticket.away_since(agent_id) else { return cx.cancel_timer(away_timer(agent_id)) };
    let due = Due::AwayTooLong { agent_id: agent_id.into() };
    if cx.elapsed_or_set_timer(away_timer(agent_id), since, cx.settings().away(), &due) {
        cx.cancel_timer(away_timer(agent_id));
        if let Some(viewer) = ticket.take_out(agent_id) {
            emit_left(cx, &viewer, LeaveReason::Disconnected.as_str());
            emit_viewers(ticket, cx);
        }
    }
}

fn end_typing(ticket: &mut Ticket, cx: &mut Cx, agent_id: &str) {
    let Some(last) = ticket.last_typing(agent_id) else { return };
    let due = Due::TypingEnds { agent_id: agent_id.into() };
    if cx.elapsed_or_set_timer(typing_timer(agent_id), last, cx.settings().typing(), &due)
        && let Some(viewer) = ticket.typing_over(agent_id)
    {
        emit_stopped_typing(cx, &viewer);
        emit_viewers(ticket, cx);
    }
}

/// Removes stale viewers. Their pages get the list without them, and then nothing more until they send `ticket:view` again.
fn sweep(ticket: &mut Ticket, cx: &mut Cx) {
    let gone = ticket.take_stale(cx.now(), cx.settings().stale());
    // For the others, viewers who are out have left already.
    for viewer in gone.iter().filter(|viewer| !viewer.is_out()) {
        emit_left(cx, viewer, "stale");
    }
    if gone.iter().any(|viewer| !viewer.is_out()) {
        emit_viewers(ticket, cx);
    }
    for connection in gone.iter().flat_map(|viewer| &viewer.connections) {
        cx.leave_connection(connection);
    }
    if !ticket.is_empty() {
        cx.set_timer(SWEEP_TIMER, cx.settings().sweep(), &Due::Sweep);
    }
}

/// Warns an agent of the other agents on the ticket, if there are any.
fn warn(ticket: &Ticket, cx: &mut Cx, member: &Member) {
    let others = ticket.others(member.user_id());
    let typing = others.iter().find(|other| other.is_typing());
    let Some(first) = typing.or(others.first()) else {
        return;
    };
    let (severity, doing) = match typing {
        Some(_) => (Status::Typing, "typing an answer to"),
        None => (Status::Viewing, "viewing"),
    };
    let message = match others.len() {
        1 => format!("{} is {doing} this ticket", first.agent_name),
        n => format!("{} is {doing} this ticket; {n} other agents have it open", first.agent_name),
    };
    let warning = CollisionWarning {
        ticket_id: ticket_id(cx),
        severity,
        viewers: others.iter().map(|other| other.shown()).collect(),
        message,
    };
    // The warning goes to all connections of the agent on the ticket, and to the one that sent the message.
    let mut to = Audiences::from(member);
    to.0.extend(ticket.viewer(member.user_id()).map(connections).unwrap_or_default().0);
    cx.emit(to, &warning);
}

/// The events of a new agent: the collision warning to the agent, `agent:joined` to the others, the list to all.
fn emit_newcomer(ticket: &Ticket, cx: &mut Cx, member: &Member) {
    warn(ticket, cx, member);
    emit_joined(ticket, cx, member);
    emit_viewers(ticket, cx);
}

fn emit_joined(ticket: &Ticket, cx: &mut Cx, member: &Member) {
    if let Some(Viewer { agent_id, agent_name, connections, .. }) = ticket.viewer(member.user_id()) {
        let joined = AgentJoined { ticket_id: ticket_id(cx), agent_id, agent_name };
        cx.emit(cx.room(), &joined).except(Audiences::connections(connections));
    }
}

/// Emits the list, but not to agents who are out, who would miss themselves in it: they get it when they are back.
fn emit_viewers(ticket: &Ticket, cx: &mut Cx) {
    let event = ViewersUpdated { ticket_id: ticket_id(cx), viewers: ticket.shown() };
    let out = Audiences::connections(ticket.out().flat_map(|viewer| &viewer.connections));
    cx.emit(cx.room(), &event).except(out);
}

fn emit_stopped_typing(cx: &mut Cx, viewer: &Viewer) {
    cx.cancel_timer(typing_timer(&viewer.agent_id));
    let event =
        AgentStoppedTyping { ticket_id: ticket_id(cx), agent_id: &viewer.agent_id, agent_name: &viewer.agent_name };
    cx.emit(cx.room(), &event).except(connections(viewer));
}

/// The events of an agent who has left, to the others: `agent:stopped_typing` if the agent typed, and `agent:left`.
fn emit_left(cx: &mut Cx, viewer: &Viewer, reason: &str) {
    if viewer.is_typing() {
        emit_stopped_typing(cx, viewer);
    }
    let event =
        AgentLeft { ticket_id: ticket_id(cx), agent_id: &viewer.agent_id, agent_name: &viewer.agent_name, reason };
    cx.emit(cx.room(), &event).except(connections(viewer));
}

fn ticket_id<'a>(cx: &Cx<'a>) -> &'a str {
    cx.param("ticketId")
}

fn away_timer(agent_id: &str) -> String {
    format!("away:{agent_id}")
}

fn typing_timer(agent_id: &str) -> String {
    format!("typing:{agent_id}")
}

fn connections(viewer: &Viewer) -> Audiences {
    Audiences::connections(&viewer.connections)
}

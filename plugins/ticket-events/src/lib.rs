//! Passes events of tickets on to the creator, the participants and the admins.
//!
//! # Layout
//! - this file: the recipients of each event
//! - `ticket`: the state of one ticket
//! - `wire`: messages and settings

mod ticket;
mod wire;

use std::time::Duration;

use roundhouse_sdk::{Audience, Audiences, Context, Failure, Feature, Id, Manifest, Scope, Sender};

pub use ticket::Ticket;
use wire::Recipients;
pub use wire::{
    AttachmentAdded, AttachmentDeleted, CommentAdded, Created, Message, PriorityChanged, Settings, StatusChanged, Told,
    Updated,
};

/// The feature.
#[derive(Debug)]
pub struct TicketEvents;

roundhouse_sdk::export!(TicketEvents);

type Cx<'a> = Context<'a, TicketEvents>;

/// The time that a ticket's participants are kept after its last event: about the longest that hosts allow.
const IDLE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Feature for TicketEvents {
    type Settings = Settings;
    type State = Ticket;
    type Message = Message;

    fn describe() -> Manifest {
        roundhouse_sdk::manifest!()
            .scope(Scope::durable("ticket-events:{ticketId}").idle(IDLE).takes::<Message>())
            .needs_audiences(["user", "roles", "all"])
    }

    fn message(ticket: &mut Ticket, cx: &mut Cx, _: &Sender, message: Message) -> Result<(), Failure> {
        let news = message.news();
        if let Some(creator) = news.creator {
            ticket.set_creator(creator);
        }
        if let Some(participants) = &news.sent.fields.participants {
            ticket.add(participants.iter().map(|participant| &participant.0))?;
        }
        // The first commenter on an unknown ticket is not its only participant.
        let is_unknown = ticket.is_empty();
        ticket.add(news.takes_part)?;

        let admins = Audience::roles(&cx.settings().admin_roles);
        let to: Audiences = match news.recipients {
            Recipients::Everyone => Audience::All.into(),
            Recipients::Admins => admins.into(),
            Recipients::Participants if is_unknown => admins.into(),
            Recipients::Participants => users(ticket.participants()).into(),
            Recipients::CreatorAndAdmins => [users(ticket.creator()), admins].into(),
        };
        let actor = news.actor.filter(|_| cx.settings().exclude_actor);
        let emit = cx.pass_through(to, news.sent);
        if let Some(actor) = actor {
            emit.except(Audience::user(&**actor));
        }
        cx.reply_users_reached("recipients");
        Ok(())
    }
}

fn users<'a>(ids: impl IntoIterator<Item = &'a Id>) -> Audience {
    Audience::users(ids.into_iter().map(|id| &**id))
}

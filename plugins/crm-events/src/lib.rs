//! What happens in a WhatsApp CRM, pushed to the pages that show it; and who is writing to a contact.
//!
//! # Layout
//! - this file: what happens at each event, and who hears of it
//! - `contact`: who is writing to a contact
//! - `status`: how far a message has come
//! - `wire`: what crosses the wire

mod contact;
mod status;
mod wire;

use std::time::Duration;

use roundhouse_sdk::{
    Answer, Answers, Audience, Context, EventLimits, Failure, Feature, LeaveReason, Manifest, Member, Outgoing,
    Payload, Scope, Sender,
};
use serde::{Deserialize, Serialize};

use contact::{Contact, Typist};
use status::Status;
use wire::{ContactStats, Data, Dropped, Ids, OnAccount, OnContact, Push, Stats, TypingIndicator, missing};
pub use wire::{Message, Query, Settings};

/// The feature.
#[derive(Debug)]
pub struct CrmEvents;

roundhouse_sdk::export!(CrmEvents);

/// What is kept of a scope: of a contact who is writing to it, of a message how far it has come.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    #[serde(skip_serializing_if = "Contact::is_quiet")]
    contact: Contact,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

/// What a timer is for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Timer {
    /// Somebody has not said for a while that it types.
    TypingEnds {
        /// Who.
        user_id: String,
    },
}

type Cx<'a> = Context<'a, CrmEvents>;

/// A contact: what is said of it is told in the order in which it came.
const CONTACT: &str = "contact:{contactId}";

/// A message, of which the status is kept.
const MESSAGE: &str = "crm-message:{messageId}";

/// How long a message's status is kept after its last change: a phone that was off is on again by then.
const STATUS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A person, of whom nothing is kept. The rooms `user:` are the host's.
const PERSON: &str = "crm-user:{userId}";

/// All the rest, of which nothing is kept. What becomes of messages is here, for it names contacts, accounts or people.
const REST: &str = "crm-events";

/// What names of accounts' and of contacts' rooms begin with.
const ACCOUNT_ROOMS: &str = "whatsapp:";
const CONTACT_ROOMS: &str = "contact:";

const ACCOUNT_EVENTS: [&str; 4] =
    ["whatsapp:connection:status", "whatsapp:qr", "whatsapp:ready", "whatsapp:disconnected"];

const MESSAGE_EVENTS: [&str; 5] =
    ["message:received", "message:sent", "message:delivered", "message:read", "message:failed"];

const STATUS_EVENT: &str = "message:status:update";

const CONTACT_EVENTS: [&str; 3] = ["contact:created", "contact:updated", "contact:deleted"];

const PERSON_EVENTS: [&str; 3] = ["flow:execution:started", "flow:execution:completed", "flow:execution:failed"];

const EVENTS_FOR_ALL: [&str; 2] = ["system:notification", "team:activity"];

impl Feature for CrmEvents {
    type Settings = Settings;
    type State = State;
    type Message = Message;
    type Timer = Timer;
    type Query = Query;

    fn describe() -> Manifest {
        roundhouse_sdk::manifest!()
            .scope(
                Scope::volatile(CONTACT)
                    .from_clients(["subscribe:contact", "unsubscribe:contact", "typing:start", "typing:stop"])
                    .from_services(CONTACT_EVENTS),
            )
            .scope(Scope::volatile(MESSAGE).idle(STATUS_KEPT).from_services([STATUS_EVENT]))
            .scope(Scope::volatile(PERSON).from_services(PERSON_EVENTS))
            .scope(
                Scope::volatile(REST)
                    .from_clients(["subscribe:whatsapp", "unsubscribe:whatsapp"])
                    .from_services(ACCOUNT_EVENTS)
                    .from_services(MESSAGE_EVENTS)
                    .from_services(EVENTS_FOR_ALL),
            )
            .limits(EventLimits::default().bytes(16 * 1024).values(256).keys(256).depth(8))
            .gathers("stats")
            .emits(ACCOUNT_EVENTS)
            .emits(MESSAGE_EVENTS)
            .emits([STATUS_EVENT])
            .emits(CONTACT_EVENTS)
            .emits(PERSON_EVENTS)
            .emits(EVENTS_FOR_ALL)
            .emits([TypingIndicator::NAME])
            .needs_rooms([format!("{ACCOUNT_ROOMS}*")])
            .needs_audiences(["user", "roles", "all"])
    }

    fn message(state: &mut State, cx: &mut Cx, sender: &Sender, message: Message) -> Result<(), Failure> {
        match message {
            Message::SubscribeWhatsapp(data) => {
                let (member, account_id) = (client(sender, &data)?, data.account()?);
                cx.join_room(&member.connection, account_room(&account_id));
                cx.reply(&OnAccount { account_id: &account_id });
            }
            Message::UnsubscribeWhatsapp(data) => {
                let (member, account_id) = (client(sender, &data)?, data.account()?);
                cx.leave_room(&member.connection, account_room(&account_id));
                cx.reply(&OnAccount { account_id: &account_id });
            }
            Message::SubscribeContact(data) => {
                let member = client(sender, &data)?;
                cx.join(member);
                state.contact.subscribed(&member.connection);
                cx.reply(&OnContact { contact_id: contact_id(cx) });
            }
            Message::UnsubscribeContact(data) => {
                let member = client(sender, &data)?;
                cx.leave(member);
                depart(&mut state.contact, cx, member);
                cx.reply(&OnContact { contact_id: contact_id(cx) });
            }
            Message::TypingStart(data) => {
                let member = client(sender, &data)?;
                data.check_account()?;
                start_typing(&mut state.contact, cx, member, &data.name_of(&member.identity)?)?;
            }
            Message::TypingStop(data) => {
                let member = client(sender, &data)?;
                data.check_account()?;
                stop_typing(&mut state.contact, cx, member.user_id());
            }
            Message::OfAccount(push) => {
                let account_id = push.fields.account()?.ok_or_else(|| missing("accountId"))?;
                send_on(cx, vec![Audience::room(account_room(&account_id))], &push)?;
            }
            Message::StatusUpdate(push) => update_status(&mut state.status, cx, &push)?,
            Message::OfMessage(push) => send_on(cx, around_message(&push.fields)?, &push)?,
            Message::OfContact(push) => {
                let mut to = vec![cx.room()];
                to.extend(push.fields.user()?.map(|id| Audience::user(&*id)));
                send_on(cx, to, &push)?;
            }
            Message::OfFlow(push) => send_on(cx, vec![Audience::user(cx.param("userId"))], &push)?,
            Message::Notification(push) => send_on(cx, vec![Audience::All], &push)?,
            Message::Activity(push) => {
                let to = push.fields.roles()?.map_or(Audience::All, Audience::roles);
                send_on(cx, vec![to], &push)?;
            }
        }
        Ok(())
    }

    fn left(state: &mut State, cx: &mut Cx, member: &Member, _: LeaveReason) -> Result<(), Failure> {
        depart(&mut state.contact, cx, member);
        Ok(())
    }

    fn timer(state: &mut State, cx: &mut Cx, Timer::TypingEnds { user_id }: Timer) -> Result<(), Failure> {
        let Some(left) = state.contact.typing_left(&user_id, cx.now(), cx.settings().typing()) else {
            return Ok(());
        };
        if left.is_zero() {
            stop_typing(&mut state.contact, cx, &user_id);
        } else {
            // The operator has made typing last longer since this timer was set.
            cx.set_timer(typing_timer(&user_id), left, &Timer::TypingEnds { user_id });
        }
        Ok(())
    }

    fn query(state: &State, cx: &Cx, Query::Stats: Query) -> Result<Answer, Failure> {
        let stats = ContactStats {
            subscribers: cx.room_users(),
            connections: cx.room_connections(),
            typing: state.contact.n_typing(),
        };
        Ok(Answer::of(&stats))
    }

    fn gathered(_: &Cx, Query::Stats: Query, answers: &Answers) -> Result<Answer, Failure> {
        let contacts: Vec<ContactStats> = answers.decode()?;
        Ok(Answer::of(&Stats {
            contacts: contacts.iter().filter(|contact| contact.subscribers > 0).count(),
            subscribers: contacts.iter().map(|contact| contact.subscribers).sum(),
            connections: contacts.iter().map(|contact| contact.connections).sum(),
            typing: contacts.iter().map(|contact| contact.typing).sum(),
        }))
    }
}

/// Who sent this, and not for somebody else.
fn client<'a>(sender: &'a Sender, data: &Data) -> Result<&'a Member, Failure> {
    let member = sender.client()?;
    data.check(&member.identity)?;
    Ok(member)
}

fn start_typing(contact: &mut Contact, cx: &mut Cx, member: &Member, name: &str) -> Result<(), Failure> {
    let user_id = member.user_id().to_owned();
    let start = contact.type_on(member, name, cx.now(), cx.in_room())?;
    if start.is_to_be_watched {
        // Whoever writes need not have subscribed, but its end has to be noticed.
        cx.watch(member);
    }
    if let Some(typist) = contact.typist(&user_id).filter(|_| start.is_begun) {
        tell_typing(cx, typist, true);
    }
    cx.set_timer(typing_timer(&user_id), cx.settings().typing(), &Timer::TypingEnds { user_id });
    Ok(())
}

fn stop_typing(contact: &mut Contact, cx: &mut Cx, user_id: &str) {
    if let Some(typist) = contact.stop(user_id) {
        tell_stopped(cx, &typist);
    }
}

/// A connection goes, or is subscribed no longer.
fn depart(contact: &mut Contact, cx: &mut Cx, member: &Member) {
    if let Some(typist) = contact.stop_at(&member.connection, cx.now(), cx.settings().typing()) {
        tell_stopped(cx, &typist);
    }
}

fn tell_stopped(cx: &mut Cx, typist: &Typist) {
    for connection in typist.watched() {
        cx.leave_connection(connection);
    }
    cx.cancel_timer(typing_timer(&typist.user_id));
    tell_typing(cx, typist, false);
}

fn tell_typing(cx: &mut Cx, typist: &Typist, is_typing: bool) {
    let Typist { user_id, user_name, .. } = typist;
    let event = TypingIndicator { contact_id: contact_id(cx), user_id, user_name, is_typing };
    cx.emit(cx.room(), &event).except(Audience::user(user_id));
}

fn update_status(present: &mut Option<Status>, cx: &mut Cx, push: &Push) -> Result<(), Failure> {
    let status = push.fields.status()?;
    let to = around_message(&push.fields)?;
    if let Some(present) = present.filter(|present| *present > status) {
        cx.reply(&Dropped { delivered: 0, dropped: true, status: present });
        return Ok(());
    }
    *present = Some(status);
    send_on(cx, to, push)
}

/// Who is to hear of a message.
fn around_message(ids: &Ids) -> Result<Vec<Audience>, Failure> {
    let contact = ids.contact()?.map(|id| Audience::room(format!("{CONTACT_ROOMS}{}", &*id)));
    let account = ids.account()?.map(|id| Audience::room(account_room(&id)));
    let user = ids.user()?.map(|id| Audience::user(&*id));
    let to = Vec::from_iter([contact, account, user].into_iter().flatten());
    if to.is_empty() {
        return Err(Failure::bad_request("contactId, accountId and userId are missing; name one at least"));
    }
    Ok(to)
}

/// Sends on what a service pushed, under the same name, once to each connection.
fn send_on(cx: &mut Cx, to: Vec<Audience>, push: &Push) -> Result<(), Failure> {
    if !push.is_object() {
        return Err(Failure::bad_request(format!("{}: the data has to be an object", cx.event())));
    }
    cx.emit_payload(to, cx.event(), Payload::of(push)?);
    cx.reply_connections_reached("delivered");
    Ok(())
}

fn contact_id<'a>(cx: &Cx<'a>) -> &'a str {
    cx.param("contactId")
}

fn account_room(account_id: &str) -> String {
    format!("{ACCOUNT_ROOMS}{account_id}")
}

fn typing_timer(user_id: &str) -> String {
    format!("typing:{user_id}")
}

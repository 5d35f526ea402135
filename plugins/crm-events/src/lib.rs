//! Events of a WhatsApp CRM for the pages that show them, and typing indicators of contacts.
//!
//! # Layout
//! - this file: the handling of events, and the recipients of emits
//! - `contact`: the state of a contact, its typists
//! - `status`: the status of a message
//! - `wire`: messages, events, answers, scopes and settings

mod contact;
mod status;
mod wire;

use std::borrow::Cow;
use std::time::Duration;

use roundhouse_sdk::{
    Answer, Answers, Audience, Context, EventLimits, Failure, Feature, LeaveReason, Manifest, Member, Query, Scope,
    Sender, Timer,
};
use serde::{Deserialize, Serialize};

use contact::{Contact, Typist};
use status::Status;
use wire::{
    CONTACT, ContactStats, Dropped, EMITS, Ids, MESSAGE, OnAccount, OnContact, PERSON, Push, REST, Stats,
    TypingIndicator, account, check_account, missing, name_of,
};
pub use wire::{Message, Settings};

/// The feature.
#[derive(Debug)]
pub struct CrmEvents;

roundhouse_sdk::export!(CrmEvents);

/// The state of a scope: the typists of a contact, or the status of a message.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    #[serde(skip_serializing_if = "Contact::is_quiet")]
    contact: Contact,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

/// The data of a timer.
#[derive(Debug, Serialize, Deserialize)]
enum Due<'a> {
    /// The user has not sent `typing:start` for a while.
    TypingEnds { user_id: Cow<'a, str> },
}

type Cx<'a> = Context<'a, CrmEvents>;

/// The time that a message's status is kept after its last change: within a day, a phone that was off is on again.
const STATUS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The prefixes of accounts' and contacts' rooms.
const ACCOUNT_ROOMS: &str = "whatsapp:";
const CONTACT_ROOMS: &str = "contact:";

impl Feature for CrmEvents {
    type Settings = Settings;
    type State = State;
    type Message = Message;

    fn describe() -> Manifest {
        roundhouse_sdk::manifest!()
            .scope(Scope::volatile(CONTACT).takes::<Message>())
            .scope(Scope::volatile(MESSAGE).idle(STATUS_KEPT).takes::<Message>())
            .scope(Scope::volatile(PERSON).takes::<Message>())
            .scope(Scope::volatile(REST).takes::<Message>())
            .limits(EventLimits::default().bytes(16 * 1024).values(256).keys(256).depth(8))
            .gathers("stats")
            .emits(EMITS)
            .needs_rooms([format!("{ACCOUNT_ROOMS}*")])
            .needs_audiences(["user", "roles", "all"])
    }

    fn message(state: &mut State, cx: &mut Cx, sender: &Sender, message: Message) -> Result<(), Failure> {
        match message {
            Message::SubscribeWhatsapp(data) => {
                let (member, data) = data.verify(sender)?;
                let account_id = account(&data)?;
                cx.join_room(&member.connection, account_room(&account_id));
                cx.reply(&OnAccount { account_id: &account_id });
            }
            Message::UnsubscribeWhatsapp(data) => {
                let (member, data) = data.verify(sender)?;
                let account_id = account(&data)?;
                cx.leave_room(&member.connection, account_room(&account_id));
                cx.reply(&OnAccount { account_id: &account_id });
            }
            Message::SubscribeContact(data) => {
                let (member, _) = data.verify(sender)?;
                cx.join(member);
                state.contact.subscribed(&member.connection);
                cx.reply(&OnContact { contact_id: contact_id(cx) });
            }
            Message::UnsubscribeContact(data) => {
                let (member, _) = data.verify(sender)?;
                cx.leave(member);
                depart(&mut state.contact, cx, member);
                cx.reply(&OnContact { contact_id: contact_id(cx) });
            }
            Message::TypingStart(data) => {
                let (member, data) = data.verify(sender)?;
                check_account(&data)?;
                start_typing(&mut state.contact, cx, member, &name_of(&data, &member.identity)?)?;
            }
            Message::TypingStop(data) => {
                let (member, data) = data.verify(sender)?;
                check_account(&data)?;
                stop_typing(&mut state.contact, cx, member.user_id());
            }
            Message::OfAccount(push) => {
                let account_id = push.fields.account()?.ok_or_else(|| missing("accountId"))?;
                pass_through(cx, vec![Audience::room(account_room(&account_id))], &push)?;
            }
            Message::StatusUpdate(push) => update_status(&mut state.status, cx, &push)?,
            Message::OfMessage(push) => pass_through(cx, message_audience(&push.fields)?, &push)?,
            Message::OfContact(push) => {
                let mut to = vec![cx.room()];
                to.extend(push.fields.user()?.map(|id| Audience::user(&*id)));
                pass_through(cx, to, &push)?;
            }
            Message::OfFlow(push) => pass_through(cx, vec![Audience::user(cx.param("userId"))], &push)?,
            Message::Notification(push) => pass_through(cx, vec![Audience::All], &push)?,
            Message::Activity(push) => {
                let to = push.fields.roles()?.map_or(Audience::All, Audience::roles);
                pass_through(cx, vec![to], &push)?;
            }
        }
        Ok(())
    }

    fn left(state: &mut State, cx: &mut Cx, member: &Member, _: LeaveReason) -> Result<(), Failure> {
        depart(&mut state.contact, cx, member);
        Ok(())
    }

    fn timer(state: &mut State, cx: &mut Cx, timer: &Timer) -> Result<(), Failure> {
        let Due::TypingEnds { user_id } = timer.decode()?;
        let Some(last) = state.contact.last_typing(&user_id) else { return Ok(()) };
        let due = Due::TypingEnds { user_id: (&*user_id).into() };
        if cx.elapsed_or_set_timer(typing_timer(&user_id), last, cx.settings().typing(), &due) {
            stop_typing(&mut state.contact, cx, &user_id);
        }
        Ok(())
    }

    fn query(state: &State, cx: &Cx, _: &Query) -> Result<Answer, Failure> {
        let stats = ContactStats {
            subscribers: cx.room_users(),
            connections: cx.room_connections(),
            typing: state.contact.n_typing(),
        };
        Ok(Answer::of(&stats))
    }

    fn gathered(_: &Cx, _: &Query, answers: &Answers) -> Result<Answer, Failure> {
        let contacts: Vec<ContactStats> = answers.decode()?;
        Ok(Answer::of(&Stats {
            contacts: contacts.iter().filter(|contact| contact.subscribers > 0).count(),
            subscribers: contacts.iter().map(|contact| contact.subscribers).sum(),
            connections: contacts.iter().map(|contact| contact.connections).sum(),
            typing: contacts.iter().map(|contact| contact.typing).sum(),
        }))
    }
}

fn start_typing(contact: &mut Contact, cx: &mut Cx, member: &Member, name: &str) -> Result<(), Failure> {
    let user_id = member.user_id();
    let start = contact.type_on(member, name, cx.now(), cx.in_room())?;
    if start.is_to_be_watched {
        // A typist need not have subscribed, but its disconnect ends the typing.
        cx.watch(member);
    }
    if let Some(typist) = contact.typist(user_id).filter(|_| start.is_begun) {
        emit_typing(cx, typist, true);
    }
    cx.set_timer(typing_timer(user_id), cx.settings().typing(), &Due::TypingEnds { user_id: user_id.into() });
    Ok(())
}

fn stop_typing(contact: &mut Contact, cx: &mut Cx, user_id: &str) {
    if let Some(typist) = contact.stop(user_id) {
        emit_stopped(cx, &typist);
    }
}

/// A connection has disconnected, unsubscribed or left the room otherwise.
fn depart(contact: &mut Contact, cx: &mut Cx, member: &Member) {
    if let Some(typist) = contact.stop_at(&member.connection, cx.now(), cx.settings().typing()) {
        emit_stopped(cx, &typist);
    }
}

fn emit_stopped(cx: &mut Cx, typist: &Typist) {
    for connection in typist.watched() {
        cx.leave_connection(connection);
    }
    cx.cancel_timer(typing_timer(&typist.user_id));
    emit_typing(cx, typist, false);
}

fn emit_typing(cx: &mut Cx, typist: &Typist, is_typing: bool) {
    let Typist { user_id, user_name, .. } = typist;
    let event = TypingIndicator { contact_id: contact_id(cx), user_id, user_name, is_typing };
    cx.emit(cx.room(), &event).except(Audience::user(user_id));
}

fn update_status(present: &mut Option<Status>, cx: &mut Cx, push: &Push) -> Result<(), Failure> {
    let status = push.fields.status()?;
    let to = message_audience(&push.fields)?;
    if let Some(present) = present.filter(|present| *present > status) {
        cx.reply(&Dropped { delivered: 0, dropped: true, status: present });
        return Ok(());
    }
    *present = Some(status);
    pass_through(cx, to, push)
}

/// The recipients of a message's events.
fn message_audience(ids: &Ids) -> Result<Vec<Audience>, Failure> {
    let contact = ids.contact()?.map(|id| Audience::room(format!("{CONTACT_ROOMS}{}", &*id)));
    let account = ids.account()?.map(|id| Audience::room(account_room(&id)));
    let user = ids.user()?.map(|id| Audience::user(&*id));
    let to = Vec::from_iter([contact, account, user].into_iter().flatten());
    if to.is_empty() {
        return Err(Failure::bad_request("contactId, accountId and userId are missing; name one at least"));
    }
    Ok(to)
}

/// Passes a service's event on, once to each connection, and replies with the number of connections.
fn pass_through(cx: &mut Cx, to: Vec<Audience>, push: &Push) -> Result<(), Failure> {
    if !push.is_object() {
        return Err(Failure::bad_request(format!("{}: the data has to be an object", cx.event())));
    }
    cx.pass_through(to, push);
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

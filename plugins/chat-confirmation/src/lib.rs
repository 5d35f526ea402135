//! Optimistic chat: everybody sees a message before it is stored, and learns what became of it.
//!
//! # Layout
//! - this file: what happens at each event, and who hears of it
//! - `history`: what becomes of stored messages that were asked for
//! - `room`: the state of one room or channel
//! - `recent`: the messages in it that a repetition is known of
//! - `wire`: what crosses the wire, and the names in which rooms and channels differ
//! - `stats`: the figures of all of them

mod history;
mod recent;
mod room;
mod stats;
mod wire;

use std::time::Duration;

use roundhouse_sdk::{
    Answer, Answers, Audience, Audiences, Context, EventLimits, Failure, Feature, Fetched, LeaveReason, Manifest,
    Member, Payload, Query, Saved, Scope, Sender, Timer,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use room::Ended;
pub use room::Room;
use stats::{PlaceStats, Stats};
use wire::{Author, CHANNELS, Confirmed, Connected, Failed, Family, Place, ROOMS, Reason, Received, Say, Sent, Stored};
pub use wire::{Message, Settings};

/// The feature.
#[derive(Debug)]
pub struct ChatConfirmation;

roundhouse_sdk::export!(ChatConfirmation);

type Cx<'a> = Context<'a, ChatConfirmation>;

/// How long those who were here before the host was started anew may take to come back and still be told what became of
/// their messages. Clients try again within seconds; a laptop that was shut just then has the history.
const COMING_BACK: Duration = Duration::from_secs(120);

const ENDED_TIMER: &str = "ended";

/// The store's name for messages.
const MESSAGES: &str = "messages";

/// The longest key of a document that the host takes: an id's greatest length, in the longest characters there are, twice.
/// The space between them may be too much.
const MAX_KEY_BYTES: usize = 1024;

impl Feature for ChatConfirmation {
    type Settings = Settings;
    type State = Room;
    type Message = Message;

    fn describe() -> Manifest {
        roundhouse_sdk::manifest!()
            .scope(scope(&ROOMS))
            .scope(scope(&CHANNELS))
            .limits(limits())
            .gathers("stats")
            .emits(ROOMS.emits())
            .emits(CHANNELS.emits())
            .needs_audiences(["user"])
            .needs_actions(["save"])
    }

    fn message(room: &mut Room, cx: &mut Cx, sender: &Sender, message: Message) -> Result<(), Failure> {
        match message {
            Message::Join(claimed) => join(room, cx, claimed.verify(sender)?),
            Message::Leave(claimed) => {
                leave(room, cx, claimed.verify(sender)?);
                Ok(())
            }
            Message::Say(payload) => {
                let (member, message) = payload.verify(sender)?;
                must_be_in(cx)?;
                say(room, cx, member, message)
            }
            Message::History(payload) => {
                let (_, wanted) = payload.verify(sender)?;
                must_be_in(cx)?;
                let (before, limit) = wanted.checked()?;
                history::ask_for_page(cx, before, limit);
                Ok(())
            }
        }
    }

    fn joined(room: &mut Room, cx: &mut Cx, member: &Member) -> Result<(), Failure> {
        tell_ended(room, cx, member)?;
        history::ask_for_newest(room, cx, Some(&member.connection));
        Ok(())
    }

    fn left(room: &mut Room, cx: &mut Cx, member: &Member, _: LeaveReason) -> Result<(), Failure> {
        room.left(&member.connection);
        if cx.room_connections() == 0 {
            room.emptied();
        }
        Ok(())
    }

    fn timer(room: &mut Room, cx: &mut Cx, _: &Timer) -> Result<(), Failure> {
        keep_ended(room, cx);
        Ok(())
    }

    fn query(_: &Room, cx: &Cx, _: &Query) -> Result<Answer, Failure> {
        let (room_id, channel_id) = match place(cx) {
            Place::Room(id) => (Some(id.to_owned()), None),
            Place::Channel(id) => (None, Some(id.to_owned())),
        };
        let (connected_users, connections) = (cx.room_users(), cx.room_connections());
        Ok(Answer::of(&PlaceStats { room_id, channel_id, connected_users, connections }))
    }

    fn gathered(_: &Cx, _: &Query, answers: &Answers) -> Result<Answer, Failure> {
        Ok(Answer::of(&Stats::of(answers.decode()?)))
    }

    fn saved(room: &mut Room, cx: &mut Cx, saved: &Saved) -> Result<(), Failure> {
        end(room, cx, saved, &saved.document()?)
    }

    fn fetched(room: &mut Room, cx: &mut Cx, fetched: &Fetched) -> Result<(), Failure> {
        history::fetched(room, cx, fetched)
    }
}

fn join(room: &mut Room, cx: &mut Cx, member: &Member) -> Result<(), Failure> {
    let is_new = !cx.in_room();
    if is_new {
        tell_ended(room, cx, member)?;
    }
    // Joining again is harmless, and right where somebody took the connection out of the room unheard.
    cx.join(member);
    if !history::ask_for_newest(room, cx, is_new.then_some(&member.connection)) {
        // The host counts those who were there before this.
        reply_connected(cx, cx.room_users() + u32::from(cx.user_connections() == 0));
    }
    Ok(())
}

fn leave(room: &mut Room, cx: &mut Cx, member: &Member) {
    cx.leave(member);
    room.left(&member.connection);
    if cx.in_room() && cx.room_connections() <= 1 {
        room.emptied();
    }
    let was_last = cx.in_room() && cx.user_connections() == 1;
    reply_connected(cx, cx.room_users() - u32::from(was_last));
}

fn say(room: &mut Room, cx: &mut Cx, member: &Member, message: Say) -> Result<(), Failure> {
    let (body, client_id) = message.checked()?;
    let client_id = client_id.as_deref();
    if let Some(temp_id) = client_id.and_then(|client_id| room.recent.repeated(member.user_id(), client_id)) {
        answer_repetition(cx, member, &Sent { temp_id, client_id });
        return Ok(());
    }
    let key = client_id.map(|client_id| key(member, client_id)).transpose()?;
    let temp_id = format!("temp_{:x}_{:016x}", cx.now(), cx.random());
    let stored = Stored {
        temp_id: temp_id.clone(),
        client_id: client_id.map(str::to_owned),
        body,
        sender_id: Author::of(&member.identity),
        created_at: roundhouse_sdk::iso8601(cx.now()),
    };
    let received = Received {
        id: &temp_id,
        temp_id: &temp_id,
        body: &stored.body,
        sender_id: &stored.sender_id,
        place: place(cx),
        is_optimistic: true,
        created_at: &stored.created_at,
    };
    emit(cx, cx.room(), family(cx).received, &received)?;
    let sent = Sent { temp_id: &temp_id, client_id };
    emit(cx, Audience::user(member.user_id()), family(cx).sent, &sent)?;
    cx.reply(&Sent { temp_id: &temp_id, client_id: None });
    let save = cx.save(&temp_id, MESSAGES, &stored);
    if let (Some(key), Some(client_id)) = (key, client_id) {
        save.key(key);
        room.recent.remember(member.user_id(), client_id, &temp_id);
    }
    Ok(())
}

/// What a message and its repetitions have in common. No id has a space in it.
fn key(member: &Member, client_id: &str) -> Result<String, Failure> {
    let key = format!("{} {client_id}", member.user_id());
    if key.len() > MAX_KEY_BYTES {
        return Err(Failure::bad_request("clientId has too many bytes; take plain letters"));
    }
    Ok(key)
}

/// Whoever did not hear the first answer is told it; nobody else hears anything.
fn answer_repetition(cx: &mut Cx, member: &Member, sent: &Sent) {
    if cx.wants_reply() {
        cx.reply(&Sent { client_id: None, ..*sent });
    } else if let Ok(payload) = Payload::of(sent) {
        cx.emit_payload(member, family(cx).sent, payload);
    }
}

/// Tells the room what became of a message. `stored` is another where that had the client's id before.
fn end(room: &mut Room, cx: &mut Cx, saved: &Saved, stored: &Stored) -> Result<(), Failure> {
    let temp_id = saved.tag.as_str();
    if room.has_ended(temp_id) {
        // The host was started anew once more before it had noted that this was told.
        return Ok(());
    }
    let client_id = stored.client_id.as_deref();
    let told = match &saved.outcome {
        Ok(id) => told(&Confirmed::new(place(cx), id, temp_id, stored))?,
        Err(why) => {
            roundhouse_sdk::warn!("{temp_id} in {} is not stored: {}", cx.scope(), why.failure);
            room.recent.forget(temp_id);
            let error = Reason { code: &why.failure.code, message: &why.failure.message };
            told(&Failed { temp_id, client_id, error, retryable: why.retryable })?
        }
    };
    let id = saved.outcome.as_ref().ok();
    let is_stored = id.is_some();
    emit(cx, cx.room(), end_name(cx, is_stored), &told)?;
    let is_news = saved.restored || stored.temp_id != temp_id;
    if let (true, true, Some(client_id)) = (is_news, is_stored, client_id) {
        room.recent.remember_first(&stored.sender_id.id, client_id, &stored.temp_id);
    }
    if !saved.restored {
        return Ok(());
    }
    let until = cx.now() + u64::try_from(COMING_BACK.as_millis()).unwrap_or(u64::MAX);
    let ended = Ended { temp_id: temp_id.to_owned(), id: id.cloned(), told, until };
    let n_dropped = room.end(ended, &roundhouse_sdk::iso8601(cx.now()));
    if n_dropped > 0 {
        roundhouse_sdk::warn!("{n_dropped} ends of messages in {} are not kept for who comes back", cx.scope());
    }
    keep_ended(room, cx);
    Ok(())
}

/// What an event has to say, as it is sent now and may be once more.
fn told<T: Serialize>(data: &T) -> Result<Box<RawValue>, Failure> {
    to_raw_value(data).map_err(|error| Failure::internal(format!("an event does not become JSON: {error}")))
}

/// Tells who comes back what became of messages while it was away.
fn tell_ended(room: &Room, cx: &mut Cx, member: &Member) -> Result<(), Failure> {
    room.ended().try_for_each(|ended| emit(cx, member, end_name(cx, ended.id.is_some()), &ended.told))
}

fn end_name(cx: &Cx, is_stored: bool) -> &'static str {
    if is_stored { family(cx).confirmed } else { family(cx).failed }
}

/// Drops the ends that nobody waits for any more. The timer for the others keeps the scope while nobody is in it.
fn keep_ended(room: &mut Room, cx: &mut Cx) {
    if let Some(until) = room.drop_ended(cx.now()) {
        cx.set_timer(ENDED_TIMER, Duration::from_millis(until.saturating_sub(cx.now())), "EndedAreOld");
    }
}

fn must_be_in(cx: &Cx) -> Result<(), Failure> {
    if cx.in_room() {
        return Ok(());
    }
    Err(Failure::forbidden(format!("you have not joined; send {} first", family(cx).join)))
}

fn reply_connected(cx: &mut Cx, connected_users: u32) {
    cx.reply(&Connected { place: place(cx), connected_users });
}

/// Sends an event whose name depends on the family.
fn emit<T: Serialize>(cx: &mut Cx, to: impl Into<Audiences>, event: &str, data: &T) -> Result<(), Failure> {
    cx.emit_payload(to, event, Payload::of(data)?);
    Ok(())
}

fn family(cx: &Cx) -> &'static Family {
    Family::of(cx.template())
}

fn place<'a>(cx: &Cx<'a>) -> Place<'a> {
    let family = family(cx);
    family.place(cx.param(family.placeholder))
}

fn scope(family: &Family) -> Scope {
    Scope::volatile(family.template).takes::<Message>().limits([family.message], limits().bytes(MAX_MESSAGE_BYTES))
}

/// What clients send is an id or two beside the claims; the rest is room for what front-ends add.
fn limits() -> EventLimits {
    EventLimits::default().bytes(16 * 1024).values(256).keys(256).depth(8)
}

/// Bytes of a message, at most: a body of 16,384 characters takes 192 KiB where each of them is written as two escapes.
const MAX_MESSAGE_BYTES: u32 = 256 * 1024;

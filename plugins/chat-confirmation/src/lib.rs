//! Optimistic chat: members get a message at once, before it is stored, and then its outcome.
//!
//! # Layout
//! - this file: the handling of events, in the order of a message's life
//! - `context`: the feature, and the helpers of all files on an event's context
//! - `outcomes`: outcomes of messages that were sent before a restart, for members who come back
//! - `history`: stored messages
//! - `room`: the state of one room or channel
//! - `wire`: messages, events and answers, and the names in which rooms and channels differ
//! - `stats`: the figures of all rooms and channels

mod context;
mod history;
mod outcomes;
mod room;
mod stats;
mod wire;

use roundhouse_sdk::{
    Answer, Answers, Audience, EventLimits, Failure, Feature, Fetched, LeaveReason, Manifest, Member, Payload, Query,
    Saved, Scope, Sender, Timer,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

pub use context::ChatConfirmation;
use context::{Cx, MESSAGES, emit, family, outcome_event, place, reply_connected};
pub use room::Room;
use stats::{PlaceStats, Stats};
use wire::{Author, CHANNELS, Confirmed, Failed, Family, Place, ROOMS, Reason, Received, Say, Sent, Stored};
pub use wire::{Message, Settings};

roundhouse_sdk::export!(ChatConfirmation);

/// The greatest length of a document's key, in bytes, by the host: two ids of the greatest length in the longest characters.
/// The space between them may exceed it.
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
                history::fetch_page(cx, before, limit);
                Ok(())
            }
        }
    }

    fn joined(room: &mut Room, cx: &mut Cx, member: &Member) -> Result<(), Failure> {
        outcomes::replay(room, cx, member)?;
        history::fetch_newest(room, cx, Some(&member.connection));
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
        outcomes::drop_expired(room, cx);
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
        settle(room, cx, saved, &saved.document()?)
    }

    fn fetched(room: &mut Room, cx: &mut Cx, fetched: &Fetched) -> Result<(), Failure> {
        history::fetched(room, cx, fetched)
    }
}

fn join(room: &mut Room, cx: &mut Cx, member: &Member) -> Result<(), Failure> {
    let is_new = !cx.in_room();
    if is_new {
        outcomes::replay(room, cx, member)?;
    }
    // Joining again is harmless, and right if the connection was removed from the room unnoticed.
    cx.join(member);
    if !history::fetch_newest(room, cx, is_new.then_some(&member.connection)) {
        // The host's count is that before this event.
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
    // A repetition is answered with the `tempId` of the first message, and stored once.
    if let Some(temp_id) = client_id.and_then(|client_id| room.recent.first(member.user_id(), client_id)) {
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
    // At once, before any storage: the message to the room, the receipt to the sender's connections.
    emit(cx, cx.room(), family(cx).received, &received)?;
    let sent = Sent { temp_id: &temp_id, client_id };
    emit(cx, Audience::user(member.user_id()), family(cx).sent, &sent)?;
    cx.reply(&Sent { temp_id: &temp_id, client_id: None });
    // In the background: the outcome arrives in `saved`.
    let save = cx.save(&temp_id, MESSAGES, &stored);
    if let (Some(key), Some(client_id)) = (key, client_id) {
        save.key(key);
        room.recent.insert(member.user_id(), client_id, &temp_id);
    }
    Ok(())
}

/// The key of a message and its repetitions in the store. No id has a space in it.
fn key(member: &Member, client_id: &str) -> Result<String, Failure> {
    let key = format!("{} {client_id}", member.user_id());
    if key.len() > MAX_KEY_BYTES {
        return Err(Failure::bad_request("clientId has too many bytes; take plain letters"));
    }
    Ok(key)
}

/// Answers a repetition, to its connection alone.
fn answer_repetition(cx: &mut Cx, member: &Member, sent: &Sent) {
    if cx.wants_reply() {
        cx.reply(&Sent { client_id: None, ..*sent });
    } else if let Ok(payload) = Payload::of(sent) {
        cx.emit_payload(member, family(cx).sent, payload);
    }
}

/// Emits the outcome of a message to the room: confirmed or failed. `stored` is an earlier message if that had the same
/// client's id.
fn settle(room: &mut Room, cx: &mut Cx, saved: &Saved, stored: &Stored) -> Result<(), Failure> {
    let temp_id = saved.tag.as_str();
    if room.has_outcome(temp_id) {
        // The host was restarted again before it had noted that this outcome was emitted.
        return Ok(());
    }
    let client_id = stored.client_id.as_deref();
    let payload = match &saved.outcome {
        Ok(id) => raw(&Confirmed::new(place(cx), id, temp_id, stored))?,
        Err(why) => {
            roundhouse_sdk::warn!("{temp_id} in {} is not stored: {}", cx.scope(), why.failure);
            room.recent.remove(temp_id);
            let error = Reason { code: &why.failure.code, message: &why.failure.message };
            raw(&Failed { temp_id, client_id, error, retryable: why.retryable })?
        }
    };
    let id = saved.outcome.as_ref().ok();
    let is_stored = id.is_some();
    emit(cx, cx.room(), outcome_event(cx, is_stored), &payload)?;
    let is_news = saved.restored || stored.temp_id != temp_id;
    if let (true, true, Some(client_id)) = (is_news, is_stored, client_id) {
        room.recent.replace(&stored.sender_id.id, client_id, &stored.temp_id);
    }
    if saved.restored {
        outcomes::keep(room, cx, temp_id, id, payload);
    }
    Ok(())
}

/// An event's payload as JSON, to be emitted now and in a replay.
fn raw<T: Serialize>(data: &T) -> Result<Box<RawValue>, Failure> {
    to_raw_value(data).map_err(|error| Failure::internal(format!("an event does not become JSON: {error}")))
}

fn must_be_in(cx: &Cx) -> Result<(), Failure> {
    if cx.in_room() {
        return Ok(());
    }
    Err(Failure::forbidden(format!("you have not joined; send {} first", family(cx).join)))
}

fn scope(family: &Family) -> Scope {
    Scope::volatile(family.template).takes::<Message>().limits([family.message], limits().bytes(MAX_MESSAGE_BYTES))
}

/// The limits of payloads. Clients send an id or two beside the claims; the rest is room for fields that front-ends add.
fn limits() -> EventLimits {
    EventLimits::default().bytes(16 * 1024).values(256).keys(256).depth(8)
}

/// The greatest size of a message, in bytes: a body of 16,384 characters takes 192 KiB if each is written as two escapes.
const MAX_MESSAGE_BYTES: u32 = 256 * 1024;

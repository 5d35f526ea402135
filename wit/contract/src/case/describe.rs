//! Outcomes in words.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value;

use super::CaseEffect;
use crate::raw::StateChange;
use crate::{Audience, Counted, Effect, Payload};

/// A new state as people read it: JSON where it is some, else text; `null` where it is deleted. None if it stays.
pub fn state_json(change: &StateChange) -> Option<Value> {
    match change {
        StateChange::Keep => None,
        StateChange::Put(bytes) => Some(json_or_text(bytes)),
        StateChange::Clear => Some(Value::Null),
    }
}

/// Bytes as people read them: JSON where they are some, else text.
pub fn json_or_text(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into())
}

/// An effect in words.
pub fn describe<C: Display>(effect: &Effect<C>) -> CaseEffect {
    let json = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let arguments = |payload: &Payload| json(&payload.arguments.text);
    let if_so = |is_so: bool, words: &'static str| if is_so { words } else { "" };
    let (what, to, value) = match effect {
        Effect::Emit { to, except, event, payload, volatile } => {
            let but = if except.is_empty() { String::new() } else { format!(" but not to {}", audiences(except)) };
            let volatile = if_so(*volatile, ", if it is not busy");
            let to = format!("to {}{but}{volatile}{}", audiences(to), attached(payload));
            (format!("emits {event}"), to, arguments(payload))
        }
        Effect::EmitWithAck { connections, event, payload, tag, timeout_ms } => {
            let to = connections.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let to = format!("to {to}, to be acknowledged as {tag} within {timeout_ms} ms{}", attached(payload));
            (format!("emits {event}"), to, arguments(payload))
        }
        Effect::Reply(payload) => ("replies".to_owned(), attached(payload), arguments(payload)),
        Effect::ReplyReached(field, of) => {
            let of = if *of == Counted::Users { "users" } else { "connections" };
            (format!("replies the number of {of}"), format!("as {field}"), Value::Null)
        }
        Effect::Join(connection, room) => ("lets join".to_owned(), of_room(connection, room), Value::Null),
        Effect::Leave(connection, room) => ("has leave".to_owned(), of_room(connection, room), Value::Null),
        Effect::Watch(connection) => ("watches".to_owned(), connection.to_string(), Value::Null),
        Effect::SetTimer(timer) => {
            (format!("sets the timer {}", timer.name), format!("of {} ms", timer.after_ms), json(&timer.payload))
        }
        Effect::CancelTimer(name) => (format!("cancels the timer {name}"), String::new(), Value::Null),
        Effect::Save(save) => {
            let key = save.key.as_ref().map(|key| format!(" with the key {key}")).unwrap_or_default();
            (format!("saves in {}", save.collection), format!("as {}{key}", save.tag), json(&save.document))
        }
        Effect::Fetch(fetch) => {
            let before = fetch.before.as_ref().map(|before| format!(" before {before}")).unwrap_or_default();
            let to = format!("{} documents{before} as {}", fetch.limit, fetch.tag);
            (format!("fetches from {}", fetch.collection), to, Value::Null)
        }
        Effect::Disconnect(connection, reason) => {
            ("disconnects".to_owned(), connection.to_string(), Value::from(reason.as_str()))
        }
        Effect::Refuse(refusal) => {
            ("refuses the connection".to_owned(), String::new(), Value::from(refusal.message.as_str()))
        }
    };
    CaseEffect { what, to, value }
}

/// The attachments, by number and a digest of their contents, which tells one from another.
fn attached(payload: &Payload) -> String {
    if payload.attachments.is_empty() {
        return String::new();
    }
    let mut hasher = DefaultHasher::new();
    payload.attachments.hash(&mut hasher);
    format!(" with {} attachments ({:016x})", payload.attachments.len(), hasher.finish())
}

fn of_room(connection: &impl Display, room: &Option<String>) -> String {
    format!("{connection} in {}", room.as_deref().unwrap_or("the scope's room"))
}

fn audiences<C: Display>(audiences: &[Audience<C>]) -> String {
    let one = |audience: &Audience<C>| match audience {
        Audience::Room(room) => format!("the room {room}"),
        Audience::Users(users) => format!("the users {}", users.join(", ")),
        Audience::Roles(roles) => format!("the roles {}", roles.join(", ")),
        Audience::Connection(connection) => format!("the connection {connection}"),
        Audience::All => "all".to_owned(),
    };
    audiences.iter().map(one).collect::<Vec<_>>().join(" and ")
}

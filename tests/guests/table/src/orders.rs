//! The outcome of an event as JSON.

use std::time::Duration;

use roundhouse_sdk::{Audience, Audiences, Context, Identity, Member, Payload};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Table;

/// Text, in full or as repetitions of a shorter one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// The text.
    Plain(String),
    /// A text, the number of its repetitions, and the texts before and after them.
    Repeated(String, usize, String, String),
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

impl Text {
    fn get(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Repeated(text, n, before, after) => format!("{before}{}{after}", text.repeat(*n)),
        }
    }
}

/// The data of an event: its scope, and the outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The scope.
    pub id: String,
    /// The effects.
    pub effects: Vec<Order>,
    /// The new state, if it changes.
    #[serde(default)]
    pub state: Option<Text>,
}

/// An audience.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the variants are those of the contract")]
pub enum AudienceSpec {
    Room(Text),
    User(Text),
    Users(Vec<Text>),
    Roles(Vec<Text>),
    Connection(String),
    All,
}

/// An emit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the contract")]
pub struct EmitSpec {
    pub to: Vec<AudienceSpec>,
    #[serde(default)]
    pub except: Vec<AudienceSpec>,
    pub event: Text,
    pub args: Text,
    #[serde(default)]
    pub attachments: usize,
    #[serde(default)]
    pub acknowledge: Option<(Text, u64)>,
}

/// An effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the variants are those of the contract")]
pub enum Order {
    Emit(EmitSpec),
    Reply(Text),
    ReachedConnections(Text),
    ReachedUsers(Text),
    Join(String, Option<Text>),
    Leave(String, Option<Text>),
    Watch(String),
    SetTimer(Text, u64, Text),
    CancelTimer(Text),
    Save {
        tag: Text,
        collection: Text,
        key: Option<Text>,
        document: Text,
    },
    Fetch {
        tag: Text,
        collection: Text,
        before: Option<Text>,
        limit: u32,
    },
    Disconnect(String, Text),
    /// Sets this number of timers, each with its own name.
    SetTimers(usize),
}

impl Orders {
    pub(crate) fn carry_out(self, state: &mut String, cx: &mut Context<Table>) {
        if let Some(text) = &self.state {
            *state = text.get();
        }
        for order in self.effects {
            order.carry_out(cx);
        }
    }
}

impl Order {
    fn carry_out(self, cx: &mut Context<Table>) {
        match self {
            Self::Emit(emit) => emit.carry_out(cx),
            Self::Reply(args) => cx.reply_payload(Payload { args: args.get(), attachments: Vec::new() }),
            Self::ReachedConnections(field) => cx.reply_connections_reached(field.get()),
            Self::ReachedUsers(field) => cx.reply_users_reached(field.get()),
            Self::Join(connection, None) => cx.join(&member(connection)),
            Self::Join(connection, Some(room)) => cx.join_room(connection, room.get()),
            Self::Leave(connection, None) => cx.leave_connection(connection),
            Self::Leave(connection, Some(room)) => cx.leave_room(connection, room.get()),
            Self::Watch(connection) => cx.watch(&member(connection)),
            Self::SetTimer(name, after_ms, payload) => {
                cx.set_timer(name.get(), Duration::from_millis(after_ms), &Value::String(payload.get()));
            }
            Self::CancelTimer(name) => cx.cancel_timer(name.get()),
            Self::Save { tag, collection, key, document } => {
                let save = cx.save(tag.get(), collection.get(), &Value::String(document.get()));
                if let Some(key) = key {
                    save.key(key.get());
                }
            }
            Self::Fetch { tag, collection, before, limit } => {
                let fetch = cx.fetch(tag.get(), collection.get()).limit(limit);
                if let Some(before) = before {
                    fetch.before(before.get());
                }
            }
            Self::Disconnect(connection, reason) => cx.disconnect(&member(connection), reason.get()),
            Self::SetTimers(n) => {
                (0..n).for_each(|n| cx.set_timer(n.to_string(), Duration::from_secs(60), &Value::Null));
            }
        }
    }
}

impl EmitSpec {
    fn carry_out(self, cx: &mut Context<Table>) {
        let payload = Payload { args: self.args.get(), attachments: vec![vec![7]; self.attachments] };
        let emit = cx.emit_payload(audiences(&self.to), self.event.get(), payload).except(audiences(&self.except));
        if let Some((tag, timeout_ms)) = self.acknowledge {
            emit.acknowledged(tag.get(), Duration::from_millis(timeout_ms));
        }
    }
}

fn audiences(specs: &[AudienceSpec]) -> Audiences {
    let texts = |texts: &[Text]| texts.iter().map(Text::get).collect::<Vec<_>>();
    let audience = |spec: &AudienceSpec| match spec {
        AudienceSpec::Room(room) => Audience::Room(room.get()),
        AudienceSpec::User(user) => Audience::User(user.get()),
        AudienceSpec::Users(users) => Audience::Users(texts(users)),
        AudienceSpec::Roles(roles) => Audience::Roles(texts(roles)),
        AudienceSpec::Connection(connection) => Audience::Connection(connection.clone()),
        AudienceSpec::All => Audience::All,
    };
    Audiences(specs.iter().map(audience).collect())
}

/// A member with this connection; its identity does not matter.
fn member(connection: String) -> Member {
    let identity = Identity { user_id: String::new(), name: None, roles: Vec::new(), claims: "{}".to_owned() };
    Member { connection, identity }
}

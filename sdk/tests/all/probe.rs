//! A feature that does what its messages say, so that each test reads as one message and its outcome.

use std::collections::HashMap;
use std::time::Duration;

use roundhouse_sdk::{
    Acknowledgement, Answer, Answers, Attachment, Audience, Context, Document, Failure, Feature, Fetched, LeaveReason,
    Manifest, Member, Outgoing, Payload, Query, Saved, Scope, Sender, Timer,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) struct Probe;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) greeting: String,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) notes: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) enum Message {
    #[serde(rename = "do")]
    Do(Order),
    #[serde(rename = "unit")]
    Unit,
    #[serde(rename = "fields")]
    Fields { deep: Vec<Deep> },
    #[serde(rename = "optional")]
    Optional(Optional),
    #[serde(rename = "several")]
    Several(Id, u32, Option<String>),
    #[serde(rename = "either")]
    Either(Id),
    #[serde(rename = "one", alias = "other")]
    Alias(Value),
    #[serde(rename = "blob")]
    Blob { blob: Attachment },
    #[serde(rename = "keep")]
    Keep { what: String },
}

#[derive(Deserialize)]
pub(crate) struct Deep {
    pub(crate) number: u32,
}

#[derive(Deserialize)]
pub(crate) struct Optional {
    text: Option<String>,
}

/// An id as a string, or in an object.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Id {
    Bare(String),
    Object { id: String },
}

impl Id {
    fn text(&self) -> &str {
        match self {
            Self::Bare(id) | Self::Object { id } => id,
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Order {
    what: String,
    #[serde(default)]
    with: String,
}

#[derive(Serialize)]
pub(crate) struct Said<'a> {
    text: &'a str,
}

#[derive(Deserialize)]
pub(crate) struct Thing {
    text: String,
}

#[derive(Serialize)]
pub(crate) struct Pair<'a>(&'a str, Attachment);

impl Outgoing for Pair<'_> {
    const NAME: &'static str = "pair";
    const SPREAD: bool = true;
}

#[derive(Serialize)]
pub(crate) struct Wrong;

roundhouse_sdk::outgoing! {
    Said<'_> => "said",
    Wrong => "undeclared",
}
roundhouse_sdk::export!(Probe);

impl Feature for Probe {
    type Settings = Settings;
    type State = State;
    type Message = Message;

    fn describe() -> Manifest {
        let routed = ["do", "unit", "fields", "optional", "several", "either", "one", "other", "blob"];
        Manifest::new("probe", "1.0.0", "does what it is told")
            .scope(
                Scope::volatile("probe:{id}")
                    .idle(Duration::from_secs(60))
                    .from_clients_and_services(routed)
                    .queries(["notes"]),
            )
            .scope(Scope::durable("pair:{left}:{right}").from_clients(["keep"]))
            .gathers("stats")
            .emits([Said::NAME, Pair::NAME])
            .needs_rooms(["lobby", "hall:*"])
            .needs_audiences(["user", "roles", "all"])
            .needs_actions(["save", "disconnect"])
    }

    fn message(state: &mut State, cx: &mut Context<Self>, sender: &Sender, message: Message) -> Result<(), Failure> {
        match message {
            Message::Do(order) => return obey(state, cx, sender, &order),
            Message::Unit => cx.reply("unit"),
            Message::Fields { deep } => cx.reply(&deep.iter().map(|one| one.number).sum::<u32>()),
            Message::Optional(optional) => cx.reply(&optional.text),
            Message::Several(id, number, text) => cx.reply_payload(Payload::spread(&(id.text(), number, text))?),
            Message::Either(id) => cx.reply(id.text()),
            Message::Alias(data) => cx.reply(&(cx.event(), data)),
            Message::Keep { what } => {
                cx.join(sender.client()?);
                cx.set_timer("kept", Duration::from_secs(3), &what);
                state.notes.push(what);
            }
            Message::Blob { blob } => cx.reply(&cx.attachment(blob).map(<[u8]>::len)),
        }
        Ok(())
    }

    fn joined(state: &mut State, cx: &mut Context<Self>, member: &Member) -> Result<(), Failure> {
        state.notes.push(format!("joined {} {} {}", member.user_id(), place(cx), cx.user_connections()));
        Ok(())
    }

    fn left(state: &mut State, cx: &mut Context<Self>, member: &Member, reason: LeaveReason) -> Result<(), Failure> {
        let (left, own) = (cx.room_connections(), cx.user_connections());
        state.notes.push(format!("left {} {} {left} {} {own}", member.user_id(), reason.as_str(), place(cx)));
        Ok(())
    }

    fn timer(state: &mut State, cx: &mut Context<Self>, timer: &Timer) -> Result<(), Failure> {
        let (timer, due): (String, u64) = (timer.decode()?, timer.due);
        state.notes.push(format!("timer {timer} {}", cx.now() - due));
        if timer == "chain" {
            cx.set_timer("t", Duration::ZERO, &"link".to_owned());
        }
        Ok(())
    }

    fn query(state: &State, cx: &Context<Self>, query: &Query) -> Result<Answer, Failure> {
        Ok(match query.name.as_str() {
            "notes" => Answer::of(&state.notes),
            _ => Answer::of(&(cx.scope(), state.notes.len())),
        })
    }

    fn gathered(_: &Context<Self>, _: &Query, answers: &Answers) -> Result<Answer, Failure> {
        let all: Vec<(String, usize)> = answers.decode()?;
        Ok(Answer::of(&all))
    }

    fn acknowledged(state: &mut State, cx: &mut Context<Self>, ack: &Acknowledgement) -> Result<(), Failure> {
        state.notes.push(match &ack.answer {
            Ok(payload) => format!("{} {} {}", ack.tag, payload.decode::<String>()?, place(cx)),
            Err(failure) => format!("{} {} {}", ack.tag, failure.code, place(cx)),
        });
        Ok(())
    }

    fn saved(state: &mut State, _: &mut Context<Self>, saved: &Saved) -> Result<(), Failure> {
        let restored = if saved.restored { " restored" } else { "" };
        let became = match &saved.outcome {
            Ok(id) => id.clone(),
            Err(why) => format!("{} retryable {}", why.failure.code, why.retryable),
        };
        let Thing { text } = saved.document()?;
        state.notes.push(format!("{} {}/{text}{restored}: {became}", saved.tag, saved.collection));
        Ok(())
    }

    fn fetched(state: &mut State, cx: &mut Context<Self>, fetched: &Fetched) -> Result<(), Failure> {
        state.notes.push(format!("fetched {}", fetched.tag));
        let page = fetched.outcome.as_ref().map_err(|why| why.failure.clone())?;
        if fetched.tag == "again" {
            cx.fetch("second", "things").limit(1);
            return Ok(());
        }
        let things: Vec<Thing> = page.documents.iter().map(Document::decode).collect::<Result<_, _>>()?;
        let texts: Vec<&str> = things.iter().map(|thing| thing.text.as_str()).collect();
        cx.reply(&(texts, page.documents.last().map(|document| &document.id), page.has_more));
        Ok(())
    }
}

/// `in` if the event's connection is in the scope's room, else `out`.
fn place(cx: &Context<Probe>) -> &'static str {
    if cx.in_room() { "in" } else { "out" }
}

/// Does what a `do` message orders.
fn obey(state: &mut State, cx: &mut Context<Probe>, sender: &Sender, order: &Order) -> Result<(), Failure> {
    let said = Said { text: &order.with };
    let with = order.with.as_str();
    match order.what.as_str() {
        "note" => state.notes.push(with.to_owned()),
        "forget" => state.notes.clear(),
        "fail" => {
            state.notes.push("never".to_owned());
            cx.emit(Audience::All, &said);
            return Err(Failure::conflict(with));
        }
        "join" => cx.join(sender.client()?),
        "leave" => cx.leave(sender.client()?),
        "watch" => cx.watch(sender.client()?),
        "join room" => cx.join_room(&sender.client()?.connection, with),
        "leave room" => cx.leave_room(&sender.client()?.connection, with),
        "say to room" => drop(cx.emit(cx.room(), &said).except(sender.client()?)),
        "say to many" => {
            let user = Audience::user(&sender.client()?.identity.user_id);
            cx.emit([cx.room(), user, Audience::roles(["admin"]), Audience::users(["bob"])], &said);
        }
        "say to all" => drop(cx.emit(Audience::All, &said).volatile()),
        "say to role" => drop(cx.emit(Audience::roles([with]), &said)),
        "pair" => drop(cx.emit(sender.client()?, &Pair(with, Attachment::new(0))).attachments(vec![vec![1, 2]])),
        "lose an attachment" => drop(cx.emit(sender.client()?, &said).attachments(vec![vec![1, 2]])),
        "ask" => drop(cx.emit(sender.client()?, &said).acknowledged(with, Duration::from_secs(5))),
        "timer" => cx.set_timer("t", Duration::from_secs(3), &order.with),
        "cancel" => cx.cancel_timer("t"),
        "save" => drop(cx.save(with, "things", &said)),
        "save twice" => {
            cx.save("first", "things", &said).key(with);
            cx.save("second", "others", &said).key(with);
        }
        "fetch" => drop(cx.fetch(with, "things")),
        "fetch before" => drop(cx.fetch("page", "things").before(with).limit(2)),
        "fetch and reply" => {
            cx.fetch(with, "things");
            cx.reply("at once");
        }
        "save under a long key" => drop(cx.save(with, "things", &said).key("k".repeat(1025))),
        "fetch twice" => drop((cx.fetch("a", "things").tag.clone(), cx.fetch("b", "things").tag.clone())),
        "fetch too much" => drop(cx.fetch("a", "things").limit(1001)),
        "reach connections" | "reach users" => {
            cx.emit(cx.room(), &said);
            cx.emit([cx.room(), Audience::roles(["admin"])], &said).except(sender.client()?);
            match order.what.as_str() {
                "reach users" => cx.reply_users_reached("people"),
                _ => cx.reply_connections_reached("delivered"),
            }
        }
        "reply twice" => {
            cx.reply("one");
            cx.reply_users_reached("two");
        }
        "emit too much" => drop(cx.emit(cx.room(), &Said { text: &"x".repeat(1024 * 1024) })),
        "do too much" => (0..1001).for_each(|_| cx.cancel_timer("t")),
        "set too many timers" => {
            let from = state.notes.len();
            (from..from + 600).for_each(|n| cx.set_timer(n.to_string(), Duration::from_secs(60), &String::new()));
            state.notes.resize(from + 600, String::new());
        }
        "disconnect" => cx.disconnect(sender.client()?, with),
        "greet" => cx.reply(&cx.settings().greeting),
        "context" => {
            let known = (cx.scope(), cx.template(), cx.param("id"), cx.sequence(), cx.wants_reply());
            cx.reply(&(known, cx.room_connections(), cx.room_users()));
        }
        "place" => cx.reply(&(place(cx), cx.user_connections())),
        "random" => {
            let numbers = [cx.random(), cx.random()];
            cx.reply(&numbers);
        }
        "log" => roundhouse_sdk::warn!("{} happened", with),
        "undeclared event" => drop(cx.emit(cx.room(), &Wrong)),
        "undeclared room" => drop(cx.emit(Audience::room("elsewhere"), &said)),
        "not json" => cx.reply(&HashMap::from([((1, 2), 3)])),
        "impure" => cx.reply(&std::collections::hash_map::RandomState::new().hash_one_number()),
        other => return Err(Failure::bad_request(format!("no order {other}"))),
    }
    Ok(())
}

trait HashOneNumber {
    fn hash_one_number(&self) -> u64;
}

impl HashOneNumber for std::collections::hash_map::RandomState {
    fn hash_one_number(&self) -> u64 {
        std::hash::BuildHasher::hash_one(self, 1)
    }
}

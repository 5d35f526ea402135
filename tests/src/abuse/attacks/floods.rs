//! Features' own events, sent too often: chats, histories, lists of viewers.

use std::borrow::Cow;
use std::rc::Rc;

use serde_json::json;

use super::{BURST, RATE, attack};
use crate::abuse::{Attack, Field, Flood, Handshake, line};

/// Small frames that are written at once by a client above its rate.
const AT_ONCE: usize = 50;
/// The messages of a long history, which fill a page to its greatest size.
const HISTORY: usize = 110;

pub(in crate::abuse) const ATTACKS: &[Attack] = &[
    attack!("chat", Connections, Closed, 1, "messages of 16 kB in one room, 20 connections at their rate", |f| chat(
        f, 20, false
    )),
    attack!("chat-rooms", Accounts, Closed, 1, "messages of 16 kB, 20 accounts in a room each", |f| chat(f, 20, true)),
    attack!(
        "history",
        Connections,
        Closed,
        1,
        "roomHistory of 100 messages of 4 kB, 10 connections at their rate",
        |f| history(f, Flood::of(10, Handshake::Plain))
    ),
    attack!("history-unread", Connections, Closed, 1, "the same, and nothing is read", |f| {
        history(f, Flood::of(10, Handshake::Plain).deaf())
    }),
    attack!("over-rate", Connections, Closed, 1, "small events as fast as they go, 20 connections", |f| {
        over_rate(f, Handshake::Plain, line::plain("ticket:typing", r#"{"ticketId":"t"}"#))
    }),
    attack!("over-rate-socketio", Connections, Closed, 1, "the same over Socket.IO", |f| {
        over_rate(f, Handshake::SocketIo, line::socket_io("ticket:typing", r#"{"ticketId":"t"}"#))
    }),
    attack!(
        "big-room",
        Connections,
        Closed,
        1,
        "messages of 4 kB to a room of 200 connections, at the rate of one",
        big_room
    ),
    attack!(
        "ticket-crowd",
        Accounts,
        Closed,
        1,
        "100 accounts on one ticket, who begin and stop typing, twice a second each",
        |f| crowd(f, 100, 4.0, "ticket:view", ["ticket:typing", "ticket:stop_typing"], r#"{"ticketId":"crowd"}"#)
    ),
    attack!(
        "view-crowd",
        Accounts,
        Closed,
        1,
        "50 accounts that view and leave one ticket, ten times a second each",
        |f| crowd(f, 50, 20.0, "ticket:view", ["ticket:leave", "ticket:view"], r#"{"ticketId":"crowd"}"#)
    ),
    attack!(
        "typing-crowd",
        Accounts,
        Closed,
        1,
        "50 accounts that begin and stop typing to one contact, at their rate",
        |f| {
            let who = r#"{"contactId":"crowd","whatsappAccountId":"a"}"#;
            crowd(f, 50, RATE, "subscribe:contact", ["typing:start", "typing:stop"], who)
        }
    ),
    attack!(
        "join-and-leave",
        Connections,
        Closed,
        1,
        "joinRoom and leaveRoom by turns, 50 connections at their rate",
        |f| crowd(f, 50, RATE, "joinRoom", ["leaveRoom", "joinRoom"], r#"{"roomId":"crowd"}"#)
    ),
    attack!(
        "subscribe-and-not",
        Connections,
        Closed,
        1,
        "timeline:subscribe and unsubscribe by turns, 50 connections at their rate",
        |f| {
            let what = r#"{"entityType":"client","entityId":"crowd"}"#;
            crowd(f, 50, RATE, "timeline:subscribe", ["timeline:unsubscribe", "timeline:subscribe"], what)
        }
    ),
    attack!(
        "slow-readers",
        Connections,
        Closed,
        1,
        "100 connections in a room that read nothing, and messages of 16 kB to it",
        slow_readers
    ),
    attack!(
        "repeated-messages",
        Connections,
        Closed,
        1,
        "roomMessage with one clientId, 20 connections at their rate",
        |f| async move {
            let join = line::plain("joinRoom", r#"{"roomId":"again"}"#);
            let frame = line::plain("roomMessage", r#"{"roomId":"again","body":"b","clientId":"c"}"#);
            let flood = Flood::of(20, Handshake::Plain).scaled(&f).rate(RATE).burst(BURST).opening(join);
            f.pour(flood, |_, _| Cow::Borrowed(&frame)).await;
            anyhow::Ok(())
        }
    ),
    attack!(
        "unread-acknowledgements",
        Connections,
        Closed,
        1,
        "ticket:view at the rate of 50 connections that read nothing",
        |f| async move {
            let frame = line::plain("ticket:view", r#"{"ticketId":"unread"}"#);
            let flood = Flood::of(50, Handshake::Plain).scaled(&f).rate(RATE).burst(BURST).deaf();
            f.pour(flood, |_, _| Cow::Borrowed(&frame)).await;
            anyhow::Ok(())
        }
    ),
];

/// A message to a room, of the greatest length.
fn message(room: &str, bytes: usize) -> Vec<u8> {
    line::plain("roomMessage", &json!({ "roomId": room, "body": "m".repeat(bytes) }).to_string())
}

fn join(room: &str) -> Vec<u8> {
    line::plain("joinRoom", &json!({ "roomId": room }).to_string())
}

async fn chat(field: Rc<Field>, n: usize, are_apart: bool) -> anyhow::Result<()> {
    let n = field.some(n);
    if !are_apart {
        let frame = message("chat", 16_000);
        let flood = Flood::of(n, Handshake::Plain).rate(RATE).burst(BURST).opening(join("chat"));
        field.pour(flood, |_, _| Cow::Borrowed(&frame)).await;
        return Ok(());
    }
    let frames: Vec<_> = (0..n).map(|i| [join(&format!("chat{i}")), message(&format!("chat{i}"), 16_000)]).collect();
    let flood = Flood::of(n, Handshake::Plain).accounts().rate(RATE).burst(BURST);
    field.pour(flood, |i, n| Cow::Borrowed(&frames[i][n.min(1)])).await;
    Ok(())
}

async fn history(field: Rc<Field>, flood: Flood) -> anyhow::Result<()> {
    let mut asker = field.asker(&field.user(0)).await?;
    asker.ask(&join("history")).await?;
    for _ in 0..field.some(HISTORY) {
        asker.ask(&message("history", 4000)).await?;
    }
    field.begin();
    let frame = line::plain("roomHistory", r#"{"roomId":"history","limit":100}"#);
    let flood = flood.scaled(&field).rate(RATE).burst(BURST).opening(join("history"));
    field.pour(flood, |_, _| Cow::Borrowed(&frame)).await;
    Ok(())
}

async fn over_rate(field: Rc<Field>, handshake: Handshake, frame: Vec<u8>) -> anyhow::Result<()> {
    let frames = frame.repeat(AT_ONCE);
    field.pour(Flood::of(20, handshake).scaled(&field), |_, _| Cow::Borrowed(&frames)).await;
    Ok(())
}

async fn big_room(field: Rc<Field>) -> anyhow::Result<()> {
    let _members = field.connect_all(Flood::of(200, Handshake::Plain).scaled(&field).opening(join("big"))).await;
    let frame = message("big", 4000);
    let flood = Flood::of(1, Handshake::Plain).rate(RATE).burst(BURST).opening(join("big"));
    field.pour(flood, |_, _| Cow::Borrowed(&frame)).await;
    Ok(())
}

async fn slow_readers(field: Rc<Field>) -> anyhow::Result<()> {
    let _members =
        field.connect_all(Flood::of(100, Handshake::Plain).scaled(&field).opening(join("slow")).deaf()).await;
    let frame = message("slow", 16_000);
    let flood = Flood::of(1, Handshake::Plain).rate(RATE).burst(BURST).opening(join("slow"));
    field.pour(flood, |_, _| Cow::Borrowed(&frame)).await;
    Ok(())
}

/// Accounts in one scope, each of which sends two events in turn.
async fn crowd(
    field: Rc<Field>,
    n: usize,
    per_second: f64,
    first: &str,
    events: [&str; 2],
    data: &str,
) -> anyhow::Result<()> {
    let frames = events.map(|event| line::plain(event, data));
    let flood =
        Flood::of(n, Handshake::Plain).scaled(&field).accounts().rate(per_second).opening(line::plain(first, data));
    field.pour(flood, |_, n| Cow::Borrowed(&frames[n % 2])).await;
    Ok(())
}

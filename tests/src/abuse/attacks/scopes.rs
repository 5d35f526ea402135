//! Taking all of a bounded resource: scopes, rooms, timers.

use std::borrow::Cow;
use std::rc::Rc;

use super::{BURST, RATE, attack};
use crate::abuse::{Attack, Field, Flood, Handshake, line};

pub(in crate::abuse) const ATTACKS: &[Attack] = &[
    attack!(
        "all-scopes",
        Connections,
        Closed,
        3,
        "ticket:view with an id at random, 300 connections at their rate",
        |f| fill(f, Flood::of(300, Handshake::Plain), "ticket:view", "ticketId")
    ),
    attack!(
        "all-scopes-anonymous",
        Anonymous,
        Open,
        2,
        "ticket:view with an id at random, 300 connections from one address",
        |f| fill(f, Flood::of(300, Handshake::Anonymous), "ticket:view", "ticketId")
    ),
    attack!("all-scopes-accounts", Accounts, Closed, 2, "timeline:subscribe with an id at random, 300 accounts", |f| {
        fill(f, Flood::of(300, Handshake::Plain).accounts(), "timeline:subscribe", r#"entityType":"client","entityId"#)
    }),
    attack!(
        "typing-everywhere",
        Connections,
        Closed,
        1,
        "typing:start to a contact at random, a timer each, 50 connections",
        |f| fill(f, Flood::of(50, Handshake::Plain), "typing:start", r#"whatsappAccountId":"a","contactId"#)
    ),
    attack!("all-rooms", Connections, Closed, 1, "subscribe:whatsapp with an id at random, 100 connections", |f| {
        fill(f, Flood::of(100, Handshake::Plain), "subscribe:whatsapp", "accountId")
    }),
    attack!(
        "all-campaigns",
        Connections,
        Closed,
        1,
        "subscribe:campaign with an id at random (durable), 50 connections",
        |f| fill(f, Flood::of(50, Handshake::Plain), "subscribe:campaign", "campaignId")
    ),
    attack!(
        "all-chats",
        Connections,
        Closed,
        1,
        "joinRoom with an id at random (history is read), 50 connections",
        |f| fill(f, Flood::of(50, Handshake::Plain), "joinRoom", "roomId")
    ),
    attack!(
        "refused-scopes",
        Connections,
        Closed,
        1,
        "roomMessage to rooms at random that it is not in, 50 connections",
        |f| fill(f, Flood::of(50, Handshake::Plain), "roomMessage", r#"body":"b","roomId"#)
    ),
    attack!(
        "long-ids",
        Connections,
        Closed,
        1,
        "ticket:view with ids of 128 characters of four bytes, 50 connections",
        long_ids
    ),
    attack!(
        "view-and-leave",
        Connections,
        Closed,
        1,
        "ticket:view and ticket:leave by turns, ids at random, 50 connections",
        churn
    ),
];

/// Sends an event for another scope each time.
async fn fill(field: Rc<Field>, flood: Flood, event: &str, key: &str) -> anyhow::Result<()> {
    let flood = flood.scaled(&field).rate(RATE).burst(BURST);
    field.pour(flood, |i, n| Cow::Owned(line::plain(event, &format!(r#"{{"{key}":"{i}-{n}"}}"#)))).await;
    Ok(())
}

async fn long_ids(field: Rc<Field>) -> anyhow::Result<()> {
    let flood = Flood::of(50, Handshake::Plain).scaled(&field).rate(RATE).burst(BURST);
    let padding = "𝔵".repeat(110);
    let frame = |i: usize, n: usize| line::plain("ticket:view", &format!(r#"{{"ticketId":"{padding}{i:06}-{n:08}"}}"#));
    field.pour(flood, |i, n| Cow::Owned(frame(i, n))).await;
    Ok(())
}

async fn churn(field: Rc<Field>) -> anyhow::Result<()> {
    let flood = Flood::of(50, Handshake::Plain).scaled(&field).rate(RATE).burst(BURST);
    let event = |n: usize| if n.is_multiple_of(2) { "ticket:view" } else { "ticket:leave" };
    field.pour(flood, |i, n| Cow::Owned(line::plain(event(n), &format!(r#"{{"ticketId":"{i}-{}"}}"#, n / 2)))).await;
    Ok(())
}

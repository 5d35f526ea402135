//! Payloads within all size limits that cost more than their size.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{LARGEST, RATE, attack, many};
use crate::abuse::{Attack, Field, Flood, Handshake, line};
use crate::guests::{bundled, relabelled};

/// The events per second of each attack: below a connection's limit, and more than a thread can serve when each call
/// takes its whole deadline.
const A_SECOND: f64 = 20.0;

pub(in crate::abuse) const ATTACKS: &[Attack] = &[
    attack!("objects-contact", Account, Closed, 2, "subscribe:contact with 140,000 small objects, 20 a second", |f| {
        heavy(f, "subscribe:contact", r#""contactId":"c""#, "{\"\":0}")
    }),
    attack!(
        "objects-whatsapp",
        Account,
        Closed,
        2,
        "subscribe:whatsapp with 140,000 small objects, 20 a second",
        |f| heavy(f, "subscribe:whatsapp", r#""accountId":"a""#, "{\"\":0}")
    ),
    attack!("keys-typing", Account, Closed, 2, "typing:start with 120,000 unknown keys, 20 a second", |f| {
        keys(f, "typing:start", r#""contactId":"c","whatsappAccountId":"a""#)
    }),
    attack!("arrays-join", Account, Closed, 2, "joinRoom with 240,000 small arrays, 20 a second", |f| {
        heavy(f, "joinRoom", r#""roomId":"r""#, "[0]")
    }),
    attack!("keys-message", Account, Closed, 2, "roomMessage with 120,000 unknown keys, 20 a second", |f| {
        keys(f, "roomMessage", r#""roomId":"r","body":"b""#)
    }),
    attack!("objects-view", Account, Closed, 1, "ticket:view with 140,000 small objects, 20 a second", |f| {
        heavy(f, "ticket:view", r#""ticketId":"t""#, "{\"\":0}")
    }),
    attack!("keys-typing-ticket", Account, Closed, 1, "ticket:typing with 120,000 unknown keys, 20 a second", |f| {
        keys(f, "ticket:typing", r#""ticketId":"t""#)
    }),
    attack!(
        "objects-timeline",
        Account,
        Closed,
        1,
        "timeline:subscribe with 140,000 small objects, 20 a second",
        |f| heavy(f, "timeline:subscribe", r#""entityType":"client","entityId":"e""#, "{\"\":0}")
    ),
    attack!(
        "objects-campaign",
        Account,
        Closed,
        1,
        "subscribe:campaign with 140,000 small objects, 20 a second",
        |f| heavy(f, "subscribe:campaign", r#""campaignId":"c""#, "{\"\":0}")
    ),
    attack!("keys-history", Account, Closed, 1, "roomHistory with 120,000 unknown keys, 20 a second", |f| {
        keys(f, "roomHistory", r#""roomId":"r""#)
    }),
    attack!(
        "deep-nesting",
        Account,
        Closed,
        1,
        "subscribe:contact with 490,000 arrays in one another, 20 a second",
        deep
    ),
    attack!(
        "duplicate-keys",
        Account,
        Closed,
        1,
        "subscribe:contact that names its id 50,000 times, 20 a second",
        |f| {
            let pairs = many(r#""contactId":"c""#, LARGEST);
            send(f, line::plain("subscribe:contact", &format!("{{{pairs}}}")))
        }
    ),
    attack!(
        "half-emoji",
        Account,
        Closed,
        1,
        "typing:start with a name of 160,000 lone surrogates, 20 a second",
        |f| {
            let name = "\\ud83d".repeat(LARGEST / 6);
            send(f, typing(&name))
        }
    ),
    attack!("long-name", Account, Closed, 1, "typing:start with a name of 990,000 letters, 20 a second", |f| {
        send(f, typing(&"n".repeat(LARGEST)))
    }),
    attack!(
        "many-arguments",
        Account,
        Closed,
        1,
        "ticket:view over Socket.IO with 490,000 arguments, 20 a second",
        |f| {
            let frame = line::socket_io("ticket:view", &format!(r#"{{"ticketId":"t"}},{}"#, many("1", LARGEST)));
            send_by(f, Handshake::SocketIo, frame)
        }
    ),
    attack!(
        "base64-attachments",
        Account,
        Closed,
        1,
        "ticket:view with ten attachments of 70 kB, 50 a second",
        attachments
    ),
    attack!(
        "placeholders",
        Account,
        Closed,
        1,
        "ticket:view with 24,000 placeholders of one attachment, 20 a second",
        |f| {
            let places = many(r#"{"_placeholder":true,"num":0}"#, LARGEST);
            let text = format!(r#"{{"event":"ticket:view","args":[{places}],"attachments":["AAAA"],"id":7}}"#);
            send(f, crate::raw::client_frame(text.as_bytes()))
        }
    ),
    attack!("rollback-by-faults", Account, Closed, 2, "what faults crm-events, right after a swap of it", rollback),
];

fn typing(name: &str) -> Vec<u8> {
    line::plain("typing:start", &format!(r#"{{"contactId":"c","whatsappAccountId":"a","userName":"{name}"}}"#))
}

/// An event with an unknown field that holds as many copies of `piece` as fit into a message.
async fn heavy(field: Rc<Field>, event: &str, known: &str, piece: &str) -> anyhow::Result<()> {
    let pieces = many(piece, LARGEST);
    send(field, line::plain(event, &format!(r#"{{{known},"x":[{pieces}]}}"#))).await
}

/// An event with as many unknown keys as fit into a message.
async fn keys(field: Rc<Field>, event: &str, known: &str) -> anyhow::Result<()> {
    let keys: Vec<String> = (0..LARGEST / 11).map(|n| format!("\"k{n:05}\":0")).collect();
    send(field, line::plain(event, &format!("{{{known},{}}}", keys.join(",")))).await
}

async fn deep(field: Rc<Field>) -> anyhow::Result<()> {
    let depth = LARGEST / 2;
    let data = format!(r#"{{"contactId":"c","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    send(field, line::plain("subscribe:contact", &data)).await
}

async fn attachments(field: Rc<Field>) -> anyhow::Result<()> {
    let attachment = STANDARD.encode(vec![b'a'; 70_000]);
    let places: Vec<String> = (0..10).map(|n| format!(r#"{{"_placeholder":true,"num":{n}}}"#)).collect();
    let attachments = vec![format!("\"{attachment}\""); 10].join(",");
    let places = places.join(",");
    let text = format!(
        r#"{{"event":"ticket:view","args":[{{"ticketId":"t"}},{places}],"attachments":[{attachments}],"id":7}}"#
    );
    let frame = crate::raw::client_frame(text.as_bytes());
    field.pour(Flood::of(1, Handshake::Plain).rate(RATE), |_, _| Cow::Borrowed(&frame)).await;
    Ok(())
}

async fn send(field: Rc<Field>, frame: Vec<u8>) -> anyhow::Result<()> {
    send_by(field, Handshake::Plain, frame).await
}

async fn send_by(field: Rc<Field>, handshake: Handshake, frame: Vec<u8>) -> anyhow::Result<()> {
    let flood = Flood::of(1, handshake).rate(A_SECOND).opening(line::plain("joinRoom", r#"{"roomId":"r"}"#));
    field
        .pour(if handshake == Handshake::Plain { flood } else { Flood::of(1, handshake).rate(A_SECOND) }, |_, _| {
            Cow::Borrowed(&frame)
        })
        .await;
    Ok(())
}

/// Swaps a feature as an operator does to mend it, and then makes the new generation fail for one account.
async fn rollback(field: Rc<Field>) -> anyhow::Result<()> {
    let mended = relabelled(&bundled("crm_events")?, "mended");
    let loaded = field.call("PUT", "/v1/plugins/crm-events", mended).await?;
    ensure!(loaded.status == 200, "it is not swapped: {}", loaded.text);
    field.begin();
    let generation = loaded.body["generation"].clone();
    heavy(field.clone(), "subscribe:contact", r#""contactId":"c""#, "{\"\":0}").await?;
    // Pending calls may still fail.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let now = field.report("crm-events").await?["generation"].clone();
    if now != generation {
        field.tally.borrow_mut().harm.push(format!("the swap was rolled back: generation {now}, not {generation}"));
    }
    Ok(())
}

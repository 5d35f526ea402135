//! Making the host hold much memory for few bytes: halves of requests, frames and sessions, most before authentication.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::attack;
use crate::abuse::requests::{POLL, api_request, bare_request};
use crate::abuse::{Attack, Field, Flood, Handshake, Line, line};
use crate::bench::SECRET;
use crate::raw::{client_frame, frame_of};

/// The longest message of a client by default.
pub(super) const MESSAGE: usize = 1_000_000;

pub(in crate::abuse) const ATTACKS: &[Attack] = &[
    attack!("half-posts", Stranger, Closed, 1, "500 polling posts of 1 MB that stop a byte before the end", half_posts),
    attack!(
        "slow-heads",
        Stranger,
        Closed,
        1,
        "500 requests with 60 kB of headers that never end, a byte a second",
        slow_heads
    ),
    attack!(
        "half-heads-api",
        Stranger,
        Closed,
        1,
        "500 requests to the API with 60 kB of headers that never end",
        |f| async move {
            f.hold(f.api, f.some(500), true, |_| endless_head()).await;
            anyhow::Ok(())
        }
    ),
    attack!("half-uploads", RequestKind, Closed, 1, "100 uploads of 16 MB that stop after 8 MB", |f| {
        half_uploads(f, format!("authorization: Bearer {SECRET}\r\n"))
    }),
    attack!("half-uploads-stranger", Stranger, Closed, 1, "the same without a key", |f| half_uploads(f, String::new())),
    attack!(
        "half-calls",
        RequestKind,
        Closed,
        1,
        "300 calls of the API of 1 MB that stop a byte before the end",
        half_calls
    ),
    attack!(
        "half-attachments",
        Connections,
        Closed,
        1,
        "80 Socket.IO connections announce ten attachments and send nine of 1 MB",
        half_attachments
    ),
    attack!(
        "half-frames-unsigned",
        Stranger,
        Closed,
        1,
        "500 WebSockets without a token, with a first frame of 16 kB that lacks a byte",
        |f| {
            let half = almost(16_384);
            hold_lines(f, Flood::of(500, Handshake::Unsigned), vec![half])
        }
    ),
    attack!("half-frames", Connections, Closed, 1, "200 connections with a frame of 1 MB that lacks a byte", |f| {
        hold_lines(f, Flood::of(200, Handshake::Plain), vec![almost(MESSAGE)])
    }),
    attack!(
        "half-messages",
        Connections,
        Closed,
        1,
        "200 connections with nine fragments of 100 kB and no last one",
        |f| {
            let mut fragments = vec![frame_of(0x01, &vec![b' '; 100_000])];
            fragments.extend(vec![frame_of(0x00, &vec![b' '; 100_000]); 8]);
            hold_lines(f, Flood::of(200, Handshake::Plain), fragments)
        }
    ),
    attack!("silent-sockets", Stranger, Closed, 1, "1,500 TCP connections that say nothing", |f| async move {
        f.hold(f.clients, f.some(1500), false, |_| Vec::new()).await;
        anyhow::Ok(())
    }),
    attack!("unsigned-websockets", Stranger, Closed, 1, "1,000 WebSockets that never sign in, again and again", |f| {
        hold_lines(f, Flood::of(1000, Handshake::Unsigned), Vec::new())
    }),
    attack!("engine-sessions", Stranger, Closed, 1, "500 Socket.IO WebSockets that enter no namespace", |f| {
        hold_lines(f, Flood::of(500, Handshake::Engine), Vec::new())
    }),
    attack!(
        "polling-sessions",
        Stranger,
        Closed,
        1,
        "polling sessions that are opened and left, 20 at a time",
        |f| async move {
            let request = bare_request(POLL);
            f.request(f.clients, 20, 200.0, |_, _| Cow::Borrowed(&request)).await;
            anyhow::Ok(())
        }
    ),
    attack!("anonymous-websockets", Anonymous, Open, 1, "1,000 anonymous WebSockets from one address", |f| {
        hold_lines(f, Flood::of(1000, Handshake::Anonymous), Vec::new())
    }),
    attack!(
        "lost-clients",
        Accounts,
        Closed,
        1,
        "20 accounts enter by Socket.IO, view a ticket and are lost, again and again",
        lost_clients
    ),
    attack!("half-handshakes", Stranger, Closed, 1, "500 handshakes without their last line", |f| async move {
        f.hold(f.clients, f.some(500), false, |_| {
            b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n".to_vec()
        })
        .await;
        anyhow::Ok(())
    }),
];

/// A frame that is complete but for its last byte.
fn almost(bytes: usize) -> Vec<u8> {
    let mut frame = client_frame(&vec![b' '; bytes]);
    frame.pop();
    frame
}

/// Connections that send `opening` and wait, and reconnect when they are closed.
async fn hold_lines(field: Rc<Field>, flood: Flood, opening: Vec<Vec<u8>>) -> anyhow::Result<()> {
    let flood = opening.into_iter().fold(flood.scaled(&field), Flood::opening);
    let mut lines: Vec<Line> = field.connect_all(flood.clone()).await;
    while !field.is_over() {
        field.pause(Duration::from_millis(250)).await;
        let n = lines.len();
        lines.retain(|line| !line.is_closed());
        if lines.len() < n {
            lines.extend(field.connect_all(flood.clone().with(n - lines.len())).await);
        }
    }
    Ok(())
}

async fn half_posts(field: Rc<Field>) -> anyhow::Result<()> {
    let body = vec![b'a'; MESSAGE - 1];
    let posts = (0..field.some(500)).map(|n| {
        let (field, body) = (&field, &body);
        async move {
            let sid = field.polling_session(n).await?;
            let mut socket = field.reach(n).await?;
            let head = format!("POST {POLL}&sid={sid} HTTP/1.1\r\nhost: x\r\ncontent-length: {MESSAGE}\r\n\r\n");
            field.tally.borrow_mut().sent(head.len() + body.len());
            socket.write_all(head.as_bytes()).await?;
            socket.write_all(body).await?;
            let status = field.answer(&mut socket).await?.status;
            field.tally.borrow_mut().closed(&status);
            anyhow::Ok(())
        }
    });
    let posted = tokio::time::timeout_at(field.until().into(), join_all(posts)).await;
    for broken in posted.into_iter().flatten().filter(Result::is_err) {
        field.tally.borrow_mut().closed(if broken.is_err() { "without a word" } else { "" });
    }
    Ok(())
}

fn endless_head() -> Vec<u8> {
    let mut head = "GET / HTTP/1.1\r\nhost: x\r\n".to_owned();
    for n in 0..60 {
        head.push_str(&format!("x-{n}: {}\r\n", "h".repeat(990)));
    }
    head.push_str("x-last: ");
    head.into_bytes()
}

async fn slow_heads(field: Rc<Field>) -> anyhow::Result<()> {
    field.hold(field.clients, field.some(500), true, |_| endless_head()).await;
    Ok(())
}

async fn half_uploads(field: Rc<Field>, authorization: String) -> anyhow::Result<()> {
    let head = format!(
        "PUT /v1/plugins/half HTTP/1.1\r\nhost: x\r\n{authorization}content-type: application/wasm\r\n\
         content-length: 16000000\r\n\r\n"
    );
    field.hold(field.api, field.some(100), false, |_| [head.as_bytes(), &vec![0; 8_000_000]].concat()).await;
    Ok(())
}

async fn half_calls(field: Rc<Field>) -> anyhow::Result<()> {
    let body = "x".repeat(MESSAGE - 100);
    let mut call =
        api_request("POST", "/v1/emit", &format!(r#"{{"to":{{"user":"nobody"}},"event":"e","data":"{body}"}}"#));
    call.pop();
    field.hold(field.api, field.some(300), false, |_| call.clone()).await;
    Ok(())
}

async fn half_attachments(field: Rc<Field>) -> anyhow::Result<()> {
    let places: Vec<String> = (0..10).map(|n| format!(r#"{{"_placeholder":true,"num":{n}}}"#)).collect();
    let announced = client_frame(format!(r#"4510-["ticket:view",{}]"#, places.join(",")).as_bytes());
    let attachment = frame_of(0x82, &vec![0; MESSAGE - 1]);
    let mut frames = vec![announced];
    frames.extend(vec![attachment; 9]);
    hold_lines(field, Flood::of(80, Handshake::SocketIo), frames).await
}

/// Connections that break without a close, whose sessions the host keeps.
async fn lost_clients(field: Rc<Field>) -> anyhow::Result<()> {
    let view = line::socket_io("ticket:view", r#"{"ticketId":"lost"}"#);
    let come_and_go = (0..20).map(|n| {
        let (field, view) = (&field, &view);
        async move {
            while !field.is_over() {
                let Ok(token) = crate::bench::token(&field.user(n)) else { return };
                let Ok(socket) = field.reach(n).await else { return };
                let auth = serde_json::json!({ "token": token });
                let entered = crate::raw::connect_socket_io_on(socket, &auth).await;
                let outcome = if entered.is_ok() { "entered and lost" } else { "not let in" };
                field.tally.borrow_mut().refused(outcome);
                if let Ok((mut socket, ..)) = entered {
                    // Failures are ignored, because the connection is broken next.
                    let _ = socket.write_all(view).await;
                    let _ = socket.read(&mut [0; 256]).await;
                }
                field.pause(Duration::from_millis(20)).await;
            }
        }
    });
    join_all(come_and_go).await;
    Ok(())
}

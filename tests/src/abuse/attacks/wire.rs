//! The protocols: frames, handshakes and requests that well-behaved clients send rarely or never.

use std::borrow::Cow;
use std::rc::Rc;

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt as _;

use super::{BURST, RATE, attack};
use crate::abuse::requests::bare_request;
use crate::abuse::{Attack, Field, Flood, Handshake, line};
use crate::bench::token;
use crate::raw::{client_frame, frame_of};

/// Small frames that are written at once.
const AT_ONCE: usize = 50;
/// The number of flooding connections.
const FLOODERS: usize = 10;

pub(in crate::abuse) const ATTACKS: &[Attack] = &[
    attack!("empty-frames", Connections, Closed, 1, "empty text frames as fast as they go, 10 connections", |f| flood(
        f,
        Handshake::Plain,
        frame_of(0x81, b"")
    )),
    attack!("pings", Connections, Closed, 1, "WebSocket pings of 125 bytes as fast as they go, 10 connections", |f| {
        flood(f, Handshake::Plain, frame_of(0x89, &[b'p'; 125]))
    }),
    attack!("pongs", Connections, Closed, 1, "WebSocket pongs of 125 bytes as fast as they go, 10 connections", |f| {
        flood(f, Handshake::Plain, frame_of(0x8a, &[b'p'; 125]))
    }),
    attack!("pings-anonymous", Anonymous, Open, 1, "the same without a token", |f| flood(
        f,
        Handshake::Anonymous,
        frame_of(0x89, &[b'p'; 125])
    )),
    attack!(
        "fragments",
        Connections,
        Closed,
        1,
        "fragments of one byte as fast as they go, 10 connections",
        |f| async move {
            let first = frame_of(0x01, b" ");
            let flood = Flood::of(FLOODERS, Handshake::Plain).scaled(&f).opening(first);
            let frames = frame_of(0x00, b" ").repeat(AT_ONCE);
            f.pour(flood, |_, _| Cow::Borrowed(&frames)).await;
            anyhow::Ok(())
        }
    ),
    attack!("engine-pongs", Connections, Closed, 1, "Engine.IO pongs as fast as they go, 10 connections", |f| flood(
        f,
        Handshake::SocketIo,
        client_frame(b"3")
    )),
    attack!(
        "no-json",
        Connections,
        Closed,
        1,
        "1 MB of what is no JSON, 10 connections at their rate",
        |f| async move {
            let frame = client_frame(&vec![b'['; 990_000]);
            f.pour(Flood::of(FLOODERS, Handshake::Plain).scaled(&f).rate(RATE), |_, _| Cow::Borrowed(&frame)).await;
            anyhow::Ok(())
        }
    ),
    attack!(
        "binary-frames",
        Connections,
        Closed,
        1,
        "binary frames of 100 kB, 10 connections at their rate",
        |f| async move {
            let frame = frame_of(0x82, &vec![0; 100_000]);
            f.pour(Flood::of(FLOODERS, Handshake::Plain).scaled(&f).rate(RATE), |_, _| Cow::Borrowed(&frame)).await;
            anyhow::Ok(())
        }
    ),
    attack!(
        "unknown-events",
        Connections,
        Closed,
        1,
        "events that nobody handles, with names of 256 bytes, 10 connections",
        |f| flood(f, Handshake::Plain, line::plain(&"e".repeat(256), "{}"))
    ),
    attack!(
        "authenticate",
        Connections,
        Closed,
        1,
        "tokens of 16 kB to be checked, 20 connections at their rate",
        |f| async move {
            let wrong = format!("{}.{}.{}", "e".repeat(100), "y".repeat(16_000), "J".repeat(43));
            let frame = line::plain("authenticate", &format!(r#"{{"token":"{wrong}"}}"#));
            f.pour(Flood::of(20, Handshake::Plain).scaled(&f).rate(RATE).burst(BURST), |_, _| Cow::Borrowed(&frame))
                .await;
            anyhow::Ok(())
        }
    ),
    attack!(
        "namespaces",
        Connections,
        Closed,
        1,
        "Socket.IO packets that enter unknown namespaces, 10 connections",
        |f| flood(f, Handshake::SocketIo, client_frame(format!("40/{},", "n".repeat(100)).as_bytes()))
    ),
    attack!(
        "reentries",
        Connections,
        Closed,
        1,
        "leaves and enters the main namespace again and again, 10 connections",
        |f| async move {
            let enter = format!(r#"40{{"token":"{}"}}"#, token(&f.user(0))?);
            let frames = [client_frame(b"41"), client_frame(enter.as_bytes())].concat();
            f.pour(Flood::of(FLOODERS, Handshake::SocketIo).scaled(&f).rate(RATE), |_, _| Cow::Borrowed(&frames)).await;
            anyhow::Ok(())
        }
    ),
    attack!(
        "resumes",
        Connections,
        Closed,
        1,
        "resume with a session at random, one on each connection, again and again",
        |f| async move {
            let session = "0123456789abcdef0123456789abcdef0123456789abcdef";
            let frame = line::plain("resume", &format!(r#"{{"session":"{session}","offset":0}}"#));
            f.pour(Flood::of(FLOODERS, Handshake::Plain).scaled(&f).rate(RATE), |_, _| Cow::Borrowed(&frame)).await;
            anyhow::Ok(())
        }
    ),
    attack!(
        "unasked-acknowledgements",
        Connections,
        Closed,
        1,
        "acknowledgements that nobody asked for, 10 connections",
        |f| flood(f, Handshake::SocketIo, client_frame(b"431[1]"))
    ),
    attack!("sign-in-churn", Accounts, Closed, 1, "connects, signs in and goes, 20 at a time", |f| churn(
        f,
        20,
        Handshake::Plain
    )),
    attack!("sign-in-churn-socketio", Accounts, Closed, 1, "the same over Socket.IO", |f| churn(
        f,
        20,
        Handshake::SocketIo
    )),
    attack!("tcp-churn", Stranger, Closed, 1, "TCP connections that are opened and closed, 20 at a time", tcp_churn),
    attack!(
        "wrong-tokens",
        Stranger,
        Closed,
        1,
        "handshakes with eight tokens of 1 kB that are not valid, 20 at a time",
        wrong_tokens
    ),
    attack!("garbage", Stranger, Closed, 1, "bytes that are no HTTP, 20 at a time", |f| async move {
        f.request(f.clients, 20, 100.0, |_, _| Cow::Borrowed(&b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"[..])).await;
        anyhow::Ok(())
    }),
    attack!(
        "two-meanings",
        Stranger,
        Closed,
        1,
        "requests with two hosts, two lengths, none of either, or a body behind a handshake",
        two_meanings
    ),
    attack!("pages", Stranger, Closed, 1, "/healthz, as fast as it goes, 20 connections", |f| async move {
        let request = bare_request("/healthz");
        f.request(f.clients, 20, 400.0, |_, _| Cow::Borrowed(&request)).await;
        anyhow::Ok(())
    }),
];

async fn flood(field: Rc<Field>, handshake: Handshake, frame: Vec<u8>) -> anyhow::Result<()> {
    let frames = frame.repeat(AT_ONCE);
    field.pour(Flood::of(FLOODERS, handshake).scaled(&field), |_, _| Cow::Borrowed(&frames)).await;
    Ok(())
}

async fn churn(field: Rc<Field>, n: usize, handshake: Handshake) -> anyhow::Result<()> {
    let come_and_go = (0..n).map(|i| {
        let field = &field;
        async move {
            while !field.is_over() {
                if field.connect(handshake, &field.user(i), i, false).await.is_some() {
                    field.tally.borrow_mut().refused("signed in and gone");
                }
            }
        }
    });
    join_all(come_and_go).await;
    Ok(())
}

async fn tcp_churn(field: Rc<Field>) -> anyhow::Result<()> {
    let come_and_go = (0..20).map(|i| {
        let field = &field;
        async move {
            while !field.is_over() {
                if let Ok(mut socket) = field.reach(i).await {
                    field.tally.borrow_mut().sent(0);
                    // Some connections send half of a request.
                    let _ = socket.write_all(&b"GET / HTTP/1.1\r\n"[..i % 17]).await;
                    // A reset frees the client's port at once; after a close it would be taken for a minute, and ports
                    // would run out.
                    let _ = socket.set_zero_linger();
                }
                tokio::task::yield_now().await;
            }
        }
    });
    join_all(come_and_go).await;
    Ok(())
}

async fn wrong_tokens(field: Rc<Field>) -> anyhow::Result<()> {
    let wrong = format!("eyJhbGciOiJIUzI1NiJ9.{}.{}", "e".repeat(1000), "J".repeat(43));
    let cookies = vec![format!("jwt={wrong}"); 6].join("; ");
    let request = format!(
        "GET /ws?token={wrong} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {wrong}\r\ncookie: {cookies}\r\n\
         connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    field.request(field.clients, 20, 200.0, |_, _| Cow::Borrowed(request.as_bytes())).await;
    Ok(())
}

/// Requests that two parsers read differently (RFC 9112).
async fn two_meanings(field: Rc<Field>) -> anyhow::Result<()> {
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let requests = [
        "GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\n\r\n".to_owned(),
        "POST /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            .to_owned(),
        "POST /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde".to_owned(),
        format!("GET /ws HTTP/1.1\r\nhost: a\r\n{upgrade}content-length: 4\r\n\r\nabcd"),
    ];
    field.request(field.clients, 10, 100.0, |_, n| Cow::Borrowed(requests[n % requests.len()].as_bytes())).await;
    Ok(())
}

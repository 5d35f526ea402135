//! The way in: handshakes that are slow or false, tokens that are forged, messages over the limits, silent clients.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use jsonwebtoken::Algorithm;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::memory::MESSAGE;
use super::{BURST, RATE, attack};
use crate::abuse::requests::{POLL, bare_request};
use crate::abuse::{Attack, Field, Flood, Handshake, line};
use crate::bench::token;
use crate::issuer::IssuerKey;
use crate::raw::{client_frame, frame_of};

/// The default time of a heartbeat's answer, and some seconds for the host to notice.
const HEARTBEAT: Duration = Duration::from_secs(65);
/// The number of attackers that are busy all the time.
const BUSY: usize = 20;
/// The requests per second of each of them: more than it reaches.
const AT_MOST: f64 = 1000.0;
/// The depth of JSON that fits into a message of a client that has not signed in, and deep enough for a stack to run
/// out.
const DEPTH: usize = 4000;

pub(in crate::abuse) const ATTACKS: &[Attack] = &[
    attack!("slow-handshakes", Stranger, Closed, 1, "1,000 handshakes, a byte a second", |f| async move {
        f.hold(f.clients, f.some(1000), true, |_| b"GET /ws HTTP/1.1\r\nhost: x\r\nsec-websocket-key: ".to_vec()).await;
        anyhow::Ok(())
    }),
    attack!(
        "slow-tls",
        Stranger,
        Tls,
        1,
        "1,000 TLS handshakes with half of a ClientHello, then a byte a second",
        |f| {
            async move {
                let hello = client_hello()?;
                f.hold(f.clients, f.some(1000), true, |_| hello[..hello.len() / 2].to_vec()).await;
                anyhow::Ok(())
            }
        }
    ),
    attack!(
        "left-tls",
        Stranger,
        Tls,
        1,
        "TLS handshakes whose keys the host makes, and that are left, 20 at a time",
        left_tls
    ),
    attack!(
        "forged-rs256",
        Stranger,
        Keys,
        1,
        "handshakes with four tokens of a false RS256 signature, 20 at a time",
        |f| forged(f, Algorithm::RS256)
    ),
    attack!(
        "forged-es384",
        Stranger,
        Keys,
        1,
        "handshakes with four tokens of a false ES384 signature, 20 at a time",
        |f| forged(f, Algorithm::ES384)
    ),
    attack!(
        "forged-connects",
        Stranger,
        Keys,
        1,
        "Socket.IO CONNECT packets with a false ES384 signature, as fast as they go, 20 connections",
        |f| async move {
            let connect = client_frame(format!("40{}", json!({ "token": false_token(Algorithm::ES384)? })).as_bytes());
            f.pour(Flood::of(BUSY, Handshake::Engine).scaled(&f), |_, _| Cow::Borrowed(&connect)).await;
            anyhow::Ok(())
        }
    ),
    attack!(
        "half-open",
        Accounts,
        Closed,
        18,
        "1,000 accounts that sign in and answer no heartbeat, without an end of their connections",
        half_open
    ),
    attack!(
        "unpolled",
        Connections,
        Closed,
        1,
        "100 polling sessions in a room with messages of 16 kB, which never poll",
        unpolled
    ),
    attack!(
        "polling-flood",
        Connections,
        Closed,
        1,
        "posts of 50 events by polling, as fast as they go, 20 sessions",
        |f| {
            let events = vec![r#"42["ticket:typing",{"ticketId":"t"}]"#; 50].join("\u{1e}");
            posts(f, BUSY, AT_MOST, events)
        }
    ),
    attack!("over-long-posts", Connections, Closed, 1, "polling posts of 1 MB and a byte, 20 sessions", |f| {
        posts(f, BUSY, RATE, "4".repeat(MESSAGE + 1))
    }),
    attack!("over-long", Connections, Closed, 1, "messages of 1 MB and a byte, 20 connections", |f| {
        over_long(f, client_frame(&vec![b' '; MESSAGE + 1]))
    }),
    attack!("over-long-fragments", Connections, Closed, 1, "the same in ten fragments and one of a byte", |f| {
        let mut fragments = frame_of(0x01, &vec![b' '; MESSAGE / 10]);
        fragments.extend(frame_of(0x00, &vec![b' '; MESSAGE / 10]).repeat(9));
        fragments.extend(frame_of(0x80, b" "));
        over_long(f, fragments)
    }),
    attack!(
        "deep-sign-in",
        Stranger,
        Closed,
        1,
        "first messages of 4,000 arrays in one another, 20 connections",
        deep_sign_in
    ),
    attack!(
        "smuggled",
        Stranger,
        Closed,
        1,
        "requests that hide another behind lengths, spaces and line ends",
        |f| async move {
            f.request(f.clients, BUSY, AT_MOST, |_, n| Cow::Borrowed(SMUGGLED[n % SMUGGLED.len()])).await;
            anyhow::Ok(())
        }
    ),
];

/// Requests behind each of which another parser may see a second one.
const SMUGGLED: &[&[u8]] = &[
    b"POST /healthz HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST /healthz HTTP/1.1\r\nhost: x\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: +4\r\n\r\nGET ",
    b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-length: 4\r\n\r\nGET ",
    b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: a\r\n b\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: x\r\nx\0y: z\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

/// The first bytes of a client with TLS.
fn client_hello() -> anyhow::Result<Vec<u8>> {
    let config = ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(config.into(), ServerName::try_from("localhost")?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello)
}

async fn left_tls(field: Rc<Field>) -> anyhow::Result<()> {
    let hello = client_hello()?;
    let come_and_go = (0..BUSY).map(|n| {
        let (field, hello) = (&field, &hello);
        async move {
            while !field.is_over() {
                let outcome = match field.reach(n).await {
                    Ok(mut socket) => {
                        field.tally.borrow_mut().sent(hello.len());
                        let is_answered = socket.write_all(hello).await.is_ok() && socket.readable().await.is_ok();
                        // A reset frees the client's port at once.
                        let _ = socket.set_zero_linger();
                        if is_answered { "answered and left" } else { "not let in" }
                    }
                    Err(_) => "not let in",
                };
                field.tally.borrow_mut().refused(outcome);
            }
        }
    });
    // An answer may not come before the end of the attack.
    let _ = tokio::time::timeout_at(field.until().into(), join_all(come_and_go)).await;
    Ok(())
}

/// A token that is well formed, by a key that the host does not know.
fn false_token(algorithm: Algorithm) -> anyhow::Result<String> {
    let signed = IssuerKey::new(algorithm).sign(&json!({ "sub": "mallory" }), None);
    let (head, signature) = signed.rsplit_once('.').context("a token has a signature")?;
    // The RSA key of tests is always the same, so that its signature must be changed.
    let other = if signature[10..].starts_with('A') { 'B' } else { 'A' };
    Ok(format!("{head}.{}{other}{}", &signature[..10], &signature[11..]))
}

/// Handshakes with as many false tokens as the host checks by public keys.
async fn forged(field: Rc<Field>, algorithm: Algorithm) -> anyhow::Result<()> {
    let forged = format!("token={}", false_token(algorithm)?);
    let path = format!("/ws?{}", vec![forged; 4].join("&"));
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    field.request(field.clients, BUSY, AT_MOST, |_, _| Cow::Borrowed(request.as_bytes())).await;
    Ok(())
}

async fn half_open(field: Rc<Field>) -> anyhow::Result<()> {
    let before = sockets(&field).await?;
    let subscribe = line::plain("subscribe:contact", r#"{"contactId":"half-open"}"#);
    let flood = Flood::of(1000, Handshake::Plain).scaled(&field).accounts().opening(subscribe);
    let lines = field.connect_all(flood).await;
    let n = lines.len() as i64;
    field.pause(field.time).await;
    let left = sockets(&field).await? - before;
    field.tally.borrow_mut().notes.push(format!("{left} of {n} are left"));
    if field.time > HEARTBEAT && left > n / 10 {
        field.tally.borrow_mut().harm.push(format!("{left} of {n} half-open connections are kept"));
    }
    Ok(())
}

/// The number of open sockets of clients.
async fn sockets(field: &Field) -> anyhow::Result<i64> {
    let stats = field.call("GET", "/v1/stats", Vec::new()).await?;
    stats.body["sockets"].as_i64().with_context(|| format!("no stats: {}", stats.text))
}

/// The path of a polling session that has signed in and joined a room.
async fn signed_in(field: &Field, n: usize, room: &str) -> anyhow::Result<String> {
    let path = format!("{POLL}&sid={}", field.polling_session(n).await?);
    let join = json!(["joinRoom", { "roomId": room }]);
    let packets = format!("40{}\u{1e}42{join}", json!({ "token": token(&field.user(0))? }));
    let mut socket = field.reach(n).await?;
    for request in [post(&path, &packets), bare_request(&path)] {
        socket.write_all(&request).await?;
        field.answer(&mut socket).await?;
    }
    Ok(path)
}

fn post(path: &str, payload: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{payload}", payload.len()).into_bytes()
}

async fn unpolled(field: Rc<Field>) -> anyhow::Result<()> {
    for n in 0..field.some(100) {
        signed_in(&field, n, "unpolled").await?;
    }
    field.begin();
    let join = line::plain("joinRoom", r#"{"roomId":"unpolled"}"#);
    let message = line::plain("roomMessage", &json!({ "roomId": "unpolled", "body": "m".repeat(16_000) }).to_string());
    let flood = Flood::of(1, Handshake::Plain).rate(RATE).burst(BURST).opening(join);
    field.pour(flood, |_, _| Cow::Borrowed(&message)).await;
    Ok(())
}

/// Sessions that post a payload again and again, and are opened anew when they have ended.
async fn posts(field: Rc<Field>, n: usize, per_second: f64, payload: String) -> anyhow::Result<()> {
    let sessions = (0..field.some(n)).map(|n| {
        let (field, payload) = (&field, &payload);
        async move {
            while !field.is_over() {
                let outcome = match signed_in(field, n, "posts").await {
                    Ok(path) => post_until_refused(field, n, &post(&path, payload), per_second).await,
                    Err(_) => "no session".to_owned(),
                };
                field.tally.borrow_mut().closed(&outcome);
                field.pause(Duration::from_millis(200)).await;
            }
        }
    });
    // An answer may not come before the end of the attack.
    let _ = tokio::time::timeout_at(field.until().into(), join_all(sessions)).await;
    Ok(())
}

/// Posts until the host does not answer 200. Returns the end.
async fn post_until_refused(field: &Field, n: usize, request: &[u8], per_second: f64) -> String {
    let Ok(mut socket) = field.reach(n).await else { return "not let in".to_owned() };
    loop {
        field.tally.borrow_mut().sent(request.len());
        let (reader, mut writer) = socket.split();
        // A refusal may arrive while the request is still sent.
        tokio::select! {
            sent = writer.write_all(request) => if sent.is_err() { return "without a word".to_owned() },
            _ = reader.readable() => {}
        }
        match field.answer(&mut socket).await {
            Ok(reply) if reply.status == "200" && reply.is_kept => field.tally.borrow_mut().answers += 1,
            Ok(reply) => return reply.status,
            Err(_) => return "without a word".to_owned(),
        }
        field.pause(Duration::from_secs_f64(1.0 / per_second)).await;
    }
}

async fn over_long(field: Rc<Field>, bytes: Vec<u8>) -> anyhow::Result<()> {
    let flood = Flood::of(BUSY, Handshake::Plain).scaled(&field).rate(RATE);
    field.pour(flood, |_, _| Cow::Borrowed(&bytes)).await;
    Ok(())
}

async fn deep_sign_in(field: Rc<Field>) -> anyhow::Result<()> {
    let deep = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let connect = client_frame(format!(r#"40{{"token":{deep}}}"#).as_bytes());
    let authenticate = line::plain("authenticate", &format!(r#"{{"token":{deep}}}"#));
    let flood = |handshake| Flood::of(BUSY / 2, handshake).scaled(&field).rate(RATE);
    tokio::join!(
        field.pour(flood(Handshake::Engine), |_, _| Cow::Borrowed(&connect)),
        field.pour(flood(Handshake::Unsigned), |_, _| Cow::Borrowed(&authenticate)),
    );
    Ok(())
}

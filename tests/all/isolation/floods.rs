//! Clients that keep sending over their rate: they get refusals, then no answers, and at last they are disconnected.

use roundhouse_tests::guests::conformance;
use roundhouse_tests::raw::{client_frame, connect_raw, take_frames};
use roundhouse_tests::{
    EngineSocket, Packet, Polling, SocketIoClient, TIMEOUT, TestClient, TestHost, eventually, metric,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// Writes the same bytes again and again until the connection ends. Returns the received text frames and the close
/// code.
async fn flood(ws: &str, token: &str, frames: &[u8]) -> (Vec<Value>, Option<u16>) {
    let socket = connect_raw(ws, token).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    let frames = frames.repeat(64 * 1024 / frames.len() + 1);
    let writing = tokio::spawn(async move { while write.write_all(&frames).await.is_ok() {} });
    let mut received = Vec::new();
    // The host may end the connection with a reset, because unread bytes are left.
    let end = async { while read.read_buf(&mut received).await.is_ok_and(|n| n > 0) {} };
    timeout(TIMEOUT, end).await.expect("the connection ends in time");
    writing.await.unwrap();
    let mut texts = Vec::new();
    take_frames(&mut received, |text| texts.push(serde_json::from_slice(text).unwrap()));
    let close = received.windows(2).position(|head| head[0] == 0x88).map(|at| [received[at + 2], received[at + 3]]);
    (texts, close.map(u16::from_be_bytes))
}

/// A ping or pong frame without content.
fn control(opcode: u8) -> Vec<u8> {
    vec![0x80 | opcode, 0x80, 0, 0, 0, 0]
}

#[tokio::test]
async fn floods_of_any_frame_are_disconnected() {
    let host = TestHost::start();
    let mut ben = host.client("ben").await;
    let event = json!({ "event": "ticket:leave", "data": { "ticketId": "t" }, "id": 1 }).to_string();
    let binary = [0x82, 0x81, 0, 0, 0, 0, 1];
    let kinds: [(&str, Vec<u8>); 6] = [
        ("events", client_frame(event.as_bytes())),
        ("acknowledgements", client_frame(b"{\"id\":5}")),
        ("empty frames", client_frame(b"")),
        ("binary frames", binary.to_vec()),
        ("pings", control(9)),
        ("pongs", control(10)),
    ];
    for (n, (kind, frames)) in kinds.iter().enumerate() {
        let token = host.token("ana");
        let (texts, code) = flood(&host.ws, &token, frames).await;
        assert!(code.is_none_or(|code| code == 1008), "{kind}: {code:?}");
        let refused = texts.iter().filter(|text| text.to_string().contains("rate_limited")).count();
        assert!(refused <= 200, "{kind}: {refused} were answered");
        let answered = !matches!(*kind, "pings" | "pongs");
        assert!(!answered || refused >= 100, "{kind}: {refused} were answered");
        assert_eq!(metric(&host.api, "connections_cut_off_total").await, n as u64 + 1, "{kind}");
        assert!(ben.emit_with_ack("ticket:leave", json!({ "ticketId": "t" })).await.is_ok(), "{kind}");
    }
    assert_eq!(metric(&host.api, "closes_total{code=\"1008\"}").await, kinds.len() as u64);
    assert!(host.log().contains("went on sending over its rate"), "{}", host.log());
}

#[tokio::test]
async fn disconnected_flooder_gets_the_reason() {
    let host = TestHost::start();
    let mut ana = host.client("ana").await;
    for _ in 0..1300 {
        ana.emit("ticket:leave", json!({ "ticketId": "t" })).await;
    }
    let closed = ana.closed().await;
    assert_eq!((closed.code, &*closed.reason), (Some(1008), "the client went on sending over its rate"));

    let mut ben = EngineSocket::open(&host.ws).await;
    ben.send(&*format!("40{}", json!({ "token": host.token("ben") }))).await;
    for _ in 0..1300 {
        ben.send("42[\"ticket:leave\",{\"ticketId\":\"t\"}]").await;
    }
    let mut last = Packet::from("");
    let closed = loop {
        match ben.next().await {
            Ok(packet) => last = packet,
            Err(closed) => break closed,
        }
    };
    assert_eq!(closed.code, Some(1008));
    assert!(matches!(&last, Packet::Text(text) if text.contains("rate_limited")), "{last:?}");
}

#[tokio::test]
async fn socketio_floods_are_disconnected() {
    let host = TestHost::start();
    for packet in ["42[\"ticket:leave\",{\"ticketId\":\"t\"}]", "431[]", "3", "6", "40/nowhere,"] {
        let mut ana = EngineSocket::open(&host.ws).await;
        ana.send(&*format!("40{}", json!({ "token": host.token("ana") }))).await;
        for _ in 0..1300 {
            ana.send(packet).await;
        }
        assert_eq!(ana.closed().await.code, Some(1008), "{packet}");
    }
}

#[tokio::test]
async fn polling_floods_end_their_session() {
    let host = TestHost::start();
    for packet in ["3", "42[\"ticket:leave\",{\"ticketId\":\"t\"}]"] {
        let polling = Polling::open(&host.ws).await;
        polling.send(&[Packet::from(&*format!("40{}", json!({ "token": host.token("ana") })))]).await;
        let payload = vec![packet; 1400].join("\u{1e}");
        polling.post(&payload).await;
        let answer = eventually("the session is gone", async || {
            let answer = polling.poll().await;
            (answer.status == 400).then_some(answer)
        });
        assert_eq!(answer.await.body["code"], 1, "{packet}");
    }
    assert_eq!(metric(&host.api, "connections_cut_off_total").await, 2);
}

/// Waits until the rate limit lets a client send again.
async fn until_allowed(ana: &mut TestClient) {
    eventually("the rate allows it", async || {
        ana.emit_with_ack("ticket:leave", json!({ "ticketId": "t" })).await.is_ok().then_some(())
    })
    .await;
}

#[tokio::test]
async fn brief_burst_is_refused_without_disconnect() {
    let host = TestHost::start();
    let mut ana = host.client("ana").await;
    for _ in 0..390 {
        ana.emit("ticket:leave", json!({ "ticketId": "t" })).await;
    }
    until_allowed(&mut ana).await;
    assert_eq!(metric(&host.api, "connections_cut_off_total").await, 0);
}

#[tokio::test]
async fn attachments_of_refused_packets_are_skipped() {
    let limits = "auth.jwt.secret = \"s\"\nplugins.conformance.grants.actions = [\"connect\"]\n\
                  [limits]\nevents_per_second = 1\nevent_burst = 2\n";
    let host = TestHost::start_with(limits, &[]);
    host.load("conformance", conformance()).await;
    let mut ana = SocketIoClient::socket(&host.ws).await;
    ana.connect_as(&host.token("ana")).await;
    let event = |id: usize| {
        let text = format!(
            "452-{id}[\"message-with-ack\",{{\"_placeholder\":true,\"num\":0}},{{\"_placeholder\":true,\"num\":1}}]"
        );
        [Packet::from(&*text), Packet::Binary(vec![1]), Packet::Binary(vec![2])]
    };
    for id in 0..300 {
        ana.send_packets(&event(id)).await;
    }
    let refused = ana.wait_for(|packet| packet.kind == '3' && packet.id == Some(50)).await;
    assert_eq!(refused.data[0]["error"]["code"], "rate_limited", "{refused:?}");
    eventually("all were read", async || (metric(&host.api, "events_refused_total").await >= 290).then_some(())).await;
    assert_eq!(metric(&host.api, "closes_total{code=\"1002\"}").await, 0, "none of it was against the protocol");
}

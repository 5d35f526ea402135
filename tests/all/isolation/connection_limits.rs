//! The limits of connections for a user and for an address: which connections count, and which one is closed at the
//! limit. An expired token ends only the connections that were opened with it.

use std::time::Duration;

use roundhouse_tests::{ENGINE, InnerHost, SocketIoClient, TestClient, eventually, http, metric};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::recovery::{CONFIG, TRANSPORTS, Transport};

/// A little more than the time-out of a probe.
const PROBED: Duration = Duration::from_millis(5_001);

/// The metric of frames that the host has queued.
const FRAMES: &str = "frames_queued_total";

const TOO_MANY: Option<u16> = Some(4009);

async fn host(limit: usize, more: &str) -> InnerHost {
    InnerHost::start(&format!("{CONFIG}limits.connections_per_user = {limit}\n{more}")).await
}

/// Opens a plain connection, without waiting for a frame.
async fn open(host: &InnerHost) -> TestClient {
    let url = format!("{}/ws?token={}", host.ws, host.token("ana", None));
    TestClient::open(url.into_client_request().unwrap()).await
}

async fn sessions_of(host: &InnerHost, user: &str) -> usize {
    let connections = host.call("GET", &format!("/v1/connections?user={user}"), "").await.body;
    connections["connections"].as_array().unwrap().len()
}

#[tokio::test]
async fn expired_token_ends_its_namespace_alone() {
    let host = InnerHost::start(&format!("{CONFIG}socketio.namespaces = [\"/other\"]")).await;
    let minute = Duration::from_secs(60);
    for transport in TRANSPORTS {
        let mut client = transport.open(&host).await;
        let token = |valid_for: Duration| json!({ "token": host.token("ana", Some(valid_for)) });
        let short = client.connect("/other", &token(minute / 6)).await.unwrap();
        client.connect("/", &token(minute / 3)).await.unwrap();
        let session = client.session("/other");
        host.advance(minute / 6);
        let why = client.wait_for(|packet| packet.event == "error").await;
        assert_eq!((&*why.namespace, &why.argument()["code"]), ("/other", &json!("unauthorized")), "{why:?}");
        let out = client.wait_for(|packet| packet.kind == '1').await;
        assert_eq!(&*out.namespace, "/other", "{out:?}");
        assert_eq!(client.emit_refused("no:such", json!([])).await, "unknown_event", "the other goes on");

        // With a newer token the client resumes the namespace's session, on the same transport.
        let mut again = token(minute);
        again.as_object_mut().unwrap().extend(session.as_object().unwrap().clone());
        assert_eq!(client.connect("/other", &again).await.unwrap()["sid"], short["sid"]);
        host.advance(minute / 6);
        client.wait_for(|packet| packet.kind == '1' && packet.namespace == "/").await;

        let mut both = transport.open(&host).await;
        for namespace in ["/", "/other"] {
            both.connect(namespace, &token(minute / 6)).await.unwrap();
        }
        host.advance(minute / 6);
        let closed = both.closed().await;
        assert!(
            closed.code == Some(4002) || transport == Transport::Polling,
            "with the last the transport ends: {closed:?}"
        );
        // Nothing but what announced the end.
        assert!(both.kept().iter().all(|packet| packet.event == "auth:expiring"), "{:?}", both.kept());
        client.cut().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn resume_counts_as_the_same_connection() {
    for more in ["shards = 1", "shards = 4", "shards = 4\nlimits.user_overflow = \"replace_oldest\""] {
        let host = InnerHost::start(&format!("{more}\n{CONFIG}limits.connections_per_user = 1\n")).await;
        let mut old = host.client("ana").await;
        let begun = old.emit_with_ack("resume", json!({})).await.unwrap();
        let id = old.id().to_owned();
        let mut kept = Vec::new();
        // The host has not noticed the loss of the old transport when the client resumes, at each of these times.
        for _ in 0..6 {
            let mut back = host.client("ana").await;
            let resumed =
                back.emit_with_ack("resume", json!({ "session": begun["session"], "offset": 0 })).await.unwrap();
            assert_eq!((&resumed["recovered"], &resumed["connectionId"]), (&json!(true), &json!(id)), "{more}");
            assert_eq!(sessions_of(&host, "ana").await, 1);
            assert_eq!(old.closed().await.code, Some(1000));
            kept.push(std::mem::replace(&mut old, back));
        }
        drop((kept, old));
        host.shut_down().await;
    }
}

#[tokio::test]
async fn recovery_key_counts_as_the_same_connection() {
    let host = host(1, "").await;
    for transport in TRANSPORTS {
        let mut old = transport.open(&host).await;
        let id = old.connect_as(&host.token("ana", None)).await;
        let session = old.session_with(&host.token("ana", None));
        let mut back = transport.open(&host).await;
        assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
        old.closed().await;
        back.disconnect().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn probed_lost_connection_frees_its_slot() {
    let host = host(1, "").await;
    // The client does not read, and so does not answer pings.
    let lost = host.client("ana").await;
    let pinged = async |n: u64| {
        let is_pinged = async || (metric(&host.api, FRAMES).await >= n).then_some(());
        eventually("the refusal and the ping are sent", is_pinged).await;
        host.advance(PROBED);
    };
    let n_frames = metric(&host.api, FRAMES).await;
    host.advance(Duration::from_secs(1));
    let refused = open(&host).await.closed().await;
    assert_eq!(refused.code, TOO_MANY);
    assert!(refused.reason.contains("try again in some seconds"), "{refused:?}");
    pinged(n_frames + 2).await;
    eventually("its place is free", async || (sessions_of(&host, "ana").await == 0).then_some(())).await;
    let back = host.client("ana").await;

    host.advance(Duration::from_secs(1));
    let mut client = SocketIoClient::socket(&host.ws).await;
    let token = json!({ "token": host.token("ana", None) });
    let n_frames = metric(&host.api, FRAMES).await;
    let refused = client.connect("/", &token).await.unwrap_err();
    assert_eq!(
        (&refused["data"]["code"], &refused["data"]["retryAfterMs"]),
        (&json!("too_many_connections"), &json!(5000))
    );
    pinged(n_frames + 2).await;
    eventually("its place is free", async || client.connect("/", &token).await.ok()).await;
    client.cut().await;
    drop((lost, back));
    host.shut_down().await;
}

#[tokio::test]
async fn probed_live_connection_keeps_its_slot() {
    let host = host(1, "").await;
    let mut plain = host.client("ana").await;
    host.advance(Duration::from_secs(1));
    assert_eq!(open(&host).await.closed().await.code, TOO_MANY);
    // The first frame that the client reads is the ping.
    plain.emit_with_ack("no:such", json!({})).await.unwrap_err();
    host.advance(PROBED);
    plain.emit_with_ack("no:such", json!({})).await.unwrap_err();
    assert_eq!(open(&host).await.closed().await.code, TOO_MANY);
    plain.close().await;

    for transport in TRANSPORTS {
        let mut client = transport.open(&host).await;
        client.connect_as(&host.token("ana", None)).await;
        host.advance(Duration::from_secs(1));
        assert_eq!(open(&host).await.closed().await.code, TOO_MANY);
        client.emit_refused("no:such", json!([])).await;
        host.advance(PROBED);
        client.emit_refused("no:such", json!([])).await;
        client.disconnect().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn replace_oldest_ends_the_oldest_connection() {
    let host = host(2, "limits.user_overflow = \"replace_oldest\"\n").await;
    let mut first = host.client("ana").await;
    host.advance(Duration::from_millis(1));
    let mut second = SocketIoClient::socket(&host.ws).await;
    second.connect_as(&host.token("ana", None)).await;
    host.advance(Duration::from_millis(1));
    let mut third = host.client("ana").await;
    let closed = first.closed().await;
    assert_eq!(closed.code, TOO_MANY);
    assert!(closed.reason.starts_with("replaced: "), "{closed:?}");
    third.emit_with_ack("no:such", json!({})).await.unwrap_err();

    host.advance(Duration::from_millis(1));
    let mut fourth = SocketIoClient::polling(&host.ws).await;
    fourth.connect_as(&host.token("ana", None)).await;
    let why = second.next().await;
    assert_eq!((&*why.event, &why.argument()["code"]), ("error", &json!("conflict")), "{why:?}");
    assert_eq!(second.next().await.kind, '1', "its client does not come back by itself");
    assert_eq!(second.closed().await.code, TOO_MANY);
    third.emit_with_ack("no:such", json!({})).await.unwrap_err();
    assert_eq!(sessions_of(&host, "ana").await, 2);
    for client in [second, fourth] {
        client.cut().await;
    }
    drop((first, third));
    host.shut_down().await;
}

#[tokio::test]
async fn connection_over_the_limit_is_closed_unless_resumed() {
    let host = host(1, "").await;
    let mut old = host.client("ana").await;
    let begun = old.emit_with_ack("resume", json!({})).await.unwrap();
    for first_frame in [json!({ "event": "no:such" }), json!({ "event": "resume" })] {
        let mut other = host.client("ana").await;
        other.send_text(first_frame.to_string()).await;
        assert_eq!(other.closed().await.code, TOO_MANY, "{first_frame}");
    }
    let mut silent = host.client("ana").await;
    old.emit_with_ack("no:such", json!({})).await.unwrap_err();
    host.advance(Duration::from_secs(7));
    assert_eq!(silent.closed().await.code, TOO_MANY);
    old.emit_with_ack("no:such", json!({})).await.unwrap_err();

    // A connection over the limit stays if a slot is free at the end of its time.
    let mut patient = host.client("ana").await;
    old.close().await;
    host.advance(Duration::from_secs(7));
    patient.emit_with_ack("no:such", json!({})).await.unwrap_err();
    assert_eq!(open(&host).await.closed().await.code, TOO_MANY, "it counts");
    assert!(begun["session"].is_string());
    drop((silent, patient));
    host.shut_down().await;
}

#[tokio::test]
async fn detached_connection_waits_for_a_free_slot() {
    let host = host(1, "").await;
    let mut ana = host.client("ana").await;
    let begun = ana.emit_with_ack("resume", json!({})).await.unwrap();
    drop(ana);
    crate::recovery::wait_for_detached(&host, 1).await;
    let mut other = host.client("ana").await;
    other.emit_with_ack("no:such", json!({})).await.unwrap_err();
    let wanted = json!({ "session": begun["session"], "offset": 0 });
    let mut back = host.client("ana").await;
    back.emit_with_id("resume", wanted.clone()).await;
    assert_eq!(back.closed().await.code, TOO_MANY);
    other.close().await;
    let mut back = host.client("ana").await;
    let resumed: Value = back.emit_with_ack("resume", wanted).await.unwrap();
    assert_eq!(resumed["recovered"], true);
    drop(back);
    host.shut_down().await;
}

#[tokio::test]
async fn refusal_probes_connections_from_its_address() {
    let host = InnerHost::start(&format!("{CONFIG}limits.connections_per_ip = 1")).await;
    for transport in [None, Some(Transport::Socket)] {
        let lost = host.client("ana").await;
        let n_frames = metric(&host.api, FRAMES).await;
        host.advance(Duration::from_secs(1));
        let n_sent = match transport {
            // Two frames are queued: the close and the ping.
            None => {
                assert_eq!(open(&host).await.closed().await.code, TOO_MANY);
                2
            }
            Some(_) => {
                let path = format!("{ENGINE}&transport=polling");
                let answer = http(&host.ws, "GET", &path, &[], "").await.unwrap();
                assert_eq!(answer.status, 503, "{}", answer.text);
                1
            }
        };
        let is_pinged = async || (metric(&host.api, FRAMES).await >= n_frames + n_sent).then_some(());
        eventually("the ping is sent", is_pinged).await;
        host.advance(PROBED);
        let back = eventually("its place is free", async || {
            let mut back = open(&host).await;
            let first = back.drain().await;
            first.first().is_some_and(|frame| frame["event"] == "connected").then_some(back)
        })
        .await;
        back.close().await;
        drop(lost);
    }
    host.shut_down().await;
}

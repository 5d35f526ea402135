//! The plain protocol's `resume`: a client that lost its connection resumes its session.

use std::time::Duration;

use roundhouse_tests::guests::hostile;
use roundhouse_tests::{InnerHost, SocketIoClient, TestClient, eventually, metric};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::recovery::{CONFIG, WINDOW, emit_number, wait_for_detached};

/// Connects a client, and begins a session. Also returns the session's key.
pub(super) async fn begin_session(host: &InnerHost, user: &str) -> (TestClient, String) {
    let mut client = host.client(user).await;
    let begun = client.emit_with_ack("resume", json!({})).await.unwrap();
    let session = begun["session"].as_str().unwrap().to_owned();
    let expected = json!({ "connectionId": client.id(), "session": session, "recovered": false, "windowMs": 120_000 });
    assert_eq!(begun, expected);
    (client, session)
}

/// Breaks the connection, and waits until it is detached.
pub(super) async fn lose(host: &InnerHost, client: TestClient) {
    drop(client);
    wait_for_detached(host, 1).await;
}

/// Resumes a session of which `offset` frames have been received. Also returns the answer.
async fn resume(host: &InnerHost, user: &str, session: &str, offset: u64) -> (TestClient, Value) {
    let mut client = host.client(user).await;
    let resumed = client.emit_with_ack("resume", json!({ "session": session, "offset": offset })).await.unwrap();
    (client, resumed)
}

/// Closes the connection after the host has handled all sent frames.
async fn leave(host: &InnerHost, mut client: TestClient) {
    client.emit_with_ack("no:such", json!({})).await.unwrap_err();
    client.close().await;
    wait_for_detached(host, 0).await;
}

#[tokio::test]
async fn resuming_replays_in_order_and_notifies_nobody() {
    let host = InnerHost::start(CONFIG).await;
    let view = json!({ "ticketId": "t1" });
    let mut ben = host.client("ben").await;
    ben.emit_with_ack("ticket:view", view.clone()).await.unwrap();
    let (mut ana, session) = begin_session(&host, "ana").await;
    ana.emit_with_id("ticket:view", view.clone()).await;
    let mut n_frames = 1;
    while ana.next().await.get("id").is_none() {
        n_frames += 1;
    }
    emit_number(&host, "ana", 1).await;
    assert_eq!(ana.next().await["event"], "number");
    n_frames += 1;
    ben.drain().await;
    let id = ana.id().to_owned();
    lose(&host, ana).await;
    for n in 2..5 {
        emit_number(&host, "ana", n).await;
    }
    ben.emit_with_ack("ticket:typing", view.clone()).await.unwrap();

    let (mut back, resumed) = resume(&host, "ana", &session, n_frames).await;
    let expected = json!({ "connectionId": id, "session": session, "recovered": true, "windowMs": 120_000 });
    assert_eq!(resumed, expected);
    for n in 2..5 {
        assert_eq!(back.next().await, json!({ "event": "number", "data": n }));
    }
    assert_eq!(back.drain_events().await, ["agent:typing", "viewers:updated"]);
    let received = ben.drain_events().await;
    assert!(!received.iter().any(|event| event == "agent:left" || event == "agent:joined"), "{received:?}");
    assert_eq!(metric(&host.api, "connections_recovered_total").await, 1);
    assert!(back.emit_with_ack("ticket:stop_typing", view.clone()).await.is_ok(), "it still views");

    // The offset counts on: the events just received, and the acknowledgement above.
    let n_frames = n_frames + 5 + 1;
    lose(&host, back).await;
    emit_number(&host, "ana", 5).await;
    let (mut again, resumed) = resume(&host, "ana", &session, n_frames).await;
    assert_eq!(resumed, expected);
    assert_eq!(again.drain().await, [json!({ "event": "number", "data": 5 })]);
    drop((ben, again));
    host.shut_down().await;
}

#[tokio::test]
async fn acknowledgements_and_requests_are_replayed() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("normal")).await;
    let (mut ana, session) = begin_session(&host, "ana").await;
    ana.emit_with_id("hostile:do", json!({ "id": "a", "how": "ask" })).await;
    ana.emit_with_id("hostile:do", json!({ "id": "a", "how": "spin" })).await;
    // The client does not read these frames before its connection breaks.
    lose(&host, ana).await;
    let (mut ana, resumed) = resume(&host, "ana", &session, 0).await;
    assert_eq!(resumed["recovered"], true);
    let question = ana.next().await;
    assert_eq!((&question["event"], question["id"].is_i64()), (&json!("hostile:noise"), true), "{question}");
    assert_eq!(ana.next().await, json!({ "id": 2, "data": null }));
    assert_eq!(ana.next().await["error"]["code"], "internal");
    ana.send_text(json!({ "id": question["id"], "data": "yes" }).to_string()).await;
    let notifications = eventually("the scope is told", async || {
        let notifications = ana.emit_with_ack("hostile:told", json!({ "id": "a" })).await.unwrap();
        (notifications != json!([])).then_some(notifications)
    })
    .await;
    assert_eq!(notifications, json!(["acknowledged question [\"yes\"]"]));
    leave(&host, ana).await;
    host.shut_down().await;
}

#[tokio::test]
async fn foreign_sessions_are_not_resumed() {
    let host = InnerHost::start(CONFIG).await;
    let (ana, session) = begin_session(&host, "ana").await;
    let id = ana.id().to_owned();
    lose(&host, ana).await;
    emit_number(&host, "ana", 1).await;
    let mut foreign = SocketIoClient::socket(&host.ws).await;
    foreign.connect_as(&host.token("ana", None)).await;
    let pid = foreign.session("/")["pid"].as_str().unwrap().to_owned();
    let flipped = if session.ends_with('0') { "1" } else { "0" };
    let wrong_secret = format!("{}{flipped}", &session[..session.len() - 1]);
    for (user, session) in [("eve", &*session), ("ana", &wrong_secret), ("ana", &pid), ("ana", "x"), ("ana", "")] {
        let (mut client, resumed) = resume(&host, user, session, 0).await;
        assert_eq!(resumed["recovered"], false, "{resumed}");
        let path = format!("/v1/connections/{}", resumed["connectionId"].as_str().unwrap());
        assert_eq!(host.call("GET", &path, "").await.body["userId"], user);
        assert_ne!(resumed["connectionId"], id);
        assert_ne!(resumed["session"], session);
        assert_eq!(client.drain().await, Vec::<Value>::new(), "nothing that was another's");
        client.close().await;
    }
    // A Socket.IO client cannot recover a plain client's session.
    let auth = json!({ "token": host.token("ana", None), "pid": session, "offset": "0" });
    let mut other = SocketIoClient::socket(&host.ws).await;
    assert_ne!(other.connect("/", &auth).await.unwrap()["pid"], session);
    for client in [foreign, other] {
        client.disconnect().await;
    }
    let (mut back, resumed) = resume(&host, "ana", &session, 0).await;
    assert_eq!((&resumed["connectionId"], &resumed["recovered"]), (&json!(id), &json!(true)));
    assert_eq!(back.next().await["data"], 1);
    leave(&host, back).await;
    host.shut_down().await;
}

#[tokio::test]
async fn impossible_offset_ends_session_and_starts_another() {
    let host = InnerHost::start(CONFIG).await;
    let (ana, session) = begin_session(&host, "ana").await;
    let path = format!("/v1/connections/{}", ana.id());
    lose(&host, ana).await;
    emit_number(&host, "ana", 1).await;
    let (mut back, resumed) = resume(&host, "ana", &session, 2).await;
    assert_eq!(resumed["recovered"], false);
    assert_eq!(host.call("GET", &path, "").await.status, 404);
    assert_eq!(back.drain().await, Vec::<Value>::new());
    leave(&host, back).await;
    host.shut_down().await;
}

#[tokio::test]
async fn malformed_resume_is_refused_without_effect() {
    let host = InnerHost::start(CONFIG).await;
    let (mut ana, session) = begin_session(&host, "ana").await;
    for wrong in [
        json!({ "session": "x" }),
        json!({ "session": 1, "offset": 1 }),
        json!({ "session": "x", "offset": -1 }),
        json!({ "ofset": 1 }),
        json!("x"),
    ] {
        assert_eq!(ana.emit_refused("resume", wrong.clone()).await, "bad_request", "{wrong}");
    }
    ana.emit_with_ack("no:such", json!({})).await.unwrap_err();
    assert_eq!(ana.emit_refused("resume", json!({ "session": session, "offset": 1 })).await, "conflict");
    // Each of these answers was a frame, and counts towards the offset.
    lose(&host, ana).await;
    let (back, resumed) = resume(&host, "ana", &session, 7).await;
    assert_eq!(resumed["recovered"], true);
    leave(&host, back).await;
    host.shut_down().await;
}

#[tokio::test]
async fn later_session_counts_offsets_from_its_start() {
    let host = InnerHost::start(CONFIG).await;
    let (mut ana, first) = begin_session(&host, "ana").await;
    ana.emit_with_ack("no:such", json!({})).await.unwrap_err();
    let mut second = Value::Null;
    for data in [json!({}), Value::Null] {
        ana.emit("resume", data).await;
        second = ana.expect_event("resumed").await;
        assert_eq!((&second["connectionId"], &second["recovered"]), (&json!(ana.id()), &json!(false)));
    }
    emit_number(&host, "ana", 1).await;
    ana.expect_event("number").await;
    let id = ana.id().to_owned();
    lose(&host, ana).await;
    emit_number(&host, "ana", 2).await;
    let (stranger, resumed) = resume(&host, "ana", &first, 0).await;
    assert_eq!(resumed["recovered"], false, "that one has ended");
    stranger.close().await;
    let mut back = host.client("ana").await;
    back.emit("resume", json!({ "session": second["session"], "offset": 1 })).await;
    let resumed = back.next().await;
    assert_eq!((&resumed["event"], &resumed["data"]["recovered"]), (&json!("resumed"), &json!(true)));
    assert_eq!(resumed["data"]["connectionId"], id);
    assert_eq!(back.next().await["data"], 2);
    leave(&host, back).await;
    host.shut_down().await;
}

#[tokio::test]
async fn closed_or_sessionless_connections_leave_at_once() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("normal")).await;
    let mut eve = host.client("eve").await;
    for (scope, asks, code) in [("a", false, None), ("b", true, Some(1000)), ("c", true, Some(1001))] {
        let mut ana = host.client("ana").await;
        if asks {
            ana.emit_with_ack("resume", json!({})).await.unwrap();
        }
        ana.emit_with_ack("hostile:count", json!({ "id": scope })).await.unwrap();
        match code {
            Some(code) => {
                let frame = CloseFrame { code: u16::into(code), reason: "".into() };
                ana.send_message(Message::Close(Some(frame))).await;
                ana.closed().await;
            }
            None => drop(ana),
        }
        eve.expect_notifications(scope, &["left ana disconnected"]).await;
    }
    drop(eve);
    host.shut_down().await;
}

#[tokio::test]
async fn expired_session_is_not_resumed() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("normal")).await;
    let (mut ana, session) = begin_session(&host, "ana").await;
    ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    lose(&host, ana).await;
    host.advance(WINDOW - Duration::from_millis(1));
    let mut eve = host.client("eve").await;
    assert_eq!(eve.emit_with_ack("hostile:told", json!({ "id": "a" })).await, Ok(json!([])));
    host.advance(Duration::from_millis(1));
    eve.expect_notifications("a", &["left ana disconnected"]).await;
    let (ana, resumed) = resume(&host, "ana", &session, 1).await;
    assert_eq!(resumed["recovered"], false);
    drop((ana, eve));
    host.shut_down().await;
}

#[tokio::test]
async fn zero_window_disables_sessions() {
    let host = InnerHost::start(&format!("{CONFIG}recovery.window = \"0s\"")).await;
    for data in [json!({}), json!({ "session": "0".repeat(48), "offset": 0 })] {
        let mut ana = host.client("ana").await;
        let resumed = ana.emit_with_ack("resume", data).await.unwrap();
        let id = &resumed["connectionId"];
        assert_eq!(resumed, json!({ "connectionId": id, "session": null, "recovered": false, "windowMs": 0 }));
        let path = format!("/v1/connections/{}", id.as_str().unwrap());
        assert_eq!(host.call("GET", &path, "").await.status, 200);
        drop(ana);
        eventually("it is gone", async || (host.call("GET", &path, "").await.status == 404).then_some(())).await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn session_of_an_expired_token_resumes_with_another() {
    let host = InnerHost::start(CONFIG).await;
    let second = Duration::from_secs(1);
    let mut ana = TestClient::connect(&host.ws, &host.token("ana", Some(second))).await;
    let session = ana.emit_with_ack("resume", json!({})).await.unwrap()["session"].as_str().unwrap().to_owned();
    host.advance(second);
    assert_eq!(ana.closed().await.code, Some(4002));
    emit_number(&host, "ana", 1).await;
    let (mut back, resumed) = resume(&host, "ana", &session, 0).await;
    assert_eq!((&resumed["connectionId"], &resumed["recovered"]), (&json!(ana.id()), &json!(true)));
    assert_eq!(back.next().await["data"], 1);
    // The connection now ends when the new token expires.
    host.advance(second);
    assert!(back.emit_with_ack("ticket:leave", json!({ "ticketId": "t1" })).await.is_ok());
    leave(&host, back).await;
    host.shut_down().await;
}

#[tokio::test]
async fn resuming_works_before_the_loss_is_noticed() {
    let host = InnerHost::start(CONFIG).await;
    let (mut old, session) = begin_session(&host, "ana").await;
    emit_number(&host, "ana", 1).await;
    let (mut back, resumed) = resume(&host, "ana", &session, 0).await;
    assert_eq!((&resumed["connectionId"], &resumed["recovered"]), (&json!(old.id()), &json!(true)));
    assert_eq!(back.next().await["data"], 1);
    assert_eq!(old.closed().await.code, Some(1000));
    emit_number(&host, "ana", 2).await;
    assert_eq!(back.next().await["data"], 2);
    leave(&host, back).await;
    host.shut_down().await;
}

#[tokio::test]
async fn heartbeat_trims_the_replay_buffer() {
    let host = InnerHost::start(CONFIG).await;
    let (mut ana, session) = begin_session(&host, "ana").await;
    emit_number(&host, "ana", 1).await;
    ana.expect_event("number").await;
    host.advance(Duration::from_secs(25));
    // Reading answers the ping.
    ana.drain().await;
    ana.emit_with_ack("no:such", json!({})).await.unwrap_err();
    lose(&host, ana).await;
    emit_number(&host, "ana", 2).await;
    let (mut back, resumed) = resume(&host, "ana", &session, 2).await;
    assert_eq!(resumed["recovered"], true);
    assert_eq!(back.next().await["data"], 2);
    lose(&host, back).await;
    let (back, resumed) = resume(&host, "ana", &session, 0).await;
    assert_eq!(resumed["recovered"], false, "it says that it lacks what it has shown to have");
    leave(&host, back).await;
    host.shut_down().await;
}

#[tokio::test]
async fn detached_connections_do_not_count_towards_the_limit() {
    let host = InnerHost::start(&format!("{CONFIG}limits.connections_per_user = 1")).await;
    let (ana, session) = begin_session(&host, "ana").await;
    lose(&host, ana).await;
    let (back, resumed) = resume(&host, "ana", &session, 0).await;
    assert_eq!(resumed["recovered"], true);
    leave(&host, back).await;
    host.shut_down().await;
}

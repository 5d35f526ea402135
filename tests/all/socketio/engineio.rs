//! Engine.IO 4: the beginning, the heartbeat and the end of sessions. Requests are tested in `polling`, upgrades to a
//! WebSocket in `upgrade`.

use std::time::Duration;

use roundhouse_tests::{ENGINE, EngineSocket, InnerHost, Packet, Polling, SocketIoClient, eventually, http};
use serde_json::{Value, json};

use crate::socketio::{CONFIG, connected_polling, error_code, expect_session_gone};

const UPGRADE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[tokio::test]
async fn open_packet_has_the_configured_values() {
    let times = "heartbeat.interval = \"7s\"\nheartbeat.timeout = \"12s\"\nlimits.message_bytes = 5000";
    let host = InnerHost::start(&format!("{CONFIG}{times}")).await;
    let answer = http(&host.ws, "GET", &format!("{ENGINE}&transport=polling"), &[], "").await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/plain"), "{:?}", answer.headers);
    assert_eq!(answer.header("cache-control"), "no-store");
    let expected = |sid: &Value, upgrades: Value| json!({ "sid": sid, "upgrades": upgrades, "pingInterval": 7000, "pingTimeout": 5000, "maxPayload": 5000 });
    let open: Value = serde_json::from_str(answer.text.strip_prefix('0').unwrap()).unwrap();
    assert_eq!(open, expected(&open["sid"], json!(["websocket"])));
    let socket = EngineSocket::open(&host.ws).await;
    assert_eq!(socket.open, expected(&socket.open["sid"], json!([])));
    assert_ne!(socket.open["sid"], open["sid"]);
    drop(socket);
    host.shut_down().await;
}

#[tokio::test]
async fn invalid_requests_get_engineio_error_codes() {
    let host = InnerHost::start(CONFIG).await;
    let polling = Polling::open(&host.ws).await;
    let sid = format!("&sid={}", polling.sid());
    for (method, query, headers, code, message) in [
        ("GET", "EIO=4".to_owned(), &[][..], 0, "Transport unknown"),
        ("GET", "EIO=4&transport=carrier-pigeon".to_owned(), &[], 0, "Transport unknown"),
        ("POST", "EIO=4&transport=".to_owned(), &[], 0, "Transport unknown"),
        ("GET", "EIO=4&transport=polling&sid=nobody".to_owned(), &[], 1, "Session ID unknown"),
        ("POST", "EIO=4&transport=polling&sid=__proto__".to_owned(), &[], 1, "Session ID unknown"),
        ("GET", format!("EIO=4&transport=polling&sid={}", "0".repeat(32)), &[], 1, "Session ID unknown"),
        ("GET", "EIO=4&transport=websocket&sid=nobody".to_owned(), &UPGRADE, 1, "Session ID unknown"),
        ("POST", "EIO=4&transport=polling".to_owned(), &[], 2, "Bad handshake method"),
        ("PUT", "EIO=4&transport=polling".to_owned(), &[], 2, "Bad handshake method"),
        ("GET", "EIO=4&transport=websocket".to_owned(), &[], 3, "Bad request"),
        ("GET", format!("EIO=4&transport=websocket{sid}"), &[], 3, "Bad request"),
        ("PUT", format!("EIO=4&transport=polling{sid}"), &[], 3, "Bad request"),
        ("GET", "EIO=3&transport=polling".to_owned(), &[], 5, "Unsupported protocol version"),
        ("GET", "transport=polling".to_owned(), &[], 5, "Unsupported protocol version"),
        ("GET", "EIO=3&transport=websocket".to_owned(), &UPGRADE, 5, "Unsupported protocol version"),
    ] {
        let answer = http(&host.ws, method, &format!("/socket.io/?{query}"), headers, "").await.unwrap();
        assert_eq!(
            (answer.status, &answer.body),
            (400, &json!({ "code": code, "message": message })),
            "{method} {query}"
        );
        assert_eq!(answer.header("content-type"), "application/json", "{method} {query}");
        assert_eq!(answer.header("cache-control"), "no-store", "{method} {query}");
    }
    assert_eq!(polling.post("3").await.text, "ok", "the session is as it was");
    host.shut_down().await;
}

#[tokio::test]
async fn polling_session_without_pong_ends() {
    let host = InnerHost::start(CONFIG).await;
    let polling = connected_polling(&host).await;
    for _ in 0..3 {
        let waiting = polling.begin_poll();
        host.advance(Duration::from_secs(25));
        assert_eq!(waiting.await.unwrap().text, "2");
        assert_eq!(polling.post("3").await.text, "ok");
    }
    // A poll is no answer to a ping.
    for seconds in [25, 25] {
        host.advance(Duration::from_secs(seconds));
        assert_eq!(polling.poll().await.text, "2");
    }
    let waiting = polling.begin_poll();
    host.advance(Duration::from_secs(10));
    let waited = waiting.await.unwrap();
    assert!(waited.text == "1" || error_code(&waited) == (400, 1), "{}", waited.text);
    expect_session_gone(&polling).await;
    host.shut_down().await;
}

#[tokio::test]
async fn websocket_session_without_pong_ends() {
    let host = InnerHost::start(CONFIG).await;
    let mut answering = SocketIoClient::socket(&host.ws).await;
    answering.connect("/", &Value::Null).await.unwrap();
    let mut silent = EngineSocket::open(&host.ws).await;
    silent.send("40").await;
    assert!(matches!(silent.next().await, Ok(Packet::Text(text)) if text.starts_with("40{")));
    for _ in 0..2 {
        host.advance(Duration::from_secs(25));
        assert_eq!(silent.next().await, Ok("2".into()));
        assert_eq!(answering.emit_refused("no:such", json!([])).await, "unknown_event");
    }
    host.advance(Duration::from_secs(10));
    assert_eq!(silent.closed().await.code, Some(1001));
    assert_eq!(answering.emit_refused("no:such", json!([])).await, "unknown_event");
    answering.cut().await;
    host.shut_down().await;
}

#[tokio::test]
async fn ping_from_a_client_ends_the_session() {
    let host = InnerHost::start(CONFIG).await;
    let polling = connected_polling(&host).await;
    let waiting = polling.begin_poll();
    polling.post("2").await;
    let waited = waiting.await.unwrap();
    assert!(waited.text == "1" || error_code(&waited) == (400, 1), "{}", waited.text);
    expect_session_gone(&polling).await;
    let mut socket = EngineSocket::open(&host.ws).await;
    socket.send("2").await;
    assert_eq!(socket.closed().await.code, Some(1002));
    host.shut_down().await;
}

#[tokio::test]
async fn close_packet_ends_the_session_on_each_transport() {
    let host = InnerHost::start(CONFIG).await;
    let mut polling = connected_polling(&host).await;
    // The client has received the ping, so the next request is pending, and the host knows of it.
    host.advance(Duration::from_secs(25));
    assert_eq!(polling.next().await, Ok("2".into()));
    let waiting = polling.begin_poll();
    assert_eq!(polling.post("1").await.text, "ok");
    let waited = waiting.await.unwrap();
    assert_eq!((waited.status, &*waited.text), (200, "6"));
    assert_eq!(error_code(&polling.post("3").await), (400, 1));

    let mut socket = EngineSocket::open(&host.ws).await;
    socket.send("1").await;
    assert_eq!(socket.closed().await.code, Some(1000));
    host.shut_down().await;
}

#[tokio::test]
async fn only_allowed_origins_get_cors_headers() {
    let host = InnerHost::start(&format!("{CONFIG}cors.origins = [\"https://app.example\"]")).await;
    let path = format!("{ENGINE}&transport=polling");
    let cors = ["access-control-allow-origin", "access-control-allow-credentials", "vary"];
    let allowed = ["https://app.example", "true", "Origin"];
    for (path, status) in [(&*path, 200), ("/socket.io/?EIO=4", 400)] {
        let answer = http(&host.ws, "GET", path, &[("origin", "https://app.example")], "").await.unwrap();
        assert_eq!((answer.status, cors.map(|name| answer.header(name))), (status, allowed));
        let stranger = http(&host.ws, "GET", path, &[("origin", "https://evil.example")], "").await.unwrap();
        assert_eq!((stranger.status, cors.map(|name| stranger.header(name))), (status, ["", "", "Origin"]));
        let nobody = http(&host.ws, "GET", path, &[], "").await.unwrap();
        assert_eq!(cors[..2].iter().map(|name| nobody.header(name)).collect::<String>(), "");
    }

    let preflight = async |origin: &str| {
        let asks = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,x-trace"),
        ];
        http(&host.ws, "OPTIONS", &path, &asks, "").await.unwrap()
    };
    let answer = preflight("https://app.example").await;
    assert_eq!((answer.status, cors.map(|name| answer.header(name))), (204, allowed));
    assert_eq!(answer.header("access-control-allow-headers"), "content-type,x-trace");
    let methods = answer.header("access-control-allow-methods");
    assert!(methods.contains("GET") && methods.contains("POST"), "{methods}");
    let stranger = preflight("https://evil.example").await;
    assert!(
        stranger.headers.keys().all(|name| !name.as_str().starts_with("access-control-")),
        "{:?}",
        stranger.headers
    );
    host.shut_down().await;
}

#[tokio::test]
async fn path_is_configurable() {
    let host = InnerHost::start(&format!("{CONFIG}socketio.path = \"/chat/io/\"")).await;
    for (path, status) in [("/chat/io/", 200), ("/chat/io", 200), ("/socket.io/", 404), ("/chat/io/x", 404)] {
        let answer = http(&host.ws, "GET", &format!("{path}?EIO=4&transport=polling"), &[], "").await.unwrap();
        assert_eq!(answer.status, status, "{path}");
    }
    host.shut_down().await;
}

#[tokio::test]
async fn full_host_refuses_sessions() {
    let host = InnerHost::start(&format!("{CONFIG}limits.connections = 1")).await;
    let polling = Polling::open(&host.ws).await;
    let answer = http(&host.ws, "GET", &format!("{ENGINE}&transport=polling"), &[], "").await.unwrap();
    assert_eq!((answer.status, answer.body["code"].as_str()), (503, Some("feature_unavailable")));
    polling.post("1").await;
    assert_eq!(polling.poll().await.text, "6");
    let again = eventually("there is room again", async || {
        let answer = http(&host.ws, "GET", &format!("{ENGINE}&transport=polling"), &[], "").await.unwrap();
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert!(again.text.starts_with("0{"), "{}", again.text);
    host.shut_down().await;
}

//! Lone surrogates in JSON: on every path they are read as U+FFFD, end no connection and cause no refusal.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roundhouse_tests::guests::{conformance, relay};
use roundhouse_tests::{InnerHost, SocketIoClient, TestClient};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::recovery::{CONFIG, TRANSPORTS};

/// The escape of a lone surrogate as `JSON.stringify` writes it.
const HALF: &str = r"\ud83d";
const REPLACED: &str = "\u{fffd}";

#[tokio::test]
async fn plain_frame_with_a_lone_surrogate_is_accepted() {
    let host = InnerHost::start(CONFIG).await;
    host.load("relay", relay()).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    for client in [&mut ana, &mut ben] {
        client.send_text(format!(r#"{{"event":"join","data":{{"room":"r{HALF}"}},"id":0}}"#)).await;
        assert_eq!(client.expect_ack(0).await, Ok(json!({})));
    }
    // Lone surrogates in a field's name and in an ignored value, and a whole emoji beside them.
    let payload = format!(r#"{{"{HALF}":["\udc00","\ud83d\ude00"]}}"#);
    ana.send_text(format!(r#"{{"event":"publish","data":{{"room":"r{HALF}","payload":{payload}}},"x{HALF}":1}}"#))
        .await;
    let expected = json!({ "room": format!("r{REPLACED}"), "payload": { REPLACED: [REPLACED, "\u{1f600}"] } });
    for client in [&mut ana, &mut ben] {
        assert_eq!(client.expect_event("message").await, expected);
    }
    ana.send_text(format!(r#"{{"event":"no{HALF}","id":1}}"#)).await;
    let refused = ana.expect_ack(1).await.unwrap_err();
    assert_eq!(refused["code"], "unknown_event");
    assert!(refused["message"].as_str().unwrap().contains(&format!("no{REPLACED}")), "{refused}");

    // The API follows the same rule.
    let emit = format!(r#"{{"to":{{"room":"relay:r{HALF}"}},"event":"n{HALF}","data":"{HALF}"}}"#);
    let answer = host.call("POST", "/v1/emit", emit).await;
    assert_eq!(answer.body, json!({ "delivered": 2 }), "{}", answer.text);
    assert_eq!(ben.expect_event(&format!("n{REPLACED}")).await, REPLACED);
    drop((ana, ben));
    host.shut_down().await;
}

#[tokio::test]
async fn lone_surrogate_keeps_the_socketio_connection() {
    let host = InnerHost::start(CONFIG).await;
    host.load("conformance", conformance()).await;
    for transport in TRANSPORTS {
        let mut client = transport.open(&host).await;
        let token = host.token("ana", None);
        client.send_text(&format!(r#"40{{"token":"{token}","who{HALF}":"{HALF}"}}"#)).await;
        let auth = client.expect_event("auth").await.data[0].clone();
        assert_eq!(auth[format!("who{REPLACED}")], REPLACED, "{auth}");
        client.send_text(&format!(r#"421["no{HALF}",1]"#)).await;
        let answer = client.wait_for(|packet| packet.id == Some(1)).await;
        assert_eq!(answer.data[0]["error"]["code"], "unknown_event");
        client.send_text(&format!(r#"42["message","{HALF}"]"#)).await;
        let back = client.wait_for(|packet| packet.event == "message-back").await;
        assert_eq!(back.data[0], REPLACED, "{back:?}");
        client.send_text(r#"42["emit-with-ack",1]"#).await;
        let asked = client.expect_event("emit-with-ack").await.id.unwrap();
        client.send_text(&format!(r#"43{asked}["{HALF}"]"#)).await;
        assert_eq!(client.expect_event("emit-with-ack").await.data[0], REPLACED);
        client.cut().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn token_with_a_lone_surrogate_is_valid() {
    let host = InnerHost::start(CONFIG).await;
    let claims = format!(r#"{{"sub":"ana","name":"Ana {HALF}","unread":{{"{HALF}":"{HALF}"}}}}"#);
    let claims: Box<RawValue> = serde_json::from_str(&claims).unwrap();
    let key = EncodingKey::from_secret(b"s");
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    let ana = TestClient::connect(&host.ws, &token).await;
    let shown = host.call("GET", &format!("/v1/connections/{}", ana.id()), "").await.body;
    assert_eq!(shown["name"], format!("Ana {REPLACED}"));
    let mut client = SocketIoClient::socket(&host.ws).await;
    let connected: Value = client.connect("/", &json!({ "token": token })).await.unwrap();
    assert!(connected["sid"].is_string());
    client.cut().await;
    drop(ana);
    host.shut_down().await;
}

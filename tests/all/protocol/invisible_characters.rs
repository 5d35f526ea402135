//! Invisible characters, and those that change the direction of text: refused in ids and in messages' names, removed from tokens' names.

use roundhouse::model::{harmless_name, is_valid_id};
use roundhouse_sdk::{Id, check_name};
use roundhouse_tests::{TestClient, TestHost};
use serde_json::json;

#[test]
fn host_and_features_refuse_the_same_characters() {
    for c in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
        let id = format!("a{c}b");
        assert_eq!(is_valid_id(&id), Id::new(&id).is_some(), "{c:?}");
        for name in [id, format!("é{c}ü"), format!("{c}a"), format!("❤{c}\u{200d}🔥")] {
            let is_harmless = matches!(harmless_name(&name), std::borrow::Cow::Borrowed(_));
            assert_eq!(check_name("name", &name, 20).is_ok(), is_harmless, "{name:?}");
        }
    }
}

#[tokio::test]
async fn ids_with_invisible_characters_are_refused() {
    let host = TestHost::start();
    let mut ana = host.client("ana").await;
    for id in ["t\u{200b}1", "\u{202e}t1", "t\u{2066}1", "\u{feff}t1", "t\u{ad}1"] {
        assert_eq!(ana.emit_refused("ticket:view", json!({ "ticketId": id })).await, "bad_request", "{id:?}");
        let (status, ..) = host.post_refused("/v1/emit", &json!({ "to": { "room": id }, "event": "x" })).await;
        assert_eq!(status, 400, "{id:?}");
    }
}

#[tokio::test]
async fn names_with_invisible_characters_are_escaped() {
    let host = TestHost::start();
    let token = host.token_with("ana", &["--name", "\u{202e}nimda\u{200b}"]);
    let mut ana = TestClient::connect(&host.ws, &token).await;
    let viewers = ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    assert_eq!(viewers["viewers"][0]["agentName"], "nimda", "{viewers}");
    let mut ben = TestClient::connect(&host.ws, &host.token("ben")).await;
    let hidden = json!({ "ticketId": "t1", "agentName": "\u{202e}nimda" });
    assert_eq!(ben.emit_refused("ticket:view", hidden).await, "bad_request");
}

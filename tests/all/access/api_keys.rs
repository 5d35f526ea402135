//! API keys that may do less than their scopes say.

use roundhouse_tests::{Answer, TestHost, http};
use serde_json::{Value, json};

const CONFIG: &str = "auth.jwt.secret = \"s\"\n\
    [[api_keys]]\nname = \"all\"\nkey = \"all\"\nscopes = [\"publish\", \"admin\"]\n\
    [[api_keys]]\nname = \"rooms\"\nkey = \"rooms\"\nscopes = [\"publish\", \"admin\"]\nrooms = [\"campaign:acme-*\"]\n\
    [[api_keys]]\nname = \"plugin\"\nkey = \"plugin\"\nscopes = [\"publish\", \"admin\"]\nplugins = [\"campaign-progress\"]\n\
    [[api_keys]]\nname = \"events\"\nkey = \"events\"\nscopes = [\"publish\"]\nevents = [\"news:*\"]\n\
    [[api_keys]]\nname = \"slow\"\nkey = \"slow\"\nscopes = [\"admin\"]\nrequests_per_second = 1\nrequest_burst = 3\n";

async fn call(host: &TestHost, key: &str, method: &str, path: &str, body: Value) -> Answer {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", &*authorization)];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http(&host.api, method, path, &headers, body).await.unwrap()
}

#[tokio::test]
async fn narrowed_keys_do_only_what_their_lists_name() {
    let host = TestHost::start_with(CONFIG, &[]);
    let event = |campaign: &str| {
        let data = json!({ "campaignId": campaign, "name": "x", "total": 1, "ownerId": "owen", "list": "all" });
        json!({ "event": "campaign:started", "data": data })
    };
    let emit = |to: Value, event: &str| json!({ "to": to, "event": event, "data": 1 });
    let room = |room: &str| json!({ "room": room });
    let except = json!({ "to": room("campaign:acme-1"), "except": { "user": "ana" }, "event": "x", "data": 1 });
    let both = json!([emit(room("campaign:acme-1"), "x"), emit(room("lobby"), "x")]);
    for (key, method, path, body, status) in [
        ("rooms", "POST", "/v1/events", event("acme-1"), 200),
        ("rooms", "POST", "/v1/events", event("evil-1"), 403),
        ("rooms", "POST", "/v1/emit", emit(room("campaign:acme-1"), "x"), 200),
        ("rooms", "POST", "/v1/emit", emit(room("campaign:evil-1"), "x"), 403),
        ("rooms", "POST", "/v1/emit", emit(json!({ "all": true }), "x"), 403),
        ("rooms", "POST", "/v1/emit", emit(json!({ "user": "ana" }), "x"), 403),
        ("rooms", "POST", "/v1/emit", both, 403),
        ("rooms", "POST", "/v1/emit", except, 403),
        ("rooms", "POST", "/v1/query/campaign-progress/stats", Value::Null, 403),
        ("rooms", "GET", "/v1/rooms/campaign:acme-1", Value::Null, 404),
        ("rooms", "GET", "/v1/rooms/campaign:evil-1", Value::Null, 403),
        ("rooms", "GET", "/v1/connections", Value::Null, 403),
        ("rooms", "DELETE", "/v1/users/ana/connections", Value::Null, 403),
        ("rooms", "POST", "/v1/blocks", json!({ "user": "ana", "forSeconds": 1 }), 403),
        ("rooms", "GET", "/v1/plugins/timeline", Value::Null, 403),
        ("rooms", "GET", "/v1/plugins/timeline/grants", Value::Null, 403),
        ("plugin", "POST", "/v1/events", event("evil-1"), 200),
        ("plugin", "GET", "/v1/plugins/campaign-progress", Value::Null, 200),
        ("plugin", "GET", "/v1/plugins/timeline", Value::Null, 403),
        ("plugin", "GET", "/v1/plugins/campaign-progress/grants", Value::Null, 200),
        ("plugin", "GET", "/v1/plugins/timeline/grants", Value::Null, 403),
        ("plugin", "DELETE", "/v1/plugins/timeline", Value::Null, 403),
        ("plugin", "POST", "/v1/plugins", Value::Null, 403),
        ("plugin", "GET", "/v1/stats", Value::Null, 403),
        ("plugin", "POST", "/v1/emit", emit(room("campaign:acme-1"), "x"), 403),
        ("events", "POST", "/v1/emit", emit(json!({ "all": true }), "news:new"), 200),
        ("events", "POST", "/v1/emit", emit(json!({ "all": true }), "chat:new"), 403),
        ("events", "POST", "/v1/events", event("acme-1"), 403),
        ("events", "GET", "/v1/stats", Value::Null, 403),
        ("all", "GET", "/v1/stats", Value::Null, 200),
        ("all", "POST", "/v1/emit", emit(json!({ "all": true }), "x"), 200),
    ] {
        let answer = call(&host, key, method, path, body.clone()).await;
        assert_eq!(answer.status, status, "{key} {method} {path} {body}: {}", answer.text);
        if status == 403 {
            assert!(answer.text.contains(&format!("the API key {key}")), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn key_over_its_rate_is_refused_alone() {
    let host = TestHost::start_with(CONFIG, &[]);
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(call(&host, "slow", "GET", "/v1/stats", Value::Null).await);
    }
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!((&statuses[..3], statuses.contains(&429)), (&[200, 200, 200][..], true), "{statuses:?}");
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert_eq!(refused.header("retry-after"), "1");
    // A call that its scope does not allow counts, too.
    assert_eq!(call(&host, "slow", "POST", "/v1/emit", json!({})).await.status, 429);
    assert_eq!(call(&host, "all", "GET", "/v1/stats", Value::Null).await.status, 200);
}

#[test]
fn malformed_lists_are_refused_at_the_start() {
    for (line, said) in [
        ("rooms = []", "rooms of the key k"),
        ("plugins = [\"a*b\"]", "plugins of the key k"),
        ("request_burst = 5", "without requests_per_second"),
        ("requests_per_second = 0", "requests_per_second"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = format!("[[api_keys]]\nname = \"k\"\nkey = \"long-enough\"\nscopes = [\"admin\"]\n{line}\n");
        std::fs::write(dir.path().join("r.toml"), config).unwrap();
        let output = TestHost::command(dir.path()).args(["check", "--config", "r.toml"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains(said), "{line}: {stderr}");
    }
}

//! The API: services with a stolen key or a runaway loop, and callers without a key.

use std::borrow::Cow;
use std::rc::Rc;

use serde_json::json;

use super::attack;
use crate::abuse::requests::{api_request, bare_request};
use crate::abuse::{Attack, Field};

/// Concurrent callers, each of which sends its next request after the answer to the last.
const CALLERS: usize = 8;
/// The highest rate of each caller, in requests per second: a runaway loop does not sleep, but takes some time itself.
const A_SECOND: f64 = 400.0;

pub(in crate::abuse) const ATTACKS: &[Attack] = &[
    attack!("emits-all", RequestKind, Closed, 1, "an event of 1 kB to everybody, 50 a second", |f| async move {
        let body = json!({ "to": { "all": true }, "event": "news", "data": "n".repeat(1000) }).to_string();
        let request = api_request("POST", "/v1/emit", &body);
        f.request(f.api, 1, 50.0, |_, _| Cow::Borrowed(&request)).await;
        anyhow::Ok(())
    }),
    attack!("emits-nobody", RequestKind, Closed, 1, "emits to users who are not there, as fast as they go", |f| {
        post(f, "/v1/emit", json!({ "to": { "user": "nobody" }, "event": "news", "data": {} }).to_string())
    }),
    attack!("emits-numbered", RequestKind, Closed, 1, "arrays of 1,000 emits, as fast as they go", |f| {
        let emit = json!({ "to": { "room": "nowhere" }, "event": "news", "data": {} });
        post(f, "/v1/emit", json!(vec![emit; 1000]).to_string())
    }),
    attack!("emits-to-many", RequestKind, Closed, 1, "emits that name 20,000 users, as fast as they go", |f| {
        let users: Vec<String> = (0..20_000).map(|n| format!("nobody-{n}")).collect();
        post(f, "/v1/emit", json!({ "to": { "users": users }, "event": "news", "data": {} }).to_string())
    }),
    attack!("emits-numbers", RequestKind, Closed, 1, "emits of 490,000 numbers to a room without members", |f| {
        let numbers = vec!["1"; 490_000].join(",");
        post(f, "/v1/emit", format!(r#"{{"to":{{"room":"nowhere"}},"event":"news","data":[{numbers}]}}"#))
    }),
    attack!(
        "service-events",
        RequestKind,
        Closed,
        1,
        "ticket:created with an id at random (durable), as fast as they go",
        |f| async move {
            let request = |i: usize, n: usize| {
                let data = json!({ "ticketId": format!("s{i}-{n}"), "createdBy": "nobody" });
                api_request("POST", "/v1/events", &json!({ "event": "ticket:created", "data": data }).to_string())
            };
            f.request(f.api, CALLERS, A_SECOND, |i, n| Cow::Owned(request(i, n))).await;
            anyhow::Ok(())
        }
    ),
    attack!("service-objects", RequestKind, Closed, 1, "timeline:refresh with 300,000 empty objects", |f| {
        let objects = vec!["{}"; 300_000].join(",");
        let data = format!(r#"{{"entityType":"client","entityId":"e","x":[{objects}]}}"#);
        post(f, "/v1/events", format!(r#"{{"event":"timeline:refresh","data":{data}}}"#))
    }),
    attack!(
        "idempotency-keys",
        RequestKind,
        Closed,
        1,
        "emits with a key of 128 letters each, as fast as they go",
        |f| async move {
            let request = |i: usize, n: usize| {
                let key = format!("{:k<100}{i:08}{n:020}", "");
                let body = json!({ "to": { "user": "nobody" }, "event": "e", "data": 1, "idempotencyKey": key });
                api_request("POST", "/v1/emit", &body.to_string())
            };
            f.request(f.api, CALLERS, A_SECOND, |i, n| Cow::Owned(request(i, n))).await;
            anyhow::Ok(())
        }
    ),
    attack!("queries", RequestKind, Closed, 1, "viewers of tickets at random, as fast as they go", |f| async move {
        let request = |i: usize, n: usize| {
            api_request("POST", "/v1/query/ticket-collision/viewers", &format!(r#"{{"ticketId":"q{i}-{n}"}}"#))
        };
        f.request(f.api, CALLERS, A_SECOND, |i, n| Cow::Owned(request(i, n))).await;
        anyhow::Ok(())
    }),
    attack!("lists", RequestKind, Closed, 1, "the list of connections, as fast as it goes", |f| get(
        f,
        "/v1/connections?limit=1000"
    )),
    attack!("reports", RequestKind, Closed, 1, "the report of a feature with its stats, as fast as it goes", |f| {
        get(f, "/v1/plugins/ticket-collision")
    }),
    attack!(
        "wrong-keys",
        Stranger,
        Closed,
        1,
        "calls of the API with a wrong key, as fast as they go",
        |f| async move {
            let request = b"GET /v1/stats HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wrong\r\n\r\n";
            f.request(f.api, CALLERS, A_SECOND, |_, _| Cow::Borrowed(&request[..])).await;
            anyhow::Ok(())
        }
    ),
    attack!("metrics", Stranger, Closed, 1, "/metrics, as fast as it goes", |f| bare(f, "/metrics")),
    attack!("description", Stranger, Closed, 1, "/openapi.json, as fast as it goes", |f| bare(f, "/openapi.json")),
    attack!("garbage-components", RequestKind, Closed, 1, "components of 8 MB of zeros, 2 callers", |f| async move {
        let head = api_request("PUT", "/v1/plugins/zeros", "");
        let head = String::from_utf8_lossy(&head).replace("content-length: 0", "content-length: 8000000");
        let request = [head.as_bytes(), &vec![0; 8_000_000]].concat();
        f.request(f.api, 2, 20.0, |_, _| Cow::Borrowed(&request)).await;
        anyhow::Ok(())
    }),
];

async fn post(field: Rc<Field>, path: &str, body: String) -> anyhow::Result<()> {
    let request = api_request("POST", path, &body);
    field.request(field.api, CALLERS, A_SECOND, |_, _| Cow::Borrowed(&request)).await;
    Ok(())
}

async fn get(field: Rc<Field>, path: &str) -> anyhow::Result<()> {
    let request = api_request("GET", path, "");
    field.request(field.api, CALLERS, A_SECOND, |_, _| Cow::Borrowed(&request)).await;
    Ok(())
}

async fn bare(field: Rc<Field>, path: &str) -> anyhow::Result<()> {
    let request = bare_request(path);
    field.request(field.api, CALLERS, A_SECOND, |_, _| Cow::Borrowed(&request)).await;
    Ok(())
}

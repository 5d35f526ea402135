//! Why a client was sent an event: the build, the event, its sender, the scope and its number there.

use std::collections::HashMap;

use roundhouse_tests::guests::hostile;
use roundhouse_tests::{TestClient, TestHost};
use serde_json::{Value, json};

/// The swaps of a build for another, and the builds that take turns.
const SWAPS: usize = 100;
const MARKS: [&str; 4] = ["mark-0", "mark-1", "mark-2", "mark-3"];

const SCOPES: usize = 5;
const CLIENTS: usize = 10;

/// What a connection was sent lately, the newest first.
async fn why(host: &TestHost, who: &str) -> Vec<Value> {
    host.get(&format!("/v1/{who}")).await["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn why_names_build_event_sender_and_scope() {
    let host = TestHost::start();
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    for client in [&mut ana, &mut ben] {
        client.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    }
    ben.emit_with_ack("ticket:typing", json!({ "ticketId": "t1" })).await.unwrap();
    let emit = json!({ "to": { "user": "ana" }, "event": "news", "data": {} });
    assert_eq!(host.post("/v1/emit", &emit).await.status, 200);
    ana.expect_event("news").await;
    let events = why(&host, "users/ana/why?last=50").await;
    let (news, typing) = (&events[0], events.iter().find(|event| event["event"] == "agent:typing").unwrap());
    assert_eq!((&news["event"], &news["cause"]["sender"]), (&json!("news"), &json!("generated")), "{news}");
    assert!(news["cause"].get("build").is_none(), "{news}");
    let cause = &typing["cause"];
    let got =
        (&cause["build"]["name"], &cause["build"]["generation"], &cause["event"], &cause["sender"], &cause["scope"]);
    let wanted = [json!("ticket-collision"), json!(1), json!("ticket:typing"), json!("ben"), json!("ticket:t1")];
    assert_eq!(got, (&wanted[0], &wanted[1], &wanted[2], &wanted[3], &wanted[4]), "{typing}");
    let n_handled = host.get("/v1/scopes/ticket%3At1").await["sequence"].clone();
    assert_eq!(cause["sequence"], n_handled, "it was the last: {typing}");
    // What a connection was sent before it came, or after it left, is not its own.
    assert!(why(&host, &format!("connections/{}/why", ben.id())).await.iter().all(|event| event["event"] != "news"));
    let late = host.client("late").await;
    assert!(why(&host, &format!("connections/{}/why", late.id())).await.is_empty());
    let output = TestHost::command(host.dir()).args(["why", "--user", "ana", "--api", &host.api]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for words in ["the service generated emitted it", "for ticket:typing in ticket:t1 (#", " of ben"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    for (who, status) in [("users/ana/why?last=0", 400), ("connections/x/why", 404), ("users/nobody/why", 404)] {
        assert_eq!(host.call("GET", &format!("/v1/{who}"), "").await.status, status, "{who}");
    }
}

/// Sends a count to each scope in turn, by each client in turn, and reads the frames of all clients until the answer.
async fn count(clients: &mut [TestClient], heard: &mut [Vec<String>], round: usize) {
    for n in 0..CLIENTS {
        let scope = json!({ "id": format!("s{}", n % SCOPES) });
        let id = clients[(n + round) % CLIENTS].emit_with_id("hostile:count", scope).await;
        let at = (n + round) % CLIENTS;
        loop {
            let frame = clients[at].next().await;
            if frame["event"] == "hostile:noise" {
                heard[at].push(frame["data"]["noise"].as_str().unwrap().to_owned());
            } else if frame["id"] == id {
                assert!(frame.get("error").is_none(), "{frame}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn why_names_the_generation_during_a_hundred_swaps() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n", &[]);
    let builds = MARKS.map(hostile);
    host.load("hostile", builds[0].clone()).await;
    let mut marks = HashMap::from([(1, MARKS[0])]);
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        clients.push(host.client(&format!("user{n}")).await);
    }
    let mut heard = vec![Vec::new(); CLIENTS];
    for round in 0..SWAPS {
        let build = (round + 1) % MARKS.len();
        let swap = host.load("hostile", builds[build].clone());
        // The swap happens while events are sent.
        let (loaded, ()) = tokio::join!(swap, count(&mut clients, &mut heard, round));
        marks.insert(loaded["generation"].as_u64().unwrap(), MARKS[build]);
    }
    let mut n_checked = 0;
    for (client, heard) in clients.iter_mut().zip(&mut heard) {
        let rest = client.drain().await;
        let noise = rest.iter().filter(|frame| frame["event"] == "hostile:noise");
        heard.extend(noise.map(|frame| frame["data"]["noise"].as_str().unwrap().to_owned()));
        let events = why(&host, &format!("connections/{}/why?last=1000", client.id())).await;
        assert_eq!(events.len(), heard.len().min(1000), "all that it was sent");
        for (event, mark) in events.iter().zip(heard.iter().rev()) {
            let generation = event["cause"]["build"]["generation"].as_u64().unwrap();
            assert_eq!(marks[&generation], mark, "{event}");
        }
        n_checked += events.len();
    }
    assert!(n_checked >= 1000, "{n_checked} events");
}

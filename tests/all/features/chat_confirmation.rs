//! chat-confirmation over real sockets: its section of the contract once, and restarts. Each rule has a native test
//! too.

use std::collections::{BTreeMap, BTreeSet};

use roundhouse_tests::{NOTHING, TestClient, TestHost};
use serde_json::{Value, json};

/// One of the two families, rooms and channels, with the names in which they differ.
struct Family {
    id: &'static str,
    join: &'static str,
    leave: &'static str,
    say: &'static str,
    history: &'static str,
    received: &'static str,
    sent: &'static str,
    confirmed: &'static str,
    failed: &'static str,
}

const ROOMS: Family = Family {
    id: "roomId",
    join: "joinRoom",
    leave: "leaveRoom",
    say: "roomMessage",
    history: "roomHistory",
    received: "roomMessageRecieved",
    sent: "roomMessageSent",
    confirmed: "roomMessageConfirmed",
    failed: "roomMessageFailed",
};

const CHANNELS: Family = Family {
    id: "channelId",
    join: "joinChannel",
    leave: "leaveChannel",
    say: "channelMessage",
    history: "channelHistory",
    received: "channelMessageRecieved",
    sent: "channelMessageSent",
    confirmed: "channelMessageConfirmed",
    failed: "channelMessageFailed",
};

impl Family {
    /// A payload for the room or channel `r1`.
    fn r1(&self, more: Value) -> Value {
        let mut data = more;
        data[self.id] = json!("r1");
        data
    }

    async fn join(&self, client: &mut TestClient, connected_users: u32) {
        let joined = client.emit_with_ack(self.join, self.r1(json!({}))).await;
        assert_eq!(joined, Ok(self.r1(json!({ "connectedUsers": connected_users }))));
    }

    /// Sends a message. Returns its temporary id.
    async fn say(&self, client: &mut TestClient, body: &str, client_id: &str) -> String {
        let answer = client.emit_with_ack(self.say, self.r1(json!({ "body": body, "clientId": client_id }))).await;
        let answer = answer.expect("the message is acknowledged");
        assert_eq!(answer.as_object().unwrap().len(), 1, "{answer}");
        answer["tempId"].as_str().expect("a temporary id").to_owned()
    }

    /// All stored messages, the newest first.
    async fn history(&self, client: &mut TestClient) -> Vec<Value> {
        let page = client.emit_with_ack(self.history, self.r1(json!({ "limit": 100 }))).await.expect("a page");
        assert_eq!(page["hasMore"], false);
        page["messages"].as_array().unwrap().clone()
    }
}

fn on<'a>(frames: &'a [Value], event: &str) -> Vec<&'a Value> {
    frames.iter().filter(|frame| frame["event"] == event).map(|frame| &frame["data"]).collect()
}

#[tokio::test]
async fn messages_and_confirmations_arrive_in_sending_order() {
    let host = TestHost::start();
    let [mut ana, mut ben] = [host.client("ana").await, host.client("ben").await];
    ROOMS.join(&mut ana, 1).await;
    ROOMS.join(&mut ben, 2).await;
    let bodies: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    for body in &bodies {
        ana.emit(ROOMS.say, json!({ "roomId": "r1", "body": body })).await;
    }
    for client in [&mut ana, &mut ben] {
        let (mut shown, mut confirmed) = (Vec::new(), Vec::new());
        while confirmed.len() < bodies.len() {
            let mut frame = client.next().await;
            let body = frame["data"]["body"].take();
            match frame["event"].as_str() {
                Some(event) if event == ROOMS.received => shown.push(body),
                Some(event) if event == ROOMS.confirmed => confirmed.push(body),
                _ => {}
            }
        }
        assert_eq!((&shown, &confirmed), (&bodies.iter().map(|body| json!(body)).collect(), &shown));
    }
}

/// Checks that two messages are stored, and pages through them.
async fn check_history(client: &mut TestClient, family: &Family, newest: &str, oldest: Value) {
    let stored = family.history(client).await;
    assert_eq!((stored[0]["tempId"].as_str(), &stored[1..]), (Some(newest), &[oldest][..]));
    let older = json!({ "before": stored[0]["_id"], "limit": 1 });
    let older = client.emit_with_ack(family.history, family.r1(older)).await.unwrap();
    assert_eq!(older, json!({ "messages": [stored[1]], "hasMore": false }));
}

/// Checks that the stats count one room or channel, with two connections.
async fn check_counts(host: &TestHost, family: &Family) {
    let stats = host.stats("chat-confirmation").await;
    let counts = (&stats["activeRooms"], &stats["activeChannels"], &stats["connections"]);
    let (rooms, channels) = if family.id == "roomId" { (1, 0) } else { (0, 1) };
    assert_eq!(counts, (&json!(rooms), &json!(channels), &json!(2)), "{stats}");
}

#[tokio::test]
async fn message_is_shown_immediately_and_confirmed_when_stored() {
    let host = TestHost::start();
    for family in [ROOMS, CHANNELS] {
        let mut ana = host.client_with("ana", &["--claim", "email=\"ana@example.com\""]).await;
        let [mut tab, mut ben, mut eve] =
            [host.client("ana").await, host.client("ben").await, host.client("eve").await];
        family.join(&mut ana, 1).await;
        family.join(&mut ben, 2).await;
        family.join(&mut ben, 2).await;

        let lock = host.lock_store();
        let temp_id = family.say(&mut ana, "hello", "m1").await;
        let sent = json!({ "event": family.sent, "data": { "tempId": temp_id, "clientId": "m1" } });
        let [by_ana, on_tab, by_ben, by_eve] = host.received([&mut ana, &mut tab, &mut ben, &mut eve]).await;
        let [received] = by_ben.as_slice() else { panic!("{by_ben:?}") };
        let created_at = &received["data"]["createdAt"];
        let sender = json!({ "_id": "ana", "username": "Ana", "email": "ana@example.com" });
        let expected = family.r1(json!({
            "_id": temp_id, "tempId": temp_id, "body": "hello", "senderId": sender,
            "isOptimistic": true, "createdAt": created_at,
        }));
        assert_eq!((&received["event"], &received["data"]), (&json!(family.received), &expected));
        assert!(temp_id.starts_with("temp_"), "{temp_id}");
        let created_at = created_at.as_str().unwrap();
        assert!(created_at.len() == 24 && created_at.ends_with('Z'), "{created_at}");
        assert_eq!(by_ana, [received.clone(), sent.clone()]);
        assert_eq!((on_tab, by_eve), (vec![sent], vec![]), "another tab is the sender's, but not in the room");

        drop(lock);
        let confirmed = ben.expect_event(family.confirmed).await;
        let expected = family.r1(json!({
            "_id": confirmed["_id"], "tempId": temp_id, "body": "hello", "senderId": sender,
            "isConfirmed": true, "createdAt": created_at,
        }));
        assert_eq!(confirmed, expected);
        assert!(confirmed["_id"].is_string() && confirmed["_id"] != json!(temp_id));
        assert_eq!(ana.expect_event(family.confirmed).await, confirmed);

        // The same message again, as a client sends it after losing the answer.
        assert_eq!(family.say(&mut ana, "hello", "m1").await, temp_id);
        let second = family.say(&mut ben, "hi", "m1").await;
        assert_eq!(ben.expect_event(family.confirmed).await["tempId"], json!(second), "the repetition was not stored");
        check_history(&mut ana, &family, &second, confirmed).await;

        let left = ben.emit_with_ack(family.leave, family.r1(json!({}))).await;
        assert_eq!(left, Ok(family.r1(json!({ "connectedUsers": 1 }))));
        host.received([&mut ana, &mut tab, &mut ben, &mut eve]).await;
        family.say(&mut ana, "still there?", "m2").await;
        ana.expect_event(family.confirmed).await;
        assert_eq!(host.received([&mut ben, &mut eve]).await, [NOTHING, NOTHING]);
        family.join(&mut tab, 1).await;
        check_counts(&host, &family).await;
        drop((ana, tab));
        host.wait_for_report("chat-confirmation", |report| report["stats"]["connections"] == 0).await;
    }
}

#[tokio::test]
async fn unstorable_message_fails_and_can_be_resent() {
    let config = "auth.jwt.secret = \"s\"\nstore.give_up = \"1s\"";
    let host = TestHost::start_with(config, &[]);
    let [mut ana, mut ben] = [host.client("ana").await, host.client("ben").await];
    for family in [ROOMS, CHANNELS] {
        family.join(&mut ana, 1).await;
        family.join(&mut ben, 2).await;
        let lock = host.lock_store();
        let temp_id = family.say(&mut ana, "hello", "m1").await;
        let failed = ben.expect_event(family.failed).await;
        assert_eq!((&failed["tempId"], &failed["clientId"]), (&json!(temp_id), &json!("m1")));
        assert_eq!((&failed["error"]["code"], &failed["retryable"]), (&json!("feature_unavailable"), &json!(true)));
        assert!(failed["error"]["message"].is_string(), "{failed}");
        assert_eq!(ana.expect_event(family.failed).await, failed);
        drop(lock);
        let again = family.say(&mut ana, "hello", "m1").await;
        assert_ne!(again, temp_id, "what has ended is over");
        assert_eq!(ben.expect_event(family.confirmed).await["tempId"], json!(again));
        let stored = family.history(&mut ben).await;
        assert_eq!(stored.len(), 1, "{stored:?}");
    }
}

#[tokio::test]
async fn outsiders_and_malformed_messages_are_refused_silently() {
    let host = TestHost::start();
    let [mut ana, mut eve] = [host.client("ana").await, host.client("eve").await];
    for family in [ROOMS, CHANNELS] {
        family.join(&mut ana, 1).await;
        let hello = family.r1(json!({ "body": "hello" }));
        assert_eq!(eve.emit_refused(family.say, hello.clone()).await, "forbidden");
        assert_eq!(eve.emit_refused(family.history, family.r1(json!({}))).await, "forbidden");
        let as_ana = family.r1(json!({ "body": "hello", "senderId": "ana" }));
        assert_eq!(eve.emit_refused(family.say, as_ana.clone()).await, "forbidden");
        family.join(&mut eve, 2).await;
        assert_eq!(eve.emit_refused(family.say, as_ana).await, "forbidden");
        for body in [json!(""), json!("x".repeat(16_385)), json!(5), json!(null)] {
            assert_eq!(eve.emit_refused(family.say, family.r1(json!({ "body": body }))).await, "bad_request");
        }
        assert_eq!(eve.emit_refused(family.join, json!({})).await, "bad_request");
        assert_eq!(eve.emit_refused(family.history, family.r1(json!({ "limit": 0 }))).await, "bad_request");
        for event in [family.received, family.sent, family.confirmed, family.failed] {
            assert_eq!(eve.emit_refused(event, hello.clone()).await, "unknown_event");
        }
        for event in [family.join, family.leave, family.say, family.history] {
            assert_eq!(host.post_event_refused(event, hello.clone()).await, "forbidden");
        }
        assert_eq!(host.received([&mut ana, &mut eve]).await, [NOTHING, NOTHING]);
        assert_eq!(family.history(&mut ana).await, [json!(null); 0]);
        let longest = family.say(&mut eve, &"ö".repeat(16_384), "m1").await;
        for agent in [&mut ana, &mut eve] {
            assert_eq!(agent.expect_event(family.confirmed).await["tempId"], json!(longest));
        }
        host.received([&mut ana, &mut eve]).await;
    }
}

/// The events of each message's outcome in these frames, by temporary id.
fn ends(frames: &[Value], ends: &mut BTreeMap<String, BTreeSet<String>>) {
    for event in [ROOMS.confirmed, ROOMS.failed] {
        for data in on(frames, event) {
            let temp_id = data["tempId"].as_str().expect("an end is some message's").to_owned();
            ends.entry(temp_id).or_default().insert(event.to_owned());
        }
    }
}

#[tokio::test]
async fn external_database_reader_loses_no_messages() {
    let mut host = TestHost::start();
    let mut ana = host.client("ana").await;
    ROOMS.join(&mut ana, 1).await;
    for body in ["before", "after"] {
        ROOMS.say(&mut ana, body, body).await;
        ana.expect_event(ROOMS.confirmed).await;
        // Opens and closes the database, as a backup or an operator may.
        let reader = rusqlite::Connection::open(host.dir().join("roundhouse.db")).unwrap();
        let n_stored: i64 = reader.query_row("SELECT count(*) FROM documents", [], |row| row.get(0)).unwrap();
        assert_eq!(n_stored, if body == "before" { 1 } else { 2 });
    }
    host.kill();
    host.restart();
    let mut ana = host.client("ana").await;
    ROOMS.join(&mut ana, 1).await;
    assert_eq!(ROOMS.history(&mut ana).await.len(), 2);
}

#[tokio::test]
async fn resent_message_keeps_its_id_after_restart() {
    let mut host = TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n", &[]);
    let mut ana = host.client("ana").await;
    ROOMS.join(&mut ana, 1).await;
    let lock = host.lock_store();
    // More messages than one transaction stores.
    for n in 0..1500 {
        ana.emit(ROOMS.say, json!({ "roomId": "r1", "body": "many", "clientId": format!("m{n}") })).await;
    }
    let temp_id = ROOMS.say(&mut ana, "under way", "last").await;
    host.kill();
    drop(lock);
    host.restart();
    let mut ana = host.client("ana").await;
    ROOMS.join(&mut ana, 1).await;
    assert_eq!(ROOMS.say(&mut ana, "under way", "last").await, temp_id);
}

#[tokio::test]
async fn pending_messages_are_stored_once_after_power_loss() {
    let mut host = TestHost::start();
    let [mut ana, mut ben] = [host.client("ana").await, host.client("ben").await];
    ROOMS.join(&mut ana, 1).await;
    ROOMS.join(&mut ben, 2).await;
    // The key of each temporary id: the sender, and the sender's number of the message.
    let mut temp_ids = BTreeMap::new();
    for n in 0..10 {
        temp_ids.insert(("ana", n), ROOMS.say(&mut ana, "before", &format!("m{n}")).await);
    }
    for _ in 0..10 {
        ben.expect_event(ROOMS.confirmed).await;
    }
    let lock = host.lock_store();
    for n in 10..20 {
        temp_ids.insert(("ana", n), ROOMS.say(&mut ana, "under way", &format!("m{n}")).await);
        temp_ids.insert(("ben", n), ROOMS.say(&mut ben, "under way", &format!("m{n}")).await);
    }
    host.kill();
    drop(lock);
    ben.closed().await;
    let mut ended = BTreeMap::new();
    let before = ben.drain().await;
    ends(&before, &mut ended);
    assert_eq!(on(&before, ROOMS.received).len(), 30, "everybody has seen all of them");
    assert!(ended.is_empty(), "none of these has ended: {ended:?}");
    let under_way: BTreeSet<String> =
        temp_ids.iter().filter(|((_, n), _)| *n >= 10).map(|(_, temp_id)| temp_id.clone()).collect();

    host.restart();
    let [mut ana, mut ben] = [host.client("ana").await, host.client("ben").await];
    ROOMS.join(&mut ben, 1).await;
    ROOMS.join(&mut ana, 2).await;
    // A joining client gets each outcome, either before the join's acknowledgement or when the outcome is known.
    for client in [&mut ana, &mut ben] {
        let mut ended = BTreeMap::new();
        // An outcome that the journal did not learn the delivery of before the power was lost is sent once more.
        while !under_way.iter().all(|temp_id| ended.contains_key(temp_id)) {
            let confirmed = client.expect_event(ROOMS.confirmed).await;
            ends(&[json!({ "event": ROOMS.confirmed, "data": confirmed })], &mut ended);
        }
        let known: BTreeSet<&String> = temp_ids.values().collect();
        assert!(ended.keys().all(|temp_id| known.contains(temp_id)), "{ended:?}");
    }
    for ((sender, n), temp_id) in &temp_ids {
        let client = if *sender == "ana" { &mut ana } else { &mut ben };
        assert_eq!(ROOMS.say(client, "again", &format!("m{n}")).await, *temp_id, "{sender} repeats m{n}");
    }
    let [by_ana, by_ben] = host.received([&mut ana, &mut ben]).await;
    assert_eq!((by_ana, by_ben), (vec![], vec![]), "they ended once, and what was repeated is not shown again");
    let history = ROOMS.history(&mut ana).await;
    let mut stored: Vec<&str> = history.iter().map(|message| message["tempId"].as_str().unwrap()).collect();
    let mut expected: Vec<&str> = temp_ids.values().map(String::as_str).collect();
    stored.sort_unstable();
    expected.sort_unstable();
    assert_eq!(stored, expected, "each is stored once");
}

#[tokio::test]
async fn message_is_confirmed_once_despite_repeated_restarts() {
    let mut host = TestHost::start();
    let (mut acknowledged, mut seen, mut ended) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    for round in 0..4 {
        let [mut ana, mut ben] = [host.client("ana").await, host.client("ben").await];
        for client in [&mut ana, &mut ben] {
            client.emit_with_ack(ROOMS.join, ROOMS.r1(json!({}))).await.expect("a join");
        }
        // The host is killed at a different moment in each round, while messages are pending.
        let mut posted = BTreeMap::new();
        for n in 0..20 {
            let client_id = format!("m{round}-{n}");
            let message = ROOMS.r1(json!({ "body": "x", "clientId": client_id }));
            posted.insert(ana.emit_with_id(ROOMS.say, message).await, client_id);
        }
        for _ in 0..=round * 5 {
            seen.insert(ben.expect_event(ROOMS.received).await["tempId"].as_str().unwrap().to_owned());
        }
        if round == 3 {
            host.terminate();
        } else {
            host.kill();
        }
        for client in [&mut ana, &mut ben] {
            client.closed().await;
            let frames = client.drain().await;
            seen.extend(on(&frames, ROOMS.received).iter().map(|data| data["tempId"].as_str().unwrap().to_owned()));
            ends(&frames, &mut ended);
            for frame in frames.iter().filter(|frame| frame.get("event").is_none()) {
                if let (Some(id), Some(temp_id)) = (frame["id"].as_i64(), frame["data"]["tempId"].as_str()) {
                    acknowledged.insert(posted[&id].clone(), temp_id.to_owned());
                }
            }
        }
        host.wait_for_exit();
        host.restart();
    }
    let mut ana = host.client("ana").await;
    ROOMS.join(&mut ana, 1).await;
    // The messages of a room are stored in order, so the outcome of the last one comes after all others.
    let last = ROOMS.say(&mut ana, "the last", "last").await;
    while ana.expect_event(ROOMS.confirmed).await["tempId"] != json!(last) {}
    ends(&ana.drain().await, &mut ended);
    for (client_id, temp_id) in &acknowledged {
        assert_eq!(ROOMS.say(&mut ana, "again", client_id).await, *temp_id, "{client_id}");
    }
    let history = ROOMS.history(&mut ana).await;
    let stored: Vec<&str> = history.iter().map(|message| message["tempId"].as_str().unwrap()).collect();
    let distinct: BTreeSet<&str> = stored.iter().copied().collect();
    assert_eq!(stored.len(), distinct.len(), "each is stored once: {stored:?}");
    assert!(seen.len() >= 4 && !acknowledged.is_empty());
    for temp_id in seen.iter().chain(acknowledged.values()) {
        assert!(distinct.contains(temp_id.as_str()), "{temp_id} was seen and is not stored");
    }
    for (temp_id, ends) in &ended {
        assert_eq!(ends.iter().collect::<Vec<_>>(), [ROOMS.confirmed], "{temp_id}");
    }
}

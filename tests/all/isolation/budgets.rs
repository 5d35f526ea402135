//! Budgets: the host bounds what features may hold on behalf of one principal, and a principal at its bound costs no
//! other principal service.

use std::time::Duration;

use roundhouse_tests::guests::hostile;
use roundhouse_tests::{InnerHost, TestClient, TestHost, eventually, http};
use serde_json::{Value, json};

/// A host with `limits` of users or services, and the hostile guest.
async fn host(limits: &str) -> TestHost {
    let host = TestHost::start_with(&format!("auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n{limits}"), &[]);
    host.load("hostile", hostile("normal")).await;
    host
}

/// Sends an event that must be refused. Returns the code and the message.
async fn refusal(client: &mut TestClient, event: &str, data: Value) -> (String, String) {
    let error = client.emit_with_ack(event, data).await.expect_err("a refusal");
    let text = |field: &str| error[field].as_str().expect("an error has code and message").to_owned();
    (text("code"), text("message"))
}

/// The number of refusals because of a budget.
async fn refusals(api: &str, holder: &str, of: &str) -> u64 {
    let metrics = http(api, "GET", "/metrics", &[], "").await.expect("an answer").text;
    let name = format!("roundhouse_over_budget_total{{holder=\"{holder}\",of=\"{of}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.and_then(|figure| figure.parse().ok()).unwrap_or_else(|| panic!("there is no figure {name}: {metrics}"))
}

fn doing(id: &str, how: &str, with: Value) -> Value {
    json!({ "id": id, "how": how, "with": with })
}

#[tokio::test]
async fn scopes_are_bounded_per_user() {
    let host = host("limits.user.scopes = 4").await;
    let (mut ana, mut tab, mut ben) = (host.client("ana").await, host.client("ana").await, host.client("ben").await);
    assert_eq!(refusals(&host.api, "user", "scopes").await, 0);
    for n in 0..4 {
        let client = if n % 2 == 0 { &mut ana } else { &mut tab };
        client.emit_with_ack("ticket:view", json!({ "ticketId": format!("t{n}") })).await.unwrap();
    }
    let (code, message) = refusal(&mut ana, "ticket:view", json!({ "ticketId": "t9" })).await;
    assert_eq!(code, "rate_limited");
    assert!(message.contains("this user has 4 scopes, and may have 4"), "{message}");
    assert_eq!(refusal(&mut tab, "hostile:count", json!({ "id": "a" })).await.0, "rate_limited", "in all features");
    assert_eq!(refusals(&host.api, "user", "scopes").await, 2);
    assert!(host.log().contains("refused what would go over a budget"), "{}", host.log());

    // Existing scopes stay usable, no other user is refused, and a scope that ends makes room.
    ana.emit_with_ack("ticket:typing", json!({ "ticketId": "t0" })).await.unwrap();
    ben.emit_with_ack("ticket:view", json!({ "ticketId": "t9" })).await.unwrap();
    host.post_event("hostile:service", json!({ "id": "b" })).await.unwrap();
    ana.emit_with_ack("ticket:view", json!({ "ticketId": "t9" })).await.expect("it is ben's");
    tab.close().await;
    eventually("the scopes of a closed connection end", async || {
        ana.emit_with_ack("ticket:view", json!({ "ticketId": "t10" })).await.ok()
    })
    .await;
}

#[tokio::test]
async fn anonymous_clients_share_their_addresss_budget() {
    let host = host("auth.anonymous = true\nlimits.user.scopes = 2").await;
    let connect = async || TestClient::connect_to(&format!("{}/ws", host.ws)).await;
    let (mut one, mut other, mut ana) = (connect().await, connect().await, host.client("ana").await);
    one.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    other.emit_with_ack("hostile:count", json!({ "id": "b" })).await.unwrap();
    let (code, message) = refusal(&mut one, "hostile:count", json!({ "id": "c" })).await;
    assert_eq!(code, "rate_limited");
    assert!(message.starts_with("this address has 2 scopes"), "{message}");
    ana.emit_with_ack("hostile:count", json!({ "id": "c" })).await.unwrap();
}

#[tokio::test]
async fn services_have_their_own_budget() {
    let host = host("limits.service.scopes = 2\nlimits.user.scopes = 1").await;
    for id in ["a", "b", "a"] {
        host.post_event("hostile:service", json!({ "id": id })).await.unwrap();
    }
    let event = json!({ "event": "hostile:service", "data": { "id": "c" } });
    let (status, code, message) = host.post_refused("/v1/events", &event).await;
    assert_eq!((status, code.as_str()), (429, "rate_limited"));
    assert!(message.contains("this API key has 2 scopes"), "{message}");
    assert_eq!(refusals(&host.api, "service", "scopes").await, 1);
    host.client("ana").await.emit_with_ack("hostile:count", json!({ "id": "c" })).await.unwrap();
}

#[tokio::test]
async fn rooms_are_bounded_over_a_users_connections() {
    let host = host("limits.user.rooms = 3").await;
    let (mut ana, mut tab, mut ben) = (host.client("ana").await, host.client("ana").await, host.client("ben").await);
    let room = |n: usize| json!({ "roomId": format!("r{n}") });
    ana.emit_with_ack("joinRoom", room(1)).await.unwrap();
    ana.emit_with_ack("joinRoom", room(2)).await.unwrap();
    tab.emit_with_ack("joinRoom", room(1)).await.unwrap();
    tab.emit_with_ack("joinRoom", room(1)).await.expect("it is in already");
    let (code, message) = refusal(&mut tab, "joinRoom", room(2)).await;
    assert_eq!(code, "conflict");
    assert!(message.contains("this user has 3 rooms, and may have 3"), "{message}");
    assert_eq!(refusals(&host.api, "user", "rooms").await, 1);
    ben.emit_with_ack("joinRoom", room(2)).await.unwrap();
    ana.emit_with_ack("leaveRoom", room(2)).await.unwrap();
    tab.emit_with_ack("joinRoom", room(2)).await.unwrap();
    // The rooms of a closed connection do not count.
    tab.close().await;
    let mut tab = host.client("ana").await;
    eventually("the rooms of a closed connection are free", async || tab.emit_with_ack("joinRoom", room(2)).await.ok())
        .await;
    tab.emit_with_ack("joinRoom", room(3)).await.unwrap();
}

#[tokio::test]
async fn watches_are_bounded_per_user() {
    let host = host("limits.user.rooms = 2").await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    for n in 0..2 {
        ana.emit_with_ack("hostile:do", doing(&n.to_string(), "watch", Value::Null)).await.unwrap();
    }
    let (code, message) = refusal(&mut ana, "hostile:do", doing("2", "watch", Value::Null)).await;
    assert_eq!(code, "conflict");
    assert!(message.contains("2 scopes that watch its connections"), "{message}");
    assert_eq!(refusals(&host.api, "user", "watches").await, 1);
    ana.emit_with_ack("hostile:do", doing("1", "watch", Value::Null)).await.expect("it is watched there already");
    ben.emit_with_ack("hostile:do", doing("2", "watch", Value::Null)).await.unwrap();
}

#[tokio::test]
async fn timers_are_bounded_per_user() {
    let host = host("limits.user.timers = 3\nlimits.user.timer_bytes = 1000").await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    let timer = |name: &str, how: &str, after: u64| json!({ "name": name, "how": how, "after": after });
    for name in ["a", "b", "c"] {
        ana.emit_with_ack("hostile:do", doing("1", "timer", timer(name, "x", 3_600_000))).await.unwrap();
    }
    let (code, message) = refusal(&mut ana, "hostile:do", doing("2", "timer", timer("d", "x", 0))).await;
    assert_eq!(code, "rate_limited");
    assert!(message.contains("this user has 3 timers, and may have 3"), "{message}");
    ben.emit_with_ack("hostile:do", doing("1", "timer", timer("d", "x", 3_600_000))).await.unwrap();
    // Replacing a timer takes no further place, and ben's timer counts against ben's budget.
    ana.emit_with_ack("hostile:do", doing("1", "timer", timer("b", "x", 1))).await.unwrap();
    eventually("a timer that has fired makes room", async || {
        ana.emit_with_ack("hostile:do", doing("2", "timer", timer("d", "x", 1))).await.ok()
    })
    .await;
    let large = "x".repeat(600);
    ben.emit_with_ack("hostile:do", doing("1", "timer", timer("e", &large, 3_600_000))).await.unwrap();
    let (code, message) = refusal(&mut ben, "hostile:do", doing("1", "timer", timer("f", &large, 3_600_000))).await;
    assert_eq!(code, "rate_limited");
    assert!(message.contains("bytes of timers, and may have 1000"), "{message}");
    assert_eq!(host.report("hostile").await["traps"], 0);
}

#[tokio::test]
async fn timers_are_bounded_per_scope() {
    let host = host("").await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    let timers = |from: u64, to: u64| json!({ "from": from, "to": to });
    ana.emit_with_ack("hostile:do", doing("many", "timers", timers(0, 900))).await.unwrap();
    ana.emit_with_ack("hostile:do", doing("many", "timers", timers(100, 1000))).await.expect("most are there already");
    let (code, message) = refusal(&mut ben, "hostile:do", doing("many", "timers", timers(1000, 1001))).await;
    assert_eq!(code, "conflict");
    assert!(message.contains("1001 timers in one scope"), "{message}");
    let large = |name: &str| json!({ "name": name, "bytes": 500_000, "after": 3_600_000 });
    for name in ["a", "b"] {
        ana.emit_with_ack("hostile:do", doing("large", "timer", large(name))).await.unwrap();
    }
    let (code, message) = refusal(&mut ben, "hostile:do", doing("large", "timer", large("c"))).await;
    assert_eq!(code, "conflict");
    assert!(message.contains("this scope has 1000006 bytes of timers"), "{message}");
    assert_eq!(refusals(&host.api, "scope", "timers").await, 1);
    assert_eq!(host.report("hostile").await["traps"], 0, "that is nobody's fault");
}

#[tokio::test]
async fn pending_acknowledgements_are_bounded_per_user() {
    let host = host("limits.user.acknowledgements = 2").await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    let mut questions = Vec::new();
    for _ in 0..2 {
        ana.emit_with_ack("hostile:do", doing("a", "ask", Value::Null)).await.unwrap();
        questions.push(ana.next().await["id"].clone());
    }
    let (code, message) = refusal(&mut ana, "hostile:do", doing("b", "ask", Value::Null)).await;
    assert_eq!(code, "rate_limited");
    assert!(message.contains("2 acknowledgements that are owed"), "{message}");
    assert_eq!(refusals(&host.api, "user", "acknowledgements").await, 1);
    ben.emit_with_ack("hostile:do", doing("a", "ask", Value::Null)).await.unwrap();
    ana.send_text(json!({ "id": questions[0], "data": "yes" }).to_string()).await;
    eventually("an acknowledgement that was given makes room", async || {
        ana.emit_with_ack("hostile:do", doing("b", "ask", Value::Null)).await.ok()
    })
    .await;
}

#[tokio::test]
async fn pending_documents_are_bounded_per_user() {
    let host = host("limits.user.documents = 3").await;
    let (mut ana, mut tab, mut ben) = (host.client("ana").await, host.client("ana").await, host.client("ben").await);
    for client in [&mut ana, &mut tab, &mut ben] {
        client.emit_with_ack("joinRoom", json!({ "roomId": "r" })).await.unwrap();
    }
    let locked = host.lock_store();
    let say = |body: &str| json!({ "roomId": "r", "body": body });
    ana.emit_with_ack("roomMessage", say("first")).await.unwrap();
    tab.emit_with_ack("roomMessage", say("second")).await.unwrap();
    ana.emit_with_ack("roomMessage", say("third")).await.unwrap();
    let (code, message) = refusal(&mut tab, "roomMessage", say("too many")).await;
    assert_eq!(code, "rate_limited");
    assert!(message.contains("3 documents that wait to be stored"), "{message}");
    assert_eq!(refusals(&host.api, "user", "documents").await, 1);
    ben.emit_with_ack("roomMessage", say("ben's")).await.unwrap();
    drop(locked);
    eventually("documents that are stored make room", async || {
        tab.emit_with_ack("roomMessage", say("stored")).await.ok()
    })
    .await;
    let received = ben.drain().await;
    let shown = received.iter().filter(|frame| frame["event"] == "roomMessageRecieved");
    assert_eq!(shown.filter(|frame| frame["data"]["body"] == "too many").count(), 0, "what is refused is not shown");
}

#[tokio::test]
async fn pending_durable_states_are_bounded_per_user() {
    // One plugin thread handles the events in the order in which they are sent.
    let config = "auth.jwt.secret = \"s\"\nlimits.user.documents = 2\nplugins.threads = 1";
    let host = TestHost::start_with(config, &[]);
    host.load("hostile", hostile("durable")).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    for id in ["a", "b", "c"] {
        // Loads the scope into memory, because it cannot be read while the store is locked.
        ana.emit_with_ack("hostile:count", json!({ "id": id })).await.unwrap();
    }
    let locked = host.lock_store();
    let mut waiting = Vec::new();
    for id in ["a", "b"] {
        waiting.push(ana.emit_with_id("hostile:count", json!({ "id": id })).await);
    }
    let (code, message) = refusal(&mut ana, "hostile:count", json!({ "id": "c" })).await;
    assert_eq!(code, "rate_limited");
    assert!(message.contains("2 states that wait to be stored"), "{message}");
    assert!(refusals(&host.api, "user", "states").await > 0);
    ben.emit_with_ack("hostile:told", json!({ "id": "d" })).await.unwrap();
    drop(locked);
    eventually("states that are stored make room", async || {
        ana.emit_with_ack("hostile:count", json!({ "id": "c" })).await.ok()
    })
    .await;
}

const SLOW_STORE: &str = "auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n\
                          limits.user.saved_bytes_per_second = 1000\nlimits.user.saved_burst_bytes = 5000\n\
                          limits.user.fetched_bytes_per_second = 1000\nlimits.user.fetched_burst_bytes = 5000\n";

async fn join(client: &mut TestClient) {
    client.emit_with_ack("joinRoom", json!({ "roomId": "r" })).await.unwrap();
}

#[tokio::test]
async fn saved_bytes_per_second_are_bounded_per_user() {
    let host = InnerHost::start(SLOW_STORE).await;
    let (mut ana, mut tab, mut ben) = (host.client("ana").await, host.client("ana").await, host.client("ben").await);
    for client in [&mut ana, &mut tab, &mut ben] {
        join(client).await;
    }
    let say = || json!({ "roomId": "r", "body": "x".repeat(2000) });
    // The third message exceeds the burst, and later ones are refused until the budget has refilled.
    for client in [&mut ana, &mut tab] {
        client.emit_with_ack("roomMessage", say()).await.unwrap();
    }
    tab.emit_with_ack("roomMessage", say()).await.unwrap();
    let (code, message) = refusal(&mut ana, "roomMessage", say()).await;
    assert_eq!(code, "rate_limited");
    assert!(message.contains("this user writes more than 1000 bytes of documents a second"), "{message}");
    assert_eq!(refusals(&host.api, "user", "saved").await, 1);
    ben.emit_with_ack("roomMessage", say()).await.unwrap();
    host.advance(Duration::from_secs(2));
    tab.emit_with_ack("roomMessage", say()).await.expect("what was written is paid for");
    assert_eq!(refusal(&mut tab, "roomMessage", say()).await.0, "rate_limited");
    drop((ana, tab, ben));
    host.shut_down().await;
}

#[tokio::test]
async fn fetched_bytes_are_paid_before_the_next_fetch() {
    let host = InnerHost::start(SLOW_STORE).await;
    let (mut ana, mut tab, mut ben) = (host.client("ana").await, host.client("ana").await, host.client("ben").await);
    for client in [&mut ana, &mut tab, &mut ben] {
        join(client).await;
    }
    let say = json!({ "roomId": "r", "body": "x".repeat(3000) });
    ben.emit_with_ack("roomMessage", say).await.unwrap();
    for client in [&mut ana, &mut tab, &mut ben] {
        client.expect_event("roomMessageConfirmed").await;
    }
    let history = || json!({ "roomId": "r" });
    // A stored page and the answer made of it exceed 6 kB together.
    ana.emit_with_ack("roomHistory", history()).await.unwrap();
    let (code, message) = refusal(&mut tab, "roomHistory", history()).await;
    assert_eq!(code, "rate_limited");
    assert!(message.contains("this user reads more than 1000 bytes of documents a second"), "{message}");
    assert_eq!(refusals(&host.api, "user", "fetched").await, 1);
    ben.emit_with_ack("roomHistory", history()).await.unwrap();
    host.advance(Duration::from_secs(3));
    tab.emit_with_ack("roomHistory", history()).await.expect("what was read is paid for");
    drop((ana, tab, ben));
    host.shut_down().await;
}

#[tokio::test]
async fn concurrent_fetches_stop_at_the_byte_budget() {
    let host = InnerHost::start(SLOW_STORE).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    join(&mut ana).await;
    join(&mut ben).await;
    ben.emit_with_ack("roomMessage", json!({ "roomId": "r", "body": "x".repeat(3000) })).await.unwrap();
    ana.expect_event("roomMessageConfirmed").await;
    let mut posted = Vec::new();
    for _ in 0..50 {
        posted.push(ana.emit_with_id("roomHistory", json!({ "roomId": "r" })).await);
    }
    let mut n_read = 0;
    for id in posted {
        match ana.expect_ack(id).await {
            Ok(_) => n_read += 1,
            Err(error) => assert_eq!(error["code"], "rate_limited", "{error}"),
        }
    }
    assert!((1..=2).contains(&n_read), "{n_read} were read");
    drop((ana, ben));
    host.shut_down().await;
}

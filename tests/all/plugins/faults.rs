//! Guests that misbehave: a fault costs its own event, and other clients lose nothing.

use roundhouse_tests::guests::{hostile, relabelled, ticket_collision};
use roundhouse_tests::{TestClient, TestHost, eventually, faults_of_many, metric};
use serde_json::{Value, json};

use super::FAULTS;

async fn host() -> TestHost {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    host
}

fn doing(how: &str) -> Value {
    json!({ "id": "a", "how": how })
}

#[tokio::test]
async fn handler_fault_costs_one_event() {
    let host = host().await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    let stranger = ben.id().to_owned();
    ben.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    ben.drain().await;
    ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    for how in FAULTS.into_iter().chain(["stranger"]) {
        let mut event = doing(how);
        event["with"] = json!(stranger);
        // Each fault comes from another user, because a user with repeated faults is refused.
        let mut mal = host.client(&format!("mal-{how}")).await;
        let error = mal.emit_with_ack("hostile:do", event).await.expect_err(how);
        assert_eq!(error["code"], "internal", "{how}: {error}");
        assert!(error["message"].as_str().unwrap().contains("hostile"), "{how}: {error}");
        // Other features, the scope and the sender go on: the failed event did not change the count.
        assert!(ben.emit_with_ack("ticket:typing", json!({ "ticketId": "t1" })).await.is_ok(), "{how}");
        // Successful calls in between, so that the faults do not put the plugin in quarantine.
        for _ in 0..2 {
            let notifications = ana.emit_with_ack("hostile:told", json!({ "id": "a" })).await;
            assert_eq!(notifications, Ok(json!([])), "{how}: {}", host.log());
        }
    }
    let count = ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    assert_eq!(count, json!({ "count": 2 }), "nothing of what failed was committed");
    assert!(!ana.drain_events().await.contains(&"hostile:noise".to_owned()), "nor sent");
    let received = ben.drain_events().await;
    assert!(received.iter().all(|event| event == "viewers:updated"), "nor did others hear of it: {received:?}");
    let report = host.report("hostile").await;
    assert_eq!((&report["traps"], &report["state"]), (&json!(FAULTS.len() + 1), &json!("running")));
}

#[tokio::test]
async fn refusal_is_not_a_fault() {
    let host = host().await;
    let mut ana = host.client("ana").await;
    for _ in 0..30 {
        assert_eq!(ana.emit_refused("hostile:do", doing("failure")).await, "conflict");
    }
    assert_eq!(ana.emit_refused("hostile:do", doing("strange-failure")).await, "internal");
    assert_eq!(ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await, Ok(json!({ "count": 1 })));
    assert_eq!(host.report("hostile").await["traps"], 0);
}

#[tokio::test]
async fn spinning_plugin_delays_neither_heartbeats_nor_other_threads() {
    let config =
        "auth.jwt.secret = \"s\"\n[limits]\nevents_per_second = 0\n[plugins]\ncall_deadline = \"500ms\"\nthreads = 4";
    let host = TestHost::start_with(config, &[]);
    host.load("hostile", hostile("normal")).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    let spinning = ana.emit_with_id("hostile:do", doing("spin")).await;
    // Some of these scopes are on the spinning thread; the others answer meanwhile.
    let mut posted = Vec::new();
    for n in 0..40 {
        posted.push(ben.emit_with_id("ticket:leave", json!({ "ticketId": format!("t{n}") })).await);
    }
    let mut before = 0;
    loop {
        tokio::select! {
            biased;
            answer = ana.expect_ack(spinning) => {
                assert_eq!(answer.unwrap_err()["code"], "internal");
                break;
            }
            frame = ben.next() => {
                assert!(posted.contains(&frame["id"].as_i64().unwrap()));
                before += 1;
            }
        }
    }
    assert!((10..=40).contains(&before), "{before} of 40 were answered while a thread was spinning");
}

#[tokio::test]
async fn failing_plugin_is_paused_while_others_run() {
    let host = host().await;
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    faults_of_many(&host, 10).await;
    assert_eq!(ana.emit_refused("hostile:count", json!({ "id": "a" })).await, "feature_unavailable");
    assert_eq!(host.report("hostile").await["state"], "quarantined");
    assert!(ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.is_ok());
    // The scope is notified of departures after the pause.
    let mut watched = host.client("ben").await;
    eventually("the first pause, of a second, ends", async || {
        watched.emit_with_ack("hostile:count", json!({ "id": "a" })).await.ok()
    })
    .await;
    // It has not recovered: it takes half as many.
    faults_of_many(&host, 5).await;
    watched.close().await;
    let notifications = eventually("the second pause, of two seconds, ends", async || {
        ana.emit_with_ack("hostile:told", json!({ "id": "a" })).await.ok()
    })
    .await;
    assert_eq!(notifications, json!(["left ben disconnected"]));
}

#[tokio::test]
async fn failing_new_generation_is_rolled_back() {
    let host = host().await;
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    let bad = host.load("hostile", hostile("traps")).await;
    assert_eq!(bad["generation"], 2);
    faults_of_many(&host, 5).await;
    host.wait_for_report("hostile", |report| report["generation"] == 1).await;
    assert_eq!(
        ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await,
        Ok(json!({ "count": 2 })),
        "the state is as it was"
    );
    eventually("the log says it, too", async || host.log().contains("rolled back").then_some(())).await;
}

#[tokio::test]
async fn lossy_rollback_across_schemas_needs_lose_writes() {
    let host = host().await;
    let mut ana = host.client("ana").await;
    for _ in 0..2 {
        ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    }
    host.load("hostile", hostile("forward")).await;
    // A fault at the first event after the swap leaves the state in the old schema.
    assert_eq!(ana.emit_refused("hostile:do", doing("panic")).await, "internal");
    let back = host.call("POST", "/v1/plugins/hostile/rollback", "").await;
    assert_eq!(back.status, 200, "{}", back.text);
    assert_eq!(ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await, Ok(json!({ "count": 3 })));
    // A successful event has migrated the state up. The build before cannot migrate down, so the changes since the swap
    // would be lost, and the rollback needs the operator's consent. States without a change lose nothing.
    ana.emit_with_ack("hostile:count", json!({ "id": "untouched" })).await.unwrap();
    host.load("hostile", relabelled(&hostile("forward"), "again")).await;
    assert_eq!(ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await, Ok(json!({ "count": 4 })));
    let refused = host.call("POST", "/v1/plugins/hostile/rollback", "").await;
    assert_eq!((refused.status, refused.body["code"].as_str()), (409, Some("conflict")), "{}", refused.text);
    let message = refused.body["message"].as_str().unwrap();
    assert!(
        message.contains("1 scope would lose what happened since") && message.contains("--lose-writes"),
        "{message}"
    );
    assert_eq!(
        ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await,
        Ok(json!({ "count": 5 })),
        "nothing has changed"
    );
    let back = host.call("POST", "/v1/plugins/hostile/rollback?loseWrites=true", "").await;
    assert_eq!((back.status, &back.body["lostScopes"]), (200, &json!(1)), "{}", back.text);
    assert_eq!(ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await, Ok(json!({ "count": 4 })));
    assert_eq!(ana.emit_with_ack("hostile:count", json!({ "id": "untouched" })).await, Ok(json!({ "count": 2 })));
    assert_eq!(metric(&host.api, "plugin_lost_states_total").await, 1);
    // A scope that was created in the newer schema has no copy in the older one: its whole state would be lost.
    host.load("hostile", relabelled(&hostile("forward"), "third")).await;
    ana.emit_with_ack("hostile:count", json!({ "id": "b" })).await.unwrap();
    let (ok, output) = host.plugin(&["rollback", "hostile"]);
    assert!(!ok && output.contains("1 scope would lose its whole state"), "{output}");
    let (ok, output) = host.plugin(&["rollback", "hostile", "--lose-writes"]);
    assert!(ok && output.contains("\"lostScopes\": 1"), "{output}");
    assert_eq!(ana.emit_with_ack("hostile:count", json!({ "id": "b" })).await, Ok(json!({ "count": 1 })));
}

#[tokio::test]
async fn refused_events_create_no_scope() {
    let host = host().await;
    let mut ana = host.client("ana").await;
    for n in 0..20 {
        assert_eq!(
            ana.emit_refused("hostile:do", json!({ "id": format!("s{n}"), "how": "failure" })).await,
            "conflict"
        );
    }
    for n in 0..20 {
        // The event succeeds, and changes no state.
        ana.emit_with_ack("hostile:told", json!({ "id": format!("s{n}") })).await.unwrap();
    }
    assert_eq!(host.report("hostile").await["stats"], json!([]));
}

#[tokio::test]
async fn departures_during_a_pause_are_delivered_later() {
    const MEMBERS: usize = 300;
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.events_per_second = 0", &[]);
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    let token = host.token("ben");
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        let mut member = TestClient::connect(&host.ws, &token).await;
        member.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
        members.push(member);
    }
    faults_of_many(&host, 10).await;
    drop(members);
    let notifications = eventually("all departures are told", async || {
        let notifications = ana.emit_with_ack("hostile:told", json!({ "id": "a" })).await.ok()?;
        let notifications: Vec<String> = serde_json::from_value(notifications).unwrap();
        (notifications.len() >= MEMBERS).then_some(notifications)
    })
    .await;
    assert_eq!(notifications, vec!["left ben disconnected"; MEMBERS]);
}

#[tokio::test]
async fn plugin_logs_are_structured_printable_and_limited() {
    let host = host().await;
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("hostile:do", doing("log")).await.unwrap();
    assert_eq!(ana.emit_refused("hostile:do", doing("panic")).await, "internal");
    let log = host.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("line ") && line.contains("second line")).collect();
    assert!((1..1000).contains(&lines.len()), "{} lines of 10,000", lines.len());
    assert!(lines[0].contains("plugin=hostile") && lines[0].contains("generation=1"), "{}", lines[0]);
    assert!(lines[0].contains("version=1.0.0") && lines[0].contains("digest="), "{}", lines[0]);
    assert!(!log.contains('\u{1b}'), "no escape sequences");
    assert!(log.lines().any(|line| line.contains("told to panic") && line.contains("over two lines")), "{log}");
}

#[tokio::test]
async fn invalid_component_is_refused_with_its_step() {
    let host = host().await;
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    let before = host.report("hostile").await["digest"].clone();
    let truncated = {
        let mut c = hostile("normal");
        c.truncate(c.len() / 2);
        c
    };
    let sockets = wat::parse_str("(component (import \"wasi:sockets/network@0.2.0\" (instance)))").unwrap();
    let unknown = wat::parse_str("(component (import \"acme:thing/it@1.0.0\" (instance)))").unwrap();
    let empty = wat::parse_str("(component)").unwrap();
    let module = wat::parse_str("(module)").unwrap();
    for (what, component, step, expected) in [
        ("nothing", Vec::new(), "compile", "component"),
        ("text", b"hello".to_vec(), "compile", "component"),
        ("a module", module, "compile", "component"),
        ("half a component", truncated, "compile", ""),
        ("a component that is no feature", empty, "imports", "describe"),
        ("an import of sockets", sockets, "imports", "wasi:sockets"),
        ("an unknown import", unknown, "imports", "acme:thing"),
        ("17 MiB", vec![0; 17 << 20], "size", "larger"),
        ("panics in describe", hostile("panic"), "describe", "told to panic"),
        ("loops in describe", hostile("loop"), "describe", "50 ms"),
        ("eats memory in describe", hostile("eat"), "describe", ""),
        ("a bad name", hostile("name"), "manifest", "No Name!"),
        ("a bad version", hostile("version"), "manifest", "one"),
        ("the host's own event", hostile("reserved"), "manifest", "authenticate"),
        ("a user's room", hostile("user"), "manifest", "user:"),
        ("what could be a user's room", hostile("us"), "manifest", "user's own room"),
        ("no template for what there is", hostile("moved"), "migrate", "hostile:a"),
        ("another's event", hostile("route"), "routes", "ticket:view"),
        ("another's scope", hostile("scope"), "routes", "ticket-collision"),
        ("more than granted", hostile("needs"), "grants", "the room ticket:*, the audience all"),
        ("a schema that it cannot migrate to", hostile("schema"), "migrate", "refuse schema"),
    ] {
        let answer = host.try_load("hostile", component).await;
        assert_eq!(answer.status, 422, "{what}: {}", answer.text);
        assert_eq!(answer.body["step"], step, "{what}: {}", answer.text);
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.contains(expected), "{what}: {message}");
        assert_eq!(host.report("hostile").await["digest"], before, "{what}");
    }
    let answer = host.try_load("another-name", relabelled(&hostile("normal"), "x")).await;
    assert_eq!((answer.status, answer.body["step"].as_str()), (422, Some("manifest")), "{}", answer.text);
    let authorization = format!("Bearer {}", host.key);
    let headers = [("authorization", authorization.as_str()), ("x-content-sha256", "00")];
    let answer =
        roundhouse_tests::http(&host.api, "PUT", "/v1/plugins/hostile", &headers, hostile("normal")).await.unwrap();
    assert_eq!((answer.status, answer.body["step"].as_str()), (422, Some("digest")), "{}", answer.text);
    // A truncated upload is refused without further inspection.
    let half = hostile("normal")[..1000].to_vec();
    let answer = roundhouse_tests::http(&host.api, "PUT", "/v1/plugins/hostile", &headers, half).await.unwrap();
    assert_eq!((answer.status, answer.body["step"].as_str()), (422, Some("digest")), "{}", answer.text);
    assert_eq!(ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await, Ok(json!({ "count": 2 })));
}

#[tokio::test]
async fn configured_grants_allow_rooms_and_audiences() {
    let config = "auth.jwt.secret = \"s\"\n[plugins.hostile.grants]\nrooms = [\"ticket:*\"]\naudiences = [\"all\"]";
    let host = TestHost::start_with(config, &[]);
    host.load("hostile", hostile("needs")).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    ben.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    ana.emit_with_ack("hostile:do", doing("elsewhere")).await.unwrap();
    ben.expect_event("hostile:noise").await;
    ana.emit_with_ack("hostile:do", doing("everybody")).await.unwrap();
    ben.expect_event("hostile:noise").await;
    ana.expect_event("hostile:noise").await;
}

#[tokio::test]
async fn disabled_plugin_is_not_loaded() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nplugins.ticket-collision.enabled = false", &[]);
    let mut ana = host.client("ana").await;
    assert_eq!(ana.emit_refused("ticket:view", json!({ "ticketId": "t1" })).await, "unknown_event");
    let answer = host.try_load("ticket-collision", ticket_collision("0.1.1")).await;
    assert_eq!((answer.status, answer.body["step"].as_str()), (422, Some("grants")), "{}", answer.text);
}

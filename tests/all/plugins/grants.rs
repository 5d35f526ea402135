//! Grants: what a build may ask for, what it is given, and what it made use of.

use std::fs;

use roundhouse_tests::guests::{hostile, table};
use roundhouse_tests::{TestClient, TestHost, eventually};
use serde_json::{Value, json};
use table::{ManifestSpec, NeedsSpec, ScopeSpec};

const SECRET: &str = "auth.jwt.secret = \"s\"\n";

/// The needs of a build: rooms, audiences, actions.
type Asked<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str]);

const LITTLE: Asked<'_> = (&["hall"], &[], &[]);
const MUCH: Asked<'_> = (&["hall", "hall:*"], &["user", "all"], &["save", "disconnect"]);

/// A build of the feature `desk`, which acts as its events say.
fn desk(version: &str, (rooms, audiences, actions): Asked<'_>) -> Vec<u8> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    table(&ManifestSpec {
        name: "desk".to_owned(),
        version: version.to_owned(),
        state_version: 1,
        scopes: vec![ScopeSpec {
            template: "desk:{id}".to_owned(),
            idle_ms: 60_000,
            clients: vec!["desk:do".to_owned()],
            ..ScopeSpec::default()
        }],
        emits: vec!["said".to_owned()],
        needs: NeedsSpec { rooms: names(rooms), audiences: names(audiences), actions: names(actions) },
        ..ManifestSpec::default()
    })
}

fn granting(grants: &str) -> String {
    format!("{SECRET}[plugins.desk]\n{grants}\n")
}

/// A host that grants `desk` this, and runs version 1.0.0 of it.
async fn host_with(grants: &str, asked: Asked<'_>) -> TestHost {
    let host = TestHost::start_with(&granting(grants), &[]);
    host.load("desk", desk("1.0.0", asked)).await;
    host
}

/// Starts the host again, with another configuration.
fn restart_with(host: &mut TestHost, config: &str) {
    host.kill();
    fs::write(host.dir().join("roundhouse.toml"), config).unwrap();
    host.restart();
}

/// The line for the configuration in a refusal.
fn line_of(refusal: &str) -> &str {
    refusal.split('`').nth(1).unwrap_or_else(|| panic!("there is no line in {refusal}"))
}

async fn grants_of(host: &TestHost, query: &str) -> Value {
    host.get(&format!("/v1/plugins/desk/grants{query}")).await
}

fn said(to: Value) -> Value {
    json!({ "emit": { "to": [to], "event": "said", "args": "[]" } })
}

async fn order(client: &mut TestClient, effects: &[Value]) -> Result<Value, Value> {
    client.emit_with_ack("desk:do", json!({ "id": "a", "effects": effects })).await
}

#[tokio::test]
async fn load_that_asks_for_more_is_refused() {
    let mut host = host_with("grants = { rooms = [\"hall\"] }", LITTLE).await;
    let refused = host.try_load("desk", desk("2.0.0", MUCH)).await;
    assert_eq!((refused.status, &refused.body["step"]), (422, &json!("grants")), "{}", refused.text);
    let missing = json!({ "rooms": ["hall:*"], "audiences": ["user", "all"], "actions": ["save", "disconnect"] });
    assert_eq!(refused.body["missing"], missing);
    let message = refused.body["message"].as_str().unwrap();
    for part in [
        "desk 2.0.0 asks for more than it is granted: the room hall:*, the audience user, the audience all, the action \
         save, the action disconnect",
        "Granted is the room hall, by plugins.desk.grants",
        "under [plugins.desk]",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let line = line_of(message);
    let wanted = "grants = { rooms = [\"hall\", \"hall:*\"], audiences = [\"user\", \"all\"], actions = [\"save\", \
                  \"disconnect\"] }";
    assert_eq!(line, wanted);
    assert_eq!(host.report("desk").await["version"], "1.0.0", "nothing has changed");

    // The command line says the same, by a load and by an inspection.
    let file = host.dir().join("new.wasm").to_string_lossy().into_owned();
    fs::write(&file, desk("2.0.0", MUCH)).unwrap();
    let (is_done, stderr) = host.plugin(&["load", &file]);
    assert!(!is_done && stderr.contains(message), "{stderr}");
    let inspect = ["plugin", "inspect", "new.wasm", "--config", "roundhouse.toml"];
    let inspected = TestHost::command(host.dir()).args(inspect).output().unwrap();
    assert!(String::from_utf8_lossy(&inspected.stderr).contains(message), "{inspected:?}");

    // With the line the load succeeds, after the restart and not before.
    fs::write(host.dir().join("roundhouse.toml"), granting(line)).unwrap();
    let refused = host.try_load("desk", desk("2.0.0", MUCH)).await;
    assert!(refused.text.contains("roundhouse.toml has changed since the host started"), "{}", refused.text);
    restart_with(&mut host, &granting(line));
    host.load("desk", desk("2.0.0", MUCH)).await;
}

#[tokio::test]
async fn file_that_asks_for_more_is_refused() {
    let host = host_with("grants = { rooms = [\"hall\"] }", LITTLE).await;
    fs::write(host.dir().join("plugins.d/desk.wasm"), desk("2.0.0", MUCH)).unwrap();
    let line = "grants = { rooms = [\"hall\", \"hall:*\"], audiences = [\"user\", \"all\"], actions = [\"save\", \\\"";
    let refused = eventually("it is refused", async || {
        let log = host.log();
        log.lines().find(|line| line.contains("was refused")).map(str::to_owned)
    });
    let refused = refused.await;
    assert!(refused.contains("asks for more than it is granted: the room hall:*"), "{refused}");
    assert!(refused.replace("\\\"", "\"").contains(line.trim_end_matches("\\\"")), "{refused}");
    assert_eq!(host.report("desk").await["version"], "1.0.0");
}

#[tokio::test]
async fn start_without_needed_grants_names_them() {
    let mut host = host_with(
        "grants = { rooms = [\"*\"], audiences = [\"user\", \"all\"], actions = [\"save\", \"disconnect\"] }",
        MUCH,
    )
    .await;
    restart_with(&mut host, &granting("grants = { rooms = [\"hall\"], audiences = [\"user\", \"all\"] }"));
    let report = host.report("desk").await;
    assert_eq!(report["state"], "failed", "{report}");
    let message = report["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("asks for more than it is granted: the room hall:*, the action save"), "{message}");
    let grants = grants_of(&host, "").await;
    assert_eq!(grants["missing"], json!({ "rooms": ["hall:*"], "audiences": [], "actions": ["save", "disconnect"] }));
    assert_eq!(
        (&grants["state"], &grants["events"], &grants["used"]["rooms"]),
        (&json!("failed"), &json!(0), &json!([]))
    );
    let (is_done, shown) = host.plugin(&["grants", "desk"]);
    assert!(is_done && shown.contains("does not run: --suggest prints"), "{shown}");
    assert!(shown.lines().any(|line| line.starts_with("room hall:*") && line.contains(" yes    no ")), "{shown}");
    let (_, suggestion) = host.plugin(&["grants", "desk", "--suggest"]);
    assert!(suggestion.contains(line_of(message)), "{suggestion}");
    restart_with(&mut host, &format!("{SECRET}{suggestion}"));
    assert_eq!(host.report("desk").await["state"], "running");
    assert_eq!(grants_of(&host, "").await.get("missing"), None);
}

#[tokio::test]
async fn start_falls_back_to_a_granted_build() {
    let all = "grants = { rooms = [\"*\"], audiences = [\"user\", \"all\"], actions = [\"save\", \"disconnect\"] }";
    let mut host = host_with(all, LITTLE).await;
    host.load("desk", desk("2.0.0", MUCH)).await;
    restart_with(&mut host, &granting("grants = { rooms = [\"hall\"] }"));
    let report = host.report("desk").await;
    assert_eq!((&report["version"], &report["state"]), (&json!("1.0.0"), &json!("running")), "{report}");
    assert!(report["errors"][0]["message"].as_str().unwrap().contains("desk 2.0.0 asks for more"), "{report}");
}

#[tokio::test]
async fn suggestion_has_what_committed_events_needed() {
    let given = "grants = { rooms = [\"*\"], audiences = [\"user\", \"roles\", \"all\"], actions = [\"save\", \"disconnect\"] }";
    let mut host = host_with(given, MUCH).await;
    let (is_done, suggestion) = host.plugin(&["grants", "desk", "--suggest"]);
    assert!(is_done && suggestion.starts_with('#') && suggestion.contains("nothing to suggest yet"), "{suggestion}");

    let mut ana = host.client("ana").await;
    let save = json!({ "save": { "tag": "t", "collection": "c", "key": null, "document": "d" } });
    order(&mut ana, &[said(json!({ "room": "hall:5" })), said(json!({ "room": "desk:b" }))]).await.unwrap();
    order(&mut ana, &[said(json!({ "user": "ben" })), save]).await.unwrap();
    // An outcome that breaks a rule is not committed, so that nothing of it counts.
    order(&mut ana, &[said(json!("all")), said(json!({ "connection": "none" }))]).await.unwrap_err();
    let grants = eventually("the document's outcome is counted", async || {
        let grants = grants_of(&host, "").await;
        (grants["events"] == 3).then_some(grants)
    });
    let grants = grants.await;
    let used = json!({ "rooms": ["hall:*"], "audiences": ["user"], "actions": ["save"] });
    assert_eq!(grants["used"], used, "{grants}");
    let unused = json!({ "rooms": ["*", "hall"], "audiences": ["roles", "all"], "actions": ["disconnect"] });
    assert_eq!(grants["unused"], unused, "{grants}");
    assert_eq!(grants["configured"], true);
    let uses = grants["lastUses"].as_array().unwrap();
    assert!(uses.iter().all(|used| used["atMs"].as_u64() >= grants["sinceMs"].as_u64()), "{grants}");

    let (_, shown) = host.plugin(&["grants", "desk"]);
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{shown}"));
    assert!(line("room hall:*").contains("within the last") && line("audience all").contains("not used"), "{shown}");
    assert!(line("audience roles").contains("nothing asks for it"), "{shown}");
    let (_, suggestion) = host.plugin(&["grants", "desk", "--suggest"]);
    let least = "[plugins.desk]\ngrants = { rooms = [\"hall:*\"], audiences = [\"user\"], actions = [\"save\"] }\n";
    assert!(suggestion.contains(least), "{suggestion}");
    for comment in ["few events", "does not start with these", "#   the action disconnect", "the room *, wider than"] {
        assert!(suggestion.contains(comment), "{suggestion}");
    }
    // A build that asks for no more runs with the suggestion.
    restart_with(&mut host, &format!("{SECRET}{suggestion}"));
    host.load("desk", desk("2.0.0", (&["hall:*"], &["user"], &["save"]))).await;
    assert_eq!(grants_of(&host, "").await["given"], used);
}

#[tokio::test]
async fn last_events_alone_can_be_counted() {
    let host = host_with("grants = { rooms = [\"hall\"] }", LITTLE).await;
    let mut ana = host.client("ana").await;
    order(&mut ana, &[said(json!({ "room": "hall" }))]).await.unwrap();
    for _ in 0..150 {
        order(&mut ana, &[]).await.unwrap();
    }
    let [all, some, none] =
        [grants_of(&host, "").await, grants_of(&host, "?last=100").await, grants_of(&host, "?last=10").await];
    assert_eq!((&all["events"], &all["used"]["rooms"]), (&json!(151), &json!(["hall"])));
    assert_eq!(all["lastUses"][0]["eventsAgo"], 150);
    assert_eq!((&some["events"], &some["used"]["rooms"]), (&json!(100), &json!(["hall"])), "in doubt it is used");
    assert_eq!((&none["events"], &none["used"]["rooms"]), (&json!(10), &json!([])));
    let (_, suggestion) = host.plugin(&["grants", "desk", "--suggest", "--last", "10"]);
    assert!(suggestion.contains("the last 10 of 151 events") && suggestion.contains("grants = {}"), "{suggestion}");
}

#[tokio::test]
async fn given_grants_beyond_the_manifest_are_void() {
    let host = host_with("grants = { rooms = [\"*\"], audiences = [\"all\"], actions = [\"save\"] }", LITTLE).await;
    let mut ana = host.client("ana").await;
    order(&mut ana, &[said(json!({ "room": "hall" }))]).await.unwrap();
    for effect in [said(json!({ "room": "lobby" })), said(json!("all"))] {
        order(&mut ana, &[effect]).await.unwrap_err();
        let report = host.report("desk").await;
        let message = report["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("which its manifest does not ask for"), "{message}");
    }
}

#[tokio::test]
async fn connect_notifications_count_as_use() {
    let host = TestHost::start_with(&format!("{SECRET}plugins.hostile.grants.actions = [\"connect\"]\n"), &[]);
    host.load("hostile", hostile("greets")).await;
    let used = async || host.get("/v1/plugins/hostile/grants").await["used"]["actions"].take();
    assert_eq!(used().await, json!([]));
    let _ana = host.client("ana").await;
    eventually("its use is noted", async || (used().await == json!(["connect"])).then_some(())).await;
    let (_, suggestion) = host.plugin(&["grants", "hostile", "--suggest"]);
    assert!(suggestion.contains("grants = { actions = [\"connect\"] }"), "{suggestion}");
}

#[tokio::test]
async fn grants_of_absent_plugins_are_refused() {
    let host = host_with("grants = { rooms = [\"hall\"] }", LITTLE).await;
    let bundled = host.get("/v1/plugins/campaign-progress/grants").await;
    assert_eq!((&bundled["configured"], &bundled["asked"]), (&json!(false), &bundled["given"]), "{bundled}");
    for (path, status, message) in [
        ("/v1/plugins/nothing/grants", 404, "there is no plugin nothing"),
        ("/v1/plugins/desk/grants?last=0", 400, "must be a number of events"),
        ("/v1/plugins/desk/grants?since=1", 400, "there is last"),
    ] {
        let answer = host.call("GET", path, "").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert!(answer.text.contains(message), "{path}: {}", answer.text);
    }
    assert_eq!(host.call("DELETE", "/v1/plugins/desk", "").await.status, 200);
    let answer = host.call("GET", "/v1/plugins/desk/grants", "").await;
    assert!(answer.status == 404 && answer.text.contains("the plugin desk is unloaded"), "{}", answer.text);
    let (is_done, stderr) = host.plugin(&["grants", "desk", "--suggest"]);
    assert!(!is_done && stderr.contains("the plugin desk is unloaded"), "{stderr}");
}

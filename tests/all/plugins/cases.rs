//! Case files: the events on which a plugin failed, kept, written to disk and replayed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use roundhouse_tests::guests::{bundled, hostile, relabelled};
use roundhouse_tests::{TestHost, eventually};
use serde_json::{Value, json};

use super::FAULTS;

/// The time in which a recording has its events.
const RECORDED_WITHIN: Duration = Duration::from_secs(90);

async fn cases(host: &TestHost) -> Vec<Value> {
    host.get("/v1/plugins/hostile/cases").await["cases"].as_array().unwrap().clone()
}

/// Runs `roundhouse`. Returns whether it went well, with its standard output and error.
fn run(host: &TestHost, args: &[&str]) -> (bool, String, String) {
    let output = TestHost::command(host.dir()).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn write_cases(host: &TestHost, dir: &Path) -> String {
    let args = ["plugin", "cases", "hostile", "--out", dir.to_str().unwrap(), "--api", &host.api, "--key", &host.key];
    let (is_good, table, error) = run(host, &args);
    assert!(is_good, "{error}");
    table
}

#[tokio::test]
async fn failing_event_becomes_a_case_file() {
    let host = TestHost::start();
    host.load("hostile", hostile("traps")).await;
    let mut ana = host.client("ana").await;
    for _ in 0..2 {
        let refused = ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.expect_err("it always fails");
        assert_eq!(refused["code"], "internal");
    }
    let kept = cases(&host).await;
    assert_eq!((kept.len(), &kept[0]["count"]), (1, &json!(2)), "{kept:?}");
    assert_eq!((&kept[0]["event"], &kept[0]["scope"]), (&json!("hostile:count"), &json!("hostile:a")));
    assert!(kept[0]["fault"].as_str().unwrap().contains("this build always fails"), "{kept:?}");
    let message = &kept[0]["case"]["event"]["message"];
    assert_eq!(
        (&message["origin"]["client"]["userId"], &message["payload"]["args"][0]["id"]),
        (&json!("ana"), &json!("a"))
    );
    let dir = host.dir().join("cases");
    let table = write_cases(&host, &dir);
    assert!(table.contains("hostile:count") && table.contains("this build always fails"), "{table}");
    let [broken, mended] = ["traps", "normal"].map(|build| {
        let file = dir.join(build).with_extension("wasm");
        fs::write(&file, hostile(build)).unwrap();
        file
    });
    let case = dir.join("hostile-1.case");
    let replay = |build: &Path| run(&host, &["replay", case.to_str().unwrap(), "--plugin", build.to_str().unwrap()]);
    let (is_good, said, error) = replay(&broken);
    assert!(!is_good && said.matches("this build always fails").count() == 2, "{said}");
    assert!(error.contains("fails on this event"), "{error}");
    let (is_good, said, error) = replay(&mended);
    assert!(is_good, "{error}");
    for words in ["now it handled it", "in the scope's room", r#"replies [{"count":1}]"#, r#""count":1,"#] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn each_fault_is_the_same_in_its_replay() {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    for how in FAULTS {
        let mut mal = host.client(&format!("mal-{how}")).await;
        let told = json!({ "id": "a", "how": how, "with": null });
        mal.emit_with_ack("hostile:do", told).await.expect_err(how);
        for _ in 0..2 {
            ana.emit_with_ack("hostile:told", json!({ "id": "a" })).await.unwrap();
        }
    }
    let dir = host.dir().join("cases");
    write_cases(&host, &dir);
    let build = dir.join("hostile.wasm");
    fs::write(&build, hostile("normal")).unwrap();
    let kept = cases(&host).await;
    // Some break the same rule.
    let n_faults: u64 = kept.iter().map(|case| case["count"].as_u64().unwrap()).sum();
    assert_eq!(n_faults as usize, FAULTS.len(), "{kept:?}");
    assert!(kept.len() >= 25, "{}", kept.len());
    for case in kept {
        let (id, fault) = (case["id"].as_u64().unwrap(), case["fault"].as_str().unwrap());
        let file = dir.join(format!("hostile-{id}.case"));
        let (_, said, _) = run(&host, &["replay", file.to_str().unwrap(), "--plugin", build.to_str().unwrap()]);
        assert_eq!(said.matches(fault).count(), 2, "{}: {said}", case["case"]["event"]);
        assert_eq!(case["case"]["state"]["bytes"]["text"].as_str().unwrap().matches(r#""count":1"#).count(), 1);
    }
}

#[tokio::test]
async fn redacted_fields_are_in_no_case_file() {
    let config = "auth.jwt.secret = \"s\"\nplugins.hostile.cases.redact = [\"with\"]\n";
    let host = TestHost::start_with(config, &[]);
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    let told = json!({ "id": "a", "how": "panic", "with": "a secret" });
    ana.emit_with_ack("hostile:do", told).await.expect_err("it fails");
    let kept = cases(&host).await;
    assert_eq!(kept[0]["case"]["redacted"], json!(["with"]));
    assert!(!kept[0].to_string().contains("a secret"), "{kept:?}");
}

#[tokio::test]
async fn trap_of_a_used_instance_is_retried() {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    // It panics on an instance that has handled an event before.
    let told = json!({ "id": "a", "how": "tired" });
    ana.emit_with_ack("hostile:do", told).await.expect("a fresh instance handles it");
    let count = ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    assert_eq!(count["count"], 3, "nothing was lost, and nothing done twice");
    assert_eq!((host.report("hostile").await["traps"].clone(), cases(&host).await.len()), (json!(1), 0));
}

/// Records a plugin while `traffic` runs, into a file. Returns the file's path.
async fn record(host: &TestHost, plugin: &str, events: usize, traffic: impl AsyncFnOnce()) -> String {
    let wanted = json!({ "events": events, "seconds": 60 }).to_string();
    let path = format!("/v1/plugins/{plugin}/record");
    let recording = host.call_within(RECORDED_WITHIN, "POST", &path, wanted);
    let begun = format!("asked to record a plugin plugin=\"{plugin}\"");
    let driving = async {
        eventually("it records", async || host.log().contains(&begun).then_some(())).await;
        traffic().await;
    };
    let (recorded, ()) = tokio::join!(recording, driving);
    let recorded = recorded.unwrap();
    let cases = recorded.body["cases"].as_array().unwrap_or_else(|| panic!("{}", recorded.text)).clone();
    assert_eq!(cases.len(), events, "{}", recorded.text);
    let file = host.dir().join(format!("{plugin}.cases"));
    fs::write(&file, cases.iter().map(|case| format!("{case}\n")).collect::<String>()).unwrap();
    file.to_str().unwrap().to_owned()
}

fn replay(host: &TestHost, recording: &str, component: &[u8]) -> (bool, String) {
    let file = host.dir().join("candidate.wasm");
    fs::write(&file, component).unwrap();
    let (is_good, said, error) = run(host, &["replay", recording, "--plugin", file.to_str().unwrap()]);
    assert!(said.contains(" events "), "{error}");
    (is_good, said)
}

#[tokio::test]
async fn recording_shows_what_another_build_does() {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    let recording = record(&host, "hostile", 20, async || {
        for n in 0..20 {
            let event = if n % 4 == 0 { "hostile:told" } else { "hostile:count" };
            ana.emit_with_ack(event, json!({ "id": "a" })).await.unwrap();
        }
    })
    .await;
    let (is_same, said) = replay(&host, &recording, &relabelled(&hostile("normal"), "the same"));
    assert!(is_same && said.contains("of 20 events 0 differ"), "{said}");
    let (is_same, said) = replay(&host, &recording, &hostile("takes"));
    assert!(!is_same && said.contains("of 20 events 5 differ"), "{said}");
    assert!(said.contains("       5  hostile:told: it also emits hostile:noise (first in line 1)"), "{said}");
    let (is_same, said) = replay(&host, &recording, &hostile("traps"));
    assert!(!is_same && said.contains("15  hostile:count: handled it, and now failed"), "{said}");
    let wanted = json!({ "events": 0, "seconds": 1 });
    assert_eq!(host.post("/v1/plugins/hostile/record", &wanted).await.status, 400);
}

#[tokio::test]
async fn features_replay_what_they_did() {
    let host = TestHost::start();
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    let ticket = json!({ "ticketId": "t1" });
    let recording = record(&host, "ticket-collision", 8, async || {
        for event in ["ticket:view", "ticket:typing", "ticket:view", "ticket:leave"] {
            ana.emit_with_ack(event, ticket.clone()).await.unwrap();
            ben.emit_with_ack(event, ticket.clone()).await.unwrap();
        }
    })
    .await;
    let (is_same, said) = replay(&host, &recording, &bundled("ticket_collision").unwrap());
    assert!(is_same && said.contains("of 8 events 0 differ"), "{said}");
    let timeline = json!({ "entityType": "client", "entityId": "c1" });
    let recording = record(&host, "timeline", 4, async || {
        for event in ["timeline:subscribe", "timeline:unsubscribe"] {
            ana.emit_with_ack(event, timeline.clone()).await.unwrap();
            ben.emit_with_ack(event, timeline.clone()).await.unwrap();
        }
    })
    .await;
    let (is_same, said) = replay(&host, &recording, &bundled("timeline").unwrap());
    assert!(is_same && said.contains("of 4 events 0 differ"), "{said}");
    let recording = record(&host, "crm-events", 3, async || {
        for event in ["subscribe:contact", "typing:start", "typing:stop"] {
            let data = json!({ "contactId": "c1", "whatsappAccountId": "w1" });
            ana.emit_with_ack(event, data).await.unwrap();
        }
    })
    .await;
    let (is_same, said) = replay(&host, &recording, &bundled("crm_events").unwrap());
    assert!(is_same && said.contains("of 3 events 0 differ"), "{said}");
}

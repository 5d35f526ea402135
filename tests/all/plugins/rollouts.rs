//! Candidates: a build is tried on the past, in the shadow of the running build, or as a canary on a share of the scopes.

use std::fs;

use roundhouse_tests::guests::{hostile, relabelled};
use roundhouse_tests::{Answer, TestClient, TestHost, eventually, metric};
use serde_json::{Value, json};

use super::installed::count;

/// Sends 20 events to each of two scopes, every fourth of which is `hostile:told`.
async fn traffic(client: &mut TestClient) {
    for n in 0..40 {
        let event = if n % 4 == 0 { "hostile:told" } else { "hostile:count" };
        client.emit_with_ack(event, json!({ "id": if n < 20 { "a" } else { "c" } })).await.unwrap();
    }
}

/// Writes a component into the host's folder. Returns its path.
fn file(host: &TestHost, component: &[u8]) -> String {
    let path = host.dir().join("candidate.wasm");
    fs::write(&path, component).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn roll_out(host: &TestHost, how: &str, component: Vec<u8>) -> Answer {
    host.call("POST", &format!("/v1/{how}"), component).await
}

async fn begin(host: &TestHost, how: &str, component: Vec<u8>) -> Value {
    let begun = roll_out(host, how, component).await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    begun.body
}

/// Waits until `wanted` is true of the report on the rollout of the guest. Returns the report.
async fn wait_for_rollout(host: &TestHost, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually("the report on the rollout", async || {
        let report = host.get("/v1/plugins/hostile/rollout").await;
        wanted(&report).then_some(report)
    })
    .await
}

#[tokio::test]
async fn dry_run_tells_differences_on_the_past() {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    traffic(&mut ana).await;
    let dry_run = |component: Vec<u8>| host.plugin(&["load", &file(&host, &component), "--dry-run"]);
    let (ok, said) = dry_run(relabelled(&hostile("normal"), "the same"));
    // Each scope has told itself of a join, too.
    assert!(ok && said.starts_with("of 40 events 0 differ\n"), "{said}");
    let (ok, said) = dry_run(hostile("noisy"));
    assert!(ok && said.starts_with("of 40 events 10 differ\n"), "{said}");
    assert!(said.contains("      10  hostile:told: it also emits hostile:noise (first in hostile:a)"), "{said}");
    let (ok, said) = dry_run(hostile("traps"));
    assert!(!ok && said.contains("would be refused: it failed on 40 of 40 events"), "{said}");
    let (ok, said) = dry_run(hostile("moved"));
    assert!(!ok && said.contains("it has no template for the scope"), "{said}");
    let report = host.report("hostile").await;
    assert_eq!((&report["generation"], &report["traps"]), (&json!(1), &json!(0)), "nothing was applied: {report}");
    assert_eq!(count(&host, "a").await, Ok(json!(16)));
}

#[tokio::test]
async fn past_is_kept_over_a_swap_and_not_without_memory() {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    traffic(&mut ana).await;
    host.load("hostile", relabelled(&hostile("normal"), "the same")).await;
    let answer = host.call("POST", "/v1/trials", hostile("noisy")).await;
    assert_eq!(answer.body["comparison"]["different"], 10, "{}", answer.text);
    assert_eq!(answer.body["generation"], 3, "{}", answer.text);
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nplugins.recent_bytes = 0\n", &[]);
    host.load("hostile", hostile("normal")).await;
    traffic(&mut host.client("ana").await).await;
    let answer = host.call("POST", "/v1/trials", hostile("noisy")).await;
    assert_eq!(answer.body["comparison"]["events"], 0, "{}", answer.text);
}

#[tokio::test]
async fn shadow_compares_live_events_and_commits_nothing() {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    let begun = begin(&host, "shadows?seconds=600", hostile("noisy")).await;
    assert_eq!((&begun["kind"], &begun["candidate"]["generation"]), (&json!("shadow"), &json!(2)), "{begun}");
    traffic(&mut ana).await;
    let report = wait_for_rollout(&host, |report| report["comparison"]["events"].as_u64().unwrap() >= 40).await;
    let comparison = &report["comparison"];
    assert_eq!((&comparison["different"], &comparison["skipped"]), (&json!(10), &json!(0)), "{report}");
    assert_eq!(comparison["differences"][0]["difference"], "it also emits hostile:noise");
    assert!(comparison["candidateMeanUs"].as_f64().unwrap() > 0.0, "{report}");
    let frames = host.received([&mut ana]).await;
    assert!(frames[0].iter().all(|frame| frame["event"] != "hostile:noise"), "{frames:?}");
    assert_eq!(metric(&host.api, "plugin_different_events_total").await, 10);
    // A second candidate has to wait, and the running build is none.
    let refused = roll_out(&host, "canaries?percent=5", hostile("slow")).await;
    assert_eq!((refused.status, &refused.body["step"]), (422, &json!("trial")), "{}", refused.text);
    let (ok, said) = host.plugin(&["rollback", "hostile"]);
    assert!(ok && said.contains("\"generation\": 1"), "{said}");
    let report = host.get("/v1/plugins/hostile/rollout").await;
    assert_eq!(report["ended"], "rolled back by an operator");
    let refused = roll_out(&host, "canaries?percent=5", hostile("normal")).await;
    assert!(refused.status == 422 && refused.text.contains("runs already"), "{}", refused.text);
    for bad in ["shadows?seconds=0", "canaries?percent=0", "canaries?seconds=5", "shadows?loseWrites=true"] {
        assert_eq!(roll_out(&host, bad, hostile("noisy")).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn shadow_promotes_an_equal_build_alone() {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    let same = relabelled(&hostile("normal"), "the same");
    for (component, how, generation) in
        [(same, "promoted", 2), (hostile("noisy"), "not promoted: 10 of 40 events differ", 2)]
    {
        begin(&host, "shadows?seconds=2&promoteIfEqual=true", component).await;
        traffic(&mut ana).await;
        let report = wait_for_rollout(&host, |report| report["ended"].is_string()).await;
        assert_eq!(report["ended"], how, "{report}");
        assert_eq!(host.report("hostile").await["generation"], generation);
    }
    let path = file(&host, &hostile("slow"));
    let (ok, said) = host.plugin(&["load", &path, "--shadow", "1s", "--promote-if-equal"]);
    assert!(!ok && said.contains("the component is not promoted"), "{said}");
    let (ok, said) = host.plugin(&["rollout", "hostile"]);
    assert!(ok && said.contains("in the shadow, ended: not promoted: no event came\nof 0 events 0 differ\n"), "{said}");
    let (ok, said) = host.plugin(&["load", &path, "--shadow", "1s"]);
    assert!(ok && said.contains("ended: its time is over"), "{said}");
}

#[tokio::test]
async fn canary_handles_its_share_and_failing_scopes_go_back_alone() {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    assert_eq!(count(&host, "b1").await, Ok(json!(1)));
    // The past has an event on which it fails, so it is not even begun.
    let refused = roll_out(&host, "canaries?percent=100", hostile("fails-b")).await;
    assert!(refused.status == 422 && refused.text.contains("it failed on 1 of 2 events"), "{}", refused.text);
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    begin(&host, "canaries?percent=100", hostile("fails-b")).await;
    let mut ana = host.client("ana").await;
    for n in 1..4 {
        for id in ["a", "b1"] {
            let counted = ana.emit_with_ack("hostile:count", json!({ "id": id })).await;
            assert_eq!(counted.unwrap()["count"], n, "nobody notices");
        }
    }
    let report = wait_for_rollout(&host, |report| report["comparison"]["events"] == 3).await;
    assert_eq!((&report["pinnedScopes"], &report["pinned"][0]["scope"]), (&json!(1), &json!("hostile:b1")), "{report}");
    assert!(report["pinned"][0]["reason"].as_str().unwrap().contains("scopes that begin with b"), "{report}");
    let errors = host.report("hostile").await["errors"].to_string();
    assert!(errors.contains("hostile:b1 stays on generation 1, because it trapped"), "{errors}");
    assert_eq!(metric(&host.api, "plugin_pinned_scopes_total").await, 1);
    let cases = host.get("/v1/plugins/hostile/cases").await;
    assert_eq!((cases["cases"].as_array().unwrap().len(), &cases["cases"][0]["generation"]), (1, &json!(2)), "{cases}");
    let (ok, said) = host.plugin(&["rollout", "hostile"]);
    assert!(ok && said.contains("a canary on 100 % of the scopes, under way") && said.contains("hostile:b1"), "{said}");
    let (ok, said) = host.plugin(&["promote", "hostile"]);
    assert!(ok && said.contains("\"generation\": 2"), "{said}");
    assert_eq!(host.get("/v1/plugins/hostile/rollout").await["ended"], "promoted");
    assert_eq!(count(&host, "a").await, Ok(json!(4)));
    let (ok, said) = host.plugin(&["promote", "hostile"]);
    assert!(!ok && said.contains("nothing to promote"), "{said}");
}

#[tokio::test]
async fn canary_on_a_share_changes_that_share() {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    begin(&host, "canaries?percent=20", hostile("noisy")).await;
    let mut ana = host.client("ana").await;
    let mut noisy = 0;
    for n in 0..100 {
        let id = json!({ "id": format!("scope{n}") });
        ana.emit_with_ack("hostile:count", id.clone()).await.unwrap();
        for _ in 0..2 {
            ana.emit_with_ack("hostile:told", id.clone()).await.unwrap();
        }
        let frames = ana.drain().await;
        let heard = frames.iter().filter(|frame| frame["event"] == "hostile:noise").count();
        assert!(heard == 0 || heard == 2, "a scope stays with its build");
        noisy += usize::from(heard == 2);
    }
    assert!((8..=35).contains(&noisy), "{noisy} of 100 scopes at 20 %");
}

#[tokio::test]
async fn canary_that_fails_often_is_rolled_back() {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    begin(&host, "canaries?percent=100", hostile("fails-b")).await;
    // One client alone does not end it.
    for n in 0..6 {
        assert_eq!(count(&host, &format!("b-of-ana-{n}")).await, Ok(json!(1)));
    }
    let report = wait_for_rollout(&host, |report| report["pinnedScopes"] == 6).await;
    assert!(report.get("ended").is_none(), "{report}");
    for n in 0..3 {
        let mut client = host.client(&format!("user{n}")).await;
        client.emit_with_ack("hostile:count", json!({ "id": format!("b{n}") })).await.unwrap();
    }
    let report = wait_for_rollout(&host, |report| report["ended"].is_string()).await;
    let ended = report["ended"].as_str().unwrap();
    assert!(ended.starts_with("rolled back: it failed on 5 scopes within 1m, last on hostile:b2"), "{ended}");
    assert_eq!(metric(&host.api, "plugin_rollbacks_total").await, 1);
    assert!(host.log().contains("a canary was rolled back"));
    assert_eq!(host.report("hostile").await["generation"], 1);
    let (ok, said) = host.plugin(&["rollback", "hostile"]);
    assert!(!ok && said.contains("has just been rolled back by itself"), "{said}");
    let (ok, said) = host.plugin(&["rollback", "hostile"]);
    assert!(!ok && said.contains("there is no generation of hostile before this one"), "{said}");
}

#[tokio::test]
async fn bounds_of_canaries_are_settings() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nplugins.canary_scopes = 1\n", &[]);
    host.load("hostile", hostile("normal")).await;
    begin(&host, "canaries?percent=100", hostile("fails-b")).await;
    assert_eq!(count(&host, "b").await, Ok(json!(1)));
    let report = wait_for_rollout(&host, |report| report["ended"].is_string()).await;
    assert!(report["ended"].as_str().unwrap().contains("failed on 1 scope within 1m"), "{report}");
}

#[tokio::test]
async fn slow_canary_is_rolled_back() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n", &[]);
    host.load("hostile", hostile("normal")).await;
    begin(&host, "canaries?percent=100", hostile("slow")).await;
    let mut ana = host.client("ana").await;
    for _ in 0..210 {
        ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    }
    let report = wait_for_rollout(&host, |report| report["ended"].is_string()).await;
    assert!(report["ended"].as_str().unwrap().starts_with("rolled back: its calls take "), "{report}");
}

#[tokio::test]
async fn canary_of_a_newer_schema_gives_states_back() {
    let mut host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
    let refused = roll_out(&host, "canaries?percent=100", hostile("normal")).await;
    assert!(refused.status == 422 && refused.text.contains("it has other scopes"), "{}", refused.text);
    let refused = roll_out(&host, "canaries?percent=100", hostile("durable-forward")).await;
    assert!(refused.status == 422 && refused.text.contains("migrates_down_to"), "{}", refused.text);
    begin(&host, "canaries?percent=100", hostile("durable-both-ways")).await;
    for n in 2..4 {
        assert_eq!(count(&host, "a").await, Ok(json!(n)));
    }
    // A host that dies under a canary comes back with the running build, and what the canary wrote.
    host.kill();
    host.restart();
    assert_eq!(host.report("hostile").await["generation"], 1, "{}", host.log());
    assert_eq!(count(&host, "a").await, Ok(json!(4)));
    begin(&host, "canaries?percent=100", hostile("durable-both-ways")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(5)));
    let (ok, said) = host.plugin(&["rollback", "hostile"]);
    assert!(ok && !said.contains("lostScopes"), "{said}");
    assert_eq!(count(&host, "a").await, Ok(json!(6)));
    assert_eq!(metric(&host.api, "plugin_lost_states_total").await, 0);
}

#[tokio::test]
async fn rollback_goes_to_the_generation_that_is_chosen() {
    let mut host = TestHost::start();
    for build in ["normal", "noisy", "slow"] {
        host.load("hostile", hostile(build)).await;
    }
    let (ok, said) = host.plugin(&["rollback", "hostile", "--to", "7"]);
    assert!(!ok && said.contains("cannot go back to generation 7: of those before, it has 1, 2"), "{said}");
    let (ok, said) = host.plugin(&["rollback", "hostile", "--to", "1"]);
    assert!(ok && said.contains("\"generation\": 1"), "{said}");
    host.kill();
    host.restart();
    assert_eq!(host.report("hostile").await["generation"], 1);
    assert_eq!(host.load("hostile", hostile("noisy")).await["generation"], 4);
}

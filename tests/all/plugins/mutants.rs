//! Mutants: each feature with one small regression is told from the feature itself, by a trial on the past and in the shadow,
//! within a thousand events; an identical build never is.

use roundhouse_tests::guests::{bundled, relabelled};
use roundhouse_tests::mutants::drive::Traffic;
use roundhouse_tests::mutants::traffic::script;
use roundhouse_tests::mutants::{Mutant, mutants};
use roundhouse_tests::{TestHost, eventually};
use serde_json::Value;

const FEATURES: [&str; 6] =
    ["ticket-collision", "timeline", "ticket-events", "campaign-progress", "chat-confirmation", "crm-events"];

/// The rounds of each script in the past, which has a thousand events at most then.
const ROUNDS: usize = 8;

/// The events that a mutant has time for.
const MOST_EVENTS: u64 = 1000;

fn host() -> TestHost {
    TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n", &[])
}

/// The feature itself, with another digest.
fn same(feature: &str) -> Vec<u8> {
    relabelled(&bundled(&feature.replace('-', "_")).unwrap(), "the same")
}

fn number(report: &Value, field: &str) -> u64 {
    report["comparison"][field].as_u64().unwrap_or_else(|| panic!("{report}"))
}

#[tokio::test]
async fn trial_on_the_past_tells_every_mutant_and_no_identical_build() {
    let host = host();
    for feature in FEATURES {
        let mut traffic = Traffic::new(&host);
        for round in 0..ROUNDS {
            traffic.run(script(feature, round)).await;
        }
        let same = host.call("POST", "/v1/trials", same(feature)).await.body;
        let events = number(&same, "events");
        assert_eq!(number(&same, "different"), 0, "{same}");
        assert!((100..=MOST_EVENTS).contains(&events), "{feature} had {events} events");
    }
    for Mutant { feature, name, component } in mutants() {
        let trial = host.call("POST", "/v1/trials", component).await;
        assert_eq!(trial.status, 200, "{feature} {name}: {}", trial.text);
        assert!(number(&trial.body, "different") > 0, "{feature} {name}: {}", trial.text);
    }
}

/// Tries a build in the shadow while traffic comes. Returns the report when it has compared all events.
async fn shadow(host: &TestHost, feature: &str, component: Vec<u8>, round: usize) -> Value {
    let begun = host.call("POST", "/v1/shadows?seconds=600", component).await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    let calls = |report: &Value| report["calls"].as_u64().unwrap();
    let before = calls(&host.report(feature).await);
    Traffic::new(host).run(script(feature, round)).await;
    let path = format!("/v1/plugins/{feature}/rollout");
    let report = eventually("all events are compared", async || {
        let report = host.get(&path).await;
        let n_handled = calls(&host.report(feature).await) - before;
        (number(&report, "events") + number(&report, "skipped") >= n_handled).then_some(report)
    })
    .await;
    assert_eq!(host.call("POST", &format!("/v1/plugins/{feature}/rollback"), "").await.status, 200);
    report
}

#[tokio::test]
async fn shadow_tells_every_mutant_and_no_identical_build() {
    let host =
        TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\nplugins.recent_bytes = 0\n", &[]);
    let identical = FEATURES.map(|feature| (feature.to_owned(), "the same".to_owned(), same(feature)));
    let mutants = mutants().into_iter().map(|Mutant { feature, name, component }| (feature, name, component));
    let mut n_told = 0;
    for (round, (feature, name, component)) in identical.into_iter().chain(mutants).enumerate() {
        let report = shadow(&host, &feature, component, round).await;
        let (events, different) = (number(&report, "events"), number(&report, "different"));
        assert!((40..=MOST_EVENTS).contains(&events), "{feature} {name}: {report}");
        assert_eq!(different > 0, name != "the same", "{feature} {name}: {report}");
        n_told += usize::from(different > 0);
    }
    assert!(n_told >= 30, "{n_told} mutants");
}

//! Determinism: the same call gives the same outcome on a warm instance, on a fresh one, in whatever order, and natively.

use std::time::Duration;

use roundhouse::plugin::{PluginConfig, replay};
use roundhouse_contract::case::{Case, CaseEnd};
use roundhouse_sdk::simulator::case_end;
use roundhouse_tests::guests::bundled;
use roundhouse_tests::mutants::drive::Traffic;
use roundhouse_tests::mutants::traffic::{Step, script};
use roundhouse_tests::{Random, TestHost, eventually};
use serde_json::{Value, json};

/// The scripts of each feature that are mixed at random into one history.
const SCRIPTS: usize = 6;

/// The calls of each feature that are repeated on a fresh instance.
const FRESH: usize = 20;

const SEED: u64 = 20_261_129;

/// A feature's name, and what it makes of a case file natively.
type Native = (&'static str, fn(&str) -> CaseEnd);

const FEATURES: [Native; 6] = [
    ("ticket-collision", case_end::<ticket_collision::TicketCollision>),
    ("timeline", case_end::<timeline::Timeline>),
    ("ticket-events", case_end::<ticket_events::TicketEvents>),
    ("campaign-progress", case_end::<campaign_progress::CampaignProgress>),
    ("chat-confirmation", case_end::<chat_confirmation::ChatConfirmation>),
    ("crm-events", case_end::<crm_events::CrmEvents>),
];

/// A random history: several scripts, of which a random one goes on at each step.
fn history(feature: &str, random: &mut Random) -> Vec<Step> {
    let mut scripts: Vec<_> = (0..SCRIPTS).map(|round| script(feature, round).into_iter().peekable()).collect();
    let mut steps = Vec::new();
    while !scripts.is_empty() {
        let at = random.below(scripts.len());
        steps.extend(scripts[at].next());
        if scripts[at].peek().is_none() {
            drop(scripts.swap_remove(at));
        }
    }
    steps
}

/// Records what a feature gets in a random history, with what the host's build makes of it.
async fn record(host: &TestHost, feature: &str, steps: Vec<Step>) -> Vec<String> {
    let wanted = json!({ "events": 10_000, "seconds": 12 }).to_string();
    let path = format!("/v1/plugins/{feature}/record");
    let recording = host.call_within(Duration::from_secs(120), "POST", &path, wanted);
    let begun = format!("asked to record a plugin plugin=\"{feature}\"");
    let driving = async {
        eventually("it records", async || host.log().contains(&begun).then_some(())).await;
        Traffic::new(host).run(steps).await;
    };
    let (recorded, ()) = tokio::join!(recording, driving);
    let recorded = recorded.expect("the recording ends");
    recorded.body["cases"]
        .as_array()
        .unwrap_or_else(|| panic!("{}", recorded.text))
        .iter()
        .map(Value::to_string)
        .collect()
}

#[tokio::test]
async fn calls_repeat_warm_fresh_shuffled_and_natively() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n", &[]);
    let mut random = Random::new(SEED);
    let config = PluginConfig {
        is_read_only: true,
        cache_dir: Some(roundhouse_tests::target_dir().join("compiled-for-tests")),
        ..PluginConfig::default()
    };
    let histories = FEATURES.map(|(feature, _)| history(feature, &mut random));
    let recordings = FEATURES.iter().zip(histories).map(|((feature, _), steps)| record(&host, feature, steps));
    let recordings = futures_util::future::join_all(recordings).await;
    for ((feature, native), texts) in FEATURES.into_iter().zip(recordings) {
        assert!(texts.len() >= 40 * SCRIPTS, "{feature}: {} calls", texts.len());
        let component = bundled(&feature.replace('-', "_")).unwrap();
        let cases: Vec<Case> = texts.iter().map(|text| Case::read(text).unwrap()).collect();
        let again = |cases: &[Case]| replay(&component, cases, &config).unwrap().ends;
        for ((case, text), end) in cases.iter().zip(&texts).zip(again(&cases)) {
            assert_eq!(end, case.end, "warm: {text}");
            assert_eq!(native(text), case.end, "natively: {text}");
        }
        let mut shuffled = cases.clone();
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, random.below(at + 1));
        }
        for (case, end) in shuffled.iter().zip(again(&shuffled)) {
            assert_eq!(end, case.end, "in another order: {}", serde_json::to_string(case).unwrap());
        }
        for case in &shuffled[..FRESH] {
            assert_eq!(
                again(std::slice::from_ref(case)).first(),
                Some(&case.end),
                "fresh: {}",
                serde_json::to_string(case).unwrap()
            );
        }
    }
}

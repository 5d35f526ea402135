//! Generated components, most of them invalid: random bytes behind a component's header, and features with a few bits changed. A host refuses
//! each of them with a step and a reason, or runs it, and serves on. (`tests/fuzz` has random components that are valid.)

use std::collections::BTreeMap;

use serde_json::json;

use crate::guests::bundled;
use crate::{Random, TestHost};

/// The magic number, and the version and layer of a component.
const HEADER: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

/// The libraries of features whose bytes are changed.
const FEATURES: [&str; 2] = ["timeline", "ticket_events"];

/// The loads between two looks at whether the host still serves.
const LOOK_AFTER: usize = 20;

/// How many components a host refused at each step, and how many it ran (`loaded`).
pub type Outcomes = BTreeMap<String, usize>;

/// A generated component.
fn forge(random: &mut Random, features: &[Vec<u8>]) -> Vec<u8> {
    if random.below(4) == 0 {
        let n = random.below(200);
        return HEADER.into_iter().chain((0..n).map(|_| random.below(256) as u8)).collect();
    }
    let mut component = random.pick(features).clone();
    for _ in 0..=random.below(3) {
        let at = random.below(component.len());
        component[at] ^= 1 << random.below(8);
    }
    component
}

/// Loads forged components into a host for as long as `goes_on` says, which gets their number so far.
///
/// # Panics
/// If the host answers anything else than that it has loaded or refused a component, or does not serve any more.
pub async fn load_forged(host: &TestHost, seed: u64, goes_on: impl Fn(usize) -> bool) -> Outcomes {
    let mut random = Random::new(seed);
    let features = FEATURES.map(|library| bundled(library).expect("the features are built"));
    let mut ana = host.client("ana").await;
    let mut outcomes = Outcomes::new();
    let mut n = 0;
    while goes_on(n) {
        let component = forge(&mut random, &features);
        let answer = host.call("POST", "/v1/plugins", component).await;
        let step = match answer.status {
            200 => "loaded",
            422 => answer.body["step"].as_str().expect("a refusal has a step"),
            other => panic!("seed {seed}, number {n}: {other} {}", answer.text),
        };
        let has_reason = answer.status == 200 || answer.body["message"].as_str().is_some_and(|why| !why.is_empty());
        assert!(has_reason, "seed {seed}, number {n}: {}", answer.text);
        *outcomes.entry(step.to_owned()).or_default() += 1;
        n += 1;
        if n.is_multiple_of(LOOK_AFTER) {
            let viewed = ana.emit_with_ack("ticket:view", json!({ "ticketId": n.to_string() })).await;
            assert!(viewed.is_ok(), "seed {seed}, number {n}: {viewed:?}");
            ana.drain().await;
        }
    }
    outcomes
}

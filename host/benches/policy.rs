//! What a check of the room policy costs: with one rule, and with a hundred of which the last decides.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::time::Instant;

use prometheus::{IntCounterVec, Opts};
use roundhouse::model::Identity;
use roundhouse::policy::{Action, RoomPolicy, RoomRule, Verdict};

const ROUNDS: usize = 11;
const CHECKS: u32 = 20_000;

fn policy(rules: usize, condition: &str) -> RoomPolicy {
    let rules: Vec<RoomRule> = (0..rules)
        .map(|at| {
            let pattern = if at + 1 == rules { "campaign:{id}".to_owned() } else { format!("room{at}:{{id}}") };
            RoomRule { pattern, allow: Some(condition.to_owned()), ..RoomRule::default() }
        })
        .collect();
    let counter = IntCounterVec::new(Opts::new("decisions", "Decisions"), &["action", "verdict"]);
    RoomPolicy::compile(&rules, counter.expect("a counter"), None).expect("the rules are right")
}

fn main() {
    let claims = r#"{"companyId":"acme","aud":"app","iss":"https://id.example","scope":"openid profile"}"#.to_owned();
    let identity = Identity { roles: vec!["agent".to_owned()], claims, ..Identity::of_user("507f") };
    for (rules, condition) in [
        (1, "true"),
        (1, "'agent' in identity.roles"),
        (1, "id.startsWith(identity.claims.companyId + '-')"),
        (100, "true"),
        (100, "'agent' in identity.roles"),
        (100, "id.startsWith(identity.claims.companyId + '-')"),
    ] {
        let policy = policy(rules, condition);
        let mut times: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let started = Instant::now();
                for _ in 0..CHECKS {
                    let decided =
                        policy.check(black_box(&identity), "campaign:acme-1", Action::Join, "subscribe:campaign");
                    assert_eq!(decided, Verdict::Allowed);
                }
                started.elapsed().as_secs_f64() * 1e6 / f64::from(CHECKS)
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("{rules:>3} rules, {condition}: {:.2} µs a check (median of {ROUNDS} rounds)", times[ROUNDS / 2]);
    }
}

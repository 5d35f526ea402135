//! Manifests that each host accepts or refuses.

use roundhouse_tests::Random;

use table::{ManifestSpec, ScopeSpec};

use super::real::RealHost;
use super::{RICH, manifest, simulated};

/// The number of random manifests that both hosts judge: each costs the real host a compilation.
const N_RANDOM: usize = 12;

/// The number of random manifests that the simulator alone judges.
const N_SIMULATED: usize = 300;

fn scope(template: &str) -> ScopeSpec {
    ScopeSpec { template: template.to_owned(), idle_ms: 1000, ..ScopeSpec::default() }
}

/// A valid manifest with these scopes.
fn with(scopes: &[&str]) -> ManifestSpec {
    let scopes = scopes.iter().map(|template| scope(template)).collect();
    ManifestSpec { name: "table".to_owned(), scopes, emits: Vec::new(), ..manifest(RICH) }
}

fn changed(change: impl FnOnce(&mut ManifestSpec)) -> ManifestSpec {
    let mut manifest = with(&["t:{id}"]);
    change(&mut manifest);
    manifest
}

fn numbered(prefix: &str, n: usize) -> Vec<String> {
    (0..n).map(|n| format!("{prefix}{n}")).collect()
}

/// Each with the rule that it breaks, or nothing. A scope must not share rooms with those of bundled features.
fn table() -> Vec<(ManifestSpec, &'static str)> {
    let nine: String = ('a'..='i').map(|name| format!(":{{{name}}}")).collect();
    vec![
        (with(&["t:{id}", "u:{id}"]), ""),
        (with(&["t:{id}", "t:{id}:log"]), "would share rooms"),
        (with(&["q", "qq:{id}"]), "would share rooms"),
        (with(&["a b:{id}"]), "printable, without whitespace"),
        (with(&["t:{id}:{id}"]), "names a placeholder twice"),
        (with(&["t:{i d}"]), "not letters and digits"),
        (with(&["t:{id"]), "does not end"),
        (with(&["t:{id}}"]), "printable, without whitespace"),
        (with(&["t:{a}{b}"]), "nothing between them"),
        (with(&["{id}"]), "must begin with a literal"),
        (with(&[&format!("t{nine}")]), "more than 8 placeholders"),
        (with(&["user:{id}"]), "a user's own room"),
        (with(&["us"]), "a user's own room"),
        (changed(|m| m.scopes[0].clients = vec!["disconnect".to_owned()]), "is the host's own"),
        (changed(|m| m.scopes[0].clients = vec!["é".repeat(128)]), ""),
        (changed(|m| m.scopes[0].clients = vec!["é".repeat(129)]), "1 to 256 bytes"),
        (changed(|m| m.scopes[0].clients = vec!["t\n".to_owned()]), "without control characters"),
        (changed(|m| m.scopes[0].clients = vec!["t:x".to_owned(); 2]), "routes t:x twice"),
        (changed(|m| m.scopes[0].clients = vec!["connect".to_owned()]), "the origin host alone"),
        (changed(|m| m.scopes[0].connect = true), "without a placeholder"),
        (changed(|m| m.scopes = vec![ScopeSpec { connect: true, ..scope("q") }]), ""),
        (changed(|m| m.scopes[0].queries = vec!["authenticate".to_owned()]), "is the host's own"),
        (changed(|m| m.gathers = vec!["q".to_owned(); 2]), ""),
        (changed(|m| m.emits = vec!["error".to_owned()]), "is the host's own"),
        (changed(|m| m.emits = numbered("e", 256)), ""),
        (changed(|m| m.emits = numbered("e", 257)), "lists 257 emits"),
        (changed(|m| m.scopes[0].services = numbered("t:e", 257)), "lists 257 routes"),
        (changed(|m| m.gathers = numbered("q", 257)), "lists 257 queries"),
        (changed(|m| m.needs.audiences = vec!["everybody".to_owned()]), "no audience"),
        (changed(|m| m.needs.actions = vec!["fly".to_owned()]), "no action"),
        (changed(|m| m.needs.rooms = numbered("r", 256)), ""),
        (changed(|m| m.needs.rooms = numbered("r", 257)), "257 rooms, and may list 256"),
        (changed(|m| m.needs.rooms = vec!["a b*".to_owned()]), "1 to 512 printable characters"),
        (changed(|m| m.namespaces = vec!["/a b".to_owned()]), "the namespace \"/a b\""),
        (changed(|m| m.namespaces = numbered("/n", 33)), "33 namespaces"),
        (changed(|m| m.migrates_down_to = vec![1]), "not older than its own"),
        (changed(|m| m.version = "1.0".to_owned()), "semantic version"),
        (changed(|m| m.version = "1.0.0-a\n".to_owned()), "semantic version"),
        (changed(|m| m.name = "No Name".to_owned()), "lower-case letters"),
    ]
}

#[tokio::test]
async fn host_and_simulator_judge_manifests_alike() {
    let host = RealHost::start().await;
    for (manifest, rule) in table() {
        let simulated = simulated::load(&manifest);
        assert_eq!(host.load(&manifest).await, simulated, "{manifest:?}");
        let refusal = simulated.err().unwrap_or_default();
        assert!(refusal.contains(rule) && refusal.is_empty() == rule.is_empty(), "{manifest:?}: {refusal}");
    }
    let seed = seed();
    let mut random = Random::new(seed);
    for n in 0..N_RANDOM {
        let manifest = any_manifest(&mut random);
        let (real, simulated) = (host.load(&manifest).await, simulated::load(&manifest));
        assert_eq!(real, simulated, "seed {seed}, number {n}: {manifest:?}");
    }
}

#[test]
fn random_manifests_include_valid_and_invalid_ones() {
    let seed = seed();
    let mut random = Random::new(seed);
    let verdicts = (0..N_SIMULATED).map(|_| simulated::load(&any_manifest(&mut random)));
    let n_taken = verdicts.filter(Result::is_ok).count();
    assert!((N_SIMULATED / 20..N_SIMULATED).contains(&n_taken), "seed {seed}: {n_taken} were taken");
}

/// The seed of random cases: `CONTRACT_SEED`, or the time.
pub(super) fn seed() -> u64 {
    let given = std::env::var("CONTRACT_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().expect("a date after 1970").as_secs())
}

const TEMPLATES: [&str; 12] = [
    "t:{id}",
    "u:{id}",
    "q",
    "v:{a}:{b}",
    "v:{a}{b}",
    "w:{a}:{a}",
    "x y",
    "user:{id}",
    "{id}",
    "z:{id",
    "qq:{id}",
    "y:{id}/log",
];

const NAMES: [&str; 8] = ["t:say", "t:join", "t:é", "error", "connect", "", "t:\u{7}", "t:leave"];

fn any_manifest(random: &mut Random) -> ManifestSpec {
    let some = |random: &mut Random, among: &[&str], most: usize, bad: usize| -> Vec<String> {
        let n = random.below(most + 1);
        let names = (0..n).map(|_| if random.in_hundred(bad) { *random.pick(among) } else { among[0] });
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.dedup();
        names
    };
    let n_scopes = 1 + random.below(2);
    let scopes = (0..n_scopes).map(|n| {
        let template = if random.in_hundred(70) { TEMPLATES[n] } else { *random.pick(&TEMPLATES) };
        let clients = if n == 0 { some(random, &NAMES, 2, 30) } else { Vec::new() };
        ScopeSpec {
            clients,
            durable: random.in_hundred(30),
            idle_ms: *random.pick(&[0, 1000, u64::MAX]),
            presence: random.in_hundred(30),
            connect: random.in_hundred(10),
            ..scope(template)
        }
    });
    let scopes = scopes.collect();
    ManifestSpec {
        scopes,
        gathers: some(random, &NAMES, 1, 20),
        emits: some(random, &NAMES, 2, 20),
        namespaces: some(random, &["/a", "/", "b", "/c d"], 1, 30),
        state_version: random.below(3) as u32,
        migrates_down_to: if random.in_hundred(10) { vec![random.below(3) as u32] } else { Vec::new() },
        ..with(&[])
    }
}

//! Kills a host at a random moment of a change: the next start must load each build that was acknowledged as installed.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use roundhouse::plugin::digest;
use serde_json::Value;

use crate::guests::{hostile, relabelled, relay, ticket_collision};
use crate::{Answer, Random, TestHost, http};

/// The running build of a plugin: generation and digest, or `None`.
type Running = Option<(u64, String)>;

/// A plugin that is changed through the API.
#[derive(Debug)]
struct Changed {
    name: &'static str,
    builds: Vec<Vec<u8>>,
    /// The build that last ran, by the host's answer.
    running: Running,
    /// The digest of each generation.
    generations: HashMap<u64, String>,
}

/// The results of the rounds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The number of starts after a kill.
    pub starts: usize,
    /// The number of answered changes.
    pub answered: usize,
    /// The number of changes that were unanswered at a kill, and found made at the next start.
    pub made: usize,
    /// The number of changes that were unanswered at a kill, and found not made.
    pub not_made: usize,
}

/// Kills a host in the middle of loads, rollbacks, unloads, resets and changes of the folder, and checks the builds
/// that each start loads.
///
/// # Panics
/// If a start loads a build that is neither the installed one nor that of the change under way.
pub async fn restarts(rounds: usize, seed: u64) -> Outcome {
    let mut random = Random::new(seed);
    let mut outcome = Outcome::default();
    let variants = |component: &[u8]| (0..4).map(|n| relabelled(component, &n.to_string())).collect::<Vec<_>>();
    let mut plugins =
        [("hostile", variants(&hostile("durable"))), ("ticket-collision", variants(&ticket_collision("0.1.1")))]
            .map(|(name, builds)| Changed { name, builds, running: None, generations: HashMap::new() });
    let in_folder = variants(&relay());
    let mut file = None;

    let mut host = TestHost::start_with("auth.jwt.secret = \"s\"\n", &[]);
    for plugin in &mut plugins {
        plugin.running = running(&host, plugin.name).await;
    }
    for round in 0..rounds {
        for _ in 0..random.below(4) {
            let plugin = &mut plugins[random.below(2)];
            let (method, path, body) = change(plugin, &mut random);
            host.call(method, &path, body).await;
            plugin.running = running(&host, plugin.name).await;
            plugin.note(round);
            outcome.answered += 1;
        }
        if random.below(2) == 0 {
            let component = &in_folder[random.below(in_folder.len())];
            put_into_folder(&host, component, random.below(2) == 0);
            file = Some(digest(component));
        }
        let at = random.below(2);
        let before = plugins[at].running.clone();
        let (method, path, body) = change(&plugins[at], &mut random);
        let under_way = tokio::spawn({
            let (api, key, path, method) = (host.api.clone(), host.key.clone(), path.clone(), method);
            async move { http(&api, method, &path, &[("authorization", &format!("Bearer {key}"))], body).await }
        });
        tokio::time::sleep(Duration::from_micros(random.below(40_000) as u64)).await;
        host.kill();
        let answer: Option<Answer> = under_way.await.expect("no panic").ok();
        host.restart();
        outcome.starts += 1;

        let found = running(&host, plugins[at].name).await;
        if found == before {
            // An answered change must have been made.
            let was_done =
                answer.as_ref().is_some_and(|answer| answer.status == 200 && answer.body["unchanged"] != true);
            let is_same =
                answer.as_ref().is_some_and(|answer| answer.body["digest"].as_str() == before.as_ref().map(|b| &*b.1));
            assert!(!was_done || is_same, "round {round}: {method} {path} was answered, and is not there: {answer:?}");
            outcome.not_made += 1;
        } else {
            outcome.made += 1;
        }
        plugins[at].running = found;
        check_start(&host, &mut plugins, file.as_ref(), round).await;
    }
    outcome
}

/// Checks that a start has loaded `plugins`, and `file` from the folder.
async fn check_start(host: &TestHost, plugins: &mut [Changed], file: Option<&String>, round: usize) {
    for plugin in plugins {
        plugin.note(round);
        let now = running(host, plugin.name).await;
        assert_eq!(now, plugin.running, "round {round}, {}: {}", plugin.name, host.log());
    }
    if let Some(file) = file {
        let found = running(host, "relay").await.map(|(_, digest)| digest);
        assert_eq!(found.as_ref(), Some(file), "round {round}: {}", host.log());
    }
    check_components(host, round).await;
}

impl Changed {
    /// Checks that a generation's number is never used for another component.
    fn note(&mut self, round: usize) {
        if let Some((generation, digest)) = &self.running {
            let known = self.generations.entry(*generation).or_insert_with(|| digest.clone());
            assert_eq!(known, digest, "round {round}: generation {generation} of {} was another", self.name);
        }
    }
}

/// A random change of a plugin: method, path and body.
fn change(plugin: &Changed, random: &mut Random) -> (&'static str, String, Vec<u8>) {
    let path = format!("/v1/plugins/{}", plugin.name);
    match random.below(8) {
        0 => ("POST", format!("{path}/rollback"), Vec::new()),
        1 => ("DELETE", path, Vec::new()),
        2 => ("POST", format!("{path}/reset"), Vec::new()),
        _ => ("PUT", path, plugin.builds[random.below(plugin.builds.len())].clone()),
    }
}

fn put_into_folder(host: &TestHost, component: &[u8], at_once: bool) {
    let file = host.dir().join("plugins.d/relay.wasm");
    if at_once {
        let partial: PathBuf = file.with_extension("partial");
        fs::write(&partial, component).expect("a file can be written");
        fs::rename(partial, file).expect("a file can be renamed");
    } else {
        fs::write(file, component).expect("a file can be written");
    }
}

async fn running(host: &TestHost, name: &str) -> Running {
    let answer = host.call("GET", &format!("/v1/plugins/{name}"), "").await;
    if answer.status == 404 {
        return None;
    }
    assert_eq!((answer.status, answer.body["state"].as_str()), (200, Some("running")), "{}", answer.text);
    Some((answer.body["generation"].as_u64()?, answer.body["digest"].as_str()?.to_owned()))
}

/// Checks that the stored components are exactly those that the plugins' records name.
async fn check_components(host: &TestHost, round: usize) {
    let folder = host.dir().join(".roundhouse/components");
    let (mut there, mut needed) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder can be listed").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("names are text").to_owned();
        if let Some(digest) = name.strip_suffix(".wasm") {
            there.push(digest.to_owned());
        } else {
            let record: Value = serde_json::from_slice(&fs::read(&path).expect("it can be read"))
                .unwrap_or_else(|error| panic!("round {round}: {name}: {error}"));
            let lists = [&record["previous"], &record["rolled_back"]].into_iter().filter_map(Value::as_array).flatten();
            let digests = lists.chain([&record["current"]]).filter_map(|installed| installed["digest"].as_str());
            needed.extend(digests.map(str::to_owned));
        }
    }
    needed.sort();
    needed.dedup();
    there.sort();
    assert_eq!(there, needed, "round {round}");
}

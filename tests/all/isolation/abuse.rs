//! A short run of each attack, on a host that good clients use: none of these is refused, disconnected or left without
//! a reply. Latency is not judged here, for tests run on busy machines; `--bin abuse` does that.

use std::fmt::Write as _;
use std::path::Path;

use roundhouse_tests::abuse::{Attack, Campaign, Group, all};

/// Runs the attacks of a group, and fails with the table of those that cost other clients service.
fn withstand(group: Group) {
    let attacks: Vec<(Group, &Attack)> = group.attacks().iter().map(|attack| (group, attack)).collect();
    let mut lost = String::new();
    let run = Campaign::short().run(&attacks, |verdict| {
        if !verdict.is_good() {
            writeln!(lost, "{}", verdict.row()).expect("a string can be written to");
        }
    });
    run.expect("hosts start, and good clients get in");
    assert!(lost.is_empty(), "attacks cost others service:\n{lost}");
}

#[test]
fn payloads() {
    withstand(Group::Payloads);
}

#[test]
fn scopes() {
    withstand(Group::Scopes);
}

#[test]
fn turns() {
    withstand(Group::Turns);
}

#[test]
fn memory() {
    withstand(Group::Memory);
}

#[test]
fn floods() {
    withstand(Group::Floods);
}

#[test]
fn wire() {
    withstand(Group::Wire);
}

#[test]
fn services() {
    withstand(Group::Services);
}

#[test]
fn plugins() {
    withstand(Group::Plugins);
}

#[test]
fn abuse_page_lists_each_attack() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("ABUSE.md");
    let page = std::fs::read_to_string(page).expect("there is a page of attacks");
    let rows: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for (_, attack) in all() {
        assert!(rows.contains(&attack.name), "{} is not on the page: make it anew with --page", attack.name);
    }
    assert_eq!(rows.len(), all().count(), "the page has an attack that there is not");
}

//! A short run of each attack, on a host that good clients use: no good client is refused, disconnected or left without
//! a reply. Latency is judged by `--bin abuse` and not here, because tests run on busy machines.

use std::fmt::Write as _;
use std::path::Path;

use roundhouse_tests::abuse::{Attack, Campaign, Group, all};

/// Runs the attacks of a group, and fails with the table of those that cost good clients service.
fn run_group(group: Group) {
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
fn payload_attacks_leave_good_clients_served() {
    run_group(Group::Payloads);
}

#[test]
fn scope_attacks_leave_good_clients_served() {
    run_group(Group::Scopes);
}

#[test]
fn turn_attacks_leave_good_clients_served() {
    run_group(Group::Turns);
}

#[test]
fn memory_attacks_leave_good_clients_served() {
    run_group(Group::Memory);
}

#[test]
fn flood_attacks_leave_good_clients_served() {
    run_group(Group::Floods);
}

#[test]
fn wire_attacks_leave_good_clients_served() {
    run_group(Group::Wire);
}

#[test]
fn service_attacks_leave_good_clients_served() {
    run_group(Group::Services);
}

#[test]
fn plugin_attacks_leave_good_clients_served() {
    run_group(Group::Plugins);
}

#[test]
fn entry_attacks_leave_good_clients_served() {
    run_group(Group::Entry);
}

#[test]
fn abuse_page_lists_each_attack() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("ABUSE.md");
    let page = std::fs::read_to_string(page).expect("there is a page of attacks");
    let rows: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for (_, attack) in all() {
        assert!(rows.contains(&attack.name), "{} is not on the page: make it anew with --page", attack.name);
    }
    for row in rows {
        assert!(all().any(|(_, attack)| attack.name == row), "the page has {row}, an attack that there is not");
    }
}

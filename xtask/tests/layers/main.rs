//! Imports point one way: down the layers of the host, down the rooms inside them, and never round in a circle of files.
//! [`rules`] says what may import what; [`planted`] shows that each rule finds what breaks it.

mod planted;
mod rules;

use std::path::Path;

use xtask::sources;

/// Files that break a rule still. The list only gets shorter.
const KNOWN: &[&str] = &[
    "host/src/ledger/account.rs",
    "host/src/ledger/mod.rs",
    "host/src/model/payload.rs",
    "host/src/model/placeholders.rs",
    "host/src/plugin/guest/compile.rs",
    "host/src/plugin/guest/convert.rs",
    "host/src/plugin/lifecycle/component_store.rs",
    "host/src/plugin/lifecycle/folder.rs",
    "host/src/plugin/lifecycle/install.rs",
    "host/src/plugin/lifecycle/queue.rs",
    "host/src/plugin/lifecycle/record.rs",
    "host/src/plugin/lifecycle/report.rs",
    "host/src/plugin/lifecycle/restore.rs",
    "host/src/plugin/lifecycle/rollback.rs",
    "host/src/plugin/lifecycle/start.rs",
    "host/src/plugin/load/catalogue.rs",
    "host/src/plugin/load/event_limits.rs",
    "host/src/plugin/load/extension.rs",
    "host/src/plugin/load/generation.rs",
    "host/src/plugin/load/loader.rs",
    "host/src/plugin/load/manifest.rs",
    "host/src/plugin/load/migrate.rs",
    "host/src/plugin/run/effect.rs",
    "host/src/plugin/run/effect_parts.rs",
    "host/src/plugin/run/gather.rs",
    "host/src/plugin/run/invoke.rs",
    "host/src/plugin/run/presence.rs",
    "host/src/plugin/run/scope.rs",
    "host/src/plugin/run/worker.rs",
    "host/src/plugin/runtime.rs",
    "host/src/store/backend.rs",
    "host/src/store/journal.rs",
    "host/src/store/mod.rs",
    "host/src/store/postgres/lease.rs",
    "host/src/store/postgres/mod.rs",
    "host/src/store/postgres/schema.rs",
    "host/src/store/postgres/transaction.rs",
    "host/src/store/postgres/write.rs",
    "host/src/store/queue.rs",
    "host/src/store/reader.rs",
    "host/src/store/sqlite.rs",
    "host/src/store/writer.rs",
    "plugins/campaign-progress/src/campaign.rs",
    "plugins/campaign-progress/src/wire.rs",
    "plugins/chat-confirmation/src/history.rs",
    "plugins/chat-confirmation/src/lib.rs",
    "sdk/src/context.rs",
    "sdk/src/feature.rs",
    "sdk/src/simulator/check.rs",
    "sdk/src/simulator/mod.rs",
    "sdk/src/simulator/rooms.rs",
    "sdk/src/simulator/store.rs",
    "sdk/src/simulator/world.rs",
    "sdk/src/warm.rs",
    "tests/benchmarks/audience.rs",
    "tests/benchmarks/chat.rs",
    "tests/benchmarks/floor.rs",
    "tests/benchmarks/goals.rs",
    "tests/benchmarks/growth.rs",
    "tests/benchmarks/idle.rs",
    "tests/benchmarks/main.rs",
    "tests/benchmarks/plot.rs",
    "tests/benchmarks/plugin.rs",
    "tests/benchmarks/report.rs",
    "tests/benchmarks/servers.rs",
    "tests/benchmarks/throughput.rs",
    "tests/guests/hostile/src/greed.rs",
    "tests/guests/hostile/src/lib.rs",
    "tests/src/abuse/attack.rs",
    "tests/src/abuse/attacks/floods.rs",
    "tests/src/abuse/attacks/memory.rs",
    "tests/src/abuse/attacks/mod.rs",
    "tests/src/abuse/attacks/payloads.rs",
    "tests/src/abuse/attacks/plugins.rs",
    "tests/src/abuse/attacks/scopes.rs",
    "tests/src/abuse/attacks/services.rs",
    "tests/src/abuse/attacks/turns.rs",
    "tests/src/abuse/attacks/wire.rs",
    "tests/src/abuse/field.rs",
    "tests/src/abuse/flood.rs",
    "tests/src/abuse/stage.rs",
];

#[test]
fn tree_keeps_every_rule() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = sources::read(&root).expect("the tree can be read");
    let mut complaints = rules::violations(&sources).expect("the tree is Rust");
    let circular = rules::circular_files(&sources).expect("the tree is Rust");
    complaints
        .extend(circular.iter().map(|file| format!("{file}: is in a circle of imports; `cargo xtask shape` shows it")));
    let is_of = |complaint: &str, file: &str| complaint.strip_prefix(file).is_some_and(|rest| rest.starts_with(':'));
    let mut open =
        complaints.iter().filter(|complaint| !KNOWN.iter().any(|file| is_of(complaint, file))).collect::<Vec<_>>();
    let kept = |file: &&&str| !complaints.iter().any(|complaint| is_of(complaint, file));
    let struck: Vec<String> =
        KNOWN.iter().filter(kept).map(|file| format!("{file}: keeps every rule: strike it out of KNOWN")).collect();
    open.extend(&struck);
    open.sort();
    assert!(open.is_empty(), "{}", open.iter().map(|line| format!("{line}\n")).collect::<String>());
}

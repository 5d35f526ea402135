//! Verdicts of the simulator.

use std::panic::{AssertUnwindSafe, catch_unwind};

use roundhouse_sdk::simulator::Simulation;
use table::{ManifestSpec, Table, set_manifest};

use super::{ACTORS, Case, Verdict, manifest, named};

/// The result of `run`, or the text of its panic.
fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| *panic.downcast::<String>().expect("a panic has a text"))
}

/// Loads a manifest.
///
/// # Errors
/// If the simulator refuses the manifest, with the rule that it breaks.
pub(super) fn load(manifest: &ManifestSpec) -> Result<(), String> {
    set_manifest(manifest.clone());
    caught(Simulation::<Table>::new)
        .map(drop)
        .map_err(|text| text.strip_prefix("the manifest: ").expect("only the manifest is at fault").to_owned())
}

/// The simulator's verdict on a case.
pub(super) fn judge(case: &Case, n: usize, user: &str) -> Verdict {
    set_manifest(manifest(case.plugin));
    let mut sim = Simulation::<Table>::new();
    let connections = [user, ACTORS[1], ACTORS[2]].map(|user| sim.connect(user, user));
    let ids = connections.map(|connection| sim.id(connection).to_owned());
    let event = format!("{}:do", case.plugin);
    let mut events = case.events(n, &ids);
    let (sender, judged) = events.pop().expect("a case has an event");
    for (sender, data) in events {
        sim.emit_with_ack(connections[sender], &event, data).expect("only the last event is refused");
    }
    connections.iter().for_each(|connection| drop(sim.received(*connection)));
    match caught(|| sim.emit_with_ack(connections[sender], &event, judged)) {
        Err(text) => {
            let (_, fault) = text.split_once("for the feature returned ").expect("the outcome is at fault");
            Verdict::Fault(named(fault, &ids))
        }
        Ok(Err(failure)) => Verdict::Refused(failure.code),
        Ok(Ok(reply)) => Verdict::Committed(reply, connections.map(|connection| sim.received(connection))),
    }
}

//! The contract on both hosts: the simulator and the real host give the same verdict on one table of manifests and
//! outcomes, and on random ones.

mod manifests;
mod outcomes;
mod real;
mod simulated;

use serde_json::Value;
use table::{ManifestSpec, NeedsSpec, Order, Orders, ScopeSpec, Text};

/// The feature without needs.
const POOR: &str = "poor";

/// The feature that needs, and is granted, all permissions.
const RICH: &str = "rich";

/// The users of a case's connections. Only the first is in a room, that of the scope `a`.
const ACTORS: [&str; 3] = ["ana", "ben", "zoe"];

/// A host's verdict on an outcome.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    /// The event was refused with this code, without a fault.
    Refused(String),
    /// The outcome broke this rule.
    Fault(String),
    /// The outcome was committed: the reply, and the events that each of [`ACTORS`] received.
    Committed(Value, [Vec<(String, Value)>; 3]),
}

/// Outcomes of several events of one feature. The last one is judged.
#[derive(Clone, Debug)]
struct Case {
    plugin: &'static str,
    /// Sender, scope and outcome of each event. `@ana` stands for the id of her connection, `#a` for the room of the scope `a`.
    steps: Vec<(&'static str, &'static str, Vec<Order>, Option<Text>)>,
}

impl Case {
    fn of(plugin: &'static str, effects: Vec<Order>) -> Self {
        Self { plugin, steps: vec![("ana", "a", effects, None)] }
    }

    fn after(mut self, sender: &'static str, scope: &'static str, effects: Vec<Order>) -> Self {
        self.steps.insert(0, (sender, scope, effects, None));
        self
    }

    fn with_state(mut self, state: Text) -> Self {
        self.steps.last_mut().unwrap().3 = Some(state);
        self
    }

    /// The events of the case, each a sender and data, beginning with the first join of `ana`. `n` separates the scopes
    /// of cases.
    fn events(&self, n: usize, ids: &[String; 3]) -> Vec<(usize, Value)> {
        let join = ("ana", "a", vec![Order::Join("@ana".to_owned(), None)], None);
        let steps = std::iter::once(&join).chain(&self.steps);
        steps
            .map(|(sender, scope, effects, state)| {
                let orders = Orders { id: format!("{scope}{n}"), effects: effects.clone(), state: state.clone() };
                let mut text = serde_json::to_string(&orders).unwrap();
                for (actor, id) in ACTORS.iter().zip(ids) {
                    text = text.replace(&format!("\"@{actor}\""), &format!("{id:?}"));
                }
                for scope in ["a", "b"] {
                    text = text.replace(&format!("\"#{scope}\""), &format!("\"{}:{scope}{n}\"", self.plugin));
                }
                let sender = ACTORS.iter().position(|actor| actor == sender).unwrap();
                (sender, serde_json::from_str(&text).unwrap())
            })
            .collect()
    }
}

/// The text of a fault, with users' names in place of connections' ids.
fn named(fault: &str, ids: &[String; 3]) -> String {
    ACTORS.iter().zip(ids).fold(fault.to_owned(), |fault, (actor, id)| fault.replace(id, actor))
}

/// The manifest of [`POOR`] or [`RICH`].
fn manifest(name: &str) -> ManifestSpec {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let needs = match name {
        POOR => NeedsSpec::default(),
        _ => NeedsSpec {
            rooms: names(&["hall", "hall:*"]),
            audiences: names(&["user", "roles", "all"]),
            actions: names(&["save", "disconnect", "join"]),
        },
    };
    ManifestSpec {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        state_version: 1,
        scopes: vec![ScopeSpec {
            template: format!("{name}:{{id}}"),
            idle_ms: 60_000,
            clients: vec![format!("{name}:do")],
            ..ScopeSpec::default()
        }],
        emits: names(&["said"]),
        needs,
        ..ManifestSpec::default()
    }
}

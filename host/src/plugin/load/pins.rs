//! Scopes that stay on an older build, because another cannot handle them.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

/// The most scopes that a report names.
const MOST_NAMED: usize = 100;

/// A scope that stays on an older build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Pin {
    /// The scope.
    pub scope: String,
    /// What the other build did there.
    pub reason: String,
}

/// The scopes that stay on an older build, each with the number of the generation that cannot handle it, and the reason.
#[derive(Debug, Default)]
pub(crate) struct PinnedScopes(BTreeMap<Arc<str>, (u64, String)>);

impl PinnedScopes {
    pub(crate) fn insert(&mut self, scope: Arc<str>, generation: u64, reason: String) {
        self.0.insert(scope, (generation, reason));
    }

    pub(crate) fn remove(&mut self, scope: &str) {
        self.0.remove(scope);
    }

    /// Whether the generation of this number cannot handle a scope.
    pub(crate) fn contains(&self, scope: &str, generation: u64) -> bool {
        self.0.get(scope).is_some_and(|(number, _)| *number == generation)
    }

    /// The number of scopes that the generation of this number cannot handle, and some of them.
    pub(crate) fn report(&self, generation: u64) -> (usize, Vec<Pin>) {
        let pinned = self.0.iter().filter(|(_, (number, _))| *number == generation);
        let named = pinned.clone().take(MOST_NAMED);
        let pin = |(scope, (_, reason)): (&Arc<str>, &(u64, String))| Pin {
            scope: scope.to_string(),
            reason: reason.clone(),
        };
        (pinned.count(), named.map(pin).collect())
    }
}

//! The generations of a plugin behind the one that runs.

use std::sync::Arc;

use super::generation::Generation;

/// The most generations that stay loaded besides the running one, of each kind: previous, and rolled back.
pub(crate) const KEPT_GENERATIONS: usize = 3;

/// The generations behind the running one, and the schemas whose states may be given up.
#[derive(Debug, Default, Clone)]
pub(crate) struct History {
    /// Generations that a rollback can go back to, the oldest first.
    pub(crate) previous: Vec<Arc<Generation>>,
    /// Generations that were rolled back and whose states may be there still, the oldest first.
    pub(crate) rolled_back: Vec<Arc<Generation>>,
    /// Schemas whose states may be given up if no build can migrate them: an operator accepted the loss, or an
    /// automatic rollback had no other way.
    pub(crate) given_up: Vec<u32>,
}

impl History {
    /// The history after `before` was replaced by a build of a newer or the same schema.
    pub(crate) fn after_replacing(mut self, before: Arc<Generation>, by: &Generation) -> Self {
        self.previous.push(before);
        keep_newest(&mut self.previous);
        self.given_up.retain(|schema| *schema != by.manifest.state_version);
        self.rolled_back.retain(|generation| generation.id.generation != by.id.generation);
        self
    }

    /// The history with a generation that has not run, but can migrate states down.
    pub(crate) fn helped_by(mut self, candidate: &Arc<Generation>) -> Self {
        self.rolled_back.push(candidate.clone());
        keep_newest(&mut self.rolled_back);
        self
    }

    /// The history after `current` was rolled back to the previous generation of this number.
    pub(crate) fn after_rolling_back(mut self, current: &Arc<Generation>, number: u64) -> Self {
        let at = self.previous.iter().position(|generation| generation.id.generation == number).unwrap_or(0);
        let schema = self.previous.get(at).map(|to| to.manifest.state_version);
        let is_newer = |other: &Arc<Generation>| schema.is_some_and(|to| to < other.manifest.state_version);
        let helps = |other: &Arc<Generation>| !other.manifest.migrates_down_to.is_empty() || is_newer(other);
        // Any of those between may know the way back of a state.
        let left = self.previous.drain(at..).skip(1).chain([current.clone()]);
        self.rolled_back.extend(left.filter(helps));
        keep_newest(&mut self.rolled_back);
        self
    }

    /// The history with these schemas added to those whose states may be given up.
    pub(crate) fn giving_up(mut self, schemas: impl IntoIterator<Item = u32>) -> Self {
        self.given_up.extend(schemas);
        self.given_up.sort_unstable();
        self.given_up.dedup();
        self
    }

    /// The generations before `generation`, if that replaced `current`: by a load, or by a rollback.
    pub(crate) fn before(&self, generation: &Arc<Generation>, current: &Arc<Generation>) -> Vec<Arc<Generation>> {
        match self.previous.iter().position(|other| Arc::ptr_eq(other, generation)) {
            Some(at) => self.previous[..at].to_vec(),
            None if Arc::ptr_eq(generation, current) => self.previous.clone(),
            None => self.clone().after_replacing(current.clone(), generation).previous,
        }
    }

    /// The previous and the rolled-back generations.
    pub(crate) fn generations(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.previous.iter().chain(&self.rolled_back)
    }
}

fn keep_newest(generations: &mut Vec<Arc<Generation>>) {
    let excess = generations.len().saturating_sub(KEPT_GENERATIONS);
    generations.drain(..excess);
}

//! The warm instances of a thread: of each plugin one of the running generation, one of the candidate, and one of an older
//! generation on which scopes stay.

use std::collections::HashMap;
use std::time::Duration;

use crate::hub::WakeBatch;
use crate::plugin::guest::engine::Ticker;
use crate::plugin::guest::sandbox::{Fault, Instance};
use crate::plugin::load::generation::Generation;

/// Calls after which an instance is replaced, which bounds what it can leak or fragment.
const CALLS_PER_INSTANCE: u32 = 1_000_000;

/// The call time after which the shards are woken for the effects of the first call.
const MAX_UNWOKEN: Duration = Duration::from_millis(1);

/// The number of a plugin, and what the instance's generation is to it.
pub(super) type Slot = (u32, Role);

/// What a generation is to its plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Running,
    /// It is tried: see [`Rollout`](crate::plugin::load::rollout::Rollout).
    Candidate,
    /// Scopes stay on it that the running one cannot take over.
    Older,
}

/// An instance that is ready for the next call.
#[derive(Debug)]
struct WarmInstance {
    generation: u64,
    calls: u32,
    instance: Instance,
}

/// The warm instances.
#[derive(Debug, Default)]
pub(super) struct Instances {
    warm: HashMap<Slot, WarmInstance>,
    /// The call time since `count_time` last asked for a wake-up.
    busy: Duration,
}

impl Instances {
    /// The warm instance of a generation. It replaces an instance of another generation, and one that is used up.
    ///
    /// # Errors
    /// If the generation cannot be instantiated.
    pub(super) fn warm(
        &mut self,
        slot: Slot,
        generation: &Generation,
        ticker: &Ticker,
        wakes: &WakeBatch,
    ) -> Result<&mut Instance, Fault> {
        let number = generation.id.generation;
        let fits = |warm: &WarmInstance| warm.generation == number && warm.calls < CALLS_PER_INSTANCE;
        if !self.warm.get(&slot).is_some_and(fits) {
            // Effects of earlier events do not wait for the guest's start function.
            wakes.wake();
            let instance = generation.instantiate(ticker)?;
            self.warm.insert(slot, WarmInstance { generation: number, calls: 0, instance });
        }
        match self.warm.get_mut(&slot) {
            Some(warm) => {
                warm.calls += 1;
                Ok(&mut warm.instance)
            }
            None => unreachable!("it was put there, or found there, above"),
        }
    }

    /// Whether an instance has been called once only.
    pub(super) fn is_fresh(&self, slot: Slot) -> bool {
        self.warm.get(&slot).is_none_or(|warm| warm.calls <= 1)
    }

    pub(super) fn drop_instance(&mut self, slot: Slot) {
        self.warm.remove(&slot);
    }

    /// Drops the instances of a plugin's candidate and of an older generation.
    pub(super) fn drop_others(&mut self, plugin: u32) {
        self.drop_instance((plugin, Role::Candidate));
        self.drop_instance((plugin, Role::Older));
    }

    /// Drops all instances of a plugin.
    pub(super) fn drop_instances(&mut self, plugin: u32) {
        self.drop_instance((plugin, Role::Running));
        self.drop_others(plugin);
    }

    /// Adds the time of a call. Returns whether the shards have waited for long enough and must be woken.
    pub(super) fn count_time(&mut self, took: Duration) -> bool {
        self.busy += took;
        let is_long = self.busy > MAX_UNWOKEN;
        if is_long {
            self.busy = Duration::ZERO;
        }
        is_long
    }
}

//! The warm instances of a thread: one of each plugin's running generation.

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

/// An instance that is ready for the next call.
#[derive(Debug)]
struct WarmInstance {
    generation: u64,
    calls: u32,
    instance: Instance,
}

/// The warm instances, by the plugins' numbers.
#[derive(Debug, Default)]
pub(super) struct Instances {
    warm: HashMap<u32, WarmInstance>,
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
        plugin: u32,
        generation: &Generation,
        ticker: &Ticker,
        wakes: &WakeBatch,
    ) -> Result<&mut Instance, Fault> {
        let number = generation.id.generation;
        let fits = |warm: &WarmInstance| warm.generation == number && warm.calls < CALLS_PER_INSTANCE;
        if !self.warm.get(&plugin).is_some_and(fits) {
            // Effects of earlier events do not wait for the guest's start function.
            wakes.wake();
            let instance = generation.instantiate(ticker)?;
            self.warm.insert(plugin, WarmInstance { generation: number, calls: 0, instance });
        }
        match self.warm.get_mut(&plugin) {
            Some(warm) => {
                warm.calls += 1;
                Ok(&mut warm.instance)
            }
            None => unreachable!("it was put there, or found there, above"),
        }
    }

    /// Whether the instance of a plugin has been called once only.
    pub(super) fn is_fresh(&self, plugin: u32) -> bool {
        self.warm.get(&plugin).is_none_or(|warm| warm.calls <= 1)
    }

    pub(super) fn drop_instance(&mut self, plugin: u32) {
        self.warm.remove(&plugin);
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

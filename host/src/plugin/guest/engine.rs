//! The one engine that all plugins share, and the ticker thread by which the deadlines of calls are kept.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub(crate) use wasmtime::Engine;
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

/// The instances that the pool has room for: on each of some dozen threads, a warm instance of each of some dozen
/// plugins. Each reserves address space, not memory; on a machine without enough of it, instances are allocated on
/// demand.
const POOLED_INSTANCES: u32 = 512;

/// Stack of a plugin's code, in bytes. Features are shallow; a runaway recursion should trap soon.
const MAX_WASM_STACK: usize = 256 * 1024;

/// The ticks of the shortest deadline, if a tick is a millisecond or more. A call may run over its deadline by one
/// tick.
const TICKS_PER_DEADLINE: u32 = 10;

/// Ticks without a call after which the ticker rests.
const IDLE_TICKS: u32 = 20;

/// The result of making an engine or linking to it.
pub(crate) type Result<T> = wasmtime::Result<T>;

/// Makes the engine.
///
/// # Errors
/// If this machine cannot run WebAssembly.
pub(crate) fn engine(memory_bytes: usize) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(MAX_WASM_STACK)
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .wasm_multi_memory(false)
        // A compilation leaves the other cores to the threads that serve.
        .parallel_compilation(false);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(POOLED_INSTANCES)
        .total_core_instances(POOLED_INSTANCES * 4)
        .total_memories(POOLED_INSTANCES)
        .total_tables(POOLED_INSTANCES * 2)
        .max_memory_size(memory_bytes)
        .max_unused_warm_slots(16);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).or_else(|error| {
        tracing::warn!(%error, "cannot reserve a pool for plugin instances, so they are allocated on demand");
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        Engine::new(&config)
    })
}

/// The time between two ticks, where `deadline` is the shortest of all plugins.
pub(crate) fn tick_of(deadline: Duration) -> Duration {
    (deadline / TICKS_PER_DEADLINE).max(Duration::from_millis(1))
}

/// Increments the engine's epoch while calls are running, and rests while none are, so that an idle host costs nothing.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<TickerState>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct TickerState {
    /// Calls that have begun since the start.
    begun: AtomicU64,
    /// Calls that have ended since the start.
    ended: AtomicU64,
    resting: AtomicBool,
    stop: Mutex<bool>,
    wake: Condvar,
}

impl Ticker {
    /// Starts a ticker for calls whose shortest deadline is `deadline`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start(engine: Engine, deadline: Duration) -> std::io::Result<Self> {
        let tick = tick_of(deadline);
        let shared = Arc::new(TickerState::default());
        let state = shared.clone();
        let thread = thread::Builder::new().name("plugin-ticker".to_owned()).spawn(move || state.run(&engine, tick))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Notes that a call begins. The call ends when the returned value is dropped.
    pub(crate) fn call_begins(&self) -> RunningCall<'_> {
        self.shared.begun.fetch_add(1, Ordering::SeqCst);
        if self.shared.resting.load(Ordering::SeqCst) {
            // Under the lock the ticker either waits, and is woken, or has not checked `begun` yet, and will see the
            // call.
            drop(self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner));
            self.shared.wake.notify_all();
        }
        RunningCall(&self.shared)
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The ticker does nothing that could panic.
            let _ = thread.join();
        }
    }
}

/// A call that the ticker keeps ticking for.
#[derive(Debug)]
pub(crate) struct RunningCall<'a>(&'a TickerState);

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl TickerState {
    fn run(&self, engine: &Engine, tick: Duration) {
        let mut seen = 0;
        let mut idle = 0;
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stop {
            if idle >= IDLE_TICKS {
                self.resting.store(true, Ordering::SeqCst);
                // A call that began before `resting` was set did not wake this thread.
                while !*stop && self.begun.load(Ordering::SeqCst) == seen {
                    stop = self.wake.wait(stop).unwrap_or_else(PoisonError::into_inner);
                }
                self.resting.store(false, Ordering::SeqCst);
                idle = 0;
            } else {
                stop = self.wake.wait_timeout(stop, tick).unwrap_or_else(PoisonError::into_inner).0;
                engine.increment_epoch();
            }
            let begun = self.begun.load(Ordering::SeqCst);
            let is_idle = begun == seen && self.ended.load(Ordering::SeqCst) == begun;
            idle = if is_idle { idle + 1 } else { 0 };
            seen = begun;
        }
    }
}

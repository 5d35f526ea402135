//! Instances of components: their capabilities, and the calls into them.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, StoreLimits, StoreLimitsBuilder, UpdateDeadline};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{
    Deterministic, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, async_trait,
};

use super::bindings::{self, Feature, FeaturePre, Manifest, roundhouse::feature::log};
use super::convert;
use super::engine::Ticker;
use super::log::PluginLog;
use crate::hub::WakeBatch;
use crate::model::{Failure, thread_cpu_time};
use crate::plugin::event::Event;

/// The largest outcome of one call, in bytes of lists and strings: more than the bound of one event's effects, so that
/// the check of the effects reports the excess.
const MAX_HANDED_OVER_BYTES: usize = 4 * 1024 * 1024;

/// The bytes of a component's standard error that are kept, counted from its end: a panic's message and its location.
const MAX_STDERR_BYTES: usize = 2048;

/// The random bytes that WASI gives a component, repeated: its source of chance is the event's seed.
const RANDOM_BYTES: [u8; 33] = *b"chance comes from an event's seed";

/// The most extensions of the deadline of a call that has not run, because the machine is busy with other work.
const MAX_EXTENSIONS: u32 = 10;

/// The context of a call, as the contract defines it.
pub(crate) type Context<'a> = bindings::Context<'a>;

/// The unchecked outcome of a call.
pub(crate) type Outcome = bindings::Outcome;

/// Why a call failed. The instance must not be used again.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Fault {
    #[error("it ran for longer than {} ms", .0.as_millis())]
    Deadline(Duration),
    /// It had a part of its deadline: see [`Instance::shorten`].
    #[error("it ran for too long, right after calls that had run for longer than {} ms", .0.as_millis())]
    Shortened(Duration),
    #[error("it trapped: {0}")]
    Trap(String),
}

/// Marks the trap of a call that ran for too long.
#[derive(Debug, thiserror::Error)]
#[error("the deadline has passed")]
struct DeadlinePassed;

/// The host's side of an instance.
pub(crate) struct HostState {
    wasi: WasiCtx,
    table: ResourceTable,
    limits: CountedLimits,
    time: Arc<EventTime>,
    stderr: Arc<Mutex<Vec<u8>>>,
    log: Arc<PluginLog>,
    deadline: Duration,
    ticks: u64,
    /// What deadline and ticks are divided by.
    divisor: u32,
    /// CPU time of this thread at the last check of the deadline, and the number of checks.
    watch: (Option<Duration>, u32),
    /// The shards to wake when a call has taken half of its deadline.
    wakes: WakeBatch,
}

impl fmt::Debug for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostState").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl log::Host for HostState {
    fn write(&mut self, level: String, message: String) {
        self.log.write(&level, &message);
    }
}

impl super::bindings::roundhouse::feature::types::Host for HostState {}
impl super::bindings::roundhouse::feature::manifest::Host for HostState {}
impl super::bindings::roundhouse::feature::events::Host for HostState {}
impl super::bindings::roundhouse::feature::effects::Host for HostState {}

/// The linear memory that the instances of a generation have, in bytes.
pub(crate) type MemoryUse = Arc<AtomicUsize>;

/// The limits of an instance, which count its linear memory.
struct CountedLimits {
    limits: StoreLimits,
    in_use: MemoryUse,
    /// What this instance has of it.
    held: usize,
}

impl ResourceLimiter for CountedLimits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let may_grow = self.limits.memory_growing(current, desired, maximum)?;
        if may_grow {
            let more = desired.saturating_sub(current);
            self.held += more;
            self.in_use.fetch_add(more, Ordering::Relaxed);
        }
        Ok(may_grow)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.limits.table_growing(current, desired, maximum)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.limits.memory_grow_failed(error)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.limits.table_grow_failed(error)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

impl Drop for CountedLimits {
    fn drop(&mut self) {
        self.in_use.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// The bounds of a plugin's instances and states.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InstanceBounds {
    pub(crate) memory_bytes: usize,
    pub(crate) deadline: Duration,
    /// The engine's ticks in a deadline.
    pub(crate) ticks: u64,
    pub(crate) state_bytes: usize,
}

/// A component that has been instantiated, warm for the next call.
#[derive(Debug)]
pub(crate) struct Instance {
    store: Store<HostState>,
    feature: Feature,
}

impl fmt::Debug for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feature")
    }
}

impl Instance {
    /// Instantiates a component with nothing but a clock that stands still, fixed random bytes, standard error and its
    /// log. Its memory counts into `in_use`.
    pub(crate) fn new(
        pre: &FeaturePre<HostState>,
        ticker: &Ticker,
        bounds: InstanceBounds,
        log: Arc<PluginLog>,
        in_use: &MemoryUse,
    ) -> Result<Self, Fault> {
        let time = Arc::new(EventTime::default());
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let mut wasi = WasiCtxBuilder::new();
        wasi.wall_clock(EventClock(time.clone()))
            .monotonic_clock(EventClock(time.clone()))
            .secure_random(Deterministic::new(RANDOM_BYTES.to_vec()))
            .insecure_random(Deterministic::new(RANDOM_BYTES.to_vec()))
            .insecure_random_seed(0)
            .max_random_size(4096)
            .stderr(Stderr(stderr.clone()));
        let limits = StoreLimitsBuilder::new()
            .memory_size(bounds.memory_bytes)
            .instances(16)
            .memories(4)
            .tables(16)
            .table_elements(100_000)
            .trap_on_grow_failure(true)
            .build();
        let state = HostState {
            wasi: wasi.build(),
            table: ResourceTable::new(),
            limits: CountedLimits { limits, in_use: in_use.clone(), held: 0 },
            time,
            stderr,
            log,
            deadline: bounds.deadline,
            ticks: bounds.ticks,
            divisor: 1,
            watch: (None, 0),
            wakes: WakeBatch::default(),
        };
        let mut store = Store::new(pre.engine(), state);
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(MAX_HANDED_OVER_BYTES);
        store.epoch_deadline_callback(|mut store| store.data_mut().look_at_deadline());
        store.set_epoch_deadline(bounds.ticks / 2);
        let running = ticker.call_begins();
        let feature = pre.instantiate(&mut store);
        drop(running);
        match feature {
            Ok(feature) => Ok(Self { store, feature }),
            Err(error) => Err(store.data().fault(&error)),
        }
    }

    /// Does `work`. A call in it that takes half of its deadline wakes the shards of `wakes`.
    pub(crate) fn lend<T>(&mut self, wakes: &WakeBatch, work: impl FnOnce(&mut Self) -> T) -> T {
        wakes.swap(&self.store.data().wakes);
        let done = work(self);
        wakes.swap(&self.store.data().wakes);
        done
    }

    /// Has the next call end after a part of its deadline: it is divided by `divisor`.
    pub(crate) fn shorten(&mut self, divisor: u32) {
        self.store.data_mut().divisor = divisor;
    }

    /// Calls `describe`.
    pub(crate) fn describe(&mut self, ticker: &Ticker) -> Result<Manifest, Fault> {
        self.call(ticker, 0, |feature, store| feature.call_describe(store))
    }

    /// Calls `handle`.
    pub(crate) fn handle(
        &mut self,
        ticker: &Ticker,
        context: Context<'_>,
        event: &Event,
        state: Option<&[u8]>,
    ) -> Result<Result<Outcome, Failure>, Fault> {
        convert::lend(event, |event| self.handle_lent(ticker, context, event, state))
    }

    /// Calls `handle` with an event in the form of the contract.
    pub(crate) fn handle_lent(
        &mut self,
        ticker: &Ticker,
        context: Context<'_>,
        event: bindings::roundhouse::feature::events::Event<'_>,
        state: Option<&[u8]>,
    ) -> Result<Result<Outcome, Failure>, Fault> {
        let now = context.now;
        let handle = |feature: &Feature, store: &mut Store<_>| feature.call_handle(store, context, event, state);
        Ok(self.call(ticker, now, handle)?.map_err(convert::failure))
    }

    /// Calls `migrate`.
    pub(crate) fn migrate(
        &mut self,
        ticker: &Ticker,
        from: u32,
        state: &[u8],
    ) -> Result<Result<Vec<u8>, Failure>, Fault> {
        Ok(self.call(ticker, 0, |feature, store| feature.call_migrate(store, from, state))?.map_err(convert::failure))
    }

    fn call<T>(
        &mut self,
        ticker: &Ticker,
        now_ms: u64,
        call: impl FnOnce(&Feature, &mut Store<HostState>) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        let half = self.store.data().half();
        self.store.set_epoch_deadline(half);
        let state = self.store.data_mut();
        state.watch = (None, 0);
        state.time.0.store(now_ms, Ordering::Relaxed);
        state.stderr.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let running = ticker.call_begins();
        let result = call(&self.feature, &mut self.store);
        drop(running);
        let result = result.map_err(|error| self.store.data().fault(&error));
        self.store.data_mut().divisor = 1;
        result
    }
}

impl HostState {
    /// Called after each half of a call's deadline. A call that has run since the check before, for a quarter of the
    /// deadline in CPU time, has had its time and is ended. A call that the machine did not let run, because others
    /// kept it busy, gets its time later.
    fn look_at_deadline(&mut self) -> wasmtime::Result<UpdateDeadline> {
        // The effects of earlier events must not wait for this call.
        self.wakes.wake();
        let cpu = thread_cpu_time();
        let (last, looks) = self.watch;
        if let Some(last) = last {
            let has_run = cpu.saturating_sub(last) >= self.deadline / self.divisor / 4;
            if has_run || looks > MAX_EXTENSIONS {
                return Err(DeadlinePassed.into());
            }
        }
        self.watch = (Some(cpu), looks + 1);
        Ok(UpdateDeadline::Continue(self.half()))
    }

    /// The ticks in half of a call's time.
    fn half(&self) -> u64 {
        (self.ticks / 2 / u64::from(self.divisor)).max(1)
    }

    fn fault(&self, error: &wasmtime::Error) -> Fault {
        if error.is::<DeadlinePassed>() {
            return if self.divisor == 1 { Fault::Deadline(self.deadline) } else { Fault::Shortened(self.deadline) };
        }
        let mut said = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let said = String::from_utf8_lossy(&std::mem::take(&mut *said)).into_owned();
        Fault::Trap(if said.trim().is_empty() { error.root_cause().to_string() } else { one_line(&said) })
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).collect()
}

/// The time of the event that is being handled, in milliseconds since 1970: the only time that a component sees.
#[derive(Debug, Default)]
struct EventTime(AtomicU64);

struct EventClock(Arc<EventTime>);

impl HostWallClock for EventClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.0.load(Ordering::Relaxed))
    }
}

impl HostMonotonicClock for EventClock {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        self.0.0.load(Ordering::Relaxed).saturating_mul(1_000_000)
    }
}

/// The end of a component's standard error, for the log of a panic.
#[derive(Clone)]
struct Stderr(Arc<Mutex<Vec<u8>>>);

impl IsTerminal for Stderr {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stderr {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Called only by interfaces later than the one that is linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Stderr {
    async fn ready(&mut self) {}
}

impl OutputStream for Stderr {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(&bytes);
        let excess = said.len().saturating_sub(MAX_STDERR_BYTES);
        said.drain(..excess);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_STDERR_BYTES)
    }
}

//! The senders of events: the backlog of each, its use of the plugin threads' time, and the faults that its events
//! caused. Each sender has its own bounds, so that a sender over its bounds does not slow others down.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;

use crate::metrics::{Limit, Metrics};
use crate::model::{Allowance, ErrorCode, Failure, Quota};

/// The largest backlog of a plugin: half a second of work for a feature of 30 µs an event.
const PLUGIN_BOUND: BacklogBound = BacklogBound { events: 16_384, bytes: 64 * 1024 * 1024 };

/// The largest backlog of a plugin that services may fill: the other half is for clients.
const SERVICE_BOUND: BacklogBound = BacklogBound { events: PLUGIN_BOUND.events / 2, bytes: PLUGIN_BOUND.bytes / 2 };

/// A sender with a backlog within `MODEST` is admitted to a full plugin, up to `RESERVED`: so a few accounts cannot
/// shut all others out of a plugin.
const MODEST: BacklogBound = BacklogBound { events: 64, bytes: 256 * 1024 };
const RESERVED: BacklogBound = BacklogBound { events: 2 * PLUGIN_BOUND.events, bytes: 2 * PLUGIN_BOUND.bytes };

/// The largest backlog of a sender: twenty connections that each send a burst, and some of the largest messages.
const SENDER_BOUND: BacklogBound = BacklogBound { events: 4096, bytes: 8 * 1024 * 1024 };

/// The number of senders at which the first sweep removes those with nothing to remember.
const REMEMBERED: usize = 1024;

/// The charge for a delivery, in microseconds of call time: about the time that a shard takes to write the delivery to
/// a socket, and the bytes that the shard copies in a microsecond.
const DELIVERY_MICROS: u64 = 2;
const BYTES_PER_MICRO: u64 = 4096;

/// The burst of a sender's call time, in seconds of its allowance.
const BURST_SECONDS: u64 = 4;

/// Faults of a feature within [`FAULT_WINDOW_MS`] that a sender may cause before its events are refused: a bug of
/// the feature hits the same sender only once or twice.
const FREE_FAULTS: usize = 3;
const FAULT_WINDOW_MS: u64 = 60 * 1000;

/// The first refusal of a sender that caused too many faults, in milliseconds. Each further one is twice as long.
const FIRST_REFUSAL_MS: u64 = 10 * 1000;
const LONGEST_REFUSAL_MS: u64 = 10 * 60 * 1000;

/// The time without a fault after which earlier refusals are forgotten, in milliseconds.
const FORGIVEN_AFTER_MS: u64 = 30 * 60 * 1000;

/// The bounds of a sender, over all of its connections.
#[derive(Debug, Clone, Copy)]
pub struct SenderLimits {
    /// Events a second in the long run. 0: no bound.
    pub events_per_second: u32,
    /// Events in a burst.
    pub event_burst: u32,
    /// Call time per second in the long run. Zero: no bound.
    pub call_time: Duration,
}

/// A bound of a backlog.
#[derive(Debug, Clone, Copy)]
struct BacklogBound {
    events: usize,
    bytes: usize,
}

/// Events that wait, and their bytes.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

impl Backlog {
    /// Adds an event if the backlog was empty or stays within the bound. Returns whether the event was added.
    fn add(&self, bytes: usize, bound: BacklogBound) -> bool {
        let n_before = self.events.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = n_before == 0 || (n_before < bound.events && bytes_before + bytes <= bound.bytes);
        if !fits {
            self.remove(bytes);
        }
        fits
    }

    fn remove(&self, bytes: usize) {
        self.events.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The events that wait, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.events.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    fn is_empty(&self) -> bool {
        self.events.load(Ordering::Relaxed) == 0
    }

    fn is_within(&self, bound: BacklogBound) -> bool {
        self.events.load(Ordering::Relaxed) <= bound.events && self.bytes.load(Ordering::Relaxed) <= bound.bytes
    }
}

/// The place of an event in the backlogs, which is freed when the event is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    sender: Option<Arc<Sender>>,
    plugin: Option<Arc<Backlog>>,
    bytes: usize,
}

impl Reservation {
    /// The sender, if it is a client.
    pub(crate) fn sender(&self) -> Option<&Arc<Sender>> {
        self.sender.as_ref()
    }

    /// Reserves a place in a plugin's backlog for the event of a service.
    ///
    /// # Errors
    /// If the part of the plugin's backlog that services may fill is full.
    pub(crate) fn of_service(plugin: &Arc<Backlog>, name: &str, bytes: usize) -> Result<Self, Failure> {
        let mut place = Self { sender: None, plugin: None, bytes };
        place.wait_for_plugin(plugin, name, SERVICE_BOUND)?;
        Ok(place)
    }

    fn wait_for_plugin(&mut self, plugin: &Arc<Backlog>, name: &str, bound: BacklogBound) -> Result<(), Failure> {
        if !plugin.add(self.bytes, bound) {
            let message = format!("the feature {name} has more events than it can handle: try again later");
            return Err(Failure::new(ErrorCode::FeatureUnavailable, message));
        }
        self.plugin = Some(plugin.clone());
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.plugin.iter().for_each(|backlog| backlog.remove(self.bytes));
        if let Some(sender) = &self.sender {
            sender.backlog.remove(self.bytes);
        }
    }
}

/// One principal that sends to features.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) principal: Arc<str>,
    backlog: Backlog,
    events: Allowance,
    call_time: Allowance,
    call_quota: Quota,
    /// Whether the sender has caused a fault since it was remembered.
    has_faults: AtomicBool,
    /// The sender's faults by plugin number.
    faults: Mutex<HashMap<u32, Faults>>,
}

/// The faults of a plugin that a sender caused. All times are milliseconds of uptime.
#[derive(Debug, Default)]
struct Faults {
    recent: Vec<u64>,
    refused_until: u64,
    n_refusals: u32,
}

/// The consequence of a fault for its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consequence {
    Nothing,
    /// The sender's events for the plugin are refused for this many milliseconds.
    Refused(u64),
    /// The same, and the sender's connections are closed.
    Disconnected(u64),
}

impl Sender {
    fn new(principal: Arc<str>, call_quota: Quota) -> Self {
        Self {
            principal,
            backlog: Backlog::default(),
            events: Allowance::default(),
            call_time: Allowance::default(),
            call_quota,
            has_faults: AtomicBool::new(false),
            faults: Mutex::default(),
        }
    }

    /// Charges the sender for the time of a call.
    pub(crate) fn charge_call(&self, now: u64, took: Duration) {
        self.call_time.charge(self.call_quota, now, took.as_micros() as u64);
    }

    /// Charges the sender for the deliveries of its event.
    pub(crate) fn charge_deliveries(&self, now: u64, n_deliveries: usize, bytes: usize) {
        let micros = n_deliveries as u64 * (DELIVERY_MICROS + bytes as u64 / BYTES_PER_MICRO);
        self.call_time.charge(self.call_quota, now, micros);
    }

    /// Notes that one of the sender's events made a plugin fail.
    pub(crate) fn note_fault(&self, plugin: u32, now: u64) -> Consequence {
        self.has_faults.store(true, Ordering::Relaxed);
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let faults = faults.entry(plugin).or_default();
        if faults.recent.last().is_some_and(|last| now.saturating_sub(*last) > FORGIVEN_AFTER_MS) {
            *faults = Faults::default();
        }
        faults.recent.retain(|at| now.saturating_sub(*at) <= FAULT_WINDOW_MS);
        faults.recent.push(now);
        // A sender that was refused before is refused at once.
        let is_known = faults.n_refusals > 0;
        if now < faults.refused_until || !is_known && faults.recent.len() < FREE_FAULTS {
            return Consequence::Nothing;
        }
        let pause = (FIRST_REFUSAL_MS << faults.n_refusals.min(16)).min(LONGEST_REFUSAL_MS);
        faults.n_refusals += 1;
        faults.refused_until = now + pause;
        if is_known { Consequence::Disconnected(pause) } else { Consequence::Refused(pause) }
    }

    /// The refusal of the sender's events for a plugin, for its faults or for the time of its calls; none if they are
    /// not refused.
    pub(crate) fn refusal(&self, plugin: u32, name: &str, now: u64) -> Option<Failure> {
        self.refusal_for_faults(plugin, name, now).or_else(|| self.refusal_for_time(now))
    }

    fn refusal_for_faults(&self, plugin: u32, name: &str, now: u64) -> Option<Failure> {
        if !self.has_faults.load(Ordering::Relaxed) {
            return None;
        }
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let until = faults.get(&plugin).map(|faults| faults.refused_until).filter(|until| *until > now)?;
        let seconds = (until - now).div_ceil(1000);
        let message = format!("what you sent made the feature {name} fail again and again: try again in {seconds} s");
        Some(Failure::new(ErrorCode::RateLimited, message))
    }

    fn refusal_for_time(&self, now: u64) -> Option<Failure> {
        let wait = self.call_time.wait_ms(self.call_quota, now)?;
        let message = format!("what you sent took too much time to handle: try again in {wait} ms");
        Some(Failure::new(ErrorCode::RateLimited, message))
    }

    /// Whether the sender has no backlog, debt or recent fault.
    fn can_be_forgotten(&self, now: u64) -> bool {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |faults: &Faults| faults.recent.last().is_none_or(|last| now - last.min(&now) > FORGIVEN_AFTER_MS);
        self.backlog.is_empty()
            && self.events.is_clear(now)
            && self.call_time.is_clear(now)
            && faults.values().all(is_old)
    }
}

/// All remembered senders.
#[derive(Debug)]
pub(crate) struct Senders {
    senders: DashMap<Arc<str>, Arc<Sender>>,
    event_quota: Quota,
    call_quota: Quota,
    /// The number of senders at which the next sweep is due.
    sweep_at: AtomicUsize,
    metrics: Metrics,
}

impl Senders {
    pub(crate) fn new(limits: SenderLimits, metrics: Metrics) -> Self {
        let per_second = limits.call_time.as_micros() as u64;
        Self {
            senders: DashMap::new(),
            event_quota: Quota { per_second: limits.events_per_second.into(), burst: limits.event_burst.into() },
            call_quota: Quota { per_second, burst: per_second.saturating_mul(BURST_SECONDS) },
            sweep_at: AtomicUsize::new(REMEMBERED),
            metrics,
        }
    }

    /// Reserves a place for a client's event in the backlogs of its sender and of a plugin.
    ///
    /// # Errors
    /// If the sender is over one of its bounds, or the plugin's backlog is full.
    pub(crate) fn admit(
        &self,
        principal: &Arc<str>,
        (number, name, backlog): (u32, &str, &Arc<Backlog>),
        bytes: usize,
        now: u64,
    ) -> Result<Reservation, Failure> {
        let sender = self.sender(principal, now);
        if let Some(failure) = sender.refusal_for_faults(number, name, now) {
            self.metrics.senders_refused.inc();
            return Err(failure);
        }
        let mut place = self.admit_sender(sender, bytes, now)?;
        let is_modest = place.sender.as_ref().is_some_and(|sender| sender.backlog.is_within(MODEST));
        place.wait_for_plugin(backlog, name, if is_modest { RESERVED } else { PLUGIN_BOUND })?;
        Ok(place)
    }

    /// Reserves a place in a client's backlog for its acknowledgement or the `auth` of its `connect`.
    ///
    /// # Errors
    /// If the client is over one of its bounds.
    pub(crate) fn admit_answer(&self, principal: &Arc<str>, bytes: usize, now: u64) -> Result<Reservation, Failure> {
        self.admit_sender(self.sender(principal, now), bytes, now)
    }

    fn admit_sender(&self, sender: Arc<Sender>, bytes: usize, now: u64) -> Result<Reservation, Failure> {
        let refused = |message: String| {
            self.metrics.senders_refused.inc();
            Err(Failure::new(ErrorCode::RateLimited, message))
        };
        if let Some(wait) = sender.events.wait_ms(self.event_quota, now) {
            self.metrics.limited(Limit::EventsPerUser);
            return refused(format!("too many messages from all of your connections: try again in {wait} ms"));
        }
        if let Some(failure) = sender.refusal_for_time(now) {
            return refused(failure.message);
        }
        if !sender.backlog.add(bytes, SENDER_BOUND) {
            return refused(
                "too much of what you sent waits to be handled: wait for answers before you send more".into(),
            );
        }
        sender.events.charge(self.event_quota, now, 1);
        Ok(Reservation { sender: Some(sender), plugin: None, bytes })
    }

    /// The sender of this principal, which is remembered from now on.
    pub(crate) fn sender(&self, principal: &Arc<str>, now: u64) -> Arc<Sender> {
        if let Some(sender) = self.senders.get(&**principal) {
            return sender.clone();
        }
        let n_senders = self.senders.len();
        if n_senders >= self.sweep_at.load(Ordering::Relaxed) {
            self.senders.retain(|_, sender| Arc::strong_count(sender) > 1 || !sender.can_be_forgotten(now));
            self.sweep_at.store((2 * self.senders.len()).max(REMEMBERED), Ordering::Relaxed);
        }
        let new = || Arc::new(Sender::new(principal.clone(), self.call_quota));
        self.senders.entry(principal.clone()).or_insert_with(new).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders(limits: SenderLimits) -> Senders {
        Senders::new(limits, Metrics::new().unwrap())
    }

    fn limits() -> SenderLimits {
        SenderLimits { events_per_second: 0, event_burst: 0, call_time: Duration::from_millis(250) }
    }

    fn admit(
        senders: &Senders,
        who: &str,
        backlog: &Arc<Backlog>,
        bytes: usize,
        now: u64,
    ) -> Result<Reservation, String> {
        senders.admit(&who.into(), (1, "chat", backlog), bytes, now).map_err(|failure| failure.message)
    }

    #[test]
    fn a_full_backlog_refuses_only_its_sender() {
        let (senders, chat) = (senders(limits()), Arc::default());
        let mut kept: Vec<_> =
            (0..SENDER_BOUND.events).map(|_| admit(&senders, "mal", &chat, 10, 0).unwrap()).collect();
        assert!(admit(&senders, "mal", &chat, 10, 0).unwrap_err().contains("waits to be handled"));
        admit(&senders, "ana", &chat, 10, 0).unwrap();
        kept.pop();
        admit(&senders, "mal", &chat, 10, 0).unwrap();
    }

    #[test]
    fn backlogs_are_bounded_in_bytes() {
        let (senders, chat) = (senders(limits()), Arc::default());
        let large = SENDER_BOUND.bytes + 1;
        let first = admit(&senders, "mal", &chat, large, 0).expect("what comes alone may be of any size");
        assert!(admit(&senders, "mal", &chat, 1, 0).is_err());
        drop(first);
        admit(&senders, "mal", &chat, 1, 0).unwrap();
        let fills = |who: &str| admit(&senders, who, &chat, SENDER_BOUND.bytes, 0);
        let kept: Vec<_> = (0..8).map(|n| fills(&format!("u{n}")).unwrap()).collect();
        assert!(fills("u8").unwrap_err().contains("the feature chat has more"));
        admit(&senders, "u9", &chat, 10, 0).expect("a few accounts cannot take a plugin from all others");
        let service = Reservation::of_service(&chat, "chat", 1).unwrap_err();
        assert_eq!(service.code, ErrorCode::FeatureUnavailable);
        drop(kept);
        assert!(chat.is_empty(), "what is gone takes no place");
    }

    #[test]
    fn call_time_and_events_are_bounded_per_sender() {
        let limits = SenderLimits { events_per_second: 10, event_burst: 20, ..limits() };
        let (senders, chat) = (senders(limits), Arc::default());
        let reservation = admit(&senders, "mal", &chat, 1, 0).unwrap();
        reservation.sender().unwrap().charge_call(0, Duration::from_secs(2));
        assert_eq!(
            admit(&senders, "mal", &chat, 1, 0).unwrap_err(),
            "what you sent took too much time to handle: try again in 4000 ms"
        );
        for _ in 0..20 {
            admit(&senders, "ana", &chat, 1, 0).unwrap();
        }
        assert!(admit(&senders, "ana", &chat, 1, 0).unwrap_err().contains("too many messages from all"));
    }

    #[test]
    fn repeated_faults_refuse_then_disconnect_the_sender() {
        let (senders, chat) = (senders(limits()), Arc::default());
        let sender = senders.sender(&"mal".into(), 0);
        assert_eq!(sender.note_fault(1, 0), Consequence::Nothing);
        assert_eq!(sender.note_fault(1, FAULT_WINDOW_MS), Consequence::Nothing);
        assert_eq!(sender.note_fault(1, FAULT_WINDOW_MS + 1), Consequence::Nothing, "the first is too long ago");
        let now = FAULT_WINDOW_MS + 2;
        assert_eq!(sender.note_fault(1, now), Consequence::Refused(FIRST_REFUSAL_MS));
        assert!(admit(&senders, "mal", &chat, 1, now).unwrap_err().contains("again and again: try again in 10 s"));
        admit(&senders, "ana", &chat, 1, now).unwrap();
        senders.admit(&"mal".into(), (2, "timeline", &chat), 1, now).expect("other features take it");
        let now = now + FIRST_REFUSAL_MS;
        admit(&senders, "mal", &chat, 1, now).unwrap();
        assert_eq!(sender.note_fault(1, now), Consequence::Disconnected(2 * FIRST_REFUSAL_MS));
        assert_eq!(sender.note_fault(1, now), Consequence::Nothing, "what was on its way already");
        let now = now + FORGIVEN_AFTER_MS + 1;
        assert_eq!(sender.note_fault(1, now), Consequence::Nothing);
    }

    #[test]
    fn senders_without_a_record_are_forgotten() {
        let (senders, chat) = (senders(limits()), Arc::default());
        let kept = admit(&senders, "waits", &chat, 1, 0).unwrap();
        senders.sender(&"failed".into(), 0).note_fault(1, 0);
        for n in 0..10 * REMEMBERED {
            admit(&senders, &format!("u{n}"), &chat, 1, 1).unwrap();
        }
        assert!(senders.senders.len() <= 2 * REMEMBERED);
        assert!(senders.senders.contains_key("waits") && senders.senders.contains_key("failed"));
        drop(kept);
    }
}

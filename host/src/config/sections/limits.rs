//! `[limits]`: limits on connections, events and bytes.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::budget::{BudgetSection, Budgets};
use crate::api::MAX_BODY_BYTES;
use crate::config::values::check_duration;
use crate::conn::{EventLimits, UserOverflow};
use crate::plugin::SenderLimits;

/// Bytes of incomplete messages and requests that are held by default: some thousands of handshakes and some dozens of
/// the largest messages. A small machine has that much memory.
const UNFINISHED_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of the API's requests that are held by default: some of the largest components.
const API_BYTES: usize = 128 * 1024 * 1024;

/// The bounds of `header_bytes`: the library needs 8 KiB, and no proxy passes on a head of more than a megabyte.
const HEADER_BYTES: RangeInclusive<usize> = 8 * 1024..=1024 * 1024;

/// How many of the longest messages the budget must hold, allowing for base64 and for buffers that have grown ahead:
/// with less, one client could keep others from completing their messages.
const LEAST_MESSAGES: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct LimitsSection {
    pub(in crate::config) message_bytes: usize,
    pub(in crate::config) connections: usize,
    pub(in crate::config) connections_per_user: usize,
    pub(in crate::config) user_overflow: UserOverflow,
    pub(in crate::config) connections_per_ip: usize,
    http_connections_per_ip: Option<usize>,
    pub(in crate::config) requests_per_second_per_ip: u32,
    pub(in crate::config) request_burst_per_ip: u32,
    pub(in crate::config) events_per_second: u32,
    pub(in crate::config) event_burst: u32,
    events: BTreeMap<String, EventLimitSection>,
    events_per_second_per_user: Option<u32>,
    event_burst_per_user: Option<u32>,
    #[serde(with = "humantime_serde")]
    call_time_per_user: Option<Duration>,
    pub(in crate::config) outbox_bytes: usize,
    rooms_per_connection: usize,
    unfinished_bytes: Option<usize>,
    api_bytes: Option<usize>,
    #[serde(with = "humantime_serde")]
    pub(in crate::config) handshake: Duration,
    pub(in crate::config) header_bytes: usize,
    #[serde(with = "humantime_serde")]
    pub(in crate::config) keep_alive: Duration,
    user: BudgetSection,
    service: BudgetSection,
}

/// `[limits.events."NAME"]`: the rate of one event name, for each connection.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct EventLimitSection {
    per_second: u32,
    burst: Option<u32>,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            message_bytes: 1_000_000,
            connections: 0,
            connections_per_user: 0,
            user_overflow: UserOverflow::default(),
            connections_per_ip: 0,
            http_connections_per_ip: None,
            requests_per_second_per_ip: 0,
            request_burst_per_ip: 200,
            events_per_second: 50,
            event_burst: 200,
            events: BTreeMap::new(),
            events_per_second_per_user: None,
            event_burst_per_user: None,
            call_time_per_user: None,
            outbox_bytes: 1_048_576,
            rooms_per_connection: 1000,
            unfinished_bytes: None,
            api_bytes: None,
            // A mobile client's handshake takes seconds.
            handshake: Duration::from_secs(10),
            // nginx's default, enough for a token of 8 KiB in each of several places.
            header_bytes: 32 * 1024,
            // Longer than the 60 s for which most proxies keep idle connections to their back-ends, so that the proxy
            // closes first.
            keep_alive: Duration::from_secs(75),
            user: BudgetSection::default(),
            service: BudgetSection::default(),
        }
    }
}

impl LimitsSection {
    /// # Errors
    /// Where a limit allows nothing at all, or a time is too short.
    pub(in crate::config) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.message_bytes > 0, "limits.message_bytes must be more than 0");
        ensure!(self.outbox_bytes > 0, "limits.outbox_bytes must be more than 0");
        ensure!(
            self.events_per_second == 0 || self.event_burst > 0,
            "limits.event_burst must be more than 0 where limits.events_per_second is"
        );
        ensure!(
            self.event_burst_per_user != Some(0) || self.events_per_second_per_user == Some(0),
            "limits.event_burst_per_user must be more than 0 where limits.events_per_second_per_user is"
        );
        ensure!(
            self.requests_per_second_per_ip == 0 || self.request_burst_per_ip > 0,
            "limits.request_burst_per_ip must be more than 0 where limits.requests_per_second_per_ip is"
        );
        ensure!(
            HEADER_BYTES.contains(&self.header_bytes),
            "limits.header_bytes is {}, and must be {} to {}",
            self.header_bytes,
            HEADER_BYTES.start(),
            HEADER_BYTES.end()
        );
        check_duration("limits.handshake", self.handshake, Duration::from_millis(100))?;
        check_duration("limits.keep_alive", self.keep_alive, Duration::from_secs(1))
    }

    /// HTTP connections from one address; a configured 0 is no limit.
    pub(in crate::config) fn http_connections_per_ip(&self) -> usize {
        /// The HTTP connections that a browser opens to one host.
        const OF_BROWSER: usize = 6;
        self.http_connections_per_ip.unwrap_or(self.connections_per_ip.saturating_mul(OF_BROWSER))
    }

    /// The rates of single event names; `None` without any.
    ///
    /// # Errors
    /// Where a rate allows nothing.
    pub(in crate::config) fn events(&self) -> anyhow::Result<Option<Arc<EventLimits>>> {
        let limits = self.events.iter().map(|(name, section)| {
            let is_name = !name.trim().is_empty();
            ensure!(is_name, "limits.events has a limit without a name: write [limits.events.\"typing:start\"]");
            let per_second = NonZeroU32::new(section.per_second);
            let rate = per_second.zip(NonZeroU32::new(section.burst.unwrap_or(section.per_second)));
            let rate = rate.with_context(|| {
                format!("limits.events.{name:?}: per_second must be 1 or more, and burst too where it is given")
            })?;
            Ok((name.clone().into_boxed_str(), rate))
        });
        let limits = limits.collect::<anyhow::Result<EventLimits>>()?;
        Ok((!limits.is_empty()).then(|| Arc::new(limits)))
    }

    /// The most rooms that a connection may be in; a configured 0 is no limit.
    pub(in crate::config) fn rooms_per_connection(&self) -> usize {
        if self.rooms_per_connection == 0 { usize::MAX } else { self.rooms_per_connection }
    }

    /// # Errors
    /// Where a rate allows nothing at once.
    pub(in crate::config) fn budgets(&self) -> anyhow::Result<Budgets> {
        Budgets::of(self.user, self.service)
    }

    /// The limits of a user over all of its connections, by default multiples of the limits of one connection.
    pub(in crate::config) fn of_senders(&self) -> SenderLimits {
        /// Connections of one person: several tabs on several devices.
        const CONNECTIONS: u32 = 10;
        /// Time for each event: some dozen times the time of a light one.
        const CALL_TIME: Duration = Duration::from_micros(500);
        let of_all = |configured: Option<u32>, of_one: u32| configured.unwrap_or(of_one.saturating_mul(CONNECTIONS));
        let events_per_second = of_all(self.events_per_second_per_user, self.events_per_second);
        SenderLimits {
            events_per_second,
            event_burst: of_all(self.event_burst_per_user, self.event_burst),
            call_time: self.call_time_per_user.unwrap_or(CALL_TIME.saturating_mul(events_per_second)),
        }
    }

    /// Bytes of clients' incomplete messages and requests that may be held.
    ///
    /// # Errors
    /// Where the configured bound is too low.
    pub(in crate::config) fn unfinished_bytes(&self) -> anyhow::Result<usize> {
        let least = self.message_bytes.saturating_mul(LEAST_MESSAGES);
        let bytes = self.unfinished_bytes.unwrap_or(UNFINISHED_BYTES.max(least));
        ensure!(
            bytes >= least,
            "limits.unfinished_bytes is {bytes}, and must be {least}, for {LEAST_MESSAGES} of limits.message_bytes, or more"
        );
        Ok(bytes)
    }

    /// Bytes of the API's requests that may be held.
    ///
    /// # Errors
    /// Where the configured bound is too low.
    pub(in crate::config) fn api_bytes(&self) -> anyhow::Result<usize> {
        let least = MAX_BODY_BYTES * LEAST_MESSAGES;
        let bytes = self.api_bytes.unwrap_or(API_BYTES);
        ensure!(bytes >= least, "limits.api_bytes is {bytes}, and must be {least} or more");
        Ok(bytes)
    }
}

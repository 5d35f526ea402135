//! What the payload of an event may have, as a manifest says it, and the check of what came: before anything of it is queued.

use std::collections::HashMap;
use std::time::Instant;

use serde::Deserialize;

use super::bounds::PayloadBounds;
use super::catalogue::Plugin;
use crate::hub::WakeBatch;
use crate::model::{ConnId, ErrorCode, Failure, Payload};
use crate::plugin::run::event::ReplyTo;
use crate::plugin::runtime::Inner;

/// The extension that says it.
pub(crate) const EXTENSION: &str = "event-limits";

/// What stands in it for all that it does not name.
const OTHERS: &str = "*";

/// How the event is called of which a client is told when its answer to an acknowledgement has too much.
const ACKNOWLEDGEMENT: &str = "acknowledgement";

/// What the payloads of a feature's events may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventLimits {
    of_events: HashMap<String, PayloadBounds>,
    /// What all others may have: events, answers to acknowledgements, and the `auth` of connections.
    of_others: PayloadBounds,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self { of_events: HashMap::new(), of_others: PayloadBounds::HOST }
    }
}

/// PayloadBounds as a manifest writes them. What it leaves out is the host's to bound.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stated {
    bytes: Option<u32>,
    values: Option<u32>,
    keys: Option<u32>,
    depth: Option<u32>,
}

impl Stated {
    fn bounds(&self) -> PayloadBounds {
        let or = |stated: Option<u32>, host| stated.map_or(host, |stated| stated as usize);
        let host = PayloadBounds::HOST;
        PayloadBounds {
            bytes: or(self.bytes, host.bytes),
            values: or(self.values, host.values),
            keys: or(self.keys, host.keys),
            depth: or(self.depth, host.depth),
        }
    }
}

impl EventLimits {
    /// Reads the extension's value.
    ///
    /// # Errors
    /// Where it is not what the contract says.
    pub(crate) fn read(value: &str) -> Result<Self, String> {
        let stated: HashMap<String, Stated> = serde_json::from_str(value).map_err(|error| {
            format!(
                "the extension {EXTENSION} must be a JSON object of events, each an object of bytes, values, keys and \
                 depth: {error}"
            )
        })?;
        let mut of_events: HashMap<_, _> = stated.into_iter().map(|(event, stated)| (event, stated.bounds())).collect();
        let of_others = of_events.remove(OTHERS).unwrap_or(PayloadBounds::HOST);
        Ok(Self { of_events, of_others })
    }

    /// # Errors
    /// Where it names an event of which `is_routed` is not true: the limit would be of nothing.
    pub(crate) fn check_names(&self, is_routed: impl Fn(&str) -> bool) -> Result<(), String> {
        match self.of_events.keys().find(|event| !is_routed(event)) {
            Some(event) => Err(format!("the extension {EXTENSION} names the event {event:?}, which is not routed")),
            None => Ok(()),
        }
    }

    /// What this event may have.
    pub(crate) fn of(&self, event: &str) -> PayloadBounds {
        self.of_events.get(event).copied().unwrap_or(self.of_others)
    }
}

impl Inner {
    /// Checks a payload before it is queued.
    ///
    /// # Errors
    /// With `too_large` where it has more than it may.
    pub(crate) fn check_limits(&self, limits: &PayloadBounds, event: &str, payload: &Payload) -> Result<(), Failure> {
        let attached = payload.attachments.iter().map(bytes::Bytes::len).sum();
        limits.check(event, payload.args(), attached).map_err(|why| {
            self.metrics.events_over_limits.inc();
            Failure::new(ErrorCode::TooLarge, why)
        })
    }

    /// A client's answer to an acknowledgement as the feature gets it: one that has too much is missing, and its client is
    /// told why.
    pub(crate) fn checked_answer(
        &self,
        plugin: &Plugin,
        connection: ConnId,
        payload: Payload,
    ) -> Result<Payload, &'static str> {
        let limits = plugin.current().manifest.limits.of_others;
        match self.check_limits(&limits, ACKNOWLEDGEMENT, &payload) {
            Ok(()) => Ok(payload),
            Err(failure) => {
                let reply = ReplyTo::Client { connection, id: None, read_at: Instant::now() };
                self.answer(ACKNOWLEDGEMENT, reply, Err(failure), &WakeBatch::default());
                Err(ErrorCode::TooLarge.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_own_bounds_or_those_of_others() {
        let limits = EventLimits::read(r#"{"*":{"bytes":10,"depth":2},"say":{"values":5,"keys":4}}"#).unwrap();
        let host = PayloadBounds::HOST;
        assert_eq!(limits.of("say"), PayloadBounds { values: 5, keys: 4, ..host }, "what is left out is the host's");
        assert_eq!(limits.of("join"), PayloadBounds { bytes: 10, depth: 2, ..host });
        assert_eq!(EventLimits::read("{}"), Ok(EventLimits::default()));
        assert_eq!(EventLimits::default().of("say"), host);
    }

    #[test]
    fn bounds_that_are_none_are_refused() {
        for bad in
            ["", "[]", r#"{"say":5}"#, r#"{"say":{"bytes":-1}}"#, r#"{"say":{"depth":1.5}}"#, r#"{"*":{"size":1}}"#]
        {
            let said = EventLimits::read(bad).expect_err(bad);
            assert!(said.contains("event-limits must be a JSON object of events"), "{said}");
        }
    }
}

//! The payload bounds that a manifest states for its events: the extension `event-limits`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::bounds::PayloadBounds;

/// The name of the extension.
pub(crate) const EXTENSION: &str = "event-limits";

/// The key of the bounds for all payloads without a key of their own.
const OTHERS: &str = "*";

/// The bounds of the payloads of a feature's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLimits {
    of_events: BTreeMap<String, PayloadBounds>,
    /// The bounds of other events, of answers to acknowledgements, and of the `auth` of connections.
    of_others: PayloadBounds,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self { of_events: BTreeMap::new(), of_others: PayloadBounds::HOST }
    }
}

/// Bounds as a manifest writes them. Missing ones are those of [`PayloadBounds::HOST`].
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
    /// If the value is not JSON of the form that the contract describes.
    pub(crate) fn read(value: &str) -> Result<Self, String> {
        let stated: BTreeMap<String, Stated> = serde_json::from_str(value).map_err(|error| {
            format!(
                "the extension {EXTENSION} must be a JSON object of events, each an object of bytes, values, keys and \
                 depth: {error}"
            )
        })?;
        let mut of_events: BTreeMap<_, _> =
            stated.into_iter().map(|(event, stated)| (event, stated.bounds())).collect();
        let of_others = of_events.remove(OTHERS).unwrap_or(PayloadBounds::HOST);
        Ok(Self { of_events, of_others })
    }

    /// Checks that each event is routed: bounds of another event would have no effect.
    ///
    /// # Errors
    /// With the first event for which `is_routed` is false.
    pub(crate) fn check_names(&self, is_routed: impl Fn(&str) -> bool) -> Result<(), String> {
        match self.of_events.keys().find(|event| !is_routed(event)) {
            Some(event) => Err(format!("the extension {EXTENSION} names the event {event:?}, which is not routed")),
            None => Ok(()),
        }
    }

    /// The bounds of an event.
    pub fn of(&self, event: &str) -> PayloadBounds {
        self.of_events.get(event).copied().unwrap_or(self.of_others)
    }

    /// The bounds of payloads without a key of their own, such as answers to acknowledgements.
    pub fn of_others(&self) -> PayloadBounds {
        self.of_others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_without_bounds_use_the_common_ones() {
        let limits = EventLimits::read(r#"{"*":{"bytes":10,"depth":2},"say":{"values":5,"keys":4}}"#).unwrap();
        let host = PayloadBounds::HOST;
        assert_eq!(limits.of("say"), PayloadBounds { values: 5, keys: 4, ..host }, "what is left out is the host's");
        assert_eq!(limits.of("join"), PayloadBounds { bytes: 10, depth: 2, ..host });
        assert_eq!(EventLimits::read("{}"), Ok(EventLimits::default()));
        assert_eq!(EventLimits::default().of("say"), host);
    }

    #[test]
    fn malformed_bounds_are_refused() {
        for bad in
            ["", "[]", r#"{"say":5}"#, r#"{"say":{"bytes":-1}}"#, r#"{"say":{"depth":1.5}}"#, r#"{"*":{"size":1}}"#]
        {
            let said = EventLimits::read(bad).expect_err(bad);
            assert!(said.contains("event-limits must be a JSON object of events"), "{said}");
        }
    }
}

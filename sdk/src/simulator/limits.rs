//! What payloads may have and whom a feature may let join, as the host bounds it.

use roundhouse_contract::{PayloadBounds, without_credentials};
use serde_json::{Value, json};

use super::{Connection, Simulation};
use crate::manifest::CONNECT;
use crate::{Effect, EventLimits, Failure, Feature, Payload};

/// How the event is called of which a client is told when its answer to an acknowledgement is too large.
const ACKNOWLEDGEMENT: &str = "acknowledgement";

impl EventLimits {
    fn bounds(&self) -> PayloadBounds {
        let or = |stated: Option<u32>, host| stated.and_then(|stated| usize::try_from(stated).ok()).unwrap_or(host);
        let host = PayloadBounds::HOST;
        PayloadBounds {
            bytes: or(self.bytes, host.bytes),
            values: or(self.values, host.values),
            keys: or(self.keys, host.keys),
            depth: or(self.depth, host.depth),
        }
    }
}

impl<F: Feature> Simulation<F> {
    /// Refuses a payload that has more than the manifest says of the event.
    pub(super) fn check_limits(&self, event: &str, payload: &Payload) -> Result<(), Failure> {
        let limits = self.manifest.event_limits();
        let stated = limits.get(event).or_else(|| limits.get("*")).copied().unwrap_or_else(EventLimits::of_host);
        let attached = payload.attachments.iter().map(Vec::len).sum();
        stated.bounds().check(event, &payload.args, attached).map_err(|why| Failure::new("too_large", why))
    }

    /// What the feature is told of a connection that opens with this `auth`, and the refusal of an `auth` that it cannot be
    /// told.
    pub(super) fn greeting(&self, namespace: &str, auth: &Value) -> (Payload, Result<(), Failure>) {
        let payload =
            |auth: &str| Payload::from_args(format!(r#"[{{"namespace":{},"auth":{auth}}}]"#, json!(namespace)));
        let seen = payload(&without_credentials(&auth.to_string()));
        match self.check_limits(CONNECT, &seen) {
            Ok(()) => (seen, Ok(())),
            // It hears of the connection all the same, or nobody could be kept from hiding.
            refused => (payload("{}"), refused),
        }
    }

    /// Whether the host would let these connections join.
    ///
    /// # Panics
    /// Where one of them has sent nothing, and the manifest does not need the action `join`.
    pub(super) fn check_joins(&self, effects: &[Effect]) {
        if self.manifest.needs.actions.iter().any(|action| action == "join") {
            return;
        }
        for effect in effects {
            let Effect::Join(connection, _) = effect else { continue };
            let came = self.position(connection).is_none_or(|position| self.lines[position].came);
            assert!(
                came,
                "{connection} joins and has sent nothing, and the manifest does not need the action \"join\""
            );
        }
    }

    /// A client's answer to an acknowledgement as the feature gets it: one that is too large is missing, and its client is
    /// told.
    pub(super) fn checked_answer(&mut self, connection: Connection, payload: Payload) -> Result<Payload, Failure> {
        match self.check_limits(ACKNOWLEDGEMENT, &payload) {
            Ok(()) => Ok(payload),
            Err(failure) => {
                let missing = Failure::unanswered(failure.code.clone());
                self.refuse(connection, ACKNOWLEDGEMENT, failure);
                Err(missing)
            }
        }
    }
}

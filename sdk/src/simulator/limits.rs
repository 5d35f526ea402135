//! The check of payloads against the bounds of their events, and the payload of `connect`.

use roundhouse_contract::{CONNECT_EVENT, PayloadBounds, without_credentials};
use serde_json::{Value, json};

use super::simulation::Simulation;
use super::state::Connection;
use crate::{Failure, Feature, Payload};

/// The event that the error names if a client's acknowledgement is too large.
const ACKNOWLEDGEMENT: &str = "acknowledgement";

/// Refuses a payload that exceeds its bounds.
pub(super) fn check_bounds(bounds: PayloadBounds, event: &str, payload: &Payload) -> Result<(), Failure> {
    let attached = payload.attachments.iter().map(Vec::len).sum();
    bounds.check(event, &payload.args, attached).map_err(|why| Failure::new("too_large", why))
}

impl<F: Feature> Simulation<F> {
    /// The payload of `connect` for a connection with this `auth`, and the error that the client gets if `auth` exceeds
    /// the bounds.
    pub(super) fn connect_payload(&self, namespace: &str, auth: &Value) -> (Payload, Result<(), Failure>) {
        let handshake = format!(r#""query":{{}},"headers":{{}},"address":"127.0.0.1","time":{}"#, self.now);
        let payload = |auth: &str| {
            let namespace = json!(namespace);
            Payload::from_args(format!(r#"[{{"namespace":{namespace},"auth":{auth},{handshake}}}]"#))
        };
        let seen = payload(&without_credentials(&auth.to_string()));
        match check_bounds(self.manifest.limits.of(CONNECT_EVENT), CONNECT_EVENT, &seen) {
            Ok(()) => (seen, Ok(())),
            // The feature gets the event nevertheless, so that no client can hide from it.
            refused => (payload("{}"), refused),
        }
    }

    /// A client's acknowledgement as the feature gets it. One that exceeds the bounds counts as missing, and the client
    /// gets an error.
    pub(super) fn checked_answer(&mut self, connection: Connection, payload: Payload) -> Result<Payload, Failure> {
        match check_bounds(self.manifest.limits.of_others(), ACKNOWLEDGEMENT, &payload) {
            Ok(()) => Ok(payload),
            Err(failure) => {
                let missing = Failure::unanswered(failure.code.clone());
                self.refuse(connection, ACKNOWLEDGEMENT, failure);
                Err(missing)
            }
        }
    }
}

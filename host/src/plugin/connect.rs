//! New connections: the namespaces that they may open in, and the features that get a `connect` event.

use std::sync::Arc;
use std::time::Instant;

use roundhouse_contract::{CONNECT_EVENT, without_credentials};
use serde_json::Value;
use serde_json::value::RawValue;

use super::event::{Event, Member, Origin, ReplyTo};
use super::run::job::Envelope;
use super::runtime::Runtime;
use crate::hub::WakeBatch;
use crate::model::{ConnId, Identity, Payload};

impl Runtime {
    /// Queues the `connect` events of a new connection, so that features get them before any event that the connection
    /// sends. To be called when the connection is in the hub, and before its first event. `auth` is from the client's
    /// handshake; features get it without credentials, unless the configuration shows them.
    pub fn notify_connect(
        &self,
        connection: ConnId,
        identity: Arc<Identity>,
        namespace: &str,
        auth: Option<&RawValue>,
    ) {
        let catalogue = self.0.shared.catalogue.load();
        if catalogue.connect_listeners().is_empty() {
            return;
        }
        // A feature that sees all connections must not be able to act in their clients' names.
        let seen = |auth: &str| match self.0.shared.config.shows_credentials {
            true => auth.to_owned(),
            false => without_credentials(auth),
        };
        let auth = auth.map(|auth| seen(auth.get()));
        let told = connect_payload(namespace, auth.as_deref().unwrap_or("{}"));
        let mut too_large = None;
        for (plugin, address) in catalogue.connect_listeners() {
            let limits = plugin.current().manifest.limits.of(CONNECT_EVENT);
            let payload = match self.0.shared.check_limits(&limits, CONNECT_EVENT, &told) {
                Ok(()) => told.clone(),
                // The feature still gets the event, without `auth`: otherwise a client could connect unnoticed.
                Err(failure) => {
                    too_large = Some(failure);
                    connect_payload(namespace, "{}")
                }
            };
            // If the user is over its bounds, the event has no `auth`.
            let now = self.0.shared.clock.uptime_ms();
            let place = self.0.shared.senders.admit_answer(&identity.principal, payload.bytes(), now).ok();
            let payload = if place.is_some() { payload } else { connect_payload(namespace, "{}") };
            let origin = Origin::Host(Member { connection, identity: identity.clone() });
            let event = Event::Message { event: CONNECT_EVENT.into(), origin, payload, wants_reply: false, place };
            // The client gets a refusal as an error, as for the events that it sends itself.
            let reply = ReplyTo::Client { connection, id: None, read_at: Instant::now() };
            self.0.shared.submit(Envelope { plugin: plugin.clone(), address: address.clone(), event, reply });
        }
        if let Some(failure) = too_large {
            let reply = ReplyTo::Client { connection, id: None, read_at: Instant::now() };
            self.0.shared.answer(CONNECT_EVENT, reply, Err(failure), &WakeBatch::default());
        }
    }

    /// Whether any feature gets `connect` events.
    pub fn has_connect_listeners(&self) -> bool {
        !self.0.shared.catalogue.load().connect_listeners().is_empty()
    }

    /// Whether the Socket.IO namespace exists: `/`, or one that a feature's manifest declares.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        namespace == "/" || self.0.shared.catalogue.load().has_namespace(namespace)
    }
}

/// The payload of a `connect` event. `auth` is JSON text, passed on verbatim: a tree of values would change numbers and
/// the order of fields.
fn connect_payload(namespace: &str, auth: &str) -> Payload {
    Payload::from_checked(format!(r#"[{{"namespace":{},"auth":{auth}}}]"#, Value::from(namespace)), Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_payload_keeps_auth_verbatim() {
        assert_eq!(connect_payload("/", "{}").args(), r#"[{"namespace":"/","auth":{}}]"#);
        let auth = r#"{"b":1.10,"a":[]}"#;
        assert_eq!(connect_payload(r#"/"x"#, auth).args(), r#"[{"namespace":"/\"x","auth":{"b":1.10,"a":[]}}]"#);
    }
}

//! Connections that open: which namespaces they may open in, and which features are told.

use std::sync::Arc;
use std::time::Instant;

use roundhouse_contract::{CONNECT_EVENT, without_credentials};
use serde_json::Value;
use serde_json::value::RawValue;

use super::event::{Event, Member, Origin, ReplyTo};
use super::run::worker::Job;
use super::runtime::Runtime;
use crate::hub::WakeBatch;
use crate::model::{ConnId, Identity, Payload};

impl Runtime {
    /// A connection has opened: the features that want to know are told before anything that it sends. To be called when
    /// the connection is in the hub, and before its first event. `auth` is what its client gave with the handshake, of which features see all but the credentials.
    pub fn connected(&self, connection: ConnId, identity: Arc<Identity>, namespace: &str, auth: Option<&RawValue>) {
        let catalogue = self.0.shared.catalogue.load();
        if catalogue.greeters().is_empty() {
            return;
        }
        // Whoever is told of all connections must not be able to speak for them.
        let seen = |auth: &str| match self.0.shared.config.shows_credentials {
            true => auth.to_owned(),
            false => without_credentials(auth),
        };
        let auth = auth.map(|auth| seen(auth.get()));
        let told = greeting(namespace, auth.as_deref().unwrap_or("{}"));
        let mut too_large = None;
        for (plugin, address) in catalogue.greeters() {
            let limits = plugin.current().manifest.limits.of(CONNECT_EVENT);
            let payload = match self.0.shared.check_limits(&limits, CONNECT_EVENT, &told) {
                Ok(()) => told.clone(),
                // The feature hears of the connection all the same, or a client could hide from it.
                Err(failure) => {
                    too_large = Some(failure);
                    greeting(namespace, "{}")
                }
            };
            // Where too much of its user waits, it is told of without what the client gave.
            let now = self.0.shared.clock.uptime_ms();
            let place = self.0.shared.senders.admit_answer(&identity.principal, payload.bytes(), now).ok();
            let payload = if place.is_some() { payload } else { greeting(namespace, "{}") };
            let origin = Origin::Host(Member { connection, identity: identity.clone() });
            let event = Event::Message { event: CONNECT_EVENT.into(), origin, payload, wants_reply: false, place };
            // The client is told of a refusal, as with the events that it sends.
            let reply = ReplyTo::Client { connection, id: None, read_at: Instant::now() };
            self.0.shared.submit(Job::Event { plugin: plugin.clone(), address: address.clone(), event, reply });
        }
        if let Some(failure) = too_large {
            let reply = ReplyTo::Client { connection, id: None, read_at: Instant::now() };
            self.0.shared.answer(CONNECT_EVENT, reply, Err(failure), &WakeBatch::default());
        }
    }

    /// Whether a feature wants to be told of connections.
    pub fn greets(&self) -> bool {
        !self.0.shared.catalogue.load().greeters().is_empty()
    }

    /// Whether there is this Socket.IO namespace: `/`, or one that a feature says there is.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        namespace == "/" || self.0.shared.catalogue.load().has_namespace(namespace)
    }
}

/// What features are told of a connection that opens. `auth` is JSON text, as it came but for the credentials in it: a tree of
/// values would change numbers and the order of fields.
fn greeting(namespace: &str, auth: &str) -> Payload {
    Payload::from_checked(format!(r#"[{{"namespace":{},"auth":{auth}}}]"#, Value::from(namespace)), Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_told_the_namespace_and_the_auth_as_it_came() {
        assert_eq!(greeting("/", "{}").args(), r#"[{"namespace":"/","auth":{}}]"#);
        let auth = r#"{"b":1.10,"a":[]}"#;
        assert_eq!(greeting(r#"/"x"#, auth).args(), r#"[{"namespace":"/\"x","auth":{"b":1.10,"a":[]}}]"#);
    }
}

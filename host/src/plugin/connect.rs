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
use crate::model::{ConnId, Failure, Identity, Payload};

/// A new connection, as features are told of it.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// The connection, which is in the hub.
    pub connection: ConnId,
    /// Its user.
    pub identity: &'a Arc<Identity>,
    /// The Socket.IO namespace.
    pub namespace: &'a str,
    /// The client's `auth`, JSON text. Features get it without credentials, unless the configuration shows them.
    pub auth: Option<&'a RawValue>,
    /// The other facts of the handshake: fields of a JSON object, which begin with a comma.
    pub handshake: &'a str,
    /// Whether the features that decide about connections were asked about it.
    pub was_asked: bool,
}

impl Runtime {
    /// Asks the features that decide whether a connection opens. Returns the number of answers that will come, each as
    /// [`ShardCommand::Admit`](crate::hub::ShardCommand::Admit).
    pub fn ask_admission(&self, opening: Opening<'_>) -> usize {
        self.tell_of(opening, true)
    }

    /// Queues the `connect` events of a new connection for the features that were not asked about it, so that they
    /// get them before any event that the connection sends. To be called before its first event.
    pub fn notify_connect(&self, opening: Opening<'_>) {
        self.tell_of(opening, false);
    }

    fn tell_of(&self, opening: Opening<'_>, is_admission: bool) -> usize {
        let catalogue = self.0.shared.catalogue.load();
        let Opening { connection, identity, namespace, auth, handshake, was_asked } = opening;
        // A build that decides may have been loaded after the connection was opened: it is told like others.
        let is_told = |admits: bool| if is_admission { admits } else { !(admits && was_asked) };
        let listeners = catalogue.connect_listeners().iter();
        let listeners: Vec<_> = listeners.filter(|(plugin, _)| is_told(plugin.current().manifest.admits)).collect();
        if listeners.is_empty() {
            return 0;
        }
        // A feature that sees all connections must not be able to act in their clients' names.
        let seen = |auth: &str| match self.0.shared.config.shows_credentials {
            true => auth.to_owned(),
            false => without_credentials(auth),
        };
        let auth = auth.map(|auth| seen(auth.get()));
        let told = connect_payload(namespace, auth.as_deref().unwrap_or("{}"), handshake);
        let bare = || connect_payload(namespace, "{}", "");
        let mut too_large = None;
        for (plugin, address) in &listeners {
            let limits = plugin.current().manifest.limits.of(CONNECT_EVENT);
            let payload = match self.0.shared.check_limits(&limits, CONNECT_EVENT, &told) {
                Ok(()) => told.clone(),
                // A feature must not decide about what it does not see.
                Err(failure) if is_admission => {
                    self.refuse_opening(connection, failure);
                    continue;
                }
                // The feature still gets the event, without `auth`: otherwise a client could connect unnoticed.
                Err(failure) => {
                    too_large = Some(failure);
                    bare()
                }
            };
            // If the user is over its bounds, the event has no `auth`.
            let now = self.0.shared.clock.uptime_ms();
            let place = match self.0.shared.senders.admit_answer(&identity.principal, payload.bytes(), now) {
                Err(failure) if is_admission => {
                    self.refuse_opening(connection, failure);
                    continue;
                }
                place => place.ok(),
            };
            let payload = if place.is_some() { payload } else { bare() };
            let origin = Origin::Host(Member { connection, identity: identity.clone() });
            let event =
                Event::Message { event: CONNECT_EVENT.into(), origin, payload, wants_reply: is_admission, place };
            let reply = match is_admission {
                true => ReplyTo::Admission { connection },
                // The client gets a refusal as an error, as for the events that it sends itself.
                false => ReplyTo::Client { connection, id: None, read_at: Instant::now() },
            };
            self.0.shared.submit(Envelope { plugin: plugin.clone(), address: address.clone(), event, reply });
        }
        if let Some(failure) = too_large {
            let reply = ReplyTo::Client { connection, id: None, read_at: Instant::now() };
            self.0.shared.answer(CONNECT_EVENT, reply, Err(failure), &WakeBatch::default());
        }
        listeners.len()
    }

    fn refuse_opening(&self, connection: ConnId, failure: Failure) {
        let reply = ReplyTo::Admission { connection };
        self.0.shared.answer(CONNECT_EVENT, reply, Err(failure), &WakeBatch::default());
    }

    /// Whether a feature decides whether connections open.
    pub fn has_admission(&self) -> bool {
        let catalogue = self.0.shared.catalogue.load();
        catalogue.connect_listeners().iter().any(|(plugin, _)| plugin.current().manifest.admits)
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
fn connect_payload(namespace: &str, auth: &str, handshake: &str) -> Payload {
    let namespace = Value::from(namespace);
    Payload::from_checked(format!(r#"[{{"namespace":{namespace},"auth":{auth}{handshake}}}]"#), Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_payload_keeps_auth_verbatim() {
        assert_eq!(connect_payload("/", "{}", "").args(), r#"[{"namespace":"/","auth":{}}]"#);
        let auth = r#"{"b":1.10,"a":[]}"#;
        assert_eq!(
            connect_payload(r#"/"x"#, auth, r#","time":5"#).args(),
            r#"[{"namespace":"/\"x","auth":{"b":1.10,"a":[]},"time":5}]"#
        );
    }
}

//! Connections that open: which namespaces they may open in, and which features are told.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use serde_json::value::RawValue;

use super::event::{Event, Member, Origin, ReplyTo};
use super::manifest::CONNECT_EVENT;
use super::runtime::Runtime;
use super::worker::Job;
use crate::model::{ConnId, Identity, Payload};

impl Runtime {
    /// A connection has opened: the features that want to know are told before anything that it sends. To be called when
    /// the connection is in the hub, and before its first event. `auth` is what its client gave with the handshake.
    pub fn connected(&self, connection: ConnId, identity: Arc<Identity>, namespace: &str, auth: Option<&RawValue>) {
        let catalogue = self.0.catalogue.load();
        if catalogue.greeters().is_empty() {
            return;
        }
        let payload = greeting(namespace, auth);
        for (plugin, address) in catalogue.greeters() {
            let origin = Origin::Host(Member { connection, identity: identity.clone() });
            let payload = payload.clone();
            let event =
                Event::Message { event: CONNECT_EVENT.into(), origin, payload, wants_reply: false, place: None };
            // The client is told of a refusal, as with the events that it sends.
            let reply = ReplyTo::Client { connection, id: None, read_at: Instant::now() };
            self.0.submit(Job::Event { plugin: plugin.clone(), address: address.clone(), event, reply });
        }
    }

    /// Whether a feature wants to be told of connections.
    pub fn greets(&self) -> bool {
        !self.0.catalogue.load().greeters().is_empty()
    }

    /// Whether there is this Socket.IO namespace: `/`, or one that a feature says there is.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        namespace == "/" || self.0.catalogue.load().has_namespace(namespace)
    }
}

/// What features are told of a connection that opens.
fn greeting(namespace: &str, auth: Option<&RawValue>) -> Payload {
    // As it came: a tree of values would change numbers and the order of fields.
    let auth = auth.map_or("{}", RawValue::get);
    Payload::from_checked(format!(r#"[{{"namespace":{},"auth":{auth}}}]"#, Value::from(namespace)), Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_told_the_namespace_and_the_auth_as_it_came() {
        assert_eq!(greeting("/", None).args(), r#"[{"namespace":"/","auth":{}}]"#);
        let auth = RawValue::from_string(r#"{"b":1.10,"a":[]}"#.to_owned()).unwrap();
        assert_eq!(greeting(r#"/"x"#, Some(&auth)).args(), r#"[{"namespace":"/\"x","auth":{"b":1.10,"a":[]}}]"#);
    }
}

//! The steps of a script.

use serde_json::Value;

/// A step of a script. A step begins when the one before has been answered.
#[derive(Debug, Clone)]
pub enum Step {
    /// A client sends an event and waits for its acknowledgement, which may be a refusal.
    Client {
        /// The connection, which is opened if it is not open. See [`user`].
        from: &'static str,
        /// The event.
        event: &'static str,
        /// The data.
        data: Value,
    },
    /// A service posts an event, which may be refused.
    Service {
        /// The event.
        event: &'static str,
        /// The data.
        data: Value,
    },
    /// A connection closes. A later step may open it again.
    Disconnect {
        /// The connection.
        from: &'static str,
    },
}

pub(super) fn client(from: &'static str, event: &'static str, data: impl Into<Value>) -> Step {
    Step::Client { from, event, data: data.into() }
}

pub(super) fn service(event: &'static str, data: Value) -> Step {
    Step::Service { event, data }
}

pub(super) fn disconnect(from: &'static str) -> Step {
    Step::Disconnect { from }
}

/// The fields of both objects.
pub(super) fn with(base: &Value, fields: Value) -> Value {
    let mut all = base.clone();
    if let (Value::Object(all), Value::Object(fields)) = (&mut all, fields) {
        all.extend(fields);
    }
    all
}

//! Failures of events, and their codes.

use std::fmt;

/// The longest message that a host passes on, in characters.
const MAX_MESSAGE_CHARS: usize = 1024;

/// The longest refusal of a connection, in bytes.
const MAX_REFUSAL_BYTES: usize = 16 * 1024;

/// A failure of an event. The sender gets it as a typed error, and the event has no effects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One of the codes below; any other code reaches the sender as `internal`.
    pub code: String,
    /// The mistake and its remedy, written for the sender.
    pub message: String,
    /// See [`Failure::with_data`]; JSON text.
    pub(crate) data: Option<String>,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident;)*) => {
        impl Failure {
            $(
                $(#[$doc])*
                pub fn $code(message: impl Into<String>) -> Self {
                    Self::new(stringify!($code), message)
                }
            )*
        }
    };
}

codes! {
    /// The payload does not fit the event.
    bad_request;
    /// The sender is not authenticated.
    unauthorized;
    /// The sender may not do this.
    forbidden;
    /// The requested thing does not exist.
    not_found;
    /// The message does not fit the present state.
    conflict;
    /// The sender has sent too much in a short time.
    rate_limited;
    /// The payload is too large.
    too_large;
    /// The feature cannot work at present, for instance because its settings are wrong.
    feature_unavailable;
    /// The feature has a mistake.
    internal;
}

impl Failure {
    /// A failure with any code.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), data: None }
    }

    /// Adds what a Socket.IO client gets as `data` of its `connect_error`, instead of code and message. It counts for the
    /// refusal of a connection by a scope that [admits](crate::Scope::admits) connections, and nowhere else. Data that make
    /// the refusal longer than 16 KiB are left out.
    #[must_use]
    pub fn with_data(mut self, data: &serde_json::Value) -> Self {
        self.data = Some(data.to_string());
        self
    }

    /// The refusal of a connection as the contract has it, if there is more than code and message. Data that are too long are
    /// left out.
    pub(crate) fn connect_refusal(&self) -> Option<String> {
        let Self { code, message, data } = self;
        let message: &str = &message.chars().take(MAX_MESSAGE_CHARS).collect::<String>();
        let [code, message] = [code, message].map(serde_json::Value::from);
        let refusal = data.as_ref().map(|data| format!(r#"{{"code":{code},"message":{message},"data":{data}}}"#));
        refusal.filter(|refusal| refusal.len() <= MAX_REFUSAL_BYTES)
    }

    /// The failure in place of a missing acknowledgement: `timeout`, `disconnected` or `too_large`.
    pub(crate) fn unanswered(reason: impl Into<String>) -> Self {
        Self::new(reason, "the client did not answer")
    }

    /// The failure to encode a value as JSON.
    pub(crate) fn encoding(what: &str, error: &serde_json::Error) -> Self {
        Self::internal(format!("{what} does not become JSON: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}

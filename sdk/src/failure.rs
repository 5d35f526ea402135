//! A feature's refusal, and the codes that senders know.

use std::fmt;

/// A refusal: the sender gets it as a typed error, and nothing else happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One of the codes below; any other reaches the sender as `internal`.
    pub code: String,
    /// What was wrong and what to do, for the sender to read.
    pub message: String,
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
    /// The payload is not what the event wants.
    bad_request;
    /// Nobody is signed in.
    unauthorized;
    /// The sender may not do this.
    forbidden;
    /// There is no such thing.
    not_found;
    /// It makes no sense in the present state.
    conflict;
    /// Too often.
    rate_limited;
    /// Too much of it.
    too_large;
    /// The feature cannot work now, for instance because its settings are wrong.
    feature_unavailable;
    /// The feature's own mistake.
    internal;
}

impl Failure {
    /// A failure with a code of one's own choice.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// Why a client's answer is missing: `timeout`, `disconnected` or `too_large`.
    pub(crate) fn unanswered(reason: impl Into<String>) -> Self {
        Self::new(reason, "the client did not answer")
    }

    /// The failure for a value of ours that does not become JSON.
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

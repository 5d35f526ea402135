//! The errors that a client can see: typed errors, and close codes.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

/// Why an event or a call was refused. The names are part of every protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The payload or the frame is malformed.
    BadRequest,
    /// There are no credentials, or invalid ones.
    Unauthorized,
    /// The credentials do not permit this.
    Forbidden,
    /// The thing that was named does not exist.
    NotFound,
    /// It conflicts with the present state.
    Conflict,
    /// The sender is over its rate.
    RateLimited,
    /// Larger than the limit.
    TooLarge,
    /// No feature handles an event of this name.
    UnknownEvent,
    /// The feature cannot answer now: it failed, it is paused or it is overloaded.
    FeatureUnavailable,
    /// The host failed.
    Internal,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::RateLimited,
        Self::TooLarge,
        Self::UnknownEvent,
        Self::FeatureUnavailable,
        Self::Internal,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate_limited",
            Self::TooLarge => "too_large",
            Self::UnknownEvent => "unknown_event",
            Self::FeatureUnavailable => "feature_unavailable",
            Self::Internal => "internal",
        }
    }

    /// The code of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    /// The HTTP status that goes with it (RFC 9110).
    pub fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound | Self::UnknownEvent => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::FeatureUnavailable => 503,
        }
    }
}

/// A typed error for the sender of an event or the caller of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub struct Failure {
    /// Which of the known kinds.
    pub code: ErrorCode,
    /// What was wrong, where, and what to do about it.
    pub message: String,
    /// What a feature that refuses a connection has its client told besides: JSON text.
    #[serde(skip)]
    pub data: Option<Arc<str>>,
}

impl Failure {
    /// A failure of a kind, with a message for its reader.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Failure {}

/// Close codes of WebSockets: those of RFC 6455, section 7.4, and the host's own from 4000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// The answer to a close without a fault.
    Normal = 1000,
    /// The client did not answer heartbeats.
    GoingAway = 1001,
    /// A frame that breaks the protocol.
    ProtocolError = 1002,
    /// Text that is not UTF-8.
    InvalidPayload = 1007,
    /// The client kept exceeding a limit.
    PolicyViolation = 1008,
    /// A message over the limit.
    TooLarge = 1009,
    /// The host restarts: connect again.
    Restart = 1012,
    /// The host is full: connect again later.
    TryAgainLater = 1013,
    /// No token, or not a valid one.
    Unauthorized = 4001,
    /// The token has expired.
    TokenExpired = 4002,
    /// Valid credentials that do not permit this.
    Forbidden = 4003,
    /// The client reads slower than events are sent to it.
    TooSlow = 4008,
    /// More connections than the user or the address may have.
    TooManyConnections = 4009,
    /// An operator or a feature closed it.
    Disconnected = 4010,
}

impl CloseCode {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Normal,
        Self::GoingAway,
        Self::ProtocolError,
        Self::InvalidPayload,
        Self::PolicyViolation,
        Self::TooLarge,
        Self::Restart,
        Self::TryAgainLater,
        Self::Unauthorized,
        Self::TokenExpired,
        Self::Forbidden,
        Self::TooSlow,
        Self::TooManyConnections,
        Self::Disconnected,
    ];

    /// The code on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }
}

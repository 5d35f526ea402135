//! What an event carries, in the form that all protocols and features share.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::placeholders::{self, BadPlaceholders};

/// An event's arguments and the binary attachments that they refer to: `{"_placeholder":true,"num":n}` stands for the
/// n-th of them. Where there are attachments, the arguments refer to each exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// JSON text: one array of arguments.
    args: Box<str>,
    /// Binary attachments, in the order of their numbers.
    pub attachments: Vec<Bytes>,
}

/// Arguments that cannot be a payload.
#[derive(Debug, thiserror::Error)]
pub enum BadPayload {
    /// They are not JSON, or not an array.
    #[error("the arguments are not a JSON array: {0}")]
    NotAnArray(#[from] serde_json::Error),
    /// They and the attachments do not belong together.
    #[error(transparent)]
    Placeholders(#[from] BadPlaceholders),
}

impl Payload {
    /// The most attachments of one event: as many as the reference decoder of Socket.IO takes, so that what one client
    /// sends every other can read.
    pub const MAX_ATTACHMENTS: usize = 10;

    /// No arguments at all.
    pub fn empty() -> Self {
        Self { args: "[]".into(), attachments: Vec::new() }
    }

    /// One argument, which was parsed before; `None` for no argument.
    pub fn of_data(data: Option<&RawValue>) -> Self {
        data.map_or_else(Self::empty, |data| Self::from_checked(["[", data.get(), "]"].concat(), Vec::new()))
    }

    /// One argument.
    pub fn of_json(data: &serde_json::Value) -> Self {
        Self { args: format!("[{data}]").into(), attachments: Vec::new() }
    }

    /// Arguments from elsewhere, checked to be a JSON array that refers to each of the attachments.
    ///
    /// # Errors
    /// Where `args` is anything else.
    pub fn from_args(args: &str, attachments: Vec<Bytes>) -> Result<Self, BadPayload> {
        serde_json::from_str::<Vec<IgnoredAny>>(args)?;
        if !attachments.is_empty() {
            Self::check_placeholders(args, attachments.len())?;
        }
        Ok(Self { args: args.into(), attachments })
    }

    /// A JSON array and its attachments, of which the caller knows already that they are that.
    pub(crate) fn from_checked(args: impl Into<Box<str>>, attachments: Vec<Bytes>) -> Self {
        Self { args: args.into(), attachments }
    }

    /// Checks that the placeholders in `args` are exactly those of this many attachments, in one pass that builds
    /// nothing. What looks like a placeholder in an event without attachments is data like any other: nobody asks.
    ///
    /// # Errors
    /// Where one is missing, there twice or refers to nothing, where there are too many attachments, and where `args` is
    /// not JSON or is nested deeper than 128 levels.
    pub fn check_placeholders(args: &str, attachments: usize) -> Result<(), BadPlaceholders> {
        placeholders::check(args, attachments)
    }

    /// The arguments as one JSON array.
    pub fn args(&self) -> &str {
        &self.args
    }

    /// Each argument's JSON text.
    pub fn arguments(&self) -> Vec<&RawValue> {
        // All constructors leave a JSON array, so that there is nothing to fail on.
        serde_json::from_str(&self.args).unwrap_or_default()
    }
}

//! Payloads: an event's arguments as JSON text, with binary attachments beside them.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// An event's arguments, and the binary attachments to which they refer. Most events have one argument and no
/// attachments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// One JSON array: `[]`, `[data]`, `[a, b]`.
    pub args: String,
    /// The bytes of the arguments' [`Attachment`]s, by number. The arguments refer to each of them exactly once.
    pub attachments: Vec<Vec<u8>>,
}

impl Default for Payload {
    fn default() -> Self {
        Self::none()
    }
}

impl Payload {
    /// A payload without arguments.
    #[must_use]
    pub fn none() -> Self {
        Self::from_args("[]".to_owned())
    }

    /// A payload of one argument.
    pub fn of<T: Serialize + ?Sized>(data: &T) -> Result<Self, Failure> {
        encode(&(data,))
    }

    /// A payload of several arguments: each item of a tuple, an array or another sequence is one.
    pub fn spread<T: Serialize + ?Sized>(arguments: &T) -> Result<Self, Failure> {
        let payload = encode(arguments)?;
        if payload.args.starts_with('[') {
            Ok(payload)
        } else {
            Err(Failure::internal("several arguments have to be a sequence"))
        }
    }

    /// Adds attachments. The arguments must refer to each of them once.
    #[must_use]
    pub fn with_attachments(mut self, attachments: Vec<Vec<u8>>) -> Self {
        self.attachments = attachments;
        self
    }

    /// Decodes the first argument; without arguments, `T` is decoded from `null`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let args: Vec<&serde_json::value::RawValue> =
            serde_json::from_str(&self.args).map_err(|error| bad("arguments", &error))?;
        let first = args.first().map_or("null", |raw| raw.get());
        serde_json::from_str(first).map_err(|error| bad("argument", &error))
    }

    pub(crate) fn from_args(args: String) -> Self {
        Self { args, attachments: Vec::new() }
    }
}

fn encode<T: Serialize + ?Sized>(arguments: &T) -> Result<Payload, Failure> {
    serde_json::to_string(arguments).map(Payload::from_args).map_err(|error| Failure::encoding("a payload", &error))
}

fn bad(what: &str, error: &serde_json::Error) -> Failure {
    Failure::bad_request(format!("{what}: {error}"))
}

/// An argument's reference to a binary attachment, in JSON `{"_placeholder": true, "num": 0}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    #[serde(rename = "_placeholder")]
    placeholder: bool,
    #[serde(rename = "num")]
    number: usize,
}

impl Attachment {
    /// A reference to the attachment with this number, counted from 0.
    #[must_use]
    pub fn new(number: usize) -> Self {
        Self { placeholder: true, number }
    }

    /// The attachment's number, counted from 0.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }
}

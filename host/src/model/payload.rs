//! What an event carries, in the form that all protocols and features share.

use bytes::Bytes;
use serde_json::value::RawValue;

/// An event's arguments and the binary attachments that they refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// JSON text: one array of arguments.
    args: Box<str>,
    /// Binary attachments, in the order in which the arguments refer to them.
    pub attachments: Vec<Bytes>,
}

/// Arguments that are not one JSON array.
#[derive(Debug, thiserror::Error)]
#[error("the arguments are not a JSON array: {0}")]
pub struct BadPayload(#[from] serde_json::Error);

impl Payload {
    /// No arguments at all.
    pub fn empty() -> Self {
        Self { args: "[]".into(), attachments: Vec::new() }
    }

    /// One argument, which was parsed before; `None` for no argument.
    pub fn of_data(data: Option<&RawValue>) -> Self {
        let Some(data) = data else { return Self::empty() };
        let mut args = String::with_capacity(data.get().len() + 2);
        args.push('[');
        args.push_str(data.get());
        args.push(']');
        Self { args: args.into(), attachments: Vec::new() }
    }

    /// One argument.
    pub fn of_json(data: &serde_json::Value) -> Self {
        Self { args: format!("[{data}]").into(), attachments: Vec::new() }
    }

    /// Arguments from elsewhere, checked to be a JSON array.
    ///
    /// # Errors
    /// Where `args` is anything else.
    pub fn from_args(args: &str, attachments: Vec<Bytes>) -> Result<Self, BadPayload> {
        serde_json::from_str::<Vec<serde::de::IgnoredAny>>(args)?;
        Ok(Self { args: args.into(), attachments })
    }

    /// The arguments as one JSON array.
    pub fn args(&self) -> &str {
        &self.args
    }

    /// Each argument's JSON text.
    pub fn arguments(&self) -> Vec<&RawValue> {
        // Both constructors leave a JSON array, so that there is nothing to fail on.
        serde_json::from_str(&self.args).unwrap_or_default()
    }
}

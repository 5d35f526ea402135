//! What builds make of events.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a build makes of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum CaseEnd {
    /// It failed, in this way.
    Failed(String),
    /// It refused the event: the sender gets this.
    Refused(String),
    /// It handled the event.
    Handled {
        /// The effects, in their order.
        effects: Vec<CaseEffect>,
        /// The new state: JSON where it is some, else text; `null` where it is deleted. None if it stays.
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        state: Option<Value>,
    },
}

/// An effect in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseEffect {
    /// What it does, such as `emits viewers:updated`.
    pub what: String,
    /// To whom, or how.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// With which data.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub value: Value,
}

/// A value that may be `null`, and is there.
fn given<'de, D: serde::Deserializer<'de>>(json: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(json).map(Some)
}

impl CaseEnd {
    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Refused(_) => "refused it",
            Self::Handled { .. } => "handled it",
        }
    }

    /// Whether the build failed.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

impl fmt::Display for CaseEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Failed(why) | Self::Refused(why) => writeln!(f, "{kind}: {why}"),
            Self::Handled { effects, state } => {
                writeln!(f, "{kind}")?;
                for CaseEffect { what, to, value } in effects {
                    let value = if value.is_null() { String::new() } else { format!(" {value}") };
                    let to = if to.is_empty() { String::new() } else { format!(" {to}") };
                    writeln!(f, "  {what}{to}{value}")?;
                }
                match state {
                    Some(state) => writeln!(f, "  state: {state}"),
                    None => writeln!(f, "  the state stays"),
                }
            }
        }
    }
}

//! The refusal of a connection by a feature that decides whether a connection opens: the effect `refuse`.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::surrogates::without_lone_surrogates;

/// The kind of the effect.
pub(crate) const KIND: &str = "refuse";

/// The longest text of the effect, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// The refusal of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRefusal {
    /// A code of a failure.
    pub code: String,
    /// The reason, for the client.
    pub message: String,
    /// What a Socket.IO client gets as the error's data: JSON text.
    pub data: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stated {
    code: String,
    message: String,
    data: Box<RawValue>,
}

impl ConnectRefusal {
    /// Reads the effect's value.
    ///
    /// # Errors
    /// If the value is too long, or not of the form that the contract describes.
    pub(crate) fn read(value: &str) -> Result<Self, String> {
        if value.len() > MAX_BYTES {
            return Err(format!("a refusal of {} bytes, and it may have {MAX_BYTES}", value.len()));
        }
        let value = without_lone_surrogates(value);
        let Stated { code, message, data } = serde_json::from_str(&value)
            .map_err(|error| format!("a refusal that is not an object of code, message and data: {error}"))?;
        Ok(Self { code, message, data: data.get().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_code_message_and_data() {
        let read = ConnectRefusal::read(r#"{"code":"forbidden","message":"no","data":{"b":1.10,"a":[]}}"#).unwrap();
        assert_eq!((&*read.code, &*read.message, &*read.data), ("forbidden", "no", r#"{"b":1.10,"a":[]}"#));
        let long = format!(r#"{{"code":"a","message":"{}","data":1}}"#, "x".repeat(MAX_BYTES));
        for value in ["", "null", r#"{"code":"a","message":"b"}"#, r#"{"code":1,"message":"b","data":1}"#, &long] {
            assert!(ConnectRefusal::read(value).is_err());
        }
    }
}

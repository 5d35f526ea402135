//! What is left out of case files.

use serde_json::Value;

use super::Case;
use super::octets::Octets;

/// What stands in the place of a redacted value.
const REDACTED: &str = "(redacted)";

impl Case {
    /// Leaves the claims of users out, if asked to, and the values of these fields, wherever they are in the event or a state
    /// that is JSON.
    pub fn redact(&mut self, claims: bool, fields: &[String]) {
        if claims {
            let mut has_any = false;
            if let Some(member) = self.event.member() {
                has_any = member.claims.get() != "{}";
                member.claims = serde_json::value::to_raw_value(&serde_json::json!({})).unwrap_or_default();
            }
            if has_any {
                self.redacted.push("claims".to_owned());
            }
        }
        let mut state = self.state.as_mut().and_then(|state| match &state.bytes {
            Octets::Text(text) => Some((serde_json::from_str::<Value>(text).ok()?, &mut state.bytes)),
            Octets::Hex(_) => None,
        });
        for field in fields {
            let mut n = 0;
            for text in self.event.texts() {
                let Ok(mut value) = serde_json::from_str::<Value>(text.get()) else { continue };
                let redacted = redact(&mut value, field);
                if redacted > 0
                    && let Ok(raw) = serde_json::value::to_raw_value(&value)
                {
                    *text = raw;
                }
                n += redacted;
            }
            if let Some((value, bytes)) = &mut state {
                let redacted = redact(value, field);
                if redacted > 0 {
                    **bytes = Octets::Text(value.to_string());
                }
                n += redacted;
            }
            if n > 0 {
                self.redacted.push(field.clone());
            }
        }
    }
}

/// Leaves the values of these fields out, wherever they are.
pub fn redact_fields(value: &mut Value, fields: &[String]) {
    for field in fields {
        redact(value, field);
    }
}

/// Replaces the values of a field. Returns how many.
fn redact(value: &mut Value, field: &str) -> usize {
    match value {
        Value::Object(object) => object
            .iter_mut()
            .map(|(name, value)| {
                if name == field {
                    *value = Value::String(REDACTED.to_owned());
                    return 1;
                }
                redact(value, field)
            })
            .sum(),
        Value::Array(values) => values.iter_mut().map(|value| redact(value, field)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::case;

    #[test]
    fn redaction_leaves_claims_and_fields_out() {
        let mut redacted = case();
        redacted.redact(true, &["body".to_owned(), "absent".to_owned()]);
        let text = serde_json::to_string(&redacted).unwrap();
        assert!(!text.contains("secret") && !text.contains("older") && !text.contains("example.org"), "{text}");
        assert_eq!(redacted.redacted, ["claims", "body"]);
        let mut whole = case();
        whole.redact(false, &[]);
        assert_eq!(serde_json::to_string(&whole).unwrap(), serde_json::to_string(&case()).unwrap());
    }
}

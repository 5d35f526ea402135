//! Making a scope's key from a payload, the way the host does.

use roundhouse_contract::is_valid_id;
use serde_json::Value;

use crate::Failure;
use crate::id::RULE;
use crate::template::Template;

impl Template {
    /// The key and the placeholders' values that a message's first argument gives.
    pub(super) fn fill(&self, first: &Value) -> Result<(String, Vec<String>), Failure> {
        let mut key = self.prefix.clone();
        let mut params = Vec::with_capacity(self.placeholders.len());
        for (position, (name, literal)) in self.placeholders.iter().enumerate() {
            let value = match first {
                Value::String(text) if self.placeholders.len() == 1 => Some(text.as_str()),
                other => other.get(name).and_then(Value::as_str),
            };
            let value = value.ok_or_else(|| Failure::bad_request(format!("{name} is missing or not a string")))?;
            if !is_valid_id(value) {
                return Err(Failure::bad_request(format!("{name} {RULE}")));
            }
            if position + 1 < self.placeholders.len() && value.contains(literal.as_str()) {
                return Err(Failure::bad_request(format!("{name} must not contain {literal:?}")));
            }
            key.push_str(value);
            key.push_str(literal);
            params.push(value.to_owned());
        }
        Ok((key, params))
    }

    /// The placeholders' values of a key that was made from this template.
    pub(super) fn params_of(&self, key: &str) -> Option<Vec<String>> {
        let mut rest = key.strip_prefix(&self.prefix)?;
        let mut params = Vec::with_capacity(self.placeholders.len());
        for (position, (_, literal)) in self.placeholders.iter().enumerate() {
            let value = if position + 1 < self.placeholders.len() {
                let (value, after) = rest.split_once(literal.as_str())?;
                rest = after;
                value
            } else {
                rest.strip_suffix(literal.as_str())?
            };
            params.push(value.to_owned());
        }
        (!self.placeholders.is_empty() || rest.is_empty()).then_some(params)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::template::Template;

    #[test]
    fn keys_are_made_of_the_payload_and_read_back() {
        let template = Template::parse("timeline:{entityType}:{entityId}").unwrap();
        let (key, params) = template.fill(&json!({"entityType": "client", "entityId": "a:b"})).unwrap();
        assert_eq!(key, "timeline:client:a:b");
        assert_eq!(params, ["client", "a:b"]);
        assert_eq!(template.params_of(&key).unwrap(), params);
    }

    #[test]
    fn a_bare_string_stands_for_the_only_placeholder() {
        let template = Template::parse("campaign:{campaignId}").unwrap();
        assert_eq!(template.fill(&json!("c1")).unwrap().0, "campaign:c1");
    }

    #[test]
    fn a_template_without_placeholders_is_one_scope_whatever_the_payload() {
        let template = Template::parse("system").unwrap();
        assert_eq!(template.fill(&json!({"any": 1})).unwrap(), ("system".to_owned(), Vec::new()));
        assert_eq!(template.params_of("system"), Some(Vec::new()));
        assert_eq!(template.params_of("system:1"), None);
    }

    #[test]
    fn bad_ids_are_refused_and_named() {
        let template = Template::parse("timeline:{entityType}:{entityId}").unwrap();
        for (entity_type, entity_id, named) in [
            (json!("a:b"), json!("1"), "entityType"),
            (json!(""), json!("1"), "entityType"),
            (json!("a"), json!(7), "entityId"),
            (json!("a"), json!("a b"), "entityId"),
            (json!("a"), json!("a\u{200b}"), "entityId"),
            (json!("\u{202e}a"), json!("1"), "entityType"),
            (json!("a"), json!("x".repeat(129)), "entityId"),
        ] {
            let failure = template.fill(&json!({"entityType": entity_type, "entityId": entity_id})).unwrap_err();
            assert_eq!(failure.code, "bad_request");
            assert!(failure.message.starts_with(named), "{failure}");
        }
        assert!(template.fill(&json!("x")).is_err());
    }
}

//! Scope templates: `ticket:{ticketId}` and a payload determine the key of a scope, which is the name of its room.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use crate::id::{ID_RULE, is_valid_id};

/// The greatest number of placeholders of a template.
const MAX_PLACEHOLDERS: usize = 8;

/// A template: literals around placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    /// The literal before the first placeholder.
    prefix: String,
    /// The name of each placeholder and the literal after it.
    placeholders: Vec<(String, String)>,
}

/// The address of a scope: its key and the values of its template's placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeAddress {
    /// The key, which is the name of the scope's room.
    pub key: Arc<str>,
    /// The values of the placeholders, in their order.
    pub params: Arc<[String]>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// With the rule that the template breaks.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("the scope template {text:?} {what}"));
        let mut parts = text.split('{');
        let prefix = parts.next().unwrap_or_default().to_owned();
        if !prefix.is_empty() && !is_valid_id(&prefix) || prefix.contains('}') {
            return wrong("must be printable, without whitespace");
        }
        if prefix.is_empty() {
            return wrong("must begin with a literal, which keeps its rooms apart from those of others");
        }
        let mut placeholders = Vec::new();
        for part in parts {
            let Some((name, literal)) = part.split_once('}') else {
                return wrong("has a placeholder that does not end");
            };
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return wrong("has a placeholder whose name is not letters and digits");
            }
            if placeholders.iter().any(|(other, _)| other == name) {
                return wrong("names a placeholder twice");
            }
            if literal.contains('}') || (!literal.is_empty() && !is_valid_id(literal)) {
                return wrong("must be printable, without whitespace");
            }
            placeholders.push((name.to_owned(), literal.to_owned()));
        }
        let last = placeholders.len().saturating_sub(1);
        if placeholders.iter().take(last).any(|(_, literal)| literal.is_empty()) {
            return wrong("has two placeholders with nothing between them");
        }
        if placeholders.len() > MAX_PLACEHOLDERS {
            return wrong("has more than 8 placeholders");
        }
        Ok(Self { text: text.to_owned(), prefix, placeholders })
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The literal before the first placeholder. It belongs to one feature alone.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The names of the placeholders, in their order.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.placeholders.iter().map(|(name, _)| name.as_str())
    }

    /// The only scope of a template without placeholders.
    pub fn fixed_address(&self) -> Option<ScopeAddress> {
        self.placeholders.is_empty().then(|| ScopeAddress { key: self.prefix.as_str().into(), params: Arc::new([]) })
    }

    /// The index of a placeholder among the values of an address.
    pub fn position(&self, placeholder: &str) -> Option<usize> {
        self.placeholders.iter().position(|(name, _)| name == placeholder)
    }

    /// Whether `key` with this many values can only be from this template, among those of one manifest.
    pub fn makes(&self, key: &str, n_params: usize) -> bool {
        n_params == self.placeholders.len() && key.starts_with(&self.prefix) && (n_params > 0 || key == self.prefix)
    }

    /// Whether both templates could produce the same key, judged by their prefixes.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.prefix.starts_with(&other.prefix) || other.prefix.starts_with(&self.prefix)
    }

    /// The address of the scope that a payload's first argument, JSON text, names: by an object with a field for each
    /// placeholder, or by a string if there is one placeholder.
    ///
    /// # Errors
    /// If a value is missing or is not an id, with the field. The sender gets this error as `bad_request`.
    pub fn address(&self, first: &str) -> Result<ScopeAddress, String> {
        let values = if first.trim_start().starts_with('"') && self.placeholders.len() == 1 {
            vec![serde_json::from_str::<String>(first).ok()]
        } else {
            let mut deserializer = serde_json::Deserializer::from_str(first);
            match (Fields { names: &self.placeholders }).deserialize(&mut deserializer) {
                Ok(values) => values,
                Err(error) => return Err(format!("the data: {error}")),
            }
        };
        let mut params = Vec::with_capacity(values.len());
        let mut key = self.prefix.clone();
        for ((name, literal), value) in self.placeholders.iter().zip(values) {
            let Some(value) = value else { return Err(format!("the field {name} is missing")) };
            if !is_valid_id(&value) {
                return Err(format!("the field {name} {ID_RULE}"));
            }
            // With the literal in the value, two scopes could have the same key.
            if params.len() + 1 < self.placeholders.len() && value.contains(literal.as_str()) {
                return Err(format!("the field {name} must not contain {literal:?}"));
            }
            key.push_str(&value);
            key.push_str(literal);
            params.push(value);
        }
        Ok(ScopeAddress { key: key.into(), params: params.into() })
    }

    /// The address of the scope with this key, if the template can produce the key.
    pub fn match_key(&self, key: &str) -> Option<ScopeAddress> {
        let mut rest = key.strip_prefix(self.prefix.as_str())?;
        let mut params = Vec::with_capacity(self.placeholders.len());
        for (at, (_, literal)) in self.placeholders.iter().enumerate() {
            let is_last = at + 1 == self.placeholders.len();
            let value = if is_last {
                rest.strip_suffix(literal.as_str())?
            } else {
                let (value, behind) = rest.split_once(literal.as_str())?;
                rest = behind;
                value
            };
            if !is_valid_id(value) {
                return None;
            }
            params.push(value.to_owned());
        }
        (!self.placeholders.is_empty() || rest.is_empty())
            .then(|| ScopeAddress { key: key.into(), params: params.into() })
    }
}

/// Reads the named fields of a JSON object, which must be strings, and skips all others.
struct Fields<'a> {
    names: &'a [(String, String)],
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Vec<Option<String>>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.names.is_empty() {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|_| Vec::new());
        }
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Vec<Option<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "an object with {}", names.join(" and "))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = vec![None; self.names.len()];
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            match self.names.iter().position(|(name, _)| *name == key) {
                // A field that occurs twice is refused, because the feature might read the other value.
                Some(at) if values[at].is_some() => {
                    return Err(serde::de::Error::custom(format_args!("the field {key} is there twice")));
                }
                Some(at) => {
                    let value = map.next_value::<serde_json::Value>()?;
                    let serde_json::Value::String(value) = value else {
                        return Err(serde::de::Error::custom(format_args!("the field {key} must be a string")));
                    };
                    values[at] = Some(value);
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    fn address(text: &str, first: &str) -> Result<(String, Vec<String>), String> {
        let address = template(text).address(first)?;
        Ok((address.key.to_string(), address.params.to_vec()))
    }

    #[test]
    fn address_is_made_from_the_payload() {
        let one = Ok(("ticket:507f".to_owned(), vec!["507f".to_owned()]));
        assert_eq!(address("ticket:{ticketId}", r#"{"x":[1],"ticketId":"507f"}"#), one);
        assert_eq!(address("ticket:{ticketId}", r#""507f""#), one);
        let two = Ok(("timeline:client:a:b".to_owned(), vec!["client".to_owned(), "a:b".to_owned()]));
        assert_eq!(address("timeline:{type}:{id}", r#"{"id":"a:b","type":"client"}"#), two);
        assert_eq!(address("system", "null"), Ok(("system".to_owned(), Vec::new())));
    }

    #[test]
    fn address_refuses_a_bad_payload_by_field() {
        let check = |first: &str, message: &str| {
            let said = address("timeline:{type}:{id}", first).expect_err(first);
            assert!(said.contains(message), "{first}: {said}");
        };
        check("null", "an object with type and id");
        check(r#""a""#, "an object with type and id");
        check(r#"{"type":"a"}"#, "id is missing");
        check(r#"{"type":"a","id":5}"#, "id must be a string");
        check(r#"{"type":"a","id":null}"#, "id must be a string");
        check(r#"{"type":"a","id":""}"#, "id must be 1 to 128");
        check(r#"{"type":"a","id":"a b"}"#, "id must be 1 to 128");
        check(r#"{"type":"a:b","id":"c"}"#, "type must not contain \":\"");
        check(r#"{"type":"a","id":"c","id":"d"}"#, "id is there twice");
        check(r#"{"type":"a","#, "EOF");
    }

    #[test]
    fn match_key_recovers_placeholder_values() {
        let matched = |text: &str, key: &str| template(text).match_key(key).map(|address| address.params.to_vec());
        assert_eq!(matched("ticket:{id}", "ticket:5"), Some(vec!["5".to_owned()]));
        assert_eq!(matched("ticket:{id}", "ticket:"), None);
        assert_eq!(matched("ticket:{id}", "tickets:5"), None);
        let (key, params) = address("timeline:{type}:{id}", r#"{"type":"client","id":"a:b"}"#).unwrap();
        assert_eq!(matched("timeline:{type}:{id}", &key), Some(params));
        assert_eq!(matched("timeline:{type}:{id}", "timeline:a:b:c"), Some(vec!["a".to_owned(), "b:c".to_owned()]));
        assert_eq!(matched("system", "system"), Some(Vec::new()));
        assert_eq!(matched("system", "system:x"), None);
    }

    #[test]
    fn address_takes_a_string_for_one_placeholder() {
        assert_eq!(address("campaign:{campaignId}", r#""c1""#).unwrap().0, "campaign:c1");
        assert!(address("timeline:{entityType}:{entityId}", r#""x""#).is_err());
    }

    #[test]
    fn template_without_placeholders_is_one_scope() {
        assert_eq!(address("system", r#"{"any":1}"#), Ok(("system".to_owned(), Vec::new())));
        assert_eq!(template("system").match_key("system:1"), None);
    }

    #[test]
    fn address_refuses_bad_ids_by_field() {
        let long = "x".repeat(129);
        for (entity_type, entity_id, field) in [
            ("\"a:b\"", "\"1\"", "entityType"),
            ("\"\"", "\"1\"", "entityType"),
            ("\"a\"", "7", "entityId"),
            ("\"a\"", "\"a b\"", "entityId"),
            ("\"a\"", "\"a\u{200b}\"", "entityId"),
            ("\"\u{202e}a\"", "\"1\"", "entityType"),
            ("\"a\"", &format!("{long:?}"), "entityId"),
        ] {
            let first = format!(r#"{{"entityType":{entity_type},"entityId":{entity_id}}}"#);
            let refusal = address("timeline:{entityType}:{entityId}", &first).unwrap_err();
            assert!(refusal.contains(&format!("the field {field} must")), "{refusal}");
        }
    }

    #[test]
    fn ambiguous_templates_are_refused() {
        for bad in
            ["", "{id}", "a:{", "a:{b", "a:{}", "a:{x y}", "a:{x}{y}", "a:{x}:{x}", "a b:{x}", "a}:{x}", "a:{x}}"]
        {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}

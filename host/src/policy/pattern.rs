//! Patterns of room names.

use roundhouse_contract::Template;

/// The variables of every condition, besides the placeholders of its pattern.
pub(super) const VARIABLES: [&str; 3] = ["identity", "room", "event"];

/// A pattern: `campaign:{id}`, `campaign:*` or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Rooms that the template can make. Its placeholders are variables.
    Template(Template),
    /// Rooms whose names begin so.
    Prefix(String),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// With the rule that the pattern breaks.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_suffix('*') {
            Some(prefix) if prefix.contains(['*', '{', '}']) => {
                Err(format!("the pattern {text:?} has a * that is not alone: use placeholders, or one * at the end"))
            }
            Some(prefix) => Ok(Self::Prefix(prefix.to_owned())),
            None if text.contains('*') => Err(format!("the pattern {text:?} has a * that is not at the end")),
            None => {
                let template = Template::parse(text).map_err(|why| why.replace("the scope template", "the pattern"))?;
                if let Some(taken) = template.placeholders().find(|name| VARIABLES.contains(name)) {
                    return Err(format!("the pattern {text:?} has a placeholder {taken}, which is another variable"));
                }
                Ok(Self::Template(template))
            }
        }
    }

    /// The names of the placeholders.
    pub(super) fn placeholders(&self) -> Vec<&str> {
        match self {
            Self::Template(template) => template.placeholders().collect(),
            Self::Prefix(_) => Vec::new(),
        }
    }

    /// The values of the placeholders, if the room matches.
    pub(super) fn matches(&self, room: &str) -> Option<Vec<String>> {
        match self {
            Self::Template(template) => template.match_key(room).map(|address| address.params.to_vec()),
            Self::Prefix(prefix) => room.starts_with(prefix).then(Vec::new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, room, values) in [
            ("campaign:{id}", "campaign:7", Some(vec!["7"])),
            ("campaign:{id}", "campaign:", None),
            ("campaign:{id}", "campaigns:7", None),
            ("campaign:{id}", "xcampaign:7", None),
            ("contact:{channel}:{id}", "contact:sms:a:b", Some(vec!["sms", "a:b"])),
            ("lobby", "lobby", Some(vec![])),
            ("lobby", "lobby2", None),
            ("chat:*", "chat:a:b", Some(vec![])),
            ("chat:*", "cha", None),
            ("*", "anything", Some(vec![])),
        ] {
            let matched = Pattern::parse(pattern).unwrap().matches(room);
            let values = values.map(|values| values.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(matched, values, "{pattern} {room}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for pattern in ["", "a*b", "a:{id}*", "**", "{id}", "a:{id", "a:{i}{j}", "a:{id}:{id}", "a b", "a:{room}"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}

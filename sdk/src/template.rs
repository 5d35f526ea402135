//! Scope templates such as `ticket:{ticketId}`. The host, and in tests the simulator, makes keys from them.

/// A parsed scope template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) text: String,
    /// The literal before the first placeholder.
    pub(crate) prefix: String,
    /// Each placeholder and the literal after it.
    pub(crate) placeholders: Vec<(String, String)>,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = text.split('{');
        let prefix = pieces.next().unwrap_or_default().to_owned();
        let mut placeholders = Vec::new();
        for piece in pieces {
            let (name, literal) =
                piece.split_once('}').ok_or_else(|| format!("scope template {text:?}: a brace is not closed"))?;
            if name.is_empty() {
                return Err(format!("scope template {text:?}: a placeholder has no name"));
            }
            placeholders.push((name.to_owned(), literal.to_owned()));
        }
        if prefix.is_empty() {
            return Err(format!("scope template {text:?} has to begin with a literal, as in `ticket:{{ticketId}}`"));
        }
        let last = placeholders.len().saturating_sub(1);
        if placeholders[..last].iter().any(|(_, after)| after.is_empty()) {
            return Err(format!("scope template {text:?}: two placeholders need a literal between them"));
        }
        Ok(Self { text: text.to_owned(), prefix, placeholders })
    }

    /// The position of a placeholder.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.placeholders.iter().position(|(own, _)| own == name)
    }

    /// Whether `key` may have been made from this template with `params` values.
    pub(crate) fn made(&self, key: &str, params: usize) -> bool {
        params == self.placeholders.len() && key.starts_with(&self.prefix) && (params > 0 || key == self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::Template;

    #[test]
    fn parse_refuses_malformed_templates() {
        for text in ["", "{id}", "a:{b", "a:{}", "a:{b}{c}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}

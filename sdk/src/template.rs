//! Scope templates such as `ticket:{ticketId}`, as a feature needs them: to find the template of a scope, and the value
//! of a placeholder. The host has checked them.

/// A scope template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) text: String,
    /// The literal before the first placeholder.
    pub(crate) prefix: String,
    /// The names of the placeholders, in their order.
    placeholders: Vec<String>,
}

impl Template {
    pub(crate) fn new(text: &str) -> Self {
        let mut pieces = text.split('{');
        let prefix = pieces.next().unwrap_or_default().to_owned();
        let name = |piece: &str| piece.split('}').next().unwrap_or_default().to_owned();
        Self { text: text.to_owned(), prefix, placeholders: pieces.map(name).collect() }
    }

    /// The index of a placeholder.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.placeholders.iter().position(|own| own == name)
    }

    /// Whether `key` may be from this template with `params` values.
    pub(crate) fn made(&self, key: &str, params: usize) -> bool {
        params == self.placeholders.len() && key.starts_with(&self.prefix) && (params > 0 || key == self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::Template;

    #[test]
    fn made_and_position_follow_the_placeholders() {
        let template = Template::new("timeline:{type}:{id}/log");
        assert_eq!(["type", "id", "log"].map(|name| template.position(name)), [Some(0), Some(1), None]);
        assert!(template.made("timeline:a:b/log", 2) && !template.made("timeline:a:b/log", 1));
        assert!(Template::new("system").made("system", 0) && !Template::new("system").made("systems", 0));
    }
}

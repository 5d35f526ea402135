//! What a plugin is granted, and the refusal of a build that asks for more.

use roundhouse_contract::{GrantKind, Grants, Manifest};

use super::options::PluginOptions;

/// The grants of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) grants: Grants,
    /// Whether the configuration states them. Else they are the default of the plugin's source.
    pub(crate) is_configured: bool,
}

impl Given {
    /// The grants of the configuration, or else `default`.
    pub(crate) fn new(configured: &PluginOptions, default: impl FnOnce() -> Grants) -> Self {
        let grants = configured.grants.clone();
        Self { is_configured: grants.is_some(), grants: grants.unwrap_or_else(default) }
    }

    /// Checks that a build asks for no more than is granted: all that it may do is what it asks for.
    ///
    /// # Errors
    /// With what is missing, and the reason and the remedy in words.
    pub(crate) fn check(&self, manifest: &Manifest) -> Result<(), (Grants, String)> {
        let missing = manifest.needs.missing_from(&self.grants);
        if missing.is_empty() {
            return Ok(());
        }
        let Manifest { name, version, .. } = manifest;
        let by = match (self.is_configured, self.grants.is_empty()) {
            (true, _) => format!(", by plugins.{name}.grants"),
            (false, true) => String::new(),
            (false, false) => ", as much as the build that is part of the host asks for".to_owned(),
        };
        let line = toml_line(&self.grants.with(&missing));
        let message = format!(
            "{name} {version} asks for more than it is granted: {missing}. Granted is {}{by}. To grant what is missing, \
             set `{line}` under [plugins.{name}] in the configuration, and restart the host",
            self.grants
        );
        Err((missing, message))
    }
}

/// Grants as a line of the table of a plugin in the configuration.
pub(crate) fn toml_line(grants: &Grants) -> String {
    let lists = [("rooms", GrantKind::Room), ("audiences", GrantKind::Audience), ("actions", GrantKind::Action)];
    let lists = lists.into_iter().filter_map(|(key, kind)| {
        let names = grants.iter().filter(|grant| grant.kind == kind);
        // Rooms are checked to be printable, so that they need no other escapes than those of JSON.
        let names: Vec<String> = names.map(|grant| serde_json::Value::from(grant.name).to_string()).collect();
        (!names.is_empty()).then(|| format!("{key} = [{}]", names.join(", ")))
    });
    let lists: Vec<String> = lists.collect();
    match &lists[..] {
        [] => "grants = {}".to_owned(),
        lists => format!("grants = {{ {} }}", lists.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};
    use roundhouse_contract::raw;

    use super::*;

    fn grants(rooms: &[&str], audiences: &[&str], actions: &[&str]) -> Grants {
        let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Grants { rooms: strings(rooms), audiences: strings(audiences), actions: strings(actions) }
    }

    #[test]
    fn refusal_names_missing_grants_and_remedy() {
        let manifest = Manifest::check(raw::Manifest {
            name: "desk".to_owned(),
            version: "2.0.0".to_owned(),
            description: String::new(),
            state_version: 1,
            scopes: Vec::new(),
            routes: Vec::new(),
            queries: Vec::new(),
            emits: Vec::new(),
            needs: grants(&["hall:*"], &[], &["save"]),
            extensions: Vec::new(),
        });
        let manifest = manifest.unwrap();
        let check = |given: Grants, is_configured: bool| Given { grants: given, is_configured }.check(&manifest);
        for (given, is_configured, said, line) in [
            (Grants::default(), false, "the room hall:*, the action save. Granted is nothing. To", ""),
            (
                grants(&["hall:1"], &[], &["save"]),
                true,
                "the room hall:*. Granted is the room hall:1, ",
                "\"hall:1\", ",
            ),
            (grants(&["a"], &[], &[]), true, "Granted is the room a, by plugins.desk.grants. To", "\"a\", "),
            (grants(&["b"], &[], &[]), false, "the room b, as much as the build that is part of the host", "\"b\", "),
        ] {
            let (_, message) = check(given, is_configured).unwrap_err();
            let line =
                format!("`grants = {{ rooms = [{line}\"hall:*\"], actions = [\"save\"] }}` under [plugins.desk]");
            assert!(message.contains(said) && message.contains(&line), "{message}");
        }
        assert_eq!(check(grants(&["*"], &[], &["save"]), true), Ok(()));
    }

    #[test]
    fn toml_line_is_read_back_as_the_grants() {
        for grants in [
            Grants::default(),
            grants(&[], &["all"], &[]),
            grants(&["a*", "quote\"", "back\\slash", "umlaut-ü", "it's"], &["user"], &["save", "join"]),
        ] {
            let line = toml_line(&grants);
            assert!(!line.contains('\n'), "{line}");
            let read: PluginOptions = Figment::from(Toml::string(&line)).extract().unwrap();
            assert_eq!(read.grants, Some(grants), "{line}");
        }
    }
}

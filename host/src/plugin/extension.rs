//! What a manifest asks for by extensions: the Socket.IO namespaces besides `/`, and to be asked for states of older schemas.

use std::collections::BTreeSet;

/// The extension that names namespaces.
const NAMESPACES: &str = "socketio-namespaces";

/// The extension that lists the older schemas that the build can turn its states back into.
const MIGRATE_DOWN: &str = "migrate-down";

/// Namespaces that a manifest may name: many times what a front-end has.
const MAX_NAMESPACES: usize = 32;

/// The longest name of a namespace, in characters, with its slash.
const MAX_CHARS: usize = 128;

/// The Socket.IO namespaces that a manifest's extensions name.
///
/// # Errors
/// With what is wrong with them, or the name of an extension that this host does not know.
pub(super) fn namespaces(extensions: &[(String, String)]) -> Result<BTreeSet<String>, String> {
    let mut namespaces = BTreeSet::new();
    for (extension, value) in extensions {
        if extension == MIGRATE_DOWN {
            continue;
        }
        if extension != NAMESPACES {
            return Err(format!("it asks for the extension {extension:?}, which this host does not know"));
        }
        let names: Vec<String> = serde_json::from_str(value)
            .map_err(|error| format!("the extension {extension} must be a JSON array of names: {error}"))?;
        names.iter().try_for_each(|name| check_namespace(name))?;
        namespaces.extend(names);
    }
    if namespaces.len() > MAX_NAMESPACES {
        return Err(format!("it names {} namespaces, and may name {MAX_NAMESPACES}", namespaces.len()));
    }
    Ok(namespaces)
}

/// The older schemas that a manifest's extensions list, of a build whose own schema is `state_version`.
///
/// # Errors
/// With what is wrong with them.
pub(super) fn migrates_down_to(extensions: &[(String, String)], state_version: u32) -> Result<BTreeSet<u32>, String> {
    let mut schemas = BTreeSet::new();
    for (_, value) in extensions.iter().filter(|(extension, _)| extension == MIGRATE_DOWN) {
        let listed: Vec<u32> = serde_json::from_str(value).map_err(|error| {
            format!("the extension {MIGRATE_DOWN} must be a JSON array of schema versions: {error}")
        })?;
        if let Some(newer) = listed.iter().find(|schema| **schema >= state_version) {
            return Err(format!(
                "the extension {MIGRATE_DOWN} lists schema {newer}, which is not older than its own, {state_version}"
            ));
        }
        schemas.extend(listed);
    }
    Ok(schemas)
}

/// Whether a Socket.IO namespace besides `/` may have this name.
///
/// # Errors
/// With what is wrong with it.
pub fn check_namespace(name: &str) -> Result<(), String> {
    let n_chars = name.chars().count();
    // A comma ends a namespace in a packet, and what follows a question mark is a query.
    let is_name = |c: char| !matches!(c, ',' | '?') && !c.is_whitespace() && !c.is_control();
    if name.starts_with('/') && (2..=MAX_CHARS).contains(&n_chars) && name.chars().all(is_name) {
        return Ok(());
    }
    Err(format!(
        "the namespace {name:?} must be a slash and 1 to {} characters without comma, question mark, whitespace and \
         control characters",
        MAX_CHARS - 1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(value: &str) -> Result<BTreeSet<String>, String> {
        namespaces(&[(NAMESPACES.to_owned(), value.to_owned())])
    }

    #[test]
    fn namespaces_are_named_once_each() {
        assert_eq!(namespaces(&[]), Ok(BTreeSet::new()));
        let both = ["/chät/new".to_owned(), "/custom".to_owned()];
        assert_eq!(named(r#"["/custom", "/chät/new", "/custom"]"#), Ok(both.into()));
        let longest = format!("/{}", "n".repeat(MAX_CHARS - 1));
        assert_eq!(named(&format!(r#"["{longest}"]"#)), Ok([longest].into()));
        let most: Vec<String> = (0..MAX_NAMESPACES).map(|n| format!("/{n}")).collect();
        assert_eq!(named(&serde_json::to_string(&most).unwrap()).unwrap().len(), MAX_NAMESPACES);
    }

    #[test]
    fn what_cannot_be_a_namespace_is_refused_with_the_name() {
        let long = format!("/{}", "n".repeat(MAX_CHARS));
        for bad in ["", "/", "custom", "/a,b", "/a?b", "/a b", "/a\u{a0}b", "/a\u{7}", &long] {
            let said = named(&serde_json::to_string(&[bad]).unwrap()).expect_err(bad);
            assert!(said.contains(&format!("{bad:?}")), "{said}");
        }
    }

    #[test]
    fn too_many_namespaces_and_what_is_no_list_of_them_are_refused() {
        let many: Vec<String> = (0..=MAX_NAMESPACES).map(|n| format!("/{n}")).collect();
        assert!(named(&serde_json::to_string(&many).unwrap()).unwrap_err().contains("33 namespaces, and may name 32"));
        for bad in ["", "{}", r#""/custom""#, "[1]"] {
            assert!(named(bad).unwrap_err().contains("must be a JSON array of names"), "{bad}");
        }
    }

    #[test]
    fn schemas_to_migrate_down_to_are_older() {
        let listed = |value: &str| migrates_down_to(&[(MIGRATE_DOWN.to_owned(), value.to_owned())], 3);
        assert_eq!(migrates_down_to(&[], 3), Ok(BTreeSet::new()));
        assert_eq!(listed("[2, 1]"), Ok([1, 2].into()));
        assert!(listed("[3]").unwrap_err().contains("schema 3"));
        assert!(listed("2").unwrap_err().contains("must be a JSON array"));
    }

    #[test]
    fn an_extension_that_is_not_known_is_refused_by_its_name() {
        let said = namespaces(&[("teleport".to_owned(), "[]".to_owned())]).unwrap_err();
        assert!(said.contains("teleport"), "{said}");
    }
}

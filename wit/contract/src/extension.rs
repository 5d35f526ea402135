//! The extensions of a manifest: Socket.IO namespaces, admission and presence of clients, migration to older schemas, limits
//! of payloads, permissions of senders.

use std::collections::BTreeSet;

use crate::event_limits::{self, EventLimits};
use crate::permissions::{self, Permissions};

/// The extension that names namespaces.
const NAMESPACES: &str = "socketio-namespaces";

/// The extension that lists the older schemas to which the build can migrate its states.
const MIGRATE_DOWN: &str = "migrate-down";

/// The extension by which a scope whose state cannot be migrated stays on the build before.
const PARTIAL_MIGRATION: &str = "partial-migration";

/// The extension that lists the scopes that get the events `away` and `back`.
const PRESENCE: &str = "presence";

/// The extension by which a feature decides whether a connection opens.
const ADMISSION: &str = "connect-admission";

/// The greatest number of namespaces in a manifest: many more than a front-end has.
const MAX_NAMESPACES: usize = 32;

/// The longest name of a namespace, in characters, with its slash.
const MAX_CHARS: usize = 128;

/// The values of all extensions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    /// Socket.IO namespaces besides `/`.
    pub(crate) namespaces: BTreeSet<String>,
    /// The templates of the scopes that get `away` and `back`.
    pub(crate) presence: BTreeSet<String>,
    /// The older schemas to which the build can migrate its states.
    pub(crate) migrates_down_to: BTreeSet<u32>,
    /// Whether a scope whose state cannot be migrated stays on the build before.
    pub(crate) migrates_partially: bool,
    /// The bounds of payloads.
    pub(crate) limits: EventLimits,
    /// Whether the feature decides whether a connection opens.
    pub(crate) admits: bool,
    /// Who may send which events.
    pub(crate) permissions: Permissions,
}

/// Reads the extensions of a manifest, whose state has the schema `state_version`.
///
/// # Errors
/// With the first malformed value or unknown extension.
pub(crate) fn read(extensions: &[(String, String)], state_version: u32) -> Result<Extensions, String> {
    let mut read = Extensions::default();
    for (extension, value) in extensions {
        let names = || -> Result<Vec<String>, String> {
            serde_json::from_str(value)
                .map_err(|error| format!("the extension {extension} must be a JSON array of names: {error}"))
        };
        let flag = || -> Result<bool, String> {
            serde_json::from_str(value)
                .map_err(|error| format!("the extension {extension} must be true or false: {error}"))
        };
        match extension.as_str() {
            NAMESPACES => {
                let names = names()?;
                names.iter().try_for_each(|name| check_namespace(name))?;
                read.namespaces.extend(names);
            }
            PRESENCE => read.presence.extend(names()?),
            ADMISSION => read.admits = flag()?,
            PARTIAL_MIGRATION => read.migrates_partially = flag()?,
            permissions::EXTENSION => read.permissions = permissions::read(value)?,
            event_limits::EXTENSION => read.limits = EventLimits::read(value)?,
            MIGRATE_DOWN => read.migrates_down_to.extend(schemas(value, state_version)?),
            _ => return Err(format!("it asks for the extension {extension:?}, which this host does not know")),
        }
    }
    let n_namespaces = read.namespaces.len();
    if n_namespaces > MAX_NAMESPACES {
        return Err(format!("it names {n_namespaces} namespaces, and may name {MAX_NAMESPACES}"));
    }
    Ok(read)
}

/// The older schemas to which a build with the schema `state_version` can migrate its states.
fn schemas(value: &str, state_version: u32) -> Result<Vec<u32>, String> {
    let listed: Vec<u32> = serde_json::from_str(value)
        .map_err(|error| format!("the extension {MIGRATE_DOWN} must be a JSON array of schema versions: {error}"))?;
    match listed.iter().find(|schema| **schema >= state_version) {
        Some(newer) => Err(format!(
            "the extension {MIGRATE_DOWN} lists schema {newer}, which is not older than its own, {state_version}"
        )),
        None => Ok(listed),
    }
}

/// Checks the name of a Socket.IO namespace besides `/`.
///
/// # Errors
/// With the name and the rule that it breaks.
pub fn check_namespace(name: &str) -> Result<(), String> {
    let n_chars = name.chars().count();
    // A comma ends a namespace in a packet, and a question mark begins a query.
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
        read(&[(NAMESPACES.to_owned(), value.to_owned())], 3).map(|read| read.namespaces)
    }

    #[test]
    fn valid_namespaces_are_read_without_duplicates() {
        assert_eq!(read(&[], 3), Ok(Extensions::default()));
        let both = ["/chät/new".to_owned(), "/custom".to_owned()];
        assert_eq!(named(r#"["/custom", "/chät/new", "/custom"]"#), Ok(both.into()));
        let longest = format!("/{}", "n".repeat(MAX_CHARS - 1));
        assert_eq!(named(&format!(r#"["{longest}"]"#)), Ok([longest].into()));
        let most: Vec<String> = (0..MAX_NAMESPACES).map(|n| format!("/{n}")).collect();
        assert_eq!(named(&serde_json::to_string(&most).unwrap()).unwrap().len(), MAX_NAMESPACES);
    }

    #[test]
    fn malformed_namespaces_are_refused_by_name() {
        let long = format!("/{}", "n".repeat(MAX_CHARS));
        for bad in ["", "/", "custom", "/a,b", "/a?b", "/a b", "/a\u{a0}b", "/a\u{7}", &long] {
            let said = named(&serde_json::to_string(&[bad]).unwrap()).expect_err(bad);
            assert!(said.contains(&format!("{bad:?}")), "{said}");
        }
    }

    #[test]
    fn overlong_or_malformed_namespace_lists_are_refused() {
        let many: Vec<String> = (0..=MAX_NAMESPACES).map(|n| format!("/{n}")).collect();
        assert!(named(&serde_json::to_string(&many).unwrap()).unwrap_err().contains("33 namespaces, and may name 32"));
        for bad in ["", "{}", r#""/custom""#, "[1]"] {
            assert!(named(bad).unwrap_err().contains("must be a JSON array of names"), "{bad}");
        }
    }

    #[test]
    fn migrate_down_accepts_only_older_schemas() {
        let listed =
            |value: &str| read(&[(MIGRATE_DOWN.to_owned(), value.to_owned())], 3).map(|read| read.migrates_down_to);
        assert_eq!(listed("[2, 1]"), Ok([1, 2].into()));
        assert!(listed("[3]").unwrap_err().contains("schema 3"));
        assert!(listed("2").unwrap_err().contains("must be a JSON array"));
    }

    #[test]
    fn partial_migration_is_true_or_false() {
        let asked = |value: &str| {
            read(&[(PARTIAL_MIGRATION.to_owned(), value.to_owned())], 3).map(|read| read.migrates_partially)
        };
        assert_eq!((asked("true"), asked("false")), (Ok(true), Ok(false)));
        assert!(asked("[]").unwrap_err().contains("partial-migration must be true or false"));
    }

    #[test]
    fn presence_lists_scopes() {
        let asked = |value: &str| read(&[(PRESENCE.to_owned(), value.to_owned())], 3).map(|read| read.presence);
        assert_eq!(asked(r#"["ticket:{id}"]"#), Ok(["ticket:{id}".to_owned()].into()));
        assert!(asked("true").unwrap_err().contains("presence must be a JSON array of names"));
    }

    #[test]
    fn unknown_extensions_are_refused_by_name() {
        let said = read(&[("teleport".to_owned(), "[]".to_owned())], 3).unwrap_err();
        assert!(said.contains("teleport"), "{said}");
    }
}

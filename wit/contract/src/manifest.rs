//! The check of a manifest: all refusals that depend on the manifest alone.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::bounds::PayloadBounds;
use crate::event::{CONNECT_EVENT, check_event};
use crate::event_limits::EventLimits;
use crate::extension::{self, Extensions};
use crate::grants::{CONNECT_ACTION, Grants};
use crate::id::USER_ROOM_PREFIX;
use crate::permissions::Permission;
use crate::raw;
use crate::template::{ScopeAddress, Template};

/// The greatest number of names of each kind in a manifest: many more than a large feature has.
const MAX_NAMES: usize = 256;

/// The longest name of a feature and the longest version, in characters.
const MAX_NAME_CHARS: usize = 64;

/// The longest description, in characters. A longer one is cut.
const MAX_DESCRIPTION_CHARS: usize = 256;

/// The shortest idle time of a scope: more frequent checks would cost more than the memory is worth.
const MIN_IDLE: Duration = Duration::from_secs(1);

/// The longest idle time of a volatile scope.
const MAX_IDLE: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// The longest idle time of a durable scope: a state is not an archive.
const MAX_DURABLE_IDLE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A checked manifest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The feature's name in the API and the configuration.
    pub name: String,
    /// The semantic version of this build.
    pub version: String,
    /// A description in one line.
    pub description: String,
    /// Version of the state's schema.
    pub state_version: u32,
    /// The kinds of scope.
    pub scopes: Vec<Scope>,
    /// The events that clients and services may send, by name.
    pub routes: HashMap<String, Route>,
    /// The scope that handles `connect`, if any does.
    pub connect_scope: Option<ScopeAddress>,
    /// Whether the feature decides whether a connection opens.
    pub admits: bool,
    /// Socket.IO namespaces besides `/`.
    pub namespaces: BTreeSet<String>,
    /// The older schemas to which the build can migrate its states.
    pub migrates_down_to: BTreeSet<u32>,
    /// Whether a scope whose state cannot be migrated stays on the build before; otherwise the build is not loaded.
    pub migrates_partially: bool,
    /// The bounds of payloads.
    pub limits: EventLimits,
    /// The queries that the feature answers, by name: the index in [`Manifest::scopes`] of the scope that answers, or
    /// `None` if all scopes do.
    pub queries: HashMap<String, Option<usize>>,
    /// The events that the feature may emit.
    pub emits: BTreeSet<String>,
    /// The permissions that the feature needs beyond its own scopes' rooms, the narrowest rooms first. A route for
    /// `connect` is a need.
    pub needs: Grants,
}

/// A kind of scope.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The template of the scopes' keys.
    pub template: Template,
    /// Whether the states outlive the process.
    pub is_durable: bool,
    /// The time without member, timer or event after which the state is dropped.
    pub idle: Duration,
    /// Whether the scope gets the events `away` and `back`.
    pub has_presence: bool,
}

/// An event that a feature handles.
#[derive(Debug, Clone)]
pub struct Route {
    /// Whether clients may send the event.
    pub from_client: bool,
    /// Whether services may send the event.
    pub from_service: bool,
    /// The index of the event's scope in [`Manifest::scopes`].
    pub scope: usize,
    /// The bounds of the event's payload.
    pub limits: PayloadBounds,
    /// What clients need to send the event.
    pub permission: Option<Permission>,
}

impl Manifest {
    /// Checks a manifest.
    ///
    /// # Errors
    /// With the first rule that the manifest breaks, and the place.
    pub fn check(manifest: raw::Manifest) -> Result<Self, String> {
        check_name_and_version(&manifest)?;
        check_counts(&manifest)?;
        let raw::Manifest { name, version, description, state_version, .. } = manifest;
        let mut scopes = manifest.scopes.into_iter().map(check_scope).collect::<Result<Vec<_>, _>>()?;
        let extensions = extension::read(&manifest.extensions, state_version)?;
        mark_presence(&mut scopes, &extensions)?;
        check_overlaps(&scopes)?;
        let (routes, connect_scope) = check_routes(manifest.routes, &scopes, &extensions)?;
        let queries = check_queries(manifest.queries, &scopes)?;
        manifest.emits.iter().try_for_each(|event| check_event(event))?;
        extensions.limits.check_names(|event| routes.contains_key(event) || event == CONNECT_EVENT)?;
        check_senders(&extensions, &routes, connect_scope.is_some())?;
        let mut needs = manifest.needs;
        needs.check()?;
        if connect_scope.is_some() {
            needs.actions.push(CONNECT_ACTION.to_owned());
        }
        needs.sort();
        Ok(Self {
            name,
            version,
            description: description.chars().filter(|c| !c.is_control()).take(MAX_DESCRIPTION_CHARS).collect(),
            state_version,
            scopes,
            routes,
            connect_scope,
            admits: extensions.admits,
            namespaces: extensions.namespaces,
            migrates_down_to: extensions.migrates_down_to,
            migrates_partially: extensions.migrates_partially,
            limits: extensions.limits,
            queries,
            emits: manifest.emits.into_iter().collect(),
            needs,
        })
    }

    /// Whether the scope with this key gets the events `away` and `back`.
    pub fn has_presence(&self, key: &str) -> bool {
        // Most features have no such scope, and then no template needs to be matched.
        self.scopes.iter().any(|scope| scope.has_presence)
            && self.scope_of_key(key).is_some_and(|(scope, _)| scope.has_presence)
    }

    /// The kind and the address of the scope with this key, if the feature has such a scope.
    pub fn scope_of_key(&self, key: &str) -> Option<(&Scope, ScopeAddress)> {
        self.scopes.iter().find_map(|scope| Some((scope, scope.template.match_key(key)?)))
    }
}

fn check_name_and_version(raw::Manifest { name, version, .. }: &raw::Manifest) -> Result<(), String> {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > MAX_NAME_CHARS || !name.chars().all(is_letter) {
        return Err(format!("the name {name:?} must be 1 to 64 lower-case letters, digits and hyphens"));
    }
    let is_semantic = version.split(['-', '+']).next().is_some_and(|core| {
        core.split('.').count() == 3 && core.split('.').all(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
    });
    if !is_semantic || version.len() > MAX_NAME_CHARS || !version.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("the version {version:?} must be a semantic version, as 1.2.3"));
    }
    Ok(())
}

fn check_counts(manifest: &raw::Manifest) -> Result<(), String> {
    let raw::Manifest { scopes, routes, queries, emits, .. } = manifest;
    for (what, n) in
        [("scopes", scopes.len()), ("routes", routes.len()), ("queries", queries.len()), ("emits", emits.len())]
    {
        if n > MAX_NAMES {
            return Err(format!("it lists {n} {what}, and may list {MAX_NAMES}"));
        }
    }
    Ok(())
}

fn check_scope(scope: raw::Scope) -> Result<Scope, String> {
    let template = Template::parse(&scope.template)?;
    let (prefix, user) = (template.prefix(), USER_ROOM_PREFIX);
    if prefix.starts_with(user) || user.starts_with(prefix) {
        return Err(format!("the scope {:?} could be a user's own room", scope.template));
    }
    let is_durable = match scope.durability.as_str() {
        "volatile" => false,
        "durable" => true,
        other => return Err(format!("the scope {:?} is {other:?}: it must be volatile or durable", scope.template)),
    };
    let max_idle = if is_durable { MAX_DURABLE_IDLE } else { MAX_IDLE };
    let idle = Duration::from_millis(scope.idle_ms).clamp(MIN_IDLE, max_idle);
    Ok(Scope { template, is_durable, idle, has_presence: false })
}

fn mark_presence(scopes: &mut [Scope], extensions: &Extensions) -> Result<(), String> {
    for template in &extensions.presence {
        let scope = scopes.iter_mut().find(|scope| scope.template.as_str() == template);
        let missing = || format!("the extension presence names the scope {template:?}, which is not among the scopes");
        scope.ok_or_else(missing)?.has_presence = true;
    }
    Ok(())
}

fn check_overlaps(scopes: &[Scope]) -> Result<(), String> {
    for (at, scope) in scopes.iter().enumerate() {
        if let Some(other) = scopes[..at].iter().find(|other| other.template.overlaps(&scope.template)) {
            let (scope, other) = (scope.template.as_str(), other.template.as_str());
            return Err(format!("the scopes {other:?} and {scope:?} would share rooms"));
        }
    }
    Ok(())
}

/// The index of a scope among `scopes`. `of` is the part of the manifest that names the scope, for the refusal.
fn place_of(template: &str, scopes: &[Scope], of: &str) -> Result<usize, String> {
    let at = scopes.iter().position(|scope| scope.template.as_str() == template);
    at.ok_or_else(|| format!("{of} names the scope {template:?}, which is not among the scopes"))
}

/// The routes for clients and services, and the scope that handles `connect`.
fn check_routes(
    routes: Vec<raw::Route>,
    scopes: &[Scope],
    extensions: &Extensions,
) -> Result<(HashMap<String, Route>, Option<ScopeAddress>), String> {
    let mut checked = HashMap::new();
    let mut connect_scope = None;
    for raw::Route { event, origins, scope } in routes {
        let from = |origin: &str| origins.iter().any(|other| other == origin);
        if event == CONNECT_EVENT || from("host") {
            let scope = place_of(&scope, scopes, &format!("the route of {event}"))?;
            if connect_scope.replace(check_connect(&event, &origins, &scopes[scope].template)?).is_some() {
                return Err(format!("it routes {event} twice"));
            }
            continue;
        }
        check_event(&event)?;
        if origins.is_empty() {
            return Err(format!("the route of {event} names no origin: it is client or service"));
        }
        if let Some(unknown) = origins.iter().find(|origin| !matches!(origin.as_str(), "client" | "service")) {
            return Err(format!("the route of {event} names the origin {unknown:?}: it is client or service"));
        }
        let scope = place_of(&scope, scopes, &format!("the route of {event}"))?;
        let limits = extensions.limits.of(&event);
        let permission = extensions.permissions.get(&event).cloned();
        let route = Route { from_client: from("client"), from_service: from("service"), scope, limits, permission };
        if checked.insert(event.clone(), route).is_some() {
            return Err(format!("it routes {event} twice"));
        }
    }
    Ok((checked, connect_scope))
}

/// Checks that what is said about senders is about events that clients send.
fn check_senders(extensions: &Extensions, routes: &HashMap<String, Route>, routes_connect: bool) -> Result<(), String> {
    if extensions.admits && !routes_connect {
        return Err(format!("it decides whether a connection opens, and does not route {CONNECT_EVENT}"));
    }
    let is_clients = |event: &str| routes.get(event).is_some_and(|route| route.from_client);
    match extensions.permissions.keys().find(|event| !is_clients(event)) {
        Some(event) => Err(format!("the extension permissions names {event:?}, which clients cannot send")),
        None => Ok(()),
    }
}

/// The address of the scope that handles `connect`.
fn check_connect(event: &str, origins: &[String], template: &Template) -> Result<ScopeAddress, String> {
    if event != CONNECT_EVENT {
        return Err(format!(
            "the route of {event} names the origin host, which sends {CONNECT_EVENT} and nothing else"
        ));
    }
    if origins.is_empty() || origins.iter().any(|origin| origin != "host") {
        return Err(format!("the event {event} is the host's own: its route must name the origin host alone"));
    }
    // A new connection has no values for placeholders.
    template.fixed_address().ok_or_else(|| {
        let scope = template.as_str();
        format!("the route of {event} names the scope {scope:?}, which must be one without a placeholder")
    })
}

fn check_queries(queries: Vec<raw::Query>, scopes: &[Scope]) -> Result<HashMap<String, Option<usize>>, String> {
    let mut checked = HashMap::new();
    for raw::Query { name, scope } in queries {
        check_event(&name)?;
        let scope = scope.map(|scope| place_of(&scope, scopes, &format!("the query {name}"))).transpose()?;
        checked.insert(name, scope);
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check of a manifest with `routes`, each an event, its origins and its scope.
    fn with_routes(routes: &[(&str, &[&str], &str)]) -> Result<Manifest, String> {
        with(routes, &[])
    }

    fn with(routes: &[(&str, &[&str], &str)], extensions: &[(String, String)]) -> Result<Manifest, String> {
        let scope = |template: &str| raw::Scope {
            template: template.to_owned(),
            durability: "volatile".to_owned(),
            idle_ms: 0,
        };
        let route = |(event, origins, scope): &(&str, &[&str], &str)| raw::Route {
            event: (*event).to_owned(),
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            scope: (*scope).to_owned(),
        };
        Manifest::check(raw::Manifest {
            name: "lobby".to_owned(),
            version: "1.0.0".to_owned(),
            description: String::new(),
            state_version: 1,
            scopes: vec![scope("lobby"), scope("room:{roomId}")],
            routes: routes.iter().map(route).collect(),
            queries: Vec::new(),
            emits: Vec::new(),
            needs: Grants::default(),
            extensions: extensions.to_vec(),
        })
    }

    #[test]
    fn presence_marks_the_named_scopes() {
        let named = |template: &str| with(&[], &[("presence".to_owned(), format!("[{template:?}]"))]);
        let manifest = named("room:{roomId}").unwrap();
        assert!(manifest.has_presence("room:5") && !manifest.has_presence("lobby"));
        assert!(!with(&[], &[]).unwrap().has_presence("room:5"));
        assert!(
            named("hall").unwrap_err().contains("presence names the scope \"hall\", which is not among the scopes")
        );
    }

    #[test]
    fn event_limits_must_name_routed_events() {
        let named = |event: &str| {
            let limits = format!("{{{event:?}:{{}}}}");
            with(&[("say", &["client"], "lobby")], &[("event-limits".to_owned(), limits)])
        };
        for event in ["say", "connect", "*"] {
            assert!(named(event).is_ok(), "{event}");
        }
        assert!(named("shout").unwrap_err().contains("event-limits names the event \"shout\", which is not routed"));
    }

    #[test]
    fn connect_route_sets_scope_and_need() {
        let manifest = with_routes(&[("connect", &["host"], "lobby"), ("say", &["client"], "room:{roomId}")]).unwrap();
        assert_eq!(manifest.needs.actions, ["connect"], "the route is a need");
        assert_eq!(manifest.connect_scope.unwrap().key.as_ref(), "lobby");
        assert_eq!(manifest.routes.into_keys().collect::<Vec<_>>(), ["say"]);
        assert_eq!(with_routes(&[("say", &["client"], "lobby")]).unwrap().connect_scope, None);
    }

    #[test]
    fn invalid_connect_and_host_routes_are_refused() {
        let check = |routes: &[(&str, &[&str], &str)], message: &str| {
            let said = with_routes(routes).expect_err(message);
            assert!(said.contains(message), "{said}");
        };
        check(&[("connect", &["host"], "room:{roomId}")], "without a placeholder");
        check(&[("connect", &["host"], "hall")], "not among the scopes");
        check(&[("connect", &["host"], "lobby"), ("connect", &["host"], "lobby")], "routes connect twice");
        check(&[("connect", &["host", "client"], "lobby")], "the origin host alone");
        check(&[("connect", &["client"], "lobby")], "the origin host alone");
        check(&[("connect", &[], "lobby")], "the origin host alone");
        check(&[("say", &["host"], "lobby")], "which sends connect and nothing else");
        check(&[("disconnect", &["client"], "lobby")], "the event disconnect is the host's own");
    }
}

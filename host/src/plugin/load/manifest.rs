//! A manifest that has been checked, and what its feature is granted.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::bounds::PayloadBounds;
use super::event_limits::EventLimits;
use super::extension;
use super::grants::{CONNECT_ACTION, Grants};
use super::template::{ScopeAddress, Template};
use crate::hub::USER_ROOM_PREFIX;
use crate::plugin::guest::bindings::roundhouse::feature::manifest as wit;
use crate::protocol::RESERVED_EVENTS;
use crate::protocol::plain::MAX_EVENT_BYTES;

/// Names of each kind that a manifest may list: many times what a large feature has.
const MAX_NAMES: usize = 256;

/// The event by which a feature is told of a connection that opens. The host alone sends it.
pub(crate) const CONNECT_EVENT: &str = "connect";

/// The shortest idle time of a scope: less would be spent on looking at it.
const LEAST_IDLE: Duration = Duration::from_secs(1);

/// The longest idle time of a volatile scope.
const MOST_IDLE: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// The longest idle time of a durable scope: a state is no archive.
const MOST_DURABLE_IDLE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// What a feature says about itself.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    /// Its name in the API and the configuration.
    pub name: String,
    /// Its semantic version.
    pub version: String,
    /// One line for people.
    pub description: String,
    /// Version of its state's schema.
    pub state_version: u32,
    /// The kinds of scope.
    pub scopes: Vec<Scope>,
    /// The events that it handles.
    pub routes: HashMap<String, Route>,
    /// The scope in which it is told of each connection that opens, if it wants to be.
    pub greets_in: Option<ScopeAddress>,
    /// The Socket.IO namespaces that there are besides `/`.
    pub namespaces: BTreeSet<String>,
    /// The older schemas that it can turn its states back into.
    pub migrates_down_to: BTreeSet<u32>,
    /// What the payloads of events may have.
    pub limits: EventLimits,
    /// The questions that it answers: the scope that each is for, or none where all scopes are asked.
    pub queries: HashMap<String, Option<usize>>,
    /// The events that it may emit.
    pub emits: BTreeSet<String>,
    /// What it needs beyond its own scopes' rooms.
    pub needs: Grants,
}

/// A kind of scope.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// What its keys look like.
    pub template: Template,
    /// Whether its states outlive the process.
    pub is_durable: bool,
    /// The state is dropped after so long without member, timer or event.
    pub idle: Duration,
    /// Whether it is told of connections whose clients are away, and back.
    pub tells_presence: bool,
}

/// An event that a feature handles.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// Whether clients may send it.
    pub from_client: bool,
    /// Whether services may send it.
    pub from_service: bool,
    /// Its scope's place in [`Manifest::scopes`].
    pub scope: usize,
    /// What its payload may have.
    pub limits: PayloadBounds,
}

impl Manifest {
    /// Checks what a component described.
    ///
    /// # Errors
    /// With what is wrong, and where.
    pub(crate) fn check(manifest: wit::Manifest) -> Result<Self, String> {
        let wit::Manifest {
            name,
            version,
            description,
            state_version,
            scopes,
            routes,
            queries,
            emits,
            needs,
            extensions,
        } = manifest;
        if name.is_empty()
            || name.len() > 64
            || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        {
            return Err(format!("the name {name:?} must be 1 to 64 lower-case letters, digits and hyphens"));
        }
        let is_semantic = version.split(['-', '+']).next().is_some_and(|core| {
            core.split('.').count() == 3
                && core.split('.').all(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
        });
        if !is_semantic || version.len() > 64 || !version.is_ascii() {
            return Err(format!("the version {version:?} must be a semantic version, as 1.2.3"));
        }
        for (what, n) in
            [("scopes", scopes.len()), ("routes", routes.len()), ("queries", queries.len()), ("emits", emits.len())]
        {
            if n > MAX_NAMES {
                return Err(format!("it lists {n} {what}, and may list {MAX_NAMES}"));
            }
        }
        let mut scopes = scopes.into_iter().map(check_scope).collect::<Result<Vec<_>, _>>()?;
        let extensions = extension::read(&extensions, state_version)?;
        for template in &extensions.presence {
            let scope = scopes.iter_mut().find(|scope| scope.template.as_str() == template);
            let missing =
                || format!("the extension presence names the scope {template:?}, which is not among the scopes");
            scope.ok_or_else(missing)?.tells_presence = true;
        }
        for (at, scope) in scopes.iter().enumerate() {
            if let Some(other) = scopes[..at].iter().find(|other| other.template.overlaps(&scope.template)) {
                let (scope, other) = (scope.template.as_str(), other.template.as_str());
                return Err(format!("the scopes {other:?} and {scope:?} would share rooms"));
            }
        }
        let scope_of = |template: &str, of: &str| {
            let at = scopes.iter().position(|scope| scope.template.as_str() == template);
            at.ok_or_else(|| format!("{of} names the scope {template:?}, which is not among the scopes"))
        };
        let mut checked_routes = HashMap::new();
        let mut greets_in = None;
        for wit::Route { event, origins, scope } in routes {
            let from = |origin: &str| origins.iter().any(|other| other == origin);
            if event == CONNECT_EVENT || from("host") {
                let scope = scope_of(&scope, &format!("the route of {event}"))?;
                if greets_in.replace(check_connect(&event, &origins, &scopes[scope].template)?).is_some() {
                    return Err(format!("it routes {event} twice"));
                }
                continue;
            }
            check_event(&event)?;
            if let Some(unknown) = origins.iter().find(|origin| !matches!(origin.as_str(), "client" | "service")) {
                return Err(format!("the route of {event} names the origin {unknown:?}: it is client or service"));
            }
            let scope = scope_of(&scope, &format!("the route of {event}"))?;
            let limits = extensions.limits.of(&event);
            let route = Route { from_client: from("client"), from_service: from("service"), scope, limits };
            if checked_routes.insert(event.clone(), route).is_some() {
                return Err(format!("it routes {event} twice"));
            }
        }
        let mut checked_queries = HashMap::new();
        for wit::Query { name, scope } in queries {
            check_event(&name)?;
            let scope = scope.map(|scope| scope_of(&scope, &format!("the query {name}"))).transpose()?;
            checked_queries.insert(name, scope);
        }
        for event in &emits {
            check_event(event)?;
        }
        let is_routed = |event: &str| checked_routes.contains_key(event) || event == CONNECT_EVENT;
        extensions.limits.check_names(is_routed)?;
        let mut needs = Grants { rooms: needs.rooms, audiences: needs.audiences, actions: needs.actions };
        needs.check()?;
        if greets_in.is_some() && !needs.allows_action(CONNECT_ACTION) {
            // A route that asks for it is a need, whether the manifest lists it or is older than the action.
            needs.actions.push(CONNECT_ACTION.to_owned());
        }
        Ok(Self {
            name,
            version,
            description: description.chars().filter(|c| !c.is_control()).take(256).collect(),
            state_version,
            scopes,
            routes: checked_routes,
            greets_in,
            namespaces: extensions.namespaces,
            migrates_down_to: extensions.migrates_down_to,
            limits: extensions.limits,
            queries: checked_queries,
            emits: emits.into_iter().collect(),
            needs,
        })
    }

    /// Whether the scope of this key is told of connections whose clients are away.
    pub(crate) fn tells_presence_to(&self, key: &str) -> bool {
        // Most features never look at it, and need no look at their templates.
        self.scopes.iter().any(|scope| scope.tells_presence)
            && self.scope_of_key(key).is_some_and(|(scope, _)| scope.tells_presence)
    }

    /// The scope of this feature that has this key, with its kind.
    pub(crate) fn scope_of_key(&self, key: &str) -> Option<(&Scope, super::template::ScopeAddress)> {
        self.scopes.iter().find_map(|scope| Some((scope, scope.template.match_key(key)?)))
    }
}

fn check_scope(scope: wit::Scope) -> Result<Scope, String> {
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
    let most_idle = if is_durable { MOST_DURABLE_IDLE } else { MOST_IDLE };
    let idle = Duration::from_millis(scope.idle_ms).clamp(LEAST_IDLE, most_idle);
    Ok(Scope { template, is_durable, idle, tells_presence: false })
}

/// The scope in which a feature is told of connections, where it may route the event so.
fn check_connect(event: &str, origins: &[String], template: &Template) -> Result<ScopeAddress, String> {
    if event != CONNECT_EVENT {
        return Err(format!(
            "the route of {event} names the origin host, which sends {CONNECT_EVENT} and nothing else"
        ));
    }
    if origins.is_empty() || origins.iter().any(|origin| origin != "host") {
        return Err(format!("the event {event} is the host's own: its route must name the origin host alone"));
    }
    // A connection that opens names no scope.
    template.fixed_address().ok_or_else(|| {
        let scope = template.as_str();
        format!("the route of {event} names the scope {scope:?}, which must be one without a placeholder")
    })
}

fn check_event(event: &str) -> Result<(), String> {
    if event.is_empty() || event.len() > MAX_EVENT_BYTES || event.chars().any(char::is_control) {
        return Err(format!("the name {event:?} must be 1 to {MAX_EVENT_BYTES} bytes without control characters"));
    }
    if RESERVED_EVENTS.contains(&event) {
        return Err(format!("the event {event} is the host's own"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a manifest with these routes, each an event, its origins and its scope.
    fn with_routes(routes: &[(&str, &[&str], &str)]) -> Result<Manifest, String> {
        with(routes, &[])
    }

    fn with(routes: &[(&str, &[&str], &str)], extensions: &[(String, String)]) -> Result<Manifest, String> {
        let scope = |template: &str| wit::Scope {
            template: template.to_owned(),
            durability: "volatile".to_owned(),
            idle_ms: 0,
        };
        let route = |(event, origins, scope): &(&str, &[&str], &str)| wit::Route {
            event: (*event).to_owned(),
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            scope: (*scope).to_owned(),
        };
        Manifest::check(wit::Manifest {
            name: "lobby".to_owned(),
            version: "1.0.0".to_owned(),
            description: String::new(),
            state_version: 1,
            scopes: vec![scope("lobby"), scope("room:{roomId}")],
            routes: routes.iter().map(route).collect(),
            queries: Vec::new(),
            emits: Vec::new(),
            needs: wit::Needs { rooms: Vec::new(), audiences: Vec::new(), actions: Vec::new() },
            extensions: extensions.to_vec(),
        })
    }

    #[test]
    fn presence_is_told_to_the_scopes_named() {
        let named = |template: &str| with(&[], &[("presence".to_owned(), format!("[{template:?}]"))]);
        let manifest = named("room:{roomId}").unwrap();
        assert!(manifest.tells_presence_to("room:5") && !manifest.tells_presence_to("lobby"));
        assert!(!with(&[], &[]).unwrap().tells_presence_to("room:5"));
        assert!(
            named("hall").unwrap_err().contains("presence names the scope \"hall\", which is not among the scopes")
        );
    }

    #[test]
    fn limits_name_events_that_are_routed() {
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
    fn connections_that_open_are_told_to_a_scope_and_are_no_route() {
        let manifest = with_routes(&[("connect", &["host"], "lobby"), ("say", &["client"], "room:{roomId}")]).unwrap();
        assert_eq!(manifest.needs.actions, ["connect"], "to be told of them is a need");
        assert_eq!(manifest.greets_in.unwrap().key.as_ref(), "lobby");
        assert_eq!(manifest.routes.into_keys().collect::<Vec<_>>(), ["say"]);
        assert_eq!(with_routes(&[("say", &["client"], "lobby")]).unwrap().greets_in, None);
    }

    #[test]
    fn the_host_sends_connect_and_nothing_else_and_nobody_else_sends_it() {
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

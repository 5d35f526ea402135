//! The builder of a feature's manifest.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::EventLimits;
use crate::messages::{MessageRoute, Messages, Origin};

/// The description of a feature, which the host reads once, before the first event. Begin with
/// [`manifest!`](crate::manifest).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The feature's name in the API and the configuration.
    pub name: String,
    /// Semantic version of this build.
    pub version: String,
    /// A description in one line.
    pub description: String,
    /// Version of the state's schema.
    pub state_version: u32,
    /// The kinds of scopes.
    pub scopes: Vec<Scope>,
    /// Queries that all scopes answer, and whose answers are folded into one.
    pub gathered: Vec<String>,
    /// The names of all events that the feature may emit.
    pub emits: Vec<String>,
    /// The permissions that the feature needs beyond its own scopes' rooms.
    pub needs: Needs,
    /// The Socket.IO namespaces that clients may connect to besides `/`.
    pub namespaces: Vec<String>,
    /// The older schema versions that [`Feature::migrate_down`](crate::Feature::migrate_down) can produce.
    pub migrates_down_to: Vec<u32>,
    /// Whether scopes that [`Feature::migrate`](crate::Feature::migrate) fails on stay on the build before.
    pub migrates_partially: bool,
    /// The limits of payloads without limits of their own: events of clients, acknowledgements of clients, and the `auth` of
    /// [connections](Scope::on_connect).
    pub limits: EventLimits,
}

/// A kind of scope: the template of its key, its routes and its queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// A template such as `ticket:{ticketId}`: literals and placeholders. The fields of an event's first argument, an
    /// object, fill the placeholders. A template with one placeholder also accepts a string: `"507f"` means the same as
    /// `{"ticketId": "507f"}`, and the type of the message must decode from either.
    pub template: String,
    /// Whether the state survives a restart.
    pub durable: bool,
    /// The time without member, timer and event after which the state is dropped.
    pub idle: Duration,
    /// The events that the scope handles.
    pub routes: Vec<Route>,
    /// The queries that the scope answers.
    pub queries: Vec<String>,
    /// Whether the scope gets the events `away` and `back`.
    pub presence: bool,
    /// Whether the scope decides whether a connection opens.
    pub admits: bool,
}

/// The event of a connection that opens.
pub(crate) const CONNECT: &str = "connect";

/// An event that a feature handles, and its origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The event's name.
    pub event: String,
    /// Whether clients may send the event.
    pub from_clients: bool,
    /// Whether services may send the event.
    pub from_services: bool,
    /// Whether the host sends the event: `connect` alone.
    pub from_host: bool,
    /// Whether the feature emits the event to clients under the same name.
    pub is_passed_through: bool,
    /// The limits of the event's payload, if it has limits of its own.
    pub limits: Option<EventLimits>,
    /// The roles of which a client needs one; any client where this is empty.
    pub roles: Vec<String>,
}

impl Route {
    /// The routes that the variants of an enum of messages declare.
    fn declared(route: &MessageRoute) -> impl Iterator<Item = Self> {
        route.events.iter().map(|event| Self {
            event: (*event).to_owned(),
            from_clients: matches!(route.origin, Origin::Client | Origin::ClientOrService),
            from_services: matches!(route.origin, Origin::Service | Origin::ClientOrService | Origin::Passthrough),
            from_host: route.origin == Origin::Host,
            is_passed_through: route.origin == Origin::Passthrough,
            limits: None,
            roles: Vec::new(),
        })
    }
}

impl Route {
    /// The limits of the event's payload, if they differ from the manifest's.
    fn own_limits(&self) -> Option<EventLimits> {
        // Services belong to the operator, so the host alone bounds their payloads.
        let is_services = self.from_services && !self.from_clients;
        self.limits.or(is_services.then(EventLimits::of_host))
    }
}

/// The permissions that a feature needs beyond its own scopes' rooms and the connections that send to it. The operator
/// grants them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Other rooms: a name, or a prefix followed by `*`.
    pub rooms: Vec<String>,
    /// Wider audiences: `user`, `roles`, `all`.
    pub audiences: Vec<String>,
    /// `save` (to store and fetch documents), `disconnect`, `connect` (to get an event for each connection that opens),
    /// `join` (to let connections join rooms although they have sent the feature nothing).
    pub actions: Vec<String>,
}

/// Converts a list of names.
fn names<I: Into<String>>(names: impl IntoIterator<Item = I>) -> impl Iterator<Item = String> {
    names.into_iter().map(Into::into)
}

impl Manifest {
    /// A manifest with no scopes. [`manifest!`](crate::manifest) fills in the crate's name, version and description.
    pub fn new(name: &str, version: &str, description: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            description: description.to_owned(),
            state_version: 1,
            scopes: Vec::new(),
            gathered: Vec::new(),
            emits: Vec::new(),
            needs: Needs::default(),
            namespaces: Vec::new(),
            migrates_down_to: Vec::new(),
            migrates_partially: false,
            limits: EventLimits::default(),
        }
    }

    /// Sets the limits of payloads without limits of [their own](Scope::limits): events of clients, acknowledgements of
    /// clients, and the `auth` of connections.
    #[must_use]
    pub fn limits(mut self, limits: EventLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the version of the state's schema (default: 1). A stored state of another version is migrated by
    /// [`Feature::migrate`](crate::Feature::migrate).
    #[must_use]
    pub fn state_version(mut self, version: u32) -> Self {
        self.state_version = version;
        self
    }

    /// Adds older schema versions that [`Feature::migrate_down`](crate::Feature::migrate_down) can produce, so that a
    /// rollback to a build of such a version loses nothing.
    #[must_use]
    pub fn migrates_down_to(mut self, versions: impl IntoIterator<Item = u32>) -> Self {
        self.migrates_down_to.extend(versions);
        self
    }

    /// Has scopes whose state [`Feature::migrate`](crate::Feature::migrate) fails on stay on the build before, until a later
    /// build can migrate them. Otherwise one such state has the whole build refused.
    #[must_use]
    pub fn migrates_partially(mut self) -> Self {
        self.migrates_partially = true;
        self
    }

    /// Adds a kind of scope. The names of events that it passes through are added to [`emits`](Self::emits).
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        let passed_through = scope.routes.iter().filter(|route| route.is_passed_through);
        self.emits.extend(passed_through.map(|route| route.event.clone()));
        if scope.routes.iter().any(|route| route.from_host) && !self.needs.actions.iter().any(|own| own == CONNECT) {
            self.needs.actions.push(CONNECT.to_owned());
        }
        self.scopes.push(scope);
        self
    }

    /// Adds a query that every scope answers, and [`Feature::gathered`](crate::Feature::gathered) for all of them. The host
    /// itself sends the query `stats`.
    #[must_use]
    pub fn gathers(mut self, query: impl Into<String>) -> Self {
        self.gathered.push(query.into());
        self
    }

    /// Adds names of events that the feature may emit.
    #[must_use]
    pub fn emits<I: Into<String>>(mut self, events: impl IntoIterator<Item = I>) -> Self {
        self.emits.extend(names(events));
        self
    }

    /// Adds rooms that the feature emits to or lets connections join: names, or prefixes followed by `*`.
    #[must_use]
    pub fn needs_rooms<I: Into<String>>(mut self, rooms: impl IntoIterator<Item = I>) -> Self {
        self.needs.rooms.extend(names(rooms));
        self
    }

    /// Adds wider audiences: `user`, `roles`, `all`.
    #[must_use]
    pub fn needs_audiences<I: Into<String>>(mut self, audiences: impl IntoIterator<Item = I>) -> Self {
        self.needs.audiences.extend(names(audiences));
        self
    }

    /// Adds actions: `save`, `disconnect`, `connect`, `join`. A scope with [`on_connect`](Scope::on_connect) adds `connect`.
    #[must_use]
    pub fn needs_actions<I: Into<String>>(mut self, actions: impl IntoIterator<Item = I>) -> Self {
        self.needs.actions.extend(names(actions));
        self
    }

    /// Adds Socket.IO namespaces that clients may connect to besides `/`, which is always there. Each name is a slash and
    /// 1 to 127 characters without comma, question mark, whitespace and control characters, and there are 32 at most.
    #[must_use]
    pub fn namespaces<I: Into<String>>(mut self, namespaces: impl IntoIterator<Item = I>) -> Self {
        self.namespaces.extend(names(namespaces));
        self
    }

    /// The limits of payloads by event; `*` stands for all other events.
    pub(crate) fn event_limits(&self) -> BTreeMap<&str, EventLimits> {
        let routes = self.scopes.iter().flat_map(|scope| &scope.routes);
        let own = routes.filter_map(|route| Some((route.event.as_str(), route.own_limits()?)));
        let mut limits: BTreeMap<_, _> = own.chain([("*", self.limits)]).collect();
        if self.limits == EventLimits::of_host() {
            // The host's limits are the default of the extension.
            limits.retain(|_, limits| *limits != EventLimits::of_host());
        }
        limits
    }
}

impl Scope {
    /// A scope whose state lives in memory.
    pub fn volatile(template: &str) -> Self {
        Self::new(template, false)
    }

    /// A scope whose state survives a restart.
    pub fn durable(template: &str) -> Self {
        Self::new(template, true)
    }

    fn new(template: &str, durable: bool) -> Self {
        let (routes, queries) = (Vec::new(), Vec::new());
        Self {
            template: template.to_owned(),
            durable,
            idle: DEFAULT_IDLE,
            routes,
            queries,
            presence: false,
            admits: false,
        }
    }

    /// Sets the time without member, timer and event after which the state is dropped (default: 5 minutes).
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Adds the routes of a [`messages!`](crate::messages) enum that belong to this scope: those of its template, and those
    /// that name no template.
    #[must_use]
    pub fn takes<M: Messages>(mut self) -> Self {
        let own = M::ROUTES.iter().filter(|route| route.scope.is_none_or(|template| template == self.template));
        self.routes.extend(own.flat_map(Route::declared));
        self
    }

    /// Adds events that clients may send.
    #[must_use]
    pub fn from_clients<I: Into<String>>(self, events: impl IntoIterator<Item = I>) -> Self {
        self.route(events, Route { from_clients: true, ..Route::default() })
    }

    /// Adds events that services may send.
    #[must_use]
    pub fn from_services<I: Into<String>>(self, events: impl IntoIterator<Item = I>) -> Self {
        self.route(events, Route { from_services: true, ..Route::default() })
    }

    /// Adds events that both may send.
    #[must_use]
    pub fn from_clients_and_services<I: Into<String>>(self, events: impl IntoIterator<Item = I>) -> Self {
        self.route(events, Route { from_clients: true, from_services: true, ..Route::default() })
    }

    /// Adds the event `connect`, which the host sends for each connection that opens, before any message of the
    /// connection to this scope. The sender is that connection. The one argument is an object with the Socket.IO
    /// `namespace` and the client's `auth`, which in the plain protocol are `/` and `{}`, and of its handshake the `query`,
    /// the `headers` that the operator chose, the `address` and the `time`. The scope must have no placeholder.
    ///
    /// An operator has to grant the action `connect`, and also the action `join` if the connection is to join a room
    /// before it has sent anything. Credentials are removed from `auth`: see the contract.
    #[must_use]
    pub fn on_connect(self) -> Self {
        self.route([CONNECT], Route { from_host: true, ..Route::default() })
    }

    /// Adds the event `connect`, as [`on_connect`](Self::on_connect) does, unless it is routed already, and has the client wait for its outcome: if the
    /// feature refuses it, the connection does not open. A Socket.IO client gets the failure as `connect_error`, with the
    /// failure's [data](Failure::with_data), a plain one as the reason of the close (4003; 4001 for `unauthorized`, 1013 for
    /// `feature_unavailable`). Effects reach the client after it was told that it is connected. Several features may decide,
    /// and the first refusal counts. A feature that does not answer keeps everybody out, so it should do little.
    #[must_use]
    pub fn admits(mut self) -> Self {
        self.admits = true;
        match self.routes.iter().any(|route| route.from_host) {
            true => self,
            false => self.on_connect(),
        }
    }

    /// Lets only clients with one of these roles send these events, which must be routed to this scope already. Services
    /// are not concerned. An operator may narrow it further.
    ///
    /// # Panics
    /// If one of the events is not routed to this scope.
    #[must_use]
    pub fn roles<'a, I: Into<String>>(
        mut self,
        events: impl IntoIterator<Item = &'a str>,
        roles: impl IntoIterator<Item = I>,
    ) -> Self {
        let roles: Vec<String> = names(roles).collect();
        for event in events {
            self.routed(event).roles.clone_from(&roles);
        }
        self
    }

    /// Adds the events [away](crate::Feature::away) and [back](crate::Feature::back) of connections that take part in this
    /// scope. A host that does not know the extension `presence` refuses such a feature.
    #[must_use]
    pub fn on_away(mut self) -> Self {
        self.presence = true;
        self
    }

    /// Adds queries that the scope answers.
    #[must_use]
    pub fn queries<I: Into<String>>(mut self, queries: impl IntoIterator<Item = I>) -> Self {
        self.queries.extend(names(queries));
        self
    }

    /// Sets the limits of the payloads of these events, which must be routed to this scope already.
    ///
    /// # Panics
    /// If one of the events is not routed to this scope.
    #[must_use]
    pub fn limits<'a>(mut self, events: impl IntoIterator<Item = &'a str>, limits: EventLimits) -> Self {
        for event in events {
            self.routed(event).limits = Some(limits);
        }
        self
    }

    /// The route of an event.
    ///
    /// # Panics
    /// If the event is not routed to this scope.
    fn routed(&mut self, event: &str) -> &mut Route {
        let route = self.routes.iter_mut().find(|route| route.event == event);
        route.unwrap_or_else(|| panic!("the scope {:?} does not route {event:?}", self.template))
    }

    /// Adds events with the origins of `like`.
    fn route<I: Into<String>>(mut self, events: impl IntoIterator<Item = I>, like: Route) -> Self {
        self.routes.extend(names(events).map(|event| Route { event, ..like.clone() }));
        self
    }
}

/// Long enough for a client that reconnects to find its scope's state, and short enough to bound the number of scopes.
const DEFAULT_IDLE: Duration = Duration::from_secs(300);

/// A [`Manifest`] with the name, version and description of the crate in which the macro is called.
#[macro_export]
macro_rules! manifest {
    () => {
        $crate::Manifest::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
    };
}

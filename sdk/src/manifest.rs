//! What a feature says about itself: the builder of its manifest.

use std::time::Duration;

use crate::template::Template;

/// What a feature says about itself, once, before it is given any event. Begin with
/// [`manifest!`](crate::manifest).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its name in the API and the configuration.
    pub name: String,
    /// Semantic version of this build.
    pub version: String,
    /// One line for people.
    pub description: String,
    /// Version of the state's schema.
    pub state_version: u32,
    /// The kinds of scopes and what belongs to each.
    pub scopes: Vec<Scope>,
    /// Questions that all scopes are asked and whose answers are then folded into one.
    pub gathered: Vec<String>,
    /// Every event name that this feature may emit.
    pub emits: Vec<String>,
    /// What it needs beyond its own scopes' rooms.
    pub needs: Needs,
    /// The Socket.IO namespaces that clients may connect to besides `/`.
    pub namespaces: Vec<String>,
}

/// A kind of scope: its key's template and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `ticket:{ticketId}`: literals and placeholders.
    pub template: String,
    /// Whether the state outlives a restart.
    pub durable: bool,
    /// The state is dropped when the scope has had no member, timer or event for so long.
    pub idle: Duration,
    /// The events that it handles.
    pub routes: Vec<Route>,
    /// The questions that it answers.
    pub queries: Vec<String>,
    /// Whether it is told of connections whose clients are away, and back.
    pub presence: bool,
}

/// The event by which the host tells of a connection that opens.
pub(crate) const CONNECT: &str = "connect";

/// An event that a feature handles, and who may send it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The event's name.
    pub event: String,
    /// Whether clients may send it.
    pub from_clients: bool,
    /// Whether services may send it.
    pub from_services: bool,
    /// Whether the host sends it, which is so for `connect` alone.
    pub from_host: bool,
}

/// What a feature needs beyond its own scopes' rooms and the connections it hears from. An operator grants it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Other rooms: a name, or a prefix followed by `*`.
    pub rooms: Vec<String>,
    /// Wider audiences: `user`, `roles`, `all`.
    pub audiences: Vec<String>,
    /// `save` (documents: to store and to fetch them), `disconnect`.
    pub actions: Vec<String>,
}

/// A list of names as authors write it down.
fn names<I: Into<String>>(names: impl IntoIterator<Item = I>) -> impl Iterator<Item = String> {
    names.into_iter().map(Into::into)
}

impl Manifest {
    /// A manifest with no scopes. [`manifest!`](crate::manifest) fills in what the crate says of itself.
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
        }
    }

    /// Version of the state's schema (1 unless said otherwise). Where a stored state has another,
    /// [`Feature::migrate`](crate::Feature::migrate) is called.
    #[must_use]
    pub fn state_version(mut self, version: u32) -> Self {
        self.state_version = version;
        self
    }

    /// Adds a kind of scope.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scopes.push(scope);
        self
    }

    /// Adds a question that every scope answers, and
    /// [`Feature::gathered`](crate::Feature::gathered) for all of them. The host itself asks `stats`.
    #[must_use]
    pub fn gathers(mut self, query: impl Into<String>) -> Self {
        self.gathered.push(query.into());
        self
    }

    /// Adds events that it may emit.
    #[must_use]
    pub fn emits<I: Into<String>>(mut self, events: impl IntoIterator<Item = I>) -> Self {
        self.emits.extend(names(events));
        self
    }

    /// Adds rooms that it emits to or lets connections join: names, or prefixes followed by `*`.
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

    /// Adds actions: `save`, `disconnect`.
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

    /// The scopes' templates, in the order of the scopes.
    pub(crate) fn templates(&self) -> Result<Vec<Template>, String> {
        self.scopes.iter().map(|scope| Template::parse(&scope.template)).collect()
    }
}

impl Scope {
    /// A scope whose state lives in memory.
    pub fn volatile(template: &str) -> Self {
        Self::new(template, false)
    }

    /// A scope whose state outlives a restart.
    pub fn durable(template: &str) -> Self {
        Self::new(template, true)
    }

    fn new(template: &str, durable: bool) -> Self {
        let (routes, queries) = (Vec::new(), Vec::new());
        Self { template: template.to_owned(), durable, idle: DEFAULT_IDLE, routes, queries, presence: false }
    }

    /// How long the state stays with no member, timer or event (5 minutes unless said otherwise).
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
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
    pub fn from_both<I: Into<String>>(self, events: impl IntoIterator<Item = I>) -> Self {
        self.route(events, Route { from_clients: true, from_services: true, ..Route::default() })
    }

    /// Has the feature told of each connection that opens, by the event `connect`, before anything that the connection
    /// sends to this scope. The sender is that connection; the one argument is an object of the Socket.IO `namespace`
    /// that it opened in and the `auth` that its client gave, which in the plain protocol are `/` and `{}`. The scope must
    /// have no placeholder.
    #[must_use]
    pub fn on_connect(self) -> Self {
        self.route([CONNECT], Route { from_host: true, ..Route::default() })
    }

    /// Has the feature told when the client of a connection that takes part in this scope is
    /// [away](crate::Feature::away), and when it is [back](crate::Feature::back). A host that does not
    /// know the extension `presence` refuses such a feature.
    #[must_use]
    pub fn on_away(mut self) -> Self {
        self.presence = true;
        self
    }

    /// Adds questions that it answers.
    #[must_use]
    pub fn queries<I: Into<String>>(mut self, queries: impl IntoIterator<Item = I>) -> Self {
        self.queries.extend(names(queries));
        self
    }

    /// Adds events that may be sent by whoever may send `like`.
    fn route<I: Into<String>>(mut self, events: impl IntoIterator<Item = I>, like: Route) -> Self {
        self.routes.extend(names(events).map(|event| Route { event, ..like.clone() }));
        self
    }
}

/// Long enough for a client that reconnects to find what it left, short enough not to pile up.
const DEFAULT_IDLE: Duration = Duration::from_secs(300);

/// A [`Manifest`] with the name, version and description of the crate that this stands in.
#[macro_export]
macro_rules! manifest {
    () => {
        $crate::Manifest::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
    };
}

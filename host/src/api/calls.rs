//! The table of calls: what the router matches, and what the description at `/openapi.json` is made from.

use std::borrow::Cow;

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::keys::KeyScope;
use crate::model::{ErrorCode, Failure};

/// The most parameters that a path has.
const MAX_PARAMETERS: usize = 2;

/// A call, by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Emit,
    Event,
    Query,
    Stats,
    Plugins,
    Plugin,
    InstallPlugin,
    LoadPlugin,
    UnloadPlugin,
    RollBackPlugin,
    ResetPlugin,
    Connections,
    Connection,
    CloseConnection,
    User,
    CloseUser,
    Room,
    Alive,
    Ready,
    Metrics,
    Description,
}

impl Call {
    /// Whether there are parameters in the query.
    pub(super) fn takes_query(self) -> bool {
        self.lists() || self.may_lose_writes()
    }

    /// Whether its parameters say what part of a list is wanted.
    pub(super) fn lists(self) -> bool {
        matches!(self, Self::Connections | Self::User | Self::Room)
    }

    /// Whether its parameter says that states may be lost.
    pub(super) fn may_lose_writes(self) -> bool {
        matches!(self, Self::InstallPlugin | Self::LoadPlugin | Self::RollBackPlugin | Self::ResetPlugin)
    }
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) call: Call,
    pub(super) method: Method,
    /// The path, with parameters in braces.
    pub(super) path: &'static str,
    /// What a key needs; `None` where no key is needed.
    pub(super) scope: Option<KeyScope>,
    pub(super) summary: &'static str,
}

const fn route(
    method: Method,
    path: &'static str,
    call: Call,
    scope: Option<KeyScope>,
    summary: &'static str,
) -> Route {
    Route { call, method, path, scope, summary }
}

const PUBLISH: Option<KeyScope> = Some(KeyScope::Publish);
const ADMIN: Option<KeyScope> = Some(KeyScope::Admin);

/// All calls. Those that are made most stand first, where they are found soonest.
#[rustfmt::skip]
pub(super) static ROUTES: [Route; 21] = [
    route(Method::POST, "/v1/emit", Call::Emit, PUBLISH, "Emit straight to connections"),
    route(Method::POST, "/v1/events", Call::Event, PUBLISH, "Hand an event to the feature that routes it"),
    route(Method::POST, "/v1/query/{plugin}/{query}", Call::Query, PUBLISH, "Ask a feature"),
    route(Method::GET, "/v1/stats", Call::Stats, ADMIN, "Figures of the host"),
    route(Method::GET, "/v1/connections", Call::Connections, ADMIN, "Who is connected"),
    route(Method::GET, "/v1/connections/{id}", Call::Connection, ADMIN, "One connection"),
    route(Method::DELETE, "/v1/connections/{id}", Call::CloseConnection, ADMIN, "Disconnect a connection (4010)"),
    route(Method::GET, "/v1/users/{id}", Call::User, ADMIN, "The connections of a user"),
    route(Method::DELETE, "/v1/users/{id}/connections", Call::CloseUser, ADMIN, "Disconnect a user (4010)"),
    route(Method::GET, "/v1/rooms/{room}", Call::Room, ADMIN, "The members of a room"),
    route(Method::GET, "/v1/plugins", Call::Plugins, ADMIN, "All plugins"),
    route(Method::POST, "/v1/plugins", Call::InstallPlugin, ADMIN, "Load a plugin by the name that it gives itself"),
    route(Method::GET, "/v1/plugins/{name}", Call::Plugin, ADMIN, "One plugin, with its own figures"),
    route(Method::PUT, "/v1/plugins/{name}", Call::LoadPlugin, ADMIN, "Load a plugin, or replace its build"),
    route(Method::DELETE, "/v1/plugins/{name}", Call::UnloadPlugin, ADMIN, "Unload a plugin"),
    route(Method::POST, "/v1/plugins/{name}/rollback", Call::RollBackPlugin, ADMIN, "Back to the generation before"),
    route(Method::POST, "/v1/plugins/{name}/reset", Call::ResetPlugin, ADMIN, "Back to the bundled build"),
    route(Method::GET, "/healthz", Call::Alive, None, "Whether the host is alive"),
    route(Method::GET, "/readyz", Call::Ready, None, "Whether the host takes work"),
    route(Method::GET, "/metrics", Call::Metrics, None, "Figures in Prometheus' format"),
    route(Method::GET, "/openapi.json", Call::Description, None, "This description"),
];

/// The values of a path's parameters, as they stand in the URL.
pub(super) type Parameters<'a> = [&'a str; MAX_PARAMETERS];

/// What a request's method and path mean.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Route(&'static Route, Parameters<'a>),
    /// The path is one of ours, for these methods.
    OtherMethod(String),
    Nothing,
}

/// Finds the call of a request.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Found<'a> {
    let mut allowed = String::new();
    for route in &ROUTES {
        let Some(parameters) = parameters(route.path, path) else { continue };
        // What can be got can be asked for without its body (RFC 9110, section 9.3.2).
        if route.method == *method || (route.method == Method::GET && *method == Method::HEAD) {
            return Found::Route(route, parameters);
        }
        for method in
            [Some(route.method.as_str()), (route.method == Method::GET).then_some("HEAD")].into_iter().flatten()
        {
            allowed.push_str(if allowed.is_empty() { "" } else { ", " });
            allowed.push_str(method);
        }
    }
    if allowed.is_empty() { Found::Nothing } else { Found::OtherMethod(allowed) }
}

fn parameters<'a>(template: &str, path: &'a str) -> Option<Parameters<'a>> {
    let mut values = [""; MAX_PARAMETERS];
    let mut n_values = 0;
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(values),
            (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => {
                values[n_values] = given;
                n_values += 1;
            }
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

/// A path's parameter as text: names may contain whatever is percent-encoded, a slash too.
///
/// # Errors
/// Where it is not UTF-8.
pub(super) fn decode(segment: &str) -> Result<Cow<'_, str>, Failure> {
    let decoded = percent_decode_str(segment).decode_utf8();
    decoded.map_err(|_| Failure::new(ErrorCode::BadRequest, format!("{segment:?} in the path is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &Method, path: &str) -> String {
        match find(method, path) {
            Found::Route(route, parameters) => format!("{:?} {}", route.call, parameters.join(" ")).trim().to_owned(),
            Found::OtherMethod(allowed) => allowed,
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn a_path_is_one_call_for_each_method_and_nothing_for_others() {
        for (method, path, wanted) in [
            (Method::POST, "/v1/emit", "Emit"),
            (Method::POST, "/v1/query/a/b", "Query a b"),
            (Method::GET, "/v1/rooms/a%2Fb", "Room a%2Fb"),
            (Method::HEAD, "/healthz", "Alive"),
            (Method::POST, "/healthz", "GET, HEAD"),
            (Method::POST, "/v1/plugins/x", "GET, HEAD, PUT, DELETE"),
            (Method::GET, "/v1/users/ana/connections", "DELETE"),
            (Method::GET, "/v1/rooms/", "nothing"),
            (Method::GET, "/v1/rooms/a/b", "nothing"),
            (Method::GET, "/v1/emit/", "nothing"),
            (Method::GET, "v1/emit", "nothing"),
            (Method::GET, "/", "nothing"),
        ] {
            assert_eq!(found(&method, path), wanted, "{method} {path}");
        }
    }

    #[test]
    fn names_in_a_path_are_decoded() {
        assert_eq!(decode("ticket%3A1%2F%C3%A9").unwrap(), "ticket:1/é");
        assert_eq!(decode("a+b%").unwrap(), "a+b%");
        assert_eq!(decode("%ff").unwrap_err().code, ErrorCode::BadRequest);
    }
}

//! Routes: the calls of the API, and the router.

use std::borrow::Cow;
use std::pin::Pin;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde_json::Value;

use super::idempotency::Reply;
use super::keys::{Caller, KeyScope};
use super::schema::{Refusal, Schemas, json_content, text_content};
use super::state::Api;
use crate::model::{ErrorCode, Failure};
use crate::net::response::Answer;

/// The most parameters that a path has.
const MAX_PARAMETERS: usize = 2;

/// The values of a path's parameters, still percent-encoded; parameters that the path lacks are empty.
pub(super) type Parameters<'a> = [&'a str; MAX_PARAMETERS];

/// One row of the table of calls. The router, the check of keys and `/openapi.json` read it.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    /// The path, with parameters in braces.
    pub(super) path: &'static str,
    /// The operation's id in `/openapi.json`.
    pub(super) id: &'static str,
    pub(super) handler: Handler,
    pub(super) summary: &'static str,
    pub(super) query: Query,
    /// What the first parameter of an operator's call names.
    pub(super) names: Names,
    /// Whether the call accepts the header `Idempotency-Key`.
    pub(super) takes_key: bool,
    /// The schemas of the request's body and of a successful answer's content.
    pub(super) body: Option<fn(&mut Schemas) -> Value>,
    pub(super) answer: fn(&mut Schemas) -> Value,
    /// Refusals besides those of every call that needs a key.
    pub(super) refusals: &'static [Refusal],
}

impl Route {
    /// A call without parameters in its query and without a body, which answers in plain text.
    pub(super) const fn new(method: Method, path: &'static str, id: &'static str, handler: Handler) -> Self {
        let (query, answer) = (Query::None, text_content as fn(&mut Schemas) -> Value);
        let names = Names::Nothing;
        Self {
            method,
            path,
            id,
            handler,
            summary: "",
            query,
            names,
            takes_key: false,
            body: None,
            answer,
            refusals: &[],
        }
    }

    pub(super) const fn summary(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    pub(super) const fn query(mut self, query: Query) -> Self {
        self.query = query;
        self
    }

    pub(super) const fn names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    pub(super) const fn takes_key(mut self) -> Self {
        self.takes_key = true;
        self
    }

    pub(super) const fn body(mut self, body: fn(&mut Schemas) -> Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Answers with JSON of this type.
    pub(super) const fn answers<T: JsonSchema>(self) -> Self {
        self.answers_with(|schemas| json_content(schemas.written::<T>()))
    }

    pub(super) const fn answers_with(mut self, answer: fn(&mut Schemas) -> Value) -> Self {
        self.answer = answer;
        self
    }

    pub(super) const fn refuses(mut self, refusals: &'static [Refusal]) -> Self {
        self.refusals = refusals;
        self
    }

    /// The scope that a key needs; `None` where no key is needed.
    pub(super) fn scope(&self) -> Option<KeyScope> {
        match self.handler {
            Handler::Open(_) => None,
            Handler::Publish(_) => Some(KeyScope::Publish),
            Handler::Admin(_) => Some(KeyScope::Admin),
        }
    }
}

/// The handler of a call, and the scope that the call needs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Handler {
    /// A call without a key.
    Open(fn(&Api) -> Answer),
    /// A service's call, whose key has the scope `publish`, and whose body is JSON.
    Publish(for<'a> fn(&'a Api, ServiceCall<'a>) -> Pending<'a, Reply>),
    /// An operator's call, whose key has the scope `admin`.
    Admin(for<'a> fn(&'a Api, OperatorCall<'a>) -> Pending<'a, Answer>),
}

/// The future outcome of a call.
pub(super) type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// What a call is about, for keys that are narrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// The whole host.
    Nothing,
    Plugin,
    Room,
}

/// The parameters that a call takes in its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Query {
    None,
    /// `loseWrites`: states may be lost.
    LoseWrites,
    /// The same, and `to`: the generation to go back to.
    RollBack,
    /// `seconds`, `promoteIfEqual`: how a candidate is tried in the shadow.
    Shadow,
    /// `percent`: the share of the scopes that a canary gets.
    Canary,
    /// `last`: so many last events of each connection.
    Why,
    /// `at`: a time in the past.
    At,
    /// `last`: so many last events alone.
    Last,
    /// `limit` and `after`: a page of a list.
    Page,
    /// The same, and `user`.
    PageOfUser,
    /// `limit` and `after` of the list of blocks.
    PageOfBlocks,
}

/// A request of a service.
#[derive(Debug)]
pub(super) struct ServiceCall<'a> {
    pub(super) caller: Caller<'a>,
    pub(super) parameters: Parameters<'a>,
    /// The idempotency key in the header.
    pub(super) header_key: Option<String>,
    pub(super) body: Bytes,
}

impl<'a> ServiceCall<'a> {
    /// The path's parameters as text.
    ///
    /// # Errors
    /// `bad_request` where one is not UTF-8.
    pub(super) fn names(&self) -> Result<[Cow<'a, str>; MAX_PARAMETERS], Failure> {
        let [first, second] = self.parameters;
        Ok([decode(first)?, decode(second)?])
    }
}

/// A request of an operator.
#[derive(Debug)]
pub(super) struct OperatorCall<'a> {
    pub(super) caller: Caller<'a>,
    pub(super) parameters: Parameters<'a>,
    pub(super) query: Option<&'a str>,
    pub(super) request: Request<Incoming>,
}

impl<'a> OperatorCall<'a> {
    /// Checks that a narrowed key may make a call about what the path names.
    ///
    /// # Errors
    /// `forbidden` where it may not.
    pub(super) fn check_narrowing(&self, names: Names) -> Result<(), Failure> {
        let Caller { name: key, narrowing } = self.caller;
        match names {
            Names::Nothing => narrowing.check_everything(key),
            Names::Plugin => narrowing.check_plugin(key, &self.name()?),
            Names::Room => narrowing.check_room(key, &self.name()?),
        }
    }

    /// The path's parameter as text, empty where it has none.
    ///
    /// # Errors
    /// `bad_request` where it is not UTF-8.
    pub(super) fn name(&self) -> Result<Cow<'a, str>, Failure> {
        decode(self.parameters[0])
    }
}

/// The result of routing a request.
#[derive(Debug)]
pub(super) enum RouteMatch<'a> {
    Route(&'static Route, Parameters<'a>),
    /// The path exists, for these methods.
    OtherMethod(String),
    NotFound,
}

/// Finds the route of a request.
pub(super) fn find<'a>(routes: &'static [Route], method: &Method, path: &'a str) -> RouteMatch<'a> {
    let mut allowed = String::new();
    for route in routes {
        let Some(parameters) = parameters(route.path, path) else { continue };
        // Every GET route also answers HEAD (RFC 9110, section 9.3.2).
        if route.method == *method || (route.method == Method::GET && *method == Method::HEAD) {
            return RouteMatch::Route(route, parameters);
        }
        for method in
            [Some(route.method.as_str()), (route.method == Method::GET).then_some("HEAD")].into_iter().flatten()
        {
            allowed.push_str(if allowed.is_empty() { "" } else { ", " });
            allowed.push_str(method);
        }
    }
    if allowed.is_empty() { RouteMatch::NotFound } else { RouteMatch::OtherMethod(allowed) }
}

fn parameters<'a>(template: &str, path: &'a str) -> Option<Parameters<'a>> {
    let mut values = [""; MAX_PARAMETERS];
    let mut n_values = 0;
    let (mut expected, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (expected.next(), given.next()) {
            (None, None) => return Some(values),
            (Some(expected), Some(given)) if expected.starts_with('{') && !given.is_empty() => {
                values[n_values] = given;
                n_values += 1;
            }
            (Some(expected), Some(given)) if expected == given => {}
            _ => return None,
        }
    }
}

/// A path's parameter as text: names may contain any percent-encoded character, a slash too.
///
/// # Errors
/// `bad_request` where it is not UTF-8.
fn decode(segment: &str) -> Result<Cow<'_, str>, Failure> {
    let decoded = percent_decode_str(segment).decode_utf8();
    decoded.map_err(|_| Failure::new(ErrorCode::BadRequest, format!("{segment:?} in the path is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_parameters_are_percent_decoded() {
        assert_eq!(decode("ticket%3A1%2F%C3%A9").unwrap(), "ticket:1/é");
        assert_eq!(decode("a+b%").unwrap(), "a+b%");
        assert_eq!(decode("%ff").unwrap_err().code, ErrorCode::BadRequest);
    }
}

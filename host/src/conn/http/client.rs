//! The clients' listener: where each protocol is, a sign of life, and in development the demo.

use std::rc::Rc;

use hyper::body::Incoming;
use hyper::header::{HeaderValue, ORIGIN, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::{HeaderMap, Method, Request, StatusCode};

use super::bundle::ClientBundle;
use super::demo::Demo;
use super::forwarded::{client_of, is_forwarded, scheme_of};
use super::handshake::{find_tokens, handshake_key, upgrade};
use super::origin::{AllowedOrigin, is_from_here, is_of_this_machine};
use crate::auth::Place;
use crate::conn::{Answering, Caller, Credentials, Door, HttpService, Shard};
use crate::net::refuse;
use crate::net::response::{Answer, error, restarting, text};
use crate::plugin::Runtime;

/// Where suites that test Engine.IO alone connect to.
const ENGINE_ECHO_PATH: &str = "/engine.io";

/// How clients may connect.
#[derive(Debug, Clone, Default)]
pub struct ClientConfig {
    /// The cookie that may carry the token.
    pub cookie: Option<String>,
    /// Origins from which a browser may connect with a cookie, and poll, besides the host's own.
    pub origins: Vec<AllowedOrigin>,
    /// Where Socket.IO is, without a slash at the end.
    pub socketio_path: String,
    /// Where pages get Socket.IO's client that load it from the host.
    pub bundle: ClientBundle,
    /// The longest request of a polling client, in bytes.
    pub message_bytes: usize,
    /// The secret that the demo signs its tokens with; without one there is no demo.
    pub demo_secret: Option<String>,
    /// Whether suites that test the protocols find what they need besides: `/echo` and `/engine.io/`.
    pub is_conformance: bool,
}

/// Answers the requests of clients.
#[derive(Debug)]
pub struct ClientService {
    pub(super) config: ClientConfig,
    demo: Option<Demo>,
}

impl ClientService {
    /// A service of this configuration.
    pub fn new(config: ClientConfig, runtime: &Runtime) -> Self {
        let demo = config.demo_secret.clone().map(|secret| Demo::new(secret, runtime.clone()));
        Self { config, demo }
    }

    fn websocket(&self, shard: Rc<Shard>, caller: &Caller, request: Request<Incoming>, is_echo: bool) -> Answer {
        if shard.is_refusing() {
            return restarting();
        }
        let key = match handshake_key(request.headers()) {
            Ok(key) => key,
            Err(message) => return upgrade_required(message),
        };
        let credentials = self.credentials(&request, caller);
        if let Credentials { refused: Some(message), shown } = &credentials
            && shown.is_empty()
        {
            return error(StatusCode::FORBIDDEN, "forbidden", message);
        }
        let door = if is_echo { Door::Echo } else { Door::Plain { credentials } };
        let peer = caller.peer;
        upgrade(request, peer, &key, move |socket, received| shard.adopt(socket, peer, received, door))
    }

    /// What a request shows of who makes it.
    pub(super) fn credentials(&self, request: &Request<Incoming>, caller: &Caller) -> Credentials {
        let mut shown = find_tokens(request.headers(), request.uri().query(), self.config.cookie.as_deref());
        let mut refused = None;
        let has_cookie = shown.iter().any(|shown| shown.place == Place::Cookie);
        if has_cookie && !self.may_carry_cookies(request.headers(), caller.is_proxied) {
            shown.retain(|shown| shown.place != Place::Cookie);
            refused = Some(
                "a page of this origin may not connect with a cookie: add the origin by its name to cors.origins, or send \
                 the token in another place",
            );
        }
        Credentials { shown: shown.into(), refused }
    }

    /// Whether a request comes from a page of this host, from no page at all, or from an origin that is allowed by its
    /// name: a browser sends a cookie along whatever site made the page.
    fn may_carry_cookies(&self, headers: &HeaderMap, is_proxied: bool) -> bool {
        is_from_here(headers, scheme_of(headers, is_proxied))
            || self.origin_if(headers, AllowedOrigin::is_named).is_some()
    }

    /// The origin of the page that a request comes from, if it is one of those that are allowed. In development pages of
    /// this machine are.
    pub(super) fn allowed_origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        self.origin_if(headers, |_| true)
    }

    fn origin_if<'a>(&self, headers: &'a HeaderMap, counts: fn(&AllowedOrigin) -> bool) -> Option<&'a HeaderValue> {
        let value = headers.get(ORIGIN)?;
        let origin = value.to_str().ok()?;
        let is_allowed = self.config.origins.iter().any(|allowed| counts(allowed) && allowed.allows(origin));
        (is_allowed || self.demo.is_some() && is_of_this_machine(value)).then_some(value)
    }
}

fn upgrade_required(message: &str) -> Answer {
    let mut response = error(StatusCode::UPGRADE_REQUIRED, "bad_request", message);
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

impl HttpService for ClientService {
    fn call(self: Rc<Self>, shard: Rc<Shard>, mut caller: Caller, request: Request<Incoming>) -> Answering {
        if let Some(refusal) = refuse(&request) {
            return Box::pin(std::future::ready(refusal));
        }
        if shard.trusted_proxies().contains(caller.peer.ip()) {
            caller.peer = client_of(caller.peer, request.headers(), shard.trusted_proxies());
        } else if is_forwarded(request.headers()) {
            shard.suspect_proxy(caller.peer);
        }
        let path = request.uri().path();
        let is_at = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| matches!(rest, "" | "/"));
        if is_at(&self.config.socketio_path) {
            return Box::pin(self.engine(shard, caller, request, false));
        }
        if self.config.is_conformance && is_at(ENGINE_ECHO_PATH) {
            return Box::pin(self.engine(shard, caller, request, true));
        }
        let answer = match (request.method(), path) {
            (&Method::HEAD, "/ws") => upgrade_required("this is a WebSocket: connect with a WebSocket client"),
            (&Method::GET, "/ws") => self.websocket(shard, &caller, request, false),
            (&Method::GET, "/echo") if self.config.is_conformance => self.websocket(shard, &caller, request, true),
            (&Method::GET | &Method::HEAD, "/healthz") => text(StatusCode::OK, "ok\n"),
            (&Method::GET | &Method::HEAD, "/readyz") if shard.is_refusing() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
            }
            (&Method::GET | &Method::HEAD, "/readyz") => text(StatusCode::OK, "ready\n"),
            (method, path) => {
                let bundle = self.config.bundle.answer(method, &self.config.socketio_path, path);
                let demo = || self.demo.as_ref().and_then(|demo| demo.answer(method, path, &request));
                bundle.or_else(demo).unwrap_or_else(|| {
                    let message =
                        format!("clients connect to /ws, or with Socket.IO to {}/", self.config.socketio_path);
                    error(StatusCode::NOT_FOUND, "not_found", &message)
                })
            }
        };
        Box::pin(std::future::ready(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_counts_from_the_hosts_own_pages_and_from_allowed_ones() {
        let origins = ["https://app.example", "https://*.wide.example", "*", "null"];
        let origins = origins.map(|origin| AllowedOrigin::parse(origin).unwrap()).into();
        let config = ClientConfig { origins, ..ClientConfig::default() };
        let service = ClientService { config, demo: None };
        let allowed = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            service.may_carry_cookies(&pairs.collect(), false)
        };
        assert!(allowed(&[]));
        assert!(allowed(&[("host", "a.example:8080"), ("origin", "http://a.example:8080")]));
        assert!(allowed(&[("host", "a.example"), ("origin", "https://a.example"), ("x-forwarded-proto", "https")]));
        assert!(!allowed(&[("host", "a.example"), ("origin", "http://a.example"), ("x-forwarded-proto", "https")]));
        assert!(!allowed(&[("host", "a.example"), ("origin", "https://a.example")]));
        assert!(allowed(&[("host", "a.example"), ("origin", "https://app.example")]));
        assert!(allowed(&[("host", "a.example"), ("origin", "https://b.wide.example")]));
        // These count for tokens, which a page must know to send.
        assert!(!allowed(&[("host", "a.example"), ("origin", "https://evil.example")]));
        assert!(!allowed(&[("host", "a.example"), ("origin", "http://localhost:3000")]));
        assert!(!allowed(&[("host", "a.example"), ("origin", "null")]));
    }
}

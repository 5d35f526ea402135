//! The clients' listener: the WebSocket handshake, a sign of life, and in development the demo.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::demo::Demo;
use super::response::{Answer, error, text};
use crate::conn::{HttpService, Shard};
use crate::plugin::Runtime;

/// How clients may connect.
#[derive(Debug, Clone, Default)]
pub struct ClientConfig {
    /// The cookie that may carry the token.
    pub cookie: Option<String>,
    /// Origins from which a browser may connect with a cookie, besides the host's own; `*` is all.
    pub origins: Vec<String>,
    /// The secret that the demo signs its tokens with; without one there is no demo.
    pub demo_secret: Option<String>,
}

/// Answers the requests of clients.
#[derive(Debug)]
pub struct ClientService {
    config: ClientConfig,
    demo: Option<Demo>,
}

/// Where a token was found.
#[derive(Debug, PartialEq, Eq)]
struct Found<'a> {
    token: Cow<'a, str>,
    /// A browser sends cookies along whoever made the page that connects.
    in_cookie: bool,
}

impl ClientService {
    /// A service of this configuration.
    pub fn new(config: ClientConfig, runtime: &Runtime) -> Self {
        let demo = config.demo_secret.clone().map(|secret| Demo::new(secret, runtime.clone()));
        Self { config, demo }
    }

    fn upgrade(&self, shard: &Rc<Shard>, peer: SocketAddr, request: Request<Incoming>) -> Answer {
        if shard.is_stopping() {
            return error(StatusCode::SERVICE_UNAVAILABLE, "feature_unavailable", "the host restarts: try again");
        }
        let key = match handshake_key(request.headers()) {
            Ok(key) => key,
            Err(message) => {
                let mut response = error(StatusCode::UPGRADE_REQUIRED, "bad_request", message);
                response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
                response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                return response;
            }
        };
        let found = find_token(request.headers(), request.uri().query(), self.config.cookie.as_deref());
        if found.as_ref().is_some_and(|found| found.in_cookie) && !self.is_own_origin(request.headers()) {
            let message = "a page of this origin may not connect with a cookie: add the origin to cors.origins";
            return error(StatusCode::FORBIDDEN, "forbidden", message);
        }
        let token = found.map(|found| found.token.into_owned());
        let accept = derive_accept_key(key.as_bytes());
        let shard = shard.clone();
        spawn_local(async move {
            match hyper::upgrade::on(request).await.map(hyper::upgrade::Upgraded::downcast::<TokioIo<TcpStream>>) {
                Ok(Ok(parts)) => shard.adopt(parts.io.into_inner(), peer, &parts.read_buf, token.as_deref()),
                Ok(Err(_)) => tracing::error!("a connection is not the kind of socket that it was accepted as"),
                Err(error) => tracing::debug!(%error, %peer, "a connection was gone before its handshake was done"),
            }
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Ok(accept) = HeaderValue::from_str(&accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        response
    }

    /// Whether a request comes from a page of this host, from no page at all, or from an origin that is allowed.
    fn is_own_origin(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(ORIGIN) else { return true };
        let Ok(origin) = origin.to_str() else { return false };
        let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
        let is_host = headers.get(HOST).is_some_and(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
        is_host || self.config.origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}

impl HttpService for ClientService {
    fn call(&self, shard: &Rc<Shard>, peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/ws") => self.upgrade(shard, peer, request),
            (&Method::GET, "/healthz") => text(StatusCode::OK, "ok\n"),
            (method, path) => {
                let demo = self.demo.as_ref().and_then(|demo| demo.answer(method, path, &request));
                demo.unwrap_or_else(|| error(StatusCode::NOT_FOUND, "not_found", "clients connect to /ws"))
            }
        }
    }
}

/// The key of a WebSocket handshake (RFC 6455, section 4.2.1), or what the request lacks.
fn handshake_key(headers: &HeaderMap) -> Result<String, &'static str> {
    let lists = |name, wanted: &str| {
        headers.get_all(name).iter().any(|value| {
            value.to_str().is_ok_and(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(wanted)))
        })
    };
    if !lists(CONNECTION, "upgrade") || !lists(UPGRADE, "websocket") {
        return Err("this is a WebSocket: connect with a WebSocket client");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err("the WebSocket version must be 13");
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default();
    // Sixteen bytes in base64.
    let is_key = key.len() == 24
        && key.ends_with("==")
        && key.bytes().take(22).all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b));
    is_key.then(|| key.to_owned()).ok_or("the WebSocket key must be 16 bytes in base64")
}

/// The token of a request: from the `Authorization` header, else the query, else the configured cookie.
fn find_token<'a>(headers: &'a HeaderMap, query: Option<&'a str>, cookie: Option<&str>) -> Option<Found<'a>> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Cow::Borrowed(token.trim()))
    });
    let in_query =
        || form_urlencoded::parse(query?.as_bytes()).find(|(name, _)| name == "token").map(|(_, token)| token);
    if let Some(token) = header.or_else(in_query) {
        return Some(Found { token, in_cookie: false });
    }
    let cookie = cookie?;
    headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';')).find_map(
        |pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == cookie).then(|| Found { token: value.trim_matches('"').into(), in_cookie: true })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    fn found(pairs: &[(&'static str, &'static str)], query: Option<&str>) -> Option<(String, bool)> {
        find_token(&headers(pairs), query, Some("jwt")).map(|found| (found.token.into_owned(), found.in_cookie))
    }

    #[test]
    fn a_token_is_found_in_each_place_that_is_promised() {
        assert_eq!(found(&[("authorization", "bearer a.b.c")], Some("token=x")), Some(("a.b.c".into(), false)));
        assert_eq!(found(&[("cookie", "jwt=y")], Some("a=1&token=x%2By")), Some(("x+y".into(), false)));
        assert_eq!(found(&[("cookie", "a=b; jwt=y; c=d")], None), Some(("y".into(), true)));
        assert_eq!(found(&[("authorization", "Basic abc"), ("cookie", "notjwt=y")], Some("tokens=x")), None);
    }

    #[test]
    fn a_handshake_that_lacks_something_is_told_what() {
        let whole = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        assert!(handshake_key(&headers(&whole)).is_ok());
        for missing in 0..whole.len() {
            let mut part = whole.to_vec();
            part.remove(missing);
            assert!(handshake_key(&headers(&part)).is_err(), "without {}", whole[missing].0);
        }
        assert!(handshake_key(&headers(&[whole[0], whole[1], whole[2], ("sec-websocket-key", "abc")])).is_err());
    }

    #[test]
    fn a_cookie_counts_from_the_hosts_own_pages_and_from_allowed_ones() {
        let config = ClientConfig { origins: vec!["https://app.example".into()], ..ClientConfig::default() };
        let service = ClientService { config, demo: None };
        let allowed = |pairs: &[(&'static str, &'static str)]| service.is_own_origin(&headers(pairs));
        assert!(allowed(&[]));
        assert!(allowed(&[("host", "a.example:8080"), ("origin", "http://a.example:8080")]));
        assert!(allowed(&[("host", "a.example"), ("origin", "https://app.example")]));
        assert!(!allowed(&[("host", "a.example"), ("origin", "https://evil.example")]));
        assert!(!allowed(&[("host", "a.example"), ("origin", "null")]));
    }
}

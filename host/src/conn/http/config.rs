//! Settings of the client listener: paths, cookies, headers and origins.

use std::fmt;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue, ORIGIN};
use hyper::{HeaderMap, Request};
use roundhouse_contract::without_credentials;
use serde_json::{Map, Value};

use super::bundle::ClientBundle;
use super::forwarded::scheme_of;
use super::origin::{AllowedOrigin, is_from_here, is_of_this_machine};
use super::peer::HttpPeer;

/// Parameters of Engine.IO's, which say nothing of the client.
const OF_TRANSPORT: [&str; 5] = ["EIO", "transport", "sid", "t", "b64"];

/// Settings of the client listener.
#[derive(Clone, Default)]
pub struct ClientConfig {
    /// The cookie that may carry the token.
    pub cookie: Option<String>,
    /// Headers of the handshake that features may see.
    pub connect_headers: Vec<HeaderName>,
    /// The cookie of sessions, which the host asks the operator's endpoint about.
    pub session_cookie: Option<String>,
    /// Origins from which a browser may connect with a cookie, and poll, besides the host's own.
    pub origins: Vec<AllowedOrigin>,
    /// Socket.IO's path, without a slash at the end.
    pub socketio_path: String,
    /// The source of Socket.IO's browser client.
    pub bundle: ClientBundle,
    /// The longest request of a polling client, in bytes.
    pub message_bytes: usize,
    /// The secret that signs the demo's tokens; `None` disables the demo.
    pub demo_secret: Option<String>,
    /// Whether `/echo` and `/engine.io/` are served, for conformance suites.
    pub is_conformance: bool,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is left out.
        f.debug_struct("ClientConfig")
            .field("cookie", &self.cookie)
            .field("session_cookie", &self.session_cookie)
            .field("connect_headers", &self.connect_headers)
            .field("origins", &self.origins)
            .field("socketio_path", &self.socketio_path)
            .field("bundle", &self.bundle)
            .field("message_bytes", &self.message_bytes)
            .field("is_conformance", &self.is_conformance)
            .finish_non_exhaustive()
    }
}

impl ClientConfig {
    /// The query and the chosen headers of a request, without credentials: fields of a JSON object.
    pub(super) fn handshake(&self, request: &Request<Incoming>) -> Box<str> {
        let pairs = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
        let query = pairs.filter(|(name, _)| !OF_TRANSPORT.contains(&&**name));
        let query: Map<String, Value> = query.map(|(name, value)| (name.into_owned(), value.into())).collect();
        let headers = self.connect_headers.iter().filter_map(|name| {
            let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
            let value = values.collect::<Vec<_>>().join(", ");
            (!value.is_empty()).then(|| (name.as_str().to_owned(), Value::from(value)))
        });
        let [query, headers] =
            [query, headers.collect()].map(|fields| without_credentials(&Value::Object(fields).to_string()));
        format!(r#","query":{query},"headers":{headers}"#).into()
    }

    /// Whether a request comes from a page of this host, from no page, or from an origin that is allowed by name.
    /// Browsers send cookies with requests from any site's pages, so a cookie alone proves nothing.
    pub(super) fn may_carry_cookies(&self, headers: &HeaderMap, peer: &HttpPeer) -> bool {
        is_from_here(headers, scheme_of(headers, peer)) || self.origin_if(headers, AllowedOrigin::is_named).is_some()
    }

    /// The `Origin` of a request, if it is allowed. Development mode allows pages of this machine.
    pub(super) fn allowed_origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        self.origin_if(headers, |_| true)
    }

    fn origin_if<'a>(&self, headers: &'a HeaderMap, counts: fn(&AllowedOrigin) -> bool) -> Option<&'a HeaderValue> {
        let value = headers.get(ORIGIN)?;
        let origin = value.to_str().ok()?;
        let is_allowed = self.origins.iter().any(|allowed| counts(allowed) && allowed.allows(origin));
        (is_allowed || self.demo_secret.is_some() && is_of_this_machine(value)).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_accepted_from_own_and_listed_origins() {
        let origins = ["https://app.example", "https://*.wide.example", "*", "null"];
        let origins = origins.map(|origin| AllowedOrigin::parse(origin).unwrap()).into();
        let config = ClientConfig { origins, ..ClientConfig::default() };
        let allowed = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            let peer = HttpPeer { address: ([192, 0, 2, 7], 1).into(), is_proxied: false, is_tls: false };
            config.may_carry_cookies(&pairs.collect(), &peer)
        };
        assert!(allowed(&[]));
        assert!(allowed(&[("host", "a.example:8080"), ("origin", "http://a.example:8080")]));
        assert!(allowed(&[("host", "a.example"), ("origin", "https://a.example"), ("x-forwarded-proto", "https")]));
        assert!(!allowed(&[("host", "a.example"), ("origin", "http://a.example"), ("x-forwarded-proto", "https")]));
        assert!(!allowed(&[("host", "a.example"), ("origin", "https://a.example")]));
        assert!(allowed(&[("host", "a.example"), ("origin", "https://app.example")]));
        assert!(allowed(&[("host", "a.example"), ("origin", "https://b.wide.example")]));
        // These origins may send tokens, which a page must know, but not cookies.
        assert!(!allowed(&[("host", "a.example"), ("origin", "https://evil.example")]));
        assert!(!allowed(&[("host", "a.example"), ("origin", "http://localhost:3000")]));
        assert!(!allowed(&[("host", "a.example"), ("origin", "null")]));
    }
}

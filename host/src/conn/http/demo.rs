//! The demo page of development mode, tokens for its users, and the list of plugins.

use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use crate::auth::{Claims, sign};
use crate::model::is_valid_id;
use crate::net::response::{Answer, body, error, json};
use crate::plugin::Runtime;

const PAGE: &str = include_str!("demo.html");

/// The answer, if the path is the demo's. Its tokens are signed with `secret`.
pub(super) fn answer(secret: &str, runtime: &Runtime, request: &Request<Incoming>) -> Option<Answer> {
    let path = request.uri().path();
    if !matches!(*request.method(), Method::GET | Method::HEAD)
        || !matches!(path, "/" | "/demo/token" | "/demo/plugins")
    {
        return None;
    }
    // Against DNS rebinding: a foreign page whose name resolves to this address must not get tokens.
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    if !matches!(name, "localhost" | "127.0.0.1" | "[::1]") {
        let message = "the demo is for this machine alone: open it as http://localhost";
        return Some(error(StatusCode::FORBIDDEN, "forbidden", message));
    }
    Some(match path {
        "/" => body(StatusCode::OK, "text/html; charset=utf-8", PAGE),
        "/demo/plugins" => json(StatusCode::OK, &runtime.lifecycle().reports()),
        _ => token(secret, request.uri().query().unwrap_or_default()),
    })
}

fn token(secret: &str, query: &str) -> Answer {
    let mut claims = Claims::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "user" => claims.sub = value.into_owned(),
            "name" => claims.name = Some(value.into_owned()),
            _ => {}
        }
    }
    if !is_valid_id(&claims.sub) {
        return error(
            StatusCode::BAD_REQUEST,
            "bad_request",
            "say whom the token is for: /demo/token?user=ana&name=Ana",
        );
    }
    match sign(&claims, secret) {
        Ok(token) => json(StatusCode::OK, &json!({ "token": token })),
        Err(failed) => {
            tracing::error!(error = %failed, "cannot sign a token for the demo");
            error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the host failed")
        }
    }
}

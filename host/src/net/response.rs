//! HTTP answers: JSON, text, failures.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::model::Failure;

/// A response with its whole body.
pub type Answer = Response<Full<Bytes>>;

/// An answer that no cache may keep.
pub fn body(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A value as JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(json) => body(status, "application/json", json),
        Err(error) => {
            tracing::error!(%error, "cannot write an answer as JSON");
            body(
                StatusCode::INTERNAL_SERVER_ERROR,
                "application/json",
                &br#"{"code":"internal","message":"the host failed"}"#[..],
            )
        }
    }
}

/// The HTTP status of a failure's code.
pub fn status_of(failure: &Failure) -> StatusCode {
    StatusCode::from_u16(failure.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A failure as JSON.
pub fn failure(failure: &Failure) -> Answer {
    let status = status_of(failure);
    let mut answer = json(status, failure);
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    answer
}

/// A code and a message as JSON.
pub fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    json(status, &json!({ "code": code, "message": message }))
}

/// `Retry-After` in seconds: short, because another host behind the same address can take the client at once.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// 503: the host is at a limit for the moment.
pub fn unavailable(message: &str) -> Answer {
    let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, "feature_unavailable", message);
    answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    answer
}

/// 429: the client sends more than it may.
pub fn too_many_requests(message: &str) -> Answer {
    let mut answer = error(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
    answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    answer
}

/// 503: the host shuts down. The connection closes, so that no proxy reuses it.
pub fn restarting() -> Answer {
    let mut answer = unavailable("the host restarts: try again");
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Plain text.
pub fn text(status: StatusCode, text: &'static str) -> Answer {
    body(status, "text/plain; charset=utf-8", text)
}

//! Checks that a request's head has one meaning to every parser (RFC 9110, RFC 9112). Ambiguous heads are refused
//! before anything else, because a proxy may have parsed them differently.

use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING, UPGRADE};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Request, StatusCode, Version};

use super::requests::RequestFacts;
use super::response::{Answer, error};

/// The refusal of a request with an ambiguous head. It is the last answer on its connection, because the start of the
/// next request is uncertain.
pub fn refuse_ambiguous<B>(request: &Request<B>) -> Option<Answer> {
    let reason = check(request).err()?;
    let mut answer = error(StatusCode::BAD_REQUEST, "bad_request", reason);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Some(answer)
}

fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let is_ambiguous = request.extensions().get().is_some_and(|facts: &RequestFacts| facts.is_ambiguous);
    if is_ambiguous {
        return Err("a request has a Content-Length or a Transfer-Encoding, and not both");
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err("a request has one Host header, and this has several"),
        (Some(host), None) if !is_host(host) => return Err("the Host header must be a name or an address, and a port"),
        (None, _) if request.version() >= Version::HTTP_11 => {
            return Err("a request has a Host header, and this has none");
        }
        _ => {}
    }
    if request.headers().get_all(ORIGIN).iter().nth(1).is_some() {
        return Err("a request has one Origin header at most, and this has several");
    }
    if is_upgrade(request.headers()) && has_body(request.headers()) {
        return Err("a WebSocket handshake has no body");
    }
    Ok(())
}

/// Whether a request asks for a WebSocket in both headers, since some proxies forward only one. An offer of another
/// protocol is ignored (RFC 9110, section 7.8).
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    header_lists(headers, &UPGRADE, "websocket") && header_lists(headers, &CONNECTION, "upgrade")
}

/// Whether a header's list has this item.
pub fn header_lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(wanted)))
    })
}

/// Whether a request has a body. In a WebSocket handshake its bytes would be taken for the first frames.
fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// Whether a value is a host with an optional port, or empty (RFC 9110, section 7.2).
fn is_host(value: &HeaderValue) -> bool {
    let is_authority = |host: &str| host.parse::<Authority>().is_ok() && !host.contains('@');
    value.to_str().is_ok_and(|host| host.is_empty() || is_authority(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_headers(version: Version, pairs: &[(&str, &str)]) -> Result<(), &'static str> {
        let mut request = Request::builder().version(version);
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap())
    }

    #[test]
    fn requests_need_exactly_one_host() {
        for host in ["a.example", "a.example:8080", "127.0.0.1:1", "[::1]:80", "a_b", ""] {
            assert_eq!(check_headers(Version::HTTP_11, &[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(check_headers(Version::HTTP_10, &[]), Ok(()));
        for (pairs, reason) in [
            (&[][..], "has a Host"),
            (&[("host", "a"), ("host", "a")], "several"),
            (&[("host", "a, b")], "must be a name"),
            (&[("host", "u@a")], "must be a name"),
            (&[("host", "a/b")], "must be a name"),
            (&[("host", "a b")], "must be a name"),
            (&[("host", "a"), ("origin", "http://a"), ("origin", "http://b")], "Origin"),
        ] {
            let refused = check_headers(Version::HTTP_11, pairs).unwrap_err();
            assert!(refused.contains(reason), "{pairs:?}: {refused}");
        }
    }

    #[test]
    fn handshakes_with_a_body_are_refused() {
        let handshake = [("host", "a"), ("connection", "Upgrade"), ("upgrade", "websocket")];
        let with = |more| check_headers(Version::HTTP_11, &[&handshake[..], &[more]].concat());
        assert_eq!(with(("content-length", "0")), Ok(()));
        for more in [("content-length", "5"), ("transfer-encoding", "chunked")] {
            assert!(with(more).unwrap_err().contains("no body"), "{more:?}");
        }
        assert_eq!(check_headers(Version::HTTP_11, &[("host", "a"), ("content-length", "5")]), Ok(()));
    }
}

//! The WebSocket handshake, and the tokens that a request may carry.

use std::net::SocketAddr;

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::auth::{MAX_PRESENTED_TOKENS, Place, PresentedToken};
use crate::net::response::Answer;
use crate::net::{RawSocket, WatchedSocket, header_lists};

/// The supported subprotocols: the plain protocol's. Socket.IO has none.
const SUBPROTOCOLS: [&str; 1] = ["roundhouse"];

/// Answers a WebSocket handshake. After the answer is written, `hand_over` gets the socket and the bytes received
/// behind the handshake.
pub(super) fn upgrade(
    request: Request<Incoming>,
    peer: SocketAddr,
    key: &str,
    hand_over: impl FnOnce(RawSocket, Vec<u8>) + 'static,
) -> Answer {
    let accept = derive_accept_key(key.as_bytes());
    let subprotocol = known_subprotocol(request.headers());
    spawn_local(async move {
        match hyper::upgrade::on(request).await.map(hyper::upgrade::Upgraded::downcast::<TokioIo<WatchedSocket>>) {
            Ok(Ok(parts)) => match parts.io.into_inner().into_inner().into_raw() {
                // The library read the first bytes behind the handshake, the socket has those decrypted after.
                Ok((socket, unread)) => hand_over(socket, [&*parts.read_buf, &unread].concat()),
                Err(error) => tracing::debug!(%error, %peer, "a connection was gone before it was handed over"),
            },
            Ok(Err(_)) => tracing::error!("a connection is not the kind of socket that it was accepted as"),
            Err(error) => tracing::debug!(%error, %peer, "a connection was gone before its handshake was done"),
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(subprotocol) = subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// The first offered subprotocol that is supported (RFC 6455, section 4.2.2). An unknown one is not echoed: that would
/// accept the subprotocol, and could return a token that the client put there.
fn known_subprotocol(headers: &HeaderMap) -> Option<&'static str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let mut offered = values.flat_map(|value| value.split(',')).map(str::trim);
    offered.find_map(|offered| SUBPROTOCOLS.into_iter().find(|known| *known == offered))
}

/// The value of a header that occurs exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// The key of a WebSocket handshake (RFC 6455, section 4.2.1).
///
/// # Errors
/// The mistake in the handshake, for the client.
pub(super) fn handshake_key(headers: &HeaderMap) -> Result<String, &'static str> {
    if !header_lists(headers, &CONNECTION, "upgrade") || !header_lists(headers, &UPGRADE, "websocket") {
        return Err("this is a WebSocket: connect with a WebSocket client");
    }
    if only(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err("the WebSocket version must be 13");
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default();
    // Sixteen bytes in base64.
    let is_key = key.len() == 24
        && key.ends_with("==")
        && key.bytes().take(22).all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b));
    is_key.then(|| key.to_owned()).ok_or("the WebSocket key must be 16 bytes in base64")
}

/// The tokens of a request: in the `Authorization` header, then in the query, then in all cookies of the configured name (a
/// browser sends one for each path and domain).
pub(super) fn find_tokens(headers: &HeaderMap, query: Option<&str>, cookie: Option<&str>) -> Vec<PresentedToken> {
    let mut found = Vec::new();
    for value in headers.get_all(AUTHORIZATION).iter().filter_map(|value| value.to_str().ok()) {
        let is_bearer = value.split_once(' ').is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        found.extend(PresentedToken::new(Place::Header, value).filter(|_| is_bearer));
    }
    let parameters = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    found.extend(
        parameters
            .filter(|(name, _)| name == "token")
            .filter_map(|(_, token)| PresentedToken::new(Place::Query, &token)),
    );
    if let Some(cookie) = cookie {
        found.extend(
            cookies_named(headers, cookie)
                .filter_map(|value| PresentedToken::new(Place::Cookie, value.trim_matches('"'))),
        );
    }
    found.truncate(MAX_PRESENTED_TOKENS);
    found
}

/// The values of the cookies of a name (RFC 6265, section 5.4), in the request's order.
pub(super) fn cookies_named<'a>(headers: &'a HeaderMap, cookie: &'a str) -> impl Iterator<Item = &'a str> {
    // One by one: other applications of the domain may set cookies that are not ASCII.
    let cookies = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    cookies.filter_map(|pair| std::str::from_utf8(pair).ok()).filter_map(move |pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == cookie).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    fn found(pairs: &[(&'static str, &'static str)], query: Option<&str>) -> Vec<(Place, String)> {
        let found = find_tokens(&headers(pairs), query, Some("jwt"));
        found.into_iter().map(|shown| (shown.place, shown.token.into())).collect()
    }

    #[test]
    fn tokens_are_found_in_order_of_place() {
        let all = [("cookie", "a=b; jwt=one; c=d"), ("cookie", "jwt=\"two\""), ("authorization", "bearer a.b.c")];
        let (header, query) = ((Place::Header, "a.b.c".to_owned()), (Place::Query, "x+y".to_owned()));
        let cookies = [(Place::Cookie, "one".to_owned()), (Place::Cookie, "two".to_owned())];
        let [one, two] = cookies;
        assert_eq!(found(&all, Some("a=1&token=x%2By")), [header, query, one, two]);
    }

    #[test]
    fn cookies_beside_others_in_utf8_are_found() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_bytes("name=José; jwt=one".as_bytes()).unwrap());
        assert_eq!(cookies_named(&headers, "jwt").collect::<Vec<_>>(), ["one"]);
    }

    #[test]
    fn empty_values_give_no_token() {
        let empty =
            [("cookie", "jwt=; jwt=\"\"; notjwt=y"), ("authorization", "Basic abc"), ("authorization", "Bearer ")];
        assert_eq!(found(&empty, Some("token=&token=%20&tokens=x")), []);
        assert_eq!(found(&[("authorization", "Bearer")], None), []);
    }

    #[test]
    fn excess_tokens_are_dropped() {
        assert_eq!(found(&[("cookie", "jwt=x")], Some(&"token=y&".repeat(100))).len(), MAX_PRESENTED_TOKENS);
    }

    #[test]
    fn incomplete_or_duplicated_handshake_headers_are_refused() {
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
        for more in [whole[2], whole[3]] {
            let refused = [&whole[..], &[more]].concat();
            assert!(handshake_key(&headers(&refused)).is_err(), "twice {more:?}");
        }
    }

    #[test]
    fn only_known_subprotocols_are_chosen() {
        let chosen = |offered: &'static str| known_subprotocol(&headers(&[("sec-websocket-protocol", offered)]));
        assert_eq!(chosen("access_token, a.b.c"), None);
        assert_eq!(chosen("mqtt, roundhouse"), Some("roundhouse"));
        assert_eq!(known_subprotocol(&HeaderMap::new()), None);
    }
}

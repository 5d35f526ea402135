//! The credentials of a client's first request.

use hyper::Request;
use hyper::body::Incoming;

use super::handshake::{cookies_named, find_tokens};
use super::peer::HttpPeer;
use crate::auth::{AuthError, Authenticator, Place, PresentedSession};
use crate::conn::shard::Shard;
use crate::conn::state::Credentials;

/// The most session cookies of one request that are checked.
const MAX_SESSION_COOKIES: usize = 3;

/// The refusal of a cookie that a page sends.
const FOREIGN_COOKIE: &str = "a page of this origin may not connect with a cookie: add the origin by its name to \
    cors.origins, or send the token in another place";

/// Reads the credentials of a request. A cookie counts only from pages that may use it. For a session the operator's
/// endpoint is asked, unless a token of the request is valid.
pub(super) async fn read_credentials(shard: &Shard, request: &Request<Incoming>, peer: &HttpPeer) -> Credentials {
    let (client, headers) = (&shard.shared().client, request.headers());
    let mut tokens = find_tokens(headers, request.uri().query(), client.cookie.as_deref());
    let mut sessions = match &client.session_cookie {
        Some(cookie) => cookies_named(headers, cookie).filter(|value| !value.is_empty()).collect(),
        None => Vec::new(),
    };
    let mut refused = None;
    let has_cookie = !sessions.is_empty() || tokens.iter().any(|token| token.place == Place::Cookie);
    if has_cookie && !client.may_carry_cookies(headers, peer) {
        tokens.retain(|token| token.place != Place::Cookie);
        sessions.clear();
        refused = Some(FOREIGN_COOKIE);
    }
    let session = match sessions.is_empty() || matches!(shard.check_credentials(None, &tokens, None), Some(Ok(_))) {
        true => None,
        false => check_sessions(&shard.shared().auth, &sessions).await,
    };
    let handshake = shard.shared().plugins.has_connect_listeners().then(|| client.handshake(request));
    Credentials { tokens: tokens.into(), session, handshake, refused }
}

/// The session of the first cookie that has one. A browser sends a cookie for each path and domain.
async fn check_sessions(auth: &Authenticator, cookies: &[&str]) -> Option<PresentedSession> {
    let sessions = auth.sessions()?;
    let mut refusal = None;
    for cookie in cookies.iter().take(MAX_SESSION_COOKIES) {
        match sessions.check(cookie).await {
            Ok(handle) => return Some(Ok(handle)),
            // A cookie that cannot be checked may have a session: the client is told to try again.
            Err(error) if refusal.is_none() || matches!(error, AuthError::SessionUnknown(_)) => refusal = Some(error),
            Err(_) => {}
        }
    }
    refusal.map(Err)
}

//! The paths of the client listener: the protocols, health checks, Socket.IO's browser client, and in development the
//! demo.

use std::rc::Rc;

use hyper::body::Incoming;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::{Method, Request, StatusCode};

use super::credentials::read_credentials;
use super::forwarded::{client_of, is_forwarded};
use super::handshake::{handshake_key, upgrade};
use super::peer::HttpPeer;
use super::{demo, engineio};
use crate::conn::shard::Shard;
use crate::conn::state::{Credentials, Handshake};
use crate::metrics::Limit;
use crate::net::refuse_ambiguous;
use crate::net::response::{Answer, error, restarting, text, too_many_requests};

/// Engine.IO without Socket.IO, for suites that test it alone.
const ENGINE_ECHO_PATH: &str = "/engine.io";

/// Answers a request of a client.
pub(super) async fn answer(shard: Rc<Shard>, mut peer: HttpPeer, request: Request<Incoming>) -> Answer {
    if let Some(refusal) = refuse_ambiguous(&request) {
        return refusal;
    }
    let trusted = &shard.shared().config.trusted_proxies;
    if trusted.contains(peer.address.ip()) {
        peer.address = client_of(peer.address, request.headers(), trusted);
    } else if is_forwarded(request.headers()) {
        shard.shared().admission.suspect_proxy(peer.address, &shard.shared().config);
    }
    if !shard.shared().admission.allows_request(peer.address.ip(), &shard.shared().config, shard.now()) {
        shard.metrics().limited(Limit::RequestsPerIp);
        return too_many_requests("too many requests from this address: try again in a second");
    }
    let config = &shard.shared().client;
    let path = request.uri().path();
    let is_at = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| matches!(rest, "" | "/"));
    if is_at(&config.socketio_path) {
        return engineio::answer(&shard, peer, request, false).await;
    }
    if config.is_conformance && is_at(ENGINE_ECHO_PATH) {
        return engineio::answer(&shard, peer, request, true).await;
    }
    match (request.method(), path) {
        (&Method::HEAD, "/ws") => upgrade_required("this is a WebSocket: connect with a WebSocket client"),
        (&Method::GET, "/ws") => {
            shard.sign_ins().handshake().await;
            websocket(&shard, &peer, request, false).await
        }
        (&Method::GET, "/echo") if config.is_conformance => websocket(&shard, &peer, request, true).await,
        (&Method::GET | &Method::HEAD, "/healthz") => text(StatusCode::OK, "ok\n"),
        (&Method::GET | &Method::HEAD, "/readyz") if shard.is_refusing() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
        (&Method::GET | &Method::HEAD, "/readyz") => text(StatusCode::OK, "ready\n"),
        (method, path) => {
            let bundle = config.bundle.answer(method, &config.socketio_path, path);
            let demo = || demo::answer(config.demo_secret.as_deref()?, &shard.shared().plugins, &request);
            bundle.or_else(demo).unwrap_or_else(|| {
                let message = format!("clients connect to /ws, or with Socket.IO to {}/", config.socketio_path);
                error(StatusCode::NOT_FOUND, "not_found", &message)
            })
        }
    }
}

async fn websocket(shard: &Rc<Shard>, peer: &HttpPeer, request: Request<Incoming>, is_echo: bool) -> Answer {
    if shard.is_refusing() {
        return restarting();
    }
    let key = match handshake_key(request.headers()) {
        Ok(key) => key,
        Err(message) => return upgrade_required(message),
    };
    let credentials = read_credentials(shard, &request, peer).await;
    if shard.is_refusing() {
        // The host began to shut down while an endpoint was asked.
        return restarting();
    }
    if let Credentials { refused: Some(message), tokens, .. } = &credentials
        && tokens.is_empty()
    {
        return error(StatusCode::FORBIDDEN, "forbidden", message);
    }
    let handshake = if is_echo { Handshake::Echo } else { Handshake::Plain { credentials } };
    let (shard, peer) = (shard.clone(), peer.address);
    upgrade(request, peer, &key, move |socket, received| shard.open_websocket(socket, peer, received, handshake))
}

fn upgrade_required(message: &str) -> Answer {
    let mut response = error(StatusCode::UPGRADE_REQUIRED, "bad_request", message);
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

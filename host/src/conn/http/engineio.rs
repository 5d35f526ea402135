//! Engine.IO over HTTP: requests that open, poll and upgrade a session, and the answers to malformed ones.

use std::net::SocketAddr;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_TYPE, HeaderValue,
    ORIGIN, USER_AGENT, VARY,
};
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde_json::json;

use super::credentials::read_credentials;
use super::handshake::{handshake_key, upgrade};
use super::peer::HttpPeer;
use crate::conn::shard::Shard;
use crate::conn::state::{Handshake, PollError, Polled, Posting, Sid};
use crate::net::response::{Answer, body, json, restarting, unavailable};
use crate::net::{Upload, UploadError, is_upgrade};
use crate::protocol::engineio;

const TEXT: &str = "text/plain; charset=UTF-8";

/// A body over the limit is read and discarded up to this multiple of the limit.
const READ_FACTOR: usize = 16;

/// The most packets that python-engineio decodes from one answer (`Payload.max_decode_packets`).
const PYTHON_PACKETS: usize = 16;

/// How long a browser may cache a preflight's answer, in seconds.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// Refusals, with the reference implementation's codes and messages.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    TransportUnknown = 0,
    SessionUnknown = 1,
    BadHandshakeMethod = 2,
    BadRequest = 3,
    UnsupportedProtocol = 5,
}

impl Refusal {
    fn answer(self) -> Answer {
        let message = match self {
            Self::TransportUnknown => "Transport unknown",
            Self::SessionUnknown => "Session ID unknown",
            Self::BadHandshakeMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::UnsupportedProtocol => "Unsupported protocol version",
        };
        json(StatusCode::BAD_REQUEST, &json!({ "code": self as u8, "message": message }))
    }
}

impl From<PollError> for Refusal {
    fn from(error: PollError) -> Self {
        match error {
            PollError::Unknown => Self::SessionUnknown,
            PollError::Bad => Self::BadRequest,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Polling,
    WebSocket,
}

/// The parameters in a request's query.
#[derive(Debug, Default)]
struct Parameters {
    transport: Option<Transport>,
    is_protocol_4: bool,
    session: Option<String>,
}

impl Parameters {
    fn read(query: &str) -> Self {
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "transport" => {
                    parameters.transport = match &*value {
                        "polling" => Some(Transport::Polling),
                        "websocket" => Some(Transport::WebSocket),
                        _ => None,
                    };
                }
                "EIO" => parameters.is_protocol_4 = value == "4",
                "sid" if !value.is_empty() => parameters.session = Some(value.into_owned()),
                _ => {}
            }
        }
        parameters
    }
}

/// Answers an Engine.IO request. `echoes` is for suites that test Engine.IO alone.
pub(super) async fn answer(shard: &Rc<Shard>, peer: HttpPeer, request: Request<Incoming>, echoes: bool) -> Answer {
    let origin = shard.shared().client.allowed_origin(request.headers()).cloned();
    let has_origin = request.headers().contains_key(ORIGIN);
    let mut answer = if request.method() == Method::OPTIONS {
        preflight(&request, origin.is_some())
    } else {
        answer_session(shard, peer, request, echoes).await.unwrap_or_else(Refusal::answer)
    };
    let headers = answer.headers_mut();
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if has_origin {
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }
    answer
}

async fn answer_session(
    shard: &Rc<Shard>,
    peer: HttpPeer,
    request: Request<Incoming>,
    echoes: bool,
) -> Result<Answer, Refusal> {
    let Parameters { transport, is_protocol_4, session } = Parameters::read(request.uri().query().unwrap_or_default());
    let transport = transport.ok_or(Refusal::TransportUnknown)?;
    let is_upgrade = is_upgrade(request.headers());
    if let Some(session) = session {
        let id = session.parse().map_err(|()| Refusal::SessionUnknown)?;
        let is_upgraded = shard.shared().eio_sessions.is_upgraded(id).ok_or(Refusal::SessionUnknown)?;
        if !is_protocol_4
            || is_upgrade != (transport == Transport::WebSocket)
            || is_upgraded && transport == Transport::Polling
        {
            return Err(Refusal::BadRequest);
        }
        return match (transport, request.method()) {
            (Transport::WebSocket, _) => {
                let key = handshake_key(request.headers()).map_err(|_| Refusal::BadRequest)?;
                let (shard, peer) = (shard.clone(), peer.address);
                Ok(upgrade(request, peer, &key, move |socket, received| {
                    shard.probe_session(id, socket, peer, received)
                }))
            }
            (Transport::Polling, &Method::GET) => {
                polled(shard.shared().eio_sessions.poll(id, max_packets(request.headers())).await)
            }
            (Transport::Polling, &Method::POST) => post(shard, peer.address, id, request).await,
            _ => Err(Refusal::BadRequest),
        };
    }
    if request.method() != Method::GET {
        return Err(Refusal::BadHandshakeMethod);
    }
    if is_upgrade != (transport == Transport::WebSocket) {
        return Err(Refusal::BadRequest);
    }
    if !is_protocol_4 {
        return Err(Refusal::UnsupportedProtocol);
    }
    open_session(shard, peer, request, transport, echoes).await
}

/// Opens a session.
async fn open_session(
    shard: &Rc<Shard>,
    peer: HttpPeer,
    request: Request<Incoming>,
    transport: Transport,
    echoes: bool,
) -> Result<Answer, Refusal> {
    if shard.is_refusing() {
        return Ok(restarting());
    }
    let key = match transport {
        Transport::WebSocket => Some(handshake_key(request.headers()).map_err(|_| Refusal::BadRequest)?),
        Transport::Polling => None,
    };
    let credentials = read_credentials(shard, &request, &peer).await;
    if shard.is_refusing() {
        // The host began to shut down while an endpoint was asked.
        return Ok(restarting());
    }
    if let Some(key) = key {
        shard.sign_ins().handshake().await;
        let handshake = Handshake::Eio { credentials, echoes };
        let (shard, peer) = (shard.clone(), peer.address);
        return Ok(upgrade(request, peer, &key, move |socket, received| {
            shard.open_websocket(socket, peer, received, handshake)
        }));
    }
    Ok(match shard.open_polling(peer.address, credentials, echoes) {
        Ok(packet) => body(StatusCode::OK, TEXT, packet),
        Err(reason) => unavailable(reason),
    })
}

/// Reads the packets of a POST.
async fn post(shard: &Shard, peer: SocketAddr, id: Sid, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let mut posting = shard.shared().eio_sessions.begin_post(id)?;
    // In protocol 4 binary data is base64 in text.
    if request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream") {
        return Err(Refusal::BadRequest);
    }
    let limit = shard.shared().client.message_bytes;
    let read = match read_body(request, engineio::longest_body(limit), &mut posting).await {
        Ok(read) => read.map(String::from_utf8).transpose().map_err(|_| Refusal::BadRequest)?,
        Err(error) => return Ok(incomplete(&error)),
    };
    match read.filter(|body| body.len() <= limit || engineio::weight(body) <= limit) {
        Some(text) => polled(posting.finish(text).await),
        None => {
            posting.refuse();
            shard.log_oversize_from(peer, None, shard.shared().client.message_bytes);
            // The reference implementation sends no text either, and its client shows the text to users.
            Ok(body(StatusCode::PAYLOAD_TOO_LARGE, TEXT, ""))
        }
    }
}

/// The most packets that a client decodes from one answer. The Python client ends its session on an answer with more
/// than 16; other clients have no limit.
fn max_packets(headers: &HeaderMap) -> usize {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    if agent.to_ascii_lowercase().contains("python") { PYTHON_PACKETS } else { usize::MAX }
}

/// Reads a body; `None` where it is longer than `limit`. A longer body is read on for a while, because a client that
/// still writes does not read the answer.
async fn read_body(
    request: Request<Incoming>,
    limit: usize,
    posting: &mut Posting<'_>,
) -> Result<Option<Vec<u8>>, UploadError> {
    let (mut read, mut length) = (Vec::new(), 0);
    let mut body = Upload::of(request);
    while length <= limit.saturating_mul(READ_FACTOR) {
        let Some(data) = body.next(read.capacity()).await? else { return Ok((length <= limit).then_some(read)) };
        posting.progress();
        length += data.len();
        if length <= limit {
            read.extend_from_slice(&data);
        } else {
            read = Vec::new();
        }
    }
    Ok(None)
}

/// The answer to a request with an incomplete body. Its session ends, because packets may be lost.
fn incomplete(error: &UploadError) -> Answer {
    match error {
        UploadError::Evicted => unavailable(&error.to_string()),
        UploadError::Standstill | UploadError::TooSlow => {
            json(StatusCode::REQUEST_TIMEOUT, &json!({ "code": "bad_request", "message": error.to_string() }))
        }
        UploadError::Broken(_) => Refusal::BadRequest.answer(),
    }
}

fn polled(polled: Polled) -> Result<Answer, Refusal> {
    Ok(body(StatusCode::OK, TEXT, polled?))
}

/// Answers a CORS preflight.
fn preflight(request: &Request<Incoming>, is_allowed: bool) -> Answer {
    let mut answer = body(StatusCode::NO_CONTENT, TEXT, "");
    if is_allowed {
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
        if let Some(wanted) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
    }
    answer
}

//! The handoff of a transport: a client that resumes a connection may arrive on another shard than the connection's, to
//! which its transport then moves, with all input that was read and not yet handled.

use std::net::SocketAddr;

use bytes::Bytes;

use super::eio_session::{Poll, Sid};
use super::handshake::Credentials;
use super::outbox::Outbox;
use super::rate::Rate;
use crate::auth;
use crate::net::RawSocket;
use crate::protocol::engineio::{self, Packet};
use crate::protocol::websocket::{Decoder, Message};

/// A message that was read before a handoff and is handled after it.
#[derive(Debug)]
pub(crate) enum Inbound {
    Text(String),
    Binary(Bytes),
    /// The client's close of its WebSocket, with this code.
    Close(Option<u16>),
}

impl Inbound {
    /// The Engine.IO packet of a Socket.IO message.
    pub(crate) fn from_socketio(text: &str) -> Self {
        Self::Text(format!("4{text}"))
    }

    /// A received packet, if it still has a meaning after the handoff.
    pub(crate) fn from_packet(packet: Packet<'_>) -> Option<Self> {
        match packet {
            Packet::Message(text) => Some(Self::from_socketio(text)),
            Packet::Binary(bytes) => Some(Self::Binary(Bytes::from(bytes.into_owned()))),
            Packet::Close => Some(Self::Text(engineio::CLOSE.to_owned())),
            _ => None,
        }
    }
}

/// The client of a plain transport that is handed off: its session, and the frames that were held.
#[derive(Debug)]
pub(crate) struct PlainHandoff {
    pub(crate) session: auth::Session,
    pub(crate) held: Vec<Bytes>,
    /// The facts of the handshake for features.
    pub(crate) handshake: Option<Box<str>>,
}

/// A handoff that completes once all input of the current read is in `inbound`.
#[derive(Debug)]
pub(crate) struct PendingHandoff {
    pub(crate) to: usize,
    /// The client, for a plain transport.
    pub(crate) plain: Option<PlainHandoff>,
    pub(crate) inbound: Vec<Inbound>,
}

impl PendingHandoff {
    pub(crate) fn keep(&mut self, inbound: Option<Inbound>) {
        self.inbound.extend(inbound);
    }

    /// Keeps a WebSocket message, if it still has a meaning after the handoff.
    pub(crate) fn keep_message(&mut self, message: &Message<'_>) {
        match message {
            Message::Text(text) => self.inbound.push(Inbound::Text((*text).to_owned())),
            Message::Binary(bytes) => self.inbound.push(Inbound::Binary(Bytes::copy_from_slice(bytes))),
            Message::Close(code) => self.inbound.push(Inbound::Close(*code)),
            Message::Ping(_) | Message::Pong => {}
        }
    }
}

/// A transport in transfer from one shard to another.
#[derive(Debug)]
pub(crate) struct Handoff {
    pub(crate) peer: SocketAddr,
    pub(crate) is_counted: bool,
    pub(crate) io: HandoffIo,
    pub(crate) session: HandoffSession,
    pub(crate) rate: Option<Rate>,
    pub(crate) outbox: Outbox,
    pub(crate) inbound: Vec<Inbound>,
}

#[derive(Debug)]
pub(crate) enum HandoffIo {
    Socket { socket: RawSocket, decoder: Decoder, received: Vec<u8> },
    Polling(Option<Poll>),
}

#[derive(Debug)]
pub(crate) enum HandoffSession {
    Plain(PlainHandoff),
    Eio { id: Sid, credentials: Credentials },
    Probe { id: Sid, is_tried: bool },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_handoff_keeps_messages_and_drops_pings() {
        let mut pending = PendingHandoff { to: 1, plain: None, inbound: Vec::new() };
        pending.keep_message(&Message::Ping(b"x"));
        pending.keep_message(&Message::Text("a"));
        pending.keep(Inbound::from_packet(Packet::Pong("")));
        pending.keep(Inbound::from_packet(Packet::Message("b")));
        pending.keep_message(&Message::Close(Some(1000)));
        let kept = format!("{:?}", pending.inbound);
        assert_eq!(kept, r#"[Text("a"), Text("4b"), Close(Some(1000))]"#);
    }
}

//! A client that comes back may come to another shard than the one that its connection lives on. Its transport then moves
//! there, with all that was read and not yet dealt with.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use tokio::task::spawn_local;

use super::eio::{Credentials, EioCommand, EioSession, Poll, Sid};
use super::parts::Shard;
use super::rate::Rate;
use crate::auth;
use crate::conn::state::outbox::Outbox;
use crate::conn::state::transport::{Io, Phase, Session, Socket, Transport};
use crate::model::CloseCode;
use crate::protocol::engineio::{self, Packet};
use crate::protocol::websocket::{Decoder, Message};

/// Something that was read.
#[derive(Debug)]
pub(in crate::conn) enum Inbound {
    Text(String),
    Binary(Bytes),
    /// The client closes its WebSocket, with this code.
    Close(Option<u16>),
}

impl Inbound {
    /// The packet of a message.
    pub(in crate::conn) fn of_message(text: &str) -> Self {
        Self::Text(format!("4{text}"))
    }

    /// A packet as it came, if it means something to who takes over.
    pub(in crate::conn) fn of_packet(packet: Packet<'_>) -> Option<Self> {
        match packet {
            Packet::Message(text) => Some(Self::of_message(text)),
            Packet::Binary(bytes) => Some(Self::Binary(Bytes::from(bytes.into_owned()))),
            Packet::Close => Some(Self::Text(engineio::CLOSE.to_owned())),
            _ => None,
        }
    }
}

/// Who signed in on a plain transport that moves, and what its connection there would have been sent.
#[derive(Debug)]
pub(in crate::conn) struct PlainHandoff {
    pub(in crate::conn) session: auth::Session,
    pub(in crate::conn) held: Vec<Bytes>,
}

/// A transport that is about to move.
#[derive(Debug)]
pub(in crate::conn) struct PendingHandoff {
    to: usize,
    /// Who signed in on a plain transport.
    plain: Option<PlainHandoff>,
    inbound: Vec<Inbound>,
}

impl PendingHandoff {
    pub(in crate::conn) fn keep(&mut self, inbound: Option<Inbound>) {
        self.inbound.extend(inbound);
    }

    /// Keeps what came on a WebSocket.
    pub(in crate::conn) fn keep_message(&mut self, message: &Message<'_>) {
        match message {
            Message::Text(text) => self.inbound.push(Inbound::Text((*text).to_owned())),
            Message::Binary(bytes) => self.inbound.push(Inbound::Binary(Bytes::copy_from_slice(bytes))),
            Message::Close(code) => self.inbound.push(Inbound::Close(*code)),
            Message::Ping(_) | Message::Pong => {}
        }
    }
}

/// A transport on its way to another shard.
#[derive(Debug)]
pub(in crate::conn) struct Handoff {
    pub(in crate::conn) peer: SocketAddr,
    pub(in crate::conn) is_counted: bool,
    pub(in crate::conn) io: HandoffIo,
    pub(in crate::conn) session: HandoffSession,
    pub(in crate::conn) rate: Option<Rate>,
    pub(in crate::conn) outbox: Outbox,
    pub(in crate::conn) inbound: Vec<Inbound>,
}

#[derive(Debug)]
pub(in crate::conn) enum HandoffIo {
    Socket { tcp: TcpStream, decoder: Decoder, received: Vec<u8> },
    Polling(Option<Poll>),
}

#[derive(Debug)]
pub(in crate::conn) enum HandoffSession {
    Plain(PlainHandoff),
    Eio { id: Sid, credentials: Credentials },
    Probe { id: Sid, is_tried: bool },
}

impl Shard {
    /// Has a transport move to another shard, which is to deal with what was just read first.
    pub(in crate::conn) fn begin_handoff(
        &self,
        transport: &Transport,
        to: usize,
        plain: Option<PlainHandoff>,
        first: Inbound,
    ) {
        *transport.handoff.borrow_mut() = Some(Box::new(PendingHandoff { to, plain, inbound: vec![first] }));
    }

    /// Moves a transport on which all that was read has been put aside.
    pub(in crate::conn) fn complete_handoff(self: &Rc<Self>, transport: &Rc<Transport>, decoder: Decoder) {
        let Some(handoff) = transport.handoff.take() else { return };
        let PendingHandoff { to, plain, inbound } = *handoff;
        let io = match &transport.io {
            Io::Polling(poll) => HandoffIo::Polling(poll.take()),
            // The transport may be held for a moment still: the other shard has its own handle of the socket.
            Io::Socket(socket) => match socket.tcp.try_clone() {
                Ok(tcp) => {
                    self.unwatch(&socket.tcp);
                    HandoffIo::Socket { tcp, decoder, received: Vec::new() }
                }
                Err(error) => {
                    tracing::warn!(%error, "a client cannot be taken to its connection's shard");
                    return self.close(transport, CloseCode::TryAgainLater, "the host is out of file descriptors");
                }
            },
        };
        let eio = transport.eio();
        let session = match (&*transport.session.borrow(), plain) {
            (Session::Eio(eio), _) => HandoffSession::Eio { id: eio.id, credentials: eio.credentials.clone() },
            (Session::Probe { id, is_tried }, _) => HandoffSession::Probe { id: *id, is_tried: *is_tried },
            (_, Some(plain)) => HandoffSession::Plain(plain),
            (_, None) => return,
        };
        transport.outbox.borrow_mut().keep(&self.queue.borrow());
        let (peer, outbox, is_counted) = (transport.peer, transport.outbox.take(), transport.counted.take());
        let rate = transport.rate.take();
        transport.phase.set(Phase::Ended);
        self.remove_transport(transport);
        let handoff = Handoff { peer, is_counted, io, session, rate, outbox, inbound };
        self.shared.eio_sessions.inbox(to).push(EioCommand::Handoff(Box::new(handoff)));
        if let Some(eio) = eio
            && self.polling.borrow_mut().remove(&eio.id).is_some()
        {
            // After the session itself, so that no request arrives before it.
            self.shared.eio_sessions.moved(eio.id, to);
        }
    }

    /// Forgets a transport that was on its way and has come to nothing.
    fn forget_handoff(&self, peer: SocketAddr, is_counted: bool, id: Option<Sid>) {
        if is_counted {
            self.shared.admission.leave(peer, &self.shared.config);
        }
        if let Some(id) = id {
            self.shared.eio_sessions.strike(id);
        }
    }

    /// Takes a transport from another shard.
    pub(in crate::conn) fn accept_handoff(self: &Rc<Self>, handoff: Handoff) {
        let Handoff { peer, is_counted, io, session, rate, outbox, inbound } = handoff;
        let id = match &session {
            HandoffSession::Eio { id, .. } => Some(*id),
            HandoffSession::Plain(_) | HandoffSession::Probe { .. } => None,
        };
        let (io, mut received) = match io {
            HandoffIo::Polling(poll) => (Io::Polling(RefCell::new(poll)), Vec::new()),
            HandoffIo::Socket { tcp, decoder, received } => (Io::Socket(Socket::new(tcp, decoder)), received),
        };
        let (session, plain) = match session {
            HandoffSession::Plain(plain) => (Session::Plain, Some(plain)),
            HandoffSession::Probe { id, is_tried } => (Session::Probe { id, is_tried }, None),
            HandoffSession::Eio { id, credentials } => {
                (Session::Eio(Rc::new(EioSession::new(id, credentials, false))), None)
            }
        };
        let Some(transport) = self.new_transport(peer, io, session.clone(), rate) else {
            return self.forget_handoff(peer, is_counted, id);
        };
        transport.counted.set(is_counted);
        *transport.outbox.borrow_mut() = outbox;
        match &session {
            Session::Eio(eio) => {
                if transport.socket().is_none() {
                    self.polling.borrow_mut().insert(eio.id, transport.clone());
                    // It may wait for the answer to go over to a WebSocket that is yet to follow.
                    spawn_local(self.clone().release(transport.clone()));
                }
                self.begin_eio(&transport, eio);
            }
            Session::Probe { id, .. } => self.begin_probe(&transport, *id),
            Session::Plain | Session::Echo => {}
        }
        if self.is_stopping() {
            self.close(&transport, CloseCode::Restart, super::parts::RESTART_REASON);
        }
        let mut plain = plain;
        for message in inbound {
            let session = transport.session.borrow().clone();
            match (message, &session) {
                (Inbound::Text(text), Session::Eio(eio)) => self.on_eio_text(&transport, eio, &text, Instant::now()),
                (Inbound::Binary(bytes), Session::Eio(eio)) => {
                    self.packet(&transport, eio, Packet::Binary((&*bytes).into()), Instant::now());
                }
                (Inbound::Text(text), Session::Probe { id, is_tried }) => {
                    self.on_probe_text(&transport, *id, *is_tried, &text)
                }
                (Inbound::Close(code), _) => self.closed_by_client(&transport, code),
                (Inbound::Text(text), _) => match plain.take() {
                    // The first is what it came for.
                    Some(plain) => self.resume_here(&transport, &text, plain),
                    None => self.on_plain_text(&transport, &text, Instant::now()),
                },
                (Inbound::Binary(_), _) => self.on_plain_binary(&transport),
            }
        }
        if transport.handoff.borrow().is_some() {
            let decoder = transport.socket().map(|socket| socket.decoder.take());
            self.complete_handoff(&transport, decoder.unwrap_or_default());
        } else if !received.is_empty() {
            self.read(&transport, &mut received);
        }
        self.account_incomplete(&transport, 0, false);
        self.mark_dirty(&transport);
        self.watch(&transport);
    }
}

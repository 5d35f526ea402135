//! A client that comes back may come to another shard than the one that its connection lives on. Its link then moves
//! there, with all that was read and not yet dealt with.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use tokio::task::spawn_local;

use super::engine::{Credentials, Engine, EngineCommand, EngineId, Poll};
use super::link::{Link, Phase, Role, Socket, Wire};
use super::outbox::Outbox;
use super::rate::Rate;
use super::shard::Shard;
use crate::auth::Session;
use crate::model::CloseCode;
use crate::protocol::engineio::{self, Packet};
use crate::protocol::websocket::{Decoder, Message};

/// Something that was read.
#[derive(Debug)]
pub(super) enum Inbound {
    Text(String),
    Binary(Bytes),
    /// The client closes its WebSocket, with this code.
    Close(Option<u16>),
}

impl Inbound {
    /// The packet of a message.
    pub(super) fn of_message(text: &str) -> Self {
        Self::Text(format!("4{text}"))
    }

    /// A packet as it came, if it means something to who takes over.
    pub(super) fn of_packet(packet: Packet<'_>) -> Option<Self> {
        match packet {
            Packet::Message(text) => Some(Self::of_message(text)),
            Packet::Binary(bytes) => Some(Self::Binary(Bytes::from(bytes.into_owned()))),
            Packet::Close => Some(Self::Text(engineio::CLOSE.to_owned())),
            _ => None,
        }
    }
}

/// Who signed in on a plain link that moves, and what its connection there would have been sent.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) session: Session,
    pub(super) held: Vec<Bytes>,
}

/// A link that is about to move.
#[derive(Debug)]
pub(super) struct Moving {
    to: usize,
    /// Who signed in on a plain link.
    session: Option<Arrival>,
    inbound: Vec<Inbound>,
}

impl Moving {
    pub(super) fn keep(&mut self, inbound: Option<Inbound>) {
        self.inbound.extend(inbound);
    }

    /// Keeps what came on a WebSocket.
    pub(super) fn keep_message(&mut self, message: &Message<'_>) {
        match message {
            Message::Text(text) => self.inbound.push(Inbound::Text((*text).to_owned())),
            Message::Binary(bytes) => self.inbound.push(Inbound::Binary(Bytes::copy_from_slice(bytes))),
            Message::Close(code) => self.inbound.push(Inbound::Close(*code)),
            Message::Ping(_) | Message::Pong => {}
        }
    }
}

/// A link on its way to another shard.
#[derive(Debug)]
pub(super) struct Migrant {
    pub(super) peer: SocketAddr,
    pub(super) is_counted: bool,
    pub(super) wire: MigrantWire,
    pub(super) role: MigrantRole,
    pub(super) rate: Option<Rate>,
    pub(super) outbox: Outbox,
    pub(super) inbound: Vec<Inbound>,
}

#[derive(Debug)]
pub(super) enum MigrantWire {
    Socket { tcp: TcpStream, decoder: Decoder, received: Vec<u8> },
    Polling(Option<Poll>),
}

#[derive(Debug)]
pub(super) enum MigrantRole {
    Plain(Arrival),
    Engine { id: EngineId, credentials: Credentials },
    Probe { id: EngineId, is_tried: bool },
}

impl Shard {
    /// Has a link move to another shard, which is to deal with what was just read first.
    pub(super) fn begin_move(&self, link: &Link, to: usize, session: Option<Arrival>, first: Inbound) {
        *link.moving.borrow_mut() = Some(Box::new(Moving { to, session, inbound: vec![first] }));
    }

    /// Moves a link on which all that was read has been put aside.
    pub(super) fn finish_move(self: &Rc<Self>, link: &Rc<Link>, decoder: Decoder) {
        let Some(moving) = link.moving.take() else { return };
        let Moving { to, session, inbound } = *moving;
        let wire = match &link.wire {
            Wire::Polling(poll) => MigrantWire::Polling(poll.take()),
            // The link may be held for a moment still: the other shard has its own handle of the socket.
            Wire::Socket(socket) => match socket.tcp.try_clone() {
                Ok(tcp) => {
                    self.unwatch(&socket.tcp);
                    MigrantWire::Socket { tcp, decoder, received: Vec::new() }
                }
                Err(error) => {
                    tracing::warn!(%error, "a client cannot be taken to its connection's shard");
                    return self.close(link, CloseCode::TryAgainLater, "the host is out of file descriptors");
                }
            },
        };
        let engine = link.engine();
        let role = match (&*link.role.borrow(), session) {
            (Role::Engine(engine), _) => MigrantRole::Engine { id: engine.id, credentials: engine.credentials.clone() },
            (Role::Probe { id, is_tried }, _) => MigrantRole::Probe { id: *id, is_tried: *is_tried },
            (_, Some(session)) => MigrantRole::Plain(session),
            (_, None) => return,
        };
        link.outbox.borrow_mut().keep(&self.queue.borrow());
        let (peer, outbox, is_counted) = (link.peer, link.outbox.take(), link.counted.take());
        let rate = link.rate.take();
        link.phase.set(Phase::Ended);
        self.remove_link(link);
        let migrant = Migrant { peer, is_counted, wire, role, rate, outbox, inbound };
        self.shared.engines.inbox(to).push(EngineCommand::Welcome(Box::new(migrant)));
        if let Some(engine) = engine
            && self.polling.borrow_mut().remove(&engine.id).is_some()
        {
            // After the session itself, so that no request arrives before it.
            self.shared.engines.moved(engine.id, to);
        }
    }

    /// Forgets a link that was on its way and has come to nothing.
    fn forget_migrant(&self, peer: SocketAddr, is_counted: bool, id: Option<EngineId>) {
        if is_counted {
            self.shared.admission.leave(peer, &self.shared.config);
        }
        if let Some(id) = id {
            self.shared.engines.strike(id);
        }
    }

    /// Takes a link from another shard.
    pub(super) fn welcome(self: &Rc<Self>, migrant: Migrant) {
        let Migrant { peer, is_counted, wire, role, rate, outbox, inbound } = migrant;
        let id = match &role {
            MigrantRole::Engine { id, .. } => Some(*id),
            MigrantRole::Plain(_) | MigrantRole::Probe { .. } => None,
        };
        let (wire, mut received) = match wire {
            MigrantWire::Polling(poll) => (Wire::Polling(RefCell::new(poll)), Vec::new()),
            MigrantWire::Socket { tcp, decoder, received } => (Wire::Socket(Socket::new(tcp, decoder)), received),
        };
        let (role, session) = match role {
            MigrantRole::Plain(session) => (Role::Plain, Some(session)),
            MigrantRole::Probe { id, is_tried } => (Role::Probe { id, is_tried }, None),
            MigrantRole::Engine { id, credentials } => {
                (Role::Engine(Rc::new(Engine::new(id, credentials, false))), None)
            }
        };
        let Some(link) = self.new_link(peer, wire, role.clone(), rate) else {
            return self.forget_migrant(peer, is_counted, id);
        };
        link.counted.set(is_counted);
        *link.outbox.borrow_mut() = outbox;
        match &role {
            Role::Engine(engine) => {
                if link.socket().is_none() {
                    self.polling.borrow_mut().insert(engine.id, link.clone());
                    // It may wait for the answer to go over to a WebSocket that is yet to follow.
                    spawn_local(self.clone().release(link.clone()));
                }
                self.begin_engine(&link, engine);
            }
            Role::Probe { id, .. } => self.begin_probe(&link, *id),
            Role::Plain | Role::Echo => {}
        }
        if self.is_stopping() {
            self.close(&link, CloseCode::Restart, super::shard::RESTART_REASON);
        }
        let mut session = session;
        for message in inbound {
            let role = link.role.borrow().clone();
            match (message, &role) {
                (Inbound::Text(text), Role::Engine(engine)) => self.engine_text(&link, engine, &text, Instant::now()),
                (Inbound::Binary(bytes), Role::Engine(engine)) => {
                    self.packet(&link, engine, Packet::Binary((&*bytes).into()), Instant::now());
                }
                (Inbound::Text(text), Role::Probe { id, is_tried }) => self.probe_text(&link, *id, *is_tried, &text),
                (Inbound::Close(code), _) => self.closed_by_client(&link, code),
                (Inbound::Text(text), _) => match session.take() {
                    // The first is what it came for.
                    Some(session) => self.resume_here(&link, &text, session),
                    None => self.plain_text(&link, &text, Instant::now()),
                },
                (Inbound::Binary(_), _) => self.plain_binary(&link),
            }
        }
        if link.moving.borrow().is_some() {
            let decoder = link.socket().map(|socket| socket.decoder.take());
            self.finish_move(&link, decoder.unwrap_or_default());
        } else if !received.is_empty() {
            self.read(&link, &mut received);
        }
        self.reckon(&link, 0, false);
        self.mark_dirty(&link);
        self.watch(&link);
    }
}

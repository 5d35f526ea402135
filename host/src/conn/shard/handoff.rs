//! Handoff of a transport to the shard of the connection that its client resumes.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use tokio::task::spawn_local;

use super::parts::Shard;
use crate::conn::state::{
    EioCommand, EioSession, Handoff, HandoffIo, HandoffSession, Inbound, Io, PendingHandoff, Phase, PlainHandoff,
    Session, Sid, Socket, Transport,
};
use crate::model::CloseCode;
use crate::net::RawSocket;
use crate::protocol::engineio::Packet;
use crate::protocol::websocket::Decoder;

impl Shard {
    /// Begins to hand a transport off to another shard, which handles `first` first.
    pub(super) fn begin_handoff(&self, transport: &Transport, to: usize, plain: Option<PlainHandoff>, first: Inbound) {
        *transport.handoff.borrow_mut() = Some(Box::new(PendingHandoff { to, plain, inbound: vec![first] }));
    }

    /// Completes a handoff, if one was begun. All input read so far is in [`PendingHandoff`].
    pub(super) fn complete_handoff(self: &Rc<Self>, transport: &Rc<Transport>, decoder: Decoder) {
        let Some(handoff) = transport.handoff.take() else { return };
        let PendingHandoff { to, plain, inbound } = *handoff;
        let io = match &transport.io {
            Io::Polling(poll) => HandoffIo::Polling(poll.take()),
            // A task may hold the transport a moment longer: the other shard gets its own handle of the socket.
            Io::Socket(socket) => match socket.tcp.try_clone() {
                Ok(tcp) => {
                    self.poller().unwatch(&socket.tcp);
                    let socket = RawSocket { tcp, tls: socket.take_tls() };
                    HandoffIo::Socket { socket, decoder, received: Vec::new() }
                }
                Err(error) => {
                    tracing::warn!(%error, "a client cannot be taken to its connection's shard");
                    return self.close(transport, CloseCode::TryAgainLater, "the host is out of file descriptors");
                }
            },
        };
        let session = match (&*transport.session.borrow(), plain) {
            (Session::Eio(eio), _) => HandoffSession::Eio { id: eio.id, credentials: eio.credentials.clone() },
            (Session::Probe { id, is_tried }, _) => HandoffSession::Probe { id: *id, is_tried: *is_tried },
            (_, Some(plain)) => HandoffSession::Plain(plain),
            (_, None) => return,
        };
        self.writes().keep(transport);
        let (peer, outbox, is_counted) = (transport.peer, transport.outbox.take(), transport.counted.take());
        let (rate, eio) = (transport.rate.take(), transport.eio());
        transport.phase.set(Phase::Ended);
        self.remove_transport(transport);
        let handoff = Handoff { peer, is_counted, io, session, rate, outbox, inbound };
        let sessions = &self.shared().eio_sessions;
        sessions.inbox(to).push(EioCommand::Handoff(Box::new(handoff)));
        if let Some(eio) = eio
            && self.transports().remove_polling(eio.id)
        {
            // After the session itself, so that no request arrives before it.
            sessions.set_shard(eio.id, to);
        }
    }

    /// Drops a transport for which the shard has no slot.
    fn drop_handoff(&self, peer: SocketAddr, is_counted: bool, id: Option<Sid>) {
        if is_counted {
            self.shared().admission.leave(peer, self.config());
        }
        if let Some(id) = id {
            self.shared().eio_sessions.remove(id);
        }
    }

    /// Takes a transport over from another shard.
    pub(super) fn accept_handoff(self: &Rc<Self>, handoff: Handoff) {
        let Handoff { peer, is_counted, io, session, rate, outbox, inbound } = handoff;
        let id = match &session {
            HandoffSession::Eio { id, .. } => Some(*id),
            HandoffSession::Plain(_) | HandoffSession::Probe { .. } => None,
        };
        let (io, mut received) = match io {
            HandoffIo::Polling(poll) => (Io::Polling(RefCell::new(poll)), Vec::new()),
            HandoffIo::Socket { socket, decoder, received } => (Io::Socket(Socket::new(socket, decoder)), received),
        };
        let (session, plain) = match session {
            HandoffSession::Plain(plain) => (Session::Plain, Some(plain)),
            HandoffSession::Probe { id, is_tried } => (Session::Probe { id, is_tried }, None),
            HandoffSession::Eio { id, credentials } => {
                (Session::Eio(Rc::new(EioSession::new(id, credentials, false))), None)
            }
        };
        let Some(transport) = self.new_transport(peer, io, session.clone(), rate) else {
            return self.drop_handoff(peer, is_counted, id);
        };
        transport.counted.set(is_counted);
        *transport.outbox.borrow_mut() = outbox;
        match &session {
            Session::Eio(eio) => {
                if transport.socket().is_none() {
                    self.transports().insert_polling(eio.id, &transport);
                    // The client may wait for this answer before it sends the upgrade.
                    spawn_local(self.clone().answer_during_upgrade(transport.clone()));
                }
                self.begin_eio(&transport, eio);
            }
            Session::Probe { id, .. } => self.begin_probe(&transport, *id),
            Session::Plain | Session::Echo => {}
        }
        if self.is_stopping() {
            self.close_for_restart(&transport);
        }
        self.handle_inbound(&transport, inbound, plain);
        if transport.handoff.borrow().is_some() {
            let decoder = transport.socket().map(|socket| socket.decoder.take());
            self.complete_handoff(&transport, decoder.unwrap_or_default());
        } else if !received.is_empty() {
            self.read(&transport, &mut received);
        }
        self.account_incomplete(&transport, 0, false);
        self.writes().mark_dirty(&transport);
        self.watch(&transport);
    }

    /// Handles the messages that were read before a handoff. On a plain transport the first is the resume that caused
    /// the handoff.
    fn handle_inbound(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        inbound: Vec<Inbound>,
        mut plain: Option<PlainHandoff>,
    ) {
        for message in inbound {
            let session = transport.session.borrow().clone();
            match (message, &session) {
                (Inbound::Text(text), Session::Eio(eio)) => self.on_eio_text(transport, eio, &text, Instant::now()),
                (Inbound::Binary(bytes), Session::Eio(eio)) => {
                    self.on_eio_packet(transport, eio, Packet::Binary((&*bytes).into()), Instant::now());
                }
                (Inbound::Text(text), Session::Probe { id, is_tried }) => {
                    self.on_probe_text(transport, *id, *is_tried, &text);
                }
                (Inbound::Close(code), _) => self.closed_by_client(transport, code),
                (Inbound::Text(text), _) => match plain.take() {
                    Some(plain) => self.resume_here(transport, &text, plain),
                    None => self.on_plain_text(transport, &text, Instant::now()),
                },
                (Inbound::Binary(_), _) => self.on_plain_binary(transport),
            }
        }
    }
}

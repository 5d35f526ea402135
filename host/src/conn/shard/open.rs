//! Opening of transports: WebSockets after their handshake, and polling sessions.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;

use super::parts::Shard;
use crate::conn::state::{Credentials, EioSession, Handshake, Io, Phase, Rate, Session, Sid, Socket, Transport};
use crate::metrics::Limit;
use crate::model::CloseCode;
use crate::net::RawSocket;
use crate::protocol::websocket::{self, Decoder};

impl Shard {
    /// Inserts a transport. `None` where the shard has no slot left. `rate` is the transport's rate limiter on the
    /// shard that handed it off.
    pub(super) fn new_transport(
        &self,
        peer: SocketAddr,
        io: Io,
        session: Session,
        rate: Option<Rate>,
    ) -> Option<Rc<Transport>> {
        let rate = rate.or_else(|| self.new_rate());
        let Some(transport) = self.transports().insert(|id| Transport::new(id, peer, io, session, rate, self.now()))
        else {
            tracing::error!("the shard has no slot left, and drops a connection");
            return None;
        };
        self.queue().count(1);
        self.metrics().connections.inc();
        Some(transport)
    }

    fn new_rate(&self) -> Option<Rate> {
        let config = self.config();
        let per_second = NonZeroU32::new(config.events_per_second)?;
        let burst = NonZeroU32::new(config.event_burst).unwrap_or(per_second);
        Some(Rate::new(per_second, burst, &self.shared().clock))
    }

    /// Opens a WebSocket whose handshake was answered. `received` has the bytes behind the handshake.
    pub(in crate::conn) fn open_websocket(
        self: &Rc<Self>,
        socket: RawSocket,
        peer: SocketAddr,
        mut received: Vec<u8>,
        handshake: Handshake,
    ) {
        let session = match &handshake {
            Handshake::Plain { .. } => Session::Plain,
            Handshake::Echo => Session::Echo,
            Handshake::Eio { credentials, echoes } => {
                let Ok(id) = Sid::random() else { return tracing::error!("the host has no randomness") };
                Session::Eio(Rc::new(EioSession::new(id, credentials.clone(), *echoes)))
            }
        };
        let io = Io::Socket(Socket::new(socket, Decoder::default()));
        let Some(transport) = self.new_transport(peer, io, session.clone(), None) else { return };
        self.metrics().connections_opened.inc();
        if self.is_stopping() {
            // The handshake was answered before shutdown began.
            self.close_for_restart(&transport);
        } else if let Err((code, reason)) = self.enter(&transport) {
            self.close(&transport, code, reason);
        } else {
            match (handshake, session) {
                (Handshake::Plain { credentials }, _) => self.begin_plain(&transport, &credentials),
                (_, Session::Eio(eio)) => {
                    self.enqueue(&transport, websocket::text_frame(&self.open_packet(&eio, &[])));
                    self.begin_eio(&transport, &eio);
                }
                _ => transport.phase.set(Phase::Open),
            }
        }
        if received.is_empty() {
            self.account_incomplete(&transport, 0, false);
        } else {
            self.read(&transport, &mut received);
        }
        self.watch(&transport);
        self.flush_dirty();
    }

    /// Opens a session that begins with polling. Returns the open packet.
    ///
    /// # Errors
    /// The reason, where no more connections are admitted.
    pub(in crate::conn) fn open_polling(
        self: &Rc<Self>,
        peer: SocketAddr,
        credentials: Credentials,
        echoes: bool,
    ) -> Result<String, &'static str> {
        let id = Sid::random().map_err(|_| "the host has no randomness")?;
        let eio = Rc::new(EioSession::new(id, credentials, echoes));
        let io = Io::Polling(RefCell::default());
        let transport =
            self.new_transport(peer, io, Session::Eio(eio.clone()), None).ok_or("the host has no room left")?;
        if let Err((_, reason)) = self.enter(&transport) {
            self.shutdown_transport(&transport, false);
            return Err(reason);
        }
        self.metrics().connections_opened.inc();
        self.transports().insert_polling(id, &transport);
        self.shared().eio_sessions.insert(id, self.index());
        self.begin_eio(&transport, &eio);
        self.account_incomplete(&transport, 0, false);
        Ok(self.open_packet(&eio, &["websocket"]))
    }

    /// Counts a transport towards the limits of the whole host and of its address.
    ///
    /// # Errors
    /// The close code and reason for the client, where a limit is reached.
    fn enter(&self, transport: &Transport) -> Result<(), (CloseCode, &'static str)> {
        let entered = self.shared().admission.enter(transport.peer, self.config());
        transport.counted.set(entered.is_ok());
        if let Err((code, _)) = entered {
            self.metrics().connections_refused.inc();
            let is_by_address = code == CloseCode::TooManyConnections;
            self.metrics().limited(if is_by_address { Limit::ConnectionsPerIp } else { Limit::Connections });
            if is_by_address {
                self.probe_all_from(transport.peer.ip());
            }
        }
        entered
    }
}

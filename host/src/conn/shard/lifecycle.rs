//! The lifecycle of connections: opening, change of identity, end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::task::spawn_local;

use super::parts::Shard;
use crate::auth;
use crate::conn::state::{Connection, MemberList, Phase, Transport};
use crate::model::{CloseCode, ConnId};
use crate::plugin::Opening;
use crate::protocol::Protocol;

/// Delay of the connect notice to features: a client that registers its handlers on `connect` would miss events sent at
/// once. Timed by Tokio and not by the host's clock: no rule depends on it.
const CONNECT_NOTICE_DELAY: Duration = Duration::from_millis(5);

/// The reason of a close.
pub(super) const SESSION_ENDED: &str = "the session of the cookie has ended: log in and connect again";

/// How long before the expiry of its token a client is told of it, in milliseconds: enough to fetch another one.
const EXPIRY_WARNING_MS: u64 = 30_000;

impl Shard {
    /// Opens a connection over a transport. `None` where the shard has no slot left.
    pub(super) fn new_connection(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        protocol: Protocol,
        mut session: auth::Session,
    ) -> Option<Rc<Connection>> {
        let id = self.connections().next_id(self.shared().hub.node());
        if session.is_anonymous {
            // An anonymous user is named after the connection, whose id may have changed since sign-in.
            session = self.shared().auth.anonymous(id, transport.peer.ip()).unwrap_or(session);
        }
        if id.slot() + 1 >= ConnId::MAX_SLOTS {
            tracing::error!("the shard has no slot left, and drops a connection");
            self.close(transport, CloseCode::TryAgainLater, "the host has as many connections as it may have");
            return None;
        }
        let connection = Rc::new(Connection::new(id, protocol, session.identity.clone(), transport.id));
        self.connections().insert(connection.clone());
        transport.connections.borrow_mut().push(id);
        self.shared().hub.connect(id, session.identity.clone(), self.shared().clock.now_ms());
        self.members().join(&connection, MemberList::All);
        self.adopt_session(&connection, session);
        Some(connection)
    }

    /// Opens a transport on which a client has signed in.
    pub(super) fn open_transport(self: &Rc<Self>, transport: &Rc<Transport>) {
        if transport.phase.get() == Phase::Authenticating {
            transport.phase.set(Phase::Open);
            transport.times.limit.set(u64::MAX);
        }
        self.check_transport(transport, self.now());
    }

    /// Notifies the features that listen for connections, after a delay or before the connection's first event.
    pub(super) fn notify_connect(self: &Rc<Self>, connection: &Rc<Connection>, auth: Option<&RawValue>) {
        if !self.shared().plugins.has_connect_listeners() {
            return;
        }
        *connection.connect_notice.borrow_mut() = Some(auth.map(RawValue::to_owned));
        let (shard, connection) = (self.clone(), connection.clone());
        spawn_local(async move {
            tokio::time::sleep(CONNECT_NOTICE_DELAY).await;
            shard.send_connect_notice(&connection);
        });
    }

    /// Notifies features of a connection now, if its notice is still pending.
    pub(super) fn send_connect_notice(&self, connection: &Connection) {
        if let Some(auth) = connection.connect_notice.take() {
            let identity = connection.identity.borrow().clone();
            let transport = self.transport_of(connection);
            let handshake = transport.map(|transport| self.handshake_of(&transport)).unwrap_or_default();
            self.shared().plugins.notify_connect(Opening {
                connection: connection.id,
                identity: &identity,
                namespace: connection.namespace(),
                auth: auth.as_deref(),
                handshake: &handshake,
                was_asked: connection.was_asked.get(),
            });
        }
    }

    /// The facts of a client's handshake for features: fields of a JSON object, which begin with a comma.
    pub(super) fn handshake_of(&self, transport: &Transport) -> String {
        let kept = match transport.eio() {
            Some(eio) => eio.credentials.handshake.clone(),
            None => transport.handshake.borrow().clone(),
        };
        let kept = kept.unwrap_or_default();
        format!(r#"{kept},"address":"{}","time":{}"#, transport.peer.ip(), self.shared().clock.now_ms())
    }

    /// Takes over the roles, the identity and the expiry of a token.
    pub(super) fn adopt_session(&self, connection: &Rc<Connection>, session: auth::Session) {
        self.members().leave_roles(connection);
        for role in &session.identity.roles {
            self.members().join(connection, MemberList::Role(role.as_str().into()));
        }
        connection.expires.set(session.expires_ms.unwrap_or(u64::MAX));
        connection.warns.set(session.expires_ms.map_or(u64::MAX, |expires| expires.saturating_sub(EXPIRY_WARNING_MS)));
        if session.expires_ms.is_some() {
            self.watch_wall_clock();
        }
        connection.credential.replace(session.credential);
        if !Arc::ptr_eq(&session.identity, &connection.identity.borrow()) {
            self.shared().hub.update_identity(connection.id, session.identity.clone());
            connection.identity.replace(session.identity);
            self.shared().plugins.recheck_rooms(connection.id);
        }
    }

    /// The session of a connection, as [`Shard::adopt_session`] took it over.
    pub(super) fn session_of(&self, connection: &Connection) -> auth::Session {
        let identity = connection.identity.borrow().clone();
        let expires_ms = Some(connection.expires.get()).filter(|expires| *expires != u64::MAX);
        let is_anonymous = self.is_anonymous_name(connection.id, &identity.user);
        auth::Session { identity, expires_ms, credential: connection.credential.borrow().clone(), is_anonymous }
    }

    /// Takes over the sessions of cookies that have changed, and ends the connections whose session has ended or is
    /// another user's now, detached ones too.
    pub(super) fn adopt_changes(self: &Rc<Self>, changes: &auth::SessionChanges) {
        let mut changed = Vec::new();
        self.connections().for_each(|connection| {
            let credential = connection.credential.borrow();
            let handle = credential.as_ref().and_then(|ids| ids.cookie_session.as_ref());
            changed.extend(handle.and_then(|handle| changes.get(&**handle)).map(|now| (connection.clone(), now)));
        });
        for (connection, session) in changed {
            let user = connection.identity.borrow().user.clone();
            match session.as_ref().filter(|session| session.identity.user == user) {
                Some(session) => {
                    self.adopt_session(&connection, session.clone());
                    if let Some(transport) = self.transport_of(&connection) {
                        self.check_transport(&transport, self.now());
                    }
                }
                None => self.kick(&connection, CloseCode::TokenExpired, SESSION_ENDED),
            }
        }
    }

    /// Ends the connections that a block keeps out, detached ones too. Returns their number.
    pub(super) fn end_blocked(self: &Rc<Self>, block: &auth::Block) -> usize {
        let now = self.shared().clock.wall_ms();
        let mut blocked = Vec::new();
        self.connections().for_each(|connection| {
            if block.applies_to(&self.session_of(connection), now) {
                blocked.push(connection.clone());
            }
        });
        for connection in &blocked {
            self.kick(connection, CloseCode::Disconnected, &block.refusal());
        }
        blocked.len()
    }

    /// Whether `user` is the anonymous name of connection `id`.
    pub(super) fn is_anonymous_name(&self, id: ConnId, user: &str) -> bool {
        self.shared().auth.anonymous_name(id).is_some_and(|name| name == user)
    }

    /// Ends a connection, and notifies the features.
    pub(super) fn end_connection(&self, connection: &Rc<Connection>) {
        if self.connection(connection.id).is_none() {
            // The connection has ended already, and another may have its slot.
            return;
        }
        self.remove_connection(connection);
        let departure = self.shared().hub.disconnect(connection.id);
        // At shutdown all connections end, and features are not notified.
        if let Some(departure) = departure.filter(|_| !self.is_stopping()) {
            self.shared().plugins.departed(connection.id, departure);
        }
    }

    /// Removes a connection from the shard. The hub has it still.
    pub(super) fn remove_connection(&self, connection: &Connection) {
        self.detached().drop_replay(connection);
        self.pending_resumes().remove(connection.id);
        self.imports().arrived(connection.id);
        connection.connect_notice.take();
        self.members().leave_all(connection);
        self.connections().remove(connection.id);
    }
}

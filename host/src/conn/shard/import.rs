//! Connections of other nodes of the cluster whose clients have come back to this one.
//!
//! The node that has the connection is asked for it. From then on the connection is here, too, and its frames are held, while
//! the owners of its scopes learn of this node. Then the other node gives it up, with what the client has not received, and the
//! client goes on.
//!
//! Where that node has gone, so has what the client had not received yet. The connection goes on all the same, as long as its
//! scopes have it as a member, so that nobody notices; the client is told that it has missed something, and asks for what it
//! shows anew.

use std::rc::Rc;
use std::time::Instant;

use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::parts::Shard;
use crate::auth;
use crate::conn::state::{Connection, MemberList, PendingResume, ReplayBuffer, SessionKey, Transport, TransportId};
use crate::hub::{Arrival, Claim, ConnectionTask, Progress, ShardCommand};
use crate::model::{CloseCode, ConnId, NodeId};
use crate::plugin::{Claimed, Whereabouts};
use crate::protocol::Protocol;

/// A client that wants to go on with a connection of another node.
pub(super) struct Returning {
    pub(super) key: SessionKey,
    pub(super) progress: Progress,
    pub(super) session: auth::Session,
    pub(super) protocol: Protocol,
    pub(super) way: Way,
}

/// How a client has come back.
pub(super) enum Way {
    Plain {
        /// The connection that was opened for the client, whose frames are held.
        new: Rc<Connection>,
        /// The id of `resume`, whose acknowledgement follows.
        id: Option<i128>,
    },
    SocketIo {
        auth: Option<Box<RawValue>>,
    },
}

/// A connection that goes on here.
struct Arrived {
    connection: Rc<Connection>,
    /// Whether all is here that its client has not received.
    is_complete: bool,
}

impl Shard {
    /// Begins to bring a connection here for its client. Returns false if too many are on their way.
    pub(super) fn begin_import(self: &Rc<Self>, transport: &Rc<Transport>, returning: Returning) -> bool {
        let Some(waiting) = self.imports().begin(transport.id, returning.protocol.namespace()) else { return false };
        if let Way::Plain { new, .. } = &returning.way {
            // The deadline of the first message: it has come.
            transport.times.limit.set(u64::MAX);
            self.hold_for_import(transport, new);
        }
        let (shard, transport) = (self.clone(), transport.clone());
        spawn_local(async move {
            let arrived = shard.import(&transport, &returning).await;
            shard.finish_import(waiting.get(), returning, arrived);
            shard.flush_dirty();
        });
        true
    }

    /// Holds the frames for a new connection that the client gives up if the other one comes.
    fn hold_for_import(&self, transport: &Transport, new: &Connection) {
        let is_held = new.transport.get().is_none();
        if !is_held && self.make_recoverable(new).is_some() {
            new.transport.set(None);
            let pending = PendingResume { transport: transport.id, is_over_limit: false };
            self.pending_resumes().insert(new.id, pending);
        }
    }

    async fn import(self: &Rc<Self>, transport: &Transport, returning: &Returning) -> Option<Arrived> {
        let Returning { key, progress, session, protocol, .. } = returning;
        let (id, plugins) = (key.connection, &self.shared().plugins);
        let claim = Claim {
            key: key.to_string(),
            progress: *progress,
            namespace: protocol.namespace().to_owned(),
            user: session.identity.user.to_string(),
            is_anonymous: session.is_anonymous,
        };
        let claimed = match plugins.claim(id, claim).await {
            Whereabouts::Claimed(claimed) => claimed,
            Whereabouts::Gone => return None,
            Whereabouts::Silent(node) => return self.inherit(transport, returning, node).await,
        };
        // What the client may have had from the other node already is not to come here.
        plugins.pass_threads().await;
        let connection = self.adopt(transport, returning, &claimed)?;
        plugins.place(id, claimed.from, false);
        let released = plugins.release(id, &claimed).await;
        // Whatever the other node has had is here now, and is told from what comes later.
        plugins.pass_threads().await;
        self.pass_queue(id).await;
        // A feature or an operator may have closed it meanwhile.
        self.connection(id)?;
        let Some(released) = released else {
            tracing::debug!(connection = %id, "the node of a connection did not give it up in time");
            // It stays there, if it is there.
            plugins.place_back(id, claimed.from);
            self.forget_import(&connection);
            return None;
        };
        self.detached().with_replay(&connection, |buffer| buffer.precede(released));
        plugins.place(id, claimed.from, true);
        self.metrics().transferred.inc();
        Some(Arrived { connection, is_complete: true })
    }

    /// Goes on with a connection whose node has gone.
    async fn inherit(self: &Rc<Self>, transport: &Transport, returning: &Returning, gone: NodeId) -> Option<Arrived> {
        let Returning { key, session, protocol, way, .. } = returning;
        // That node would have looked it up.
        self.authentic(key, protocol).filter(|authentic| authentic.is(key))?;
        let user = match session.is_anonymous {
            true => self.shared().auth.anonymous_name(key.connection)?,
            false => session.identity.user.to_string(),
        };
        let claimed = self.shared().plugins.inherit(key.connection, &user, gone).await?;
        let connection = self.adopt(transport, returning, &claimed)?;
        // A session of its own: the client must not take the old one for recovered.
        loop {
            match self.start_replay(&connection) {
                Some(new) if !new.is(key) => break,
                Some(_) => {}
                None => {
                    self.end_connection(&connection);
                    return None;
                }
            }
        }
        if let Way::Plain { new, .. } = way {
            let held = new.with_replay(|buffer| buffer.release(0, &new.protocol)).unwrap_or_default();
            self.detached().with_replay(&connection, |buffer| buffer.precede(held));
        }
        self.shared().plugins.place(key.connection, claimed.from, true);
        self.metrics().inherited.inc();
        Some(Arrived { connection, is_complete: false })
    }

    /// Adds a connection of another node. `None` where it would be over a limit of this one.
    fn adopt(
        self: &Rc<Self>,
        transport: &Transport,
        returning: &Returning,
        claimed: &Claimed,
    ) -> Option<Rc<Connection>> {
        let Returning { key, session, protocol, .. } = returning;
        let (id, hub) = (key.connection, &self.shared().hub);
        let mut session = session.clone();
        if session.is_anonymous {
            // It keeps its name, which is of its id.
            session = self.shared().auth.anonymous(id, transport.peer.ip())?;
        }
        let identity = session.identity.clone();
        let connection = Rc::new(Connection::new(id, protocol.clone(), identity.clone(), transport.id));
        connection.transport.set(None);
        let arrival = Arrival { identity, since_ms: claimed.since_ms, n_changes: claimed.n_changes };
        if !hub.adopt(id, self.index(), arrival) {
            return None;
        }
        self.imports().arrive(id);
        self.detached().start_replay(&connection, ReplayBuffer::of_key(key));
        self.connections().adopt(connection.clone());
        if matches!(protocol, Protocol::Plain) {
            hub.note_session(id);
        }
        self.members().join(&connection, MemberList::All);
        self.adopt_session(&connection, session);
        if !self.shared().plugins.adopt_memberships(id, claimed) {
            tracing::info!(connection = %id, "a connection of another node is in more rooms than it may be in here");
            self.forget_import(&connection);
            return None;
        }
        // By the client's new token, and by this node's rules.
        self.shared().plugins.recheck_rooms(id);
        Some(connection)
    }

    /// Removes a connection that does not go on here. No feature is told, because it stays where it was.
    fn forget_import(&self, connection: &Connection) {
        self.remove_connection(connection);
        self.shared().hub.disconnect(connection.id);
    }

    /// Waits until the commands that are in the queue now have run.
    async fn pass_queue(&self, connection: ConnId) {
        let (passed, passing) = oneshot::channel();
        let task = ConnectionTask(Box::new(move || {
            // An error means that nobody waits.
            let _ = passed.send(());
        }));
        self.queue().push(ShardCommand::Run { connection, task });
        // An error means that the connection has ended, which the caller sees.
        let _ = passing.await;
    }

    fn finish_import(self: &Rc<Self>, transport: TransportId, returning: Returning, arrived: Option<Arrived>) {
        let held = self.imports().end(transport, returning.protocol.namespace());
        if let Some(Arrived { connection, .. }) = &arrived {
            self.imports().arrived(connection.id);
            self.detach(connection);
        }
        let Some(transport) = self.transport(transport).filter(|transport| transport.is_up()) else { return };
        let transport = &transport;
        let Returning { session, protocol, way, .. } = returning;
        // A block may have come meanwhile, or the end of the session.
        let session = match self.shared().auth.readmit(session) {
            Ok(session) => session,
            Err(refused) => return self.close(transport, CloseCode::Forbidden, &refused.to_string()),
        };
        match (way, arrived) {
            (Way::Plain { new, id }, Some(Arrived { connection, is_complete })) => {
                self.discard_new(transport, &new);
                self.complete_resume(transport, &connection, (0, is_complete), session, id);
            }
            (Way::Plain { new, id }, None) => {
                if self.confirm(transport, &new) {
                    self.begin_session(transport, &new, id);
                }
            }
            (Way::SocketIo { .. }, Some(Arrived { connection, .. })) => {
                self.resume_namespace(transport, &connection, 0, session);
            }
            (Way::SocketIo { auth }, None) => {
                self.open_namespace(transport, protocol.namespace(), auth.as_deref(), session);
            }
        }
        for text in held.into_texts() {
            if transport.is_up() {
                self.on_plain_text(transport, &text, Instant::now());
            }
        }
    }
}

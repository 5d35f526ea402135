//! The polling Engine.IO sessions of all shards.
//!
//! A polling client makes one HTTP request after another, over any TCP connection and so on any shard. The table maps
//! each session to its shard, to which requests are handed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tokio::sync::oneshot;

use super::eio_session::{Poll, PollError, Polled, Sid};
use super::handoff::Handoff;
use crate::model::Mailbox;

/// The most commands that wait for one shard. Their number is bounded by the open requests and sockets, and some
/// aborted requests.
const COMMANDS: usize = 65_536;

/// Time between two [`EioCommand::Progress`] notices for a request.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Commands to the shard of a session.
#[derive(Debug)]
pub(crate) enum EioCommand {
    /// A GET request that waits for packets.
    Poll { id: Sid, poll: Poll },
    /// A POST request that brought packets.
    Post { id: Sid, body: String, answer: oneshot::Sender<Polled> },
    /// A POST request whose body is still arriving.
    Progress { id: Sid },
    /// A request that was aborted, or violated the protocol.
    Fail { id: Sid },
    /// A WebSocket that is to take over from polling.
    Probe { id: Sid, handoff: Box<Handoff> },
    /// A transport from another shard, whose client resumes a connection of this one.
    Handoff(Box<Handoff>),
}

#[derive(Debug)]
struct Route {
    shard: AtomicUsize,
    /// Whether a POST request is open.
    posting: AtomicBool,
    /// Whether a WebSocket has taken over.
    is_upgraded: AtomicBool,
}

/// The polling sessions of all shards, and the shards' queues of requests.
#[derive(Debug)]
pub struct EioSessions {
    routes: DashMap<Sid, Arc<Route>>,
    inboxes: Vec<Mailbox<EioCommand>>,
}

impl EioSessions {
    /// A table for so many shards.
    pub fn new(shards: usize) -> Self {
        let inboxes = (0..shards).map(|_| Mailbox::new(COMMANDS)).collect();
        Self { routes: DashMap::new(), inboxes }
    }

    pub(crate) fn inbox(&self, shard: usize) -> &Mailbox<EioCommand> {
        &self.inboxes[shard]
    }

    pub(crate) fn insert(&self, id: Sid, shard: usize) {
        let route = Route { shard: shard.into(), posting: false.into(), is_upgraded: false.into() };
        self.routes.insert(id, Arc::new(route));
    }

    pub(crate) fn remove(&self, id: Sid) {
        self.routes.remove(&id);
    }

    /// Routes a session's requests to another shard, unless it has ended there already.
    pub(crate) fn set_shard(&self, id: Sid, shard: usize) {
        if let Some(route) = self.routes.get(&id) {
            route.shard.store(shard, Ordering::Relaxed);
        }
    }

    /// Marks a session as upgraded to a WebSocket.
    pub(crate) fn set_upgraded(&self, id: Sid) {
        if let Some(route) = self.routes.get(&id) {
            route.is_upgraded.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a session was upgraded to a WebSocket; `None` where the session does not exist.
    pub(crate) fn is_upgraded(&self, id: Sid) -> Option<bool> {
        self.routes.get(&id).map(|route| route.is_upgraded.load(Ordering::Relaxed))
    }

    /// The index of a session's shard.
    pub(crate) fn shard_of(&self, id: Sid) -> Option<usize> {
        self.routes.get(&id).map(|route| route.shard.load(Ordering::Relaxed))
    }

    /// Hands a command to the shard of a session. Returns whether the session exists.
    pub(crate) fn send(&self, id: Sid, command: EioCommand) -> bool {
        let shard = self.shard_of(id);
        if let Some(shard) = shard {
            self.inboxes[shard].push(command);
        }
        shard.is_some()
    }

    /// Waits for packets of a session, at most `max_packets`. Dropping the future ends the session.
    ///
    /// # Errors
    /// Where the session does not exist, or has a waiting request already.
    pub(crate) async fn poll(&self, id: Sid, max_packets: usize) -> Polled {
        let (answer, answered) = oneshot::channel();
        let poll = Poll { answer, max_packets };
        self.ask(id, EioCommand::Poll { id, poll }, answered).await
    }

    /// Begins a POST request.
    ///
    /// # Errors
    /// Where the session does not exist, or has another open POST request.
    pub(crate) fn begin_post(&self, id: Sid) -> Result<Posting<'_>, PollError> {
        let route = self.routes.get(&id).map(|route| route.clone()).ok_or(PollError::Unknown)?;
        if route.posting.swap(true, Ordering::Relaxed) {
            self.send(id, EioCommand::Fail { id });
            return Err(PollError::Bad);
        }
        Ok(Posting { sessions: self, id, route, is_complete: false, noted: Instant::now() })
    }

    async fn ask(&self, id: Sid, command: EioCommand, answered: oneshot::Receiver<Polled>) -> Polled {
        let mut waiting = Waiting { sessions: self, id, is_answered: false };
        let answer = if self.send(id, command) { answered.await } else { Ok(Err(PollError::Unknown)) };
        waiting.is_answered = true;
        answer.unwrap_or(Err(PollError::Unknown))
    }
}

/// A request that waits for its answer. If it is aborted, its session ends, because packets may be lost.
struct Waiting<'a> {
    sessions: &'a EioSessions,
    id: Sid,
    is_answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.sessions.send(self.id, EioCommand::Fail { id: self.id });
        }
    }
}

/// A POST request while its body is read. If it is aborted, its session ends.
#[derive(Debug)]
pub(crate) struct Posting<'a> {
    sessions: &'a EioSessions,
    id: Sid,
    route: Arc<Route>,
    is_complete: bool,
    /// When the session was last told of it, in milliseconds of uptime.
    noted: Instant,
}

impl Posting<'_> {
    /// Counts received bytes as a heartbeat: on a slow line a client cannot send a pong during its upload.
    pub(crate) fn progress(&mut self) {
        if self.noted.elapsed() >= PROGRESS_INTERVAL {
            self.noted = Instant::now();
            self.sessions.send(self.id, EioCommand::Progress { id: self.id });
        }
    }

    /// Leaves the request unread. The session continues.
    pub(crate) fn refuse(mut self) {
        self.is_complete = true;
    }

    /// Hands the packets to the session's shard, and waits for the answer.
    ///
    /// # Errors
    /// Where the session has ended, or the packets violate the protocol.
    pub(crate) async fn finish(mut self, body: String) -> Polled {
        self.is_complete = true;
        let (answer, answered) = oneshot::channel();
        self.sessions.ask(self.id, EioCommand::Post { id: self.id, body, answer }, answered).await
    }
}

impl Drop for Posting<'_> {
    fn drop(&mut self) {
        self.route.posting.store(false, Ordering::Relaxed);
        if !self.is_complete {
            self.sessions.send(self.id, EioCommand::Fail { id: self.id });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn concurrent_post_ends_the_session() {
        let sessions = EioSessions::new(1);
        let id = Sid::from_number(1);
        assert_eq!(sessions.begin_post(id).err(), Some(PollError::Unknown));
        sessions.insert(id, 0);
        let posting = sessions.begin_post(id).unwrap();
        assert_eq!(sessions.begin_post(id).err(), Some(PollError::Bad));
        drop(posting);
        let mut commands = std::collections::VecDeque::new();
        sessions.inbox(0).receive(&mut commands).await;
        let failures = commands.iter().filter(|command| matches!(command, EioCommand::Fail { .. })).count();
        assert_eq!(failures, 2, "the second request, and the first one, which broke off");
        sessions.remove(id);
        assert_eq!((sessions.poll(id, usize::MAX).await, sessions.is_upgraded(id)), (Err(PollError::Unknown), None));
    }
}

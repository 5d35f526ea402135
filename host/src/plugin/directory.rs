//! Connections, users and rooms of the whole cluster, or of this host if it is alone.

use std::collections::HashSet;
use std::sync::Arc;

use super::run::clustered::node::Node;
use super::run::clustered::questions::{Question, Reply, WireEmit};
use super::runtime::Runtime;
use crate::hub::{ConnectionInfo, Hub, Page, Publication, RecipientCount, RoomPage, WakeBatch};
use crate::model::{CloseCode, ConnId, Failure};

/// Connections on all nodes of a cluster. Each answer is exact if no connection comes or goes meanwhile.
impl Runtime {
    fn node(&self) -> Option<&Arc<Node>> {
        self.0.shared.node.as_ref()
    }

    fn hub(&self) -> &Hub {
        &self.0.shared.hub
    }

    async fn ask(&self, node: &Node, question: Question) -> Result<Vec<Reply>, Failure> {
        self.0.shared.ask_all(node, question).await
    }

    /// Emits straight to connections, and returns how many.
    ///
    /// # Errors
    /// Where a node does not answer. The others have emitted.
    pub async fn emit(&self, publication: Publication) -> Result<usize, Failure> {
        if let Some(node) = self.node() {
            let replies = self.ask(node, Question::Emit(vec![WireEmit::of(&publication)])).await?;
            return Ok(replies.iter().map(|reply| reply.connections).sum());
        }
        let recipients = self.hub().count_recipients(&publication.to, &publication.except);
        if recipients.connections > 0 {
            self.hub().publish(publication, &WakeBatch::default());
        }
        Ok(recipients.connections)
    }

    /// At most `limit` connections after `after`, of one user or of all.
    ///
    /// # Errors
    /// Where a node does not answer.
    pub async fn page_of_connections(
        &self,
        user: Option<&str>,
        after: Option<ConnId>,
        limit: usize,
    ) -> Result<Page, Failure> {
        let Some(node) = self.node() else { return Ok(self.hub().page_of_connections(user, after, limit)) };
        let user = user.map(str::to_owned);
        // One more than asked for tells whether there is a next page.
        let question = Question::Connections { user, after: after.map(ConnId::to_bits), limit: limit + 1 };
        Ok(merge(self.ask(node, question).await?, limit))
    }

    /// All connections of a user.
    ///
    /// # Errors
    /// Where a node does not answer.
    pub async fn connections_of(&self, user: &str) -> Result<Vec<ConnectionInfo>, Failure> {
        Ok(self.page_of_connections(Some(user), None, usize::MAX - 1).await?.connections)
    }

    /// A connection, if it has not ended.
    ///
    /// # Errors
    /// Where a node does not answer.
    pub async fn connection(&self, id: ConnId) -> Result<Option<ConnectionInfo>, Failure> {
        let Some(node) = self.node() else { return Ok(self.hub().connection(id)) };
        let replies = self.ask(node, Question::Connection(id.to_bits())).await?;
        Ok(replies.into_iter().flat_map(|reply| reply.page).next().map(Into::into))
    }

    /// The size of a room, and at most `limit` members after `after`. `None` for an empty room.
    ///
    /// # Errors
    /// Where a node does not answer.
    pub async fn page_of_room(
        &self,
        room: &str,
        after: Option<ConnId>,
        limit: usize,
    ) -> Result<Option<RoomPage>, Failure> {
        let Some(node) = self.node() else { return Ok(self.hub().page_of_room(room, after, limit)) };
        let after = after.map(ConnId::to_bits);
        let replies = self.ask(node, Question::Room { room: room.to_owned(), after, limit: limit + 1 }).await?;
        let connections = replies.iter().map(|reply| reply.connections).sum();
        let users: HashSet<&str> = replies.iter().flat_map(|reply| &reply.users).map(String::as_str).collect();
        let size = RecipientCount { connections, users: users.len() };
        Ok((connections > 0).then(|| RoomPage { size, page: merge(replies, limit) }))
    }

    /// Closes a connection. Returns whether there was one.
    ///
    /// # Errors
    /// Where a node does not answer.
    pub async fn close_connection(&self, id: ConnId, reason: &str) -> Result<bool, Failure> {
        if let Some(node) = self.node() {
            let question = Question::CloseConnection { connection: id.to_bits(), reason: reason.to_owned() };
            return Ok(self.ask(node, question).await?.iter().any(|reply| reply.connections > 0));
        }
        let is_here = self.hub().identity(id).is_some();
        self.hub().close(id, CloseCode::Disconnected, reason);
        Ok(is_here)
    }

    /// Closes the connections of a user, and returns how many.
    ///
    /// # Errors
    /// Where a node does not answer. The others have closed theirs.
    pub async fn close_user(&self, user: &str, reason: &str) -> Result<usize, Failure> {
        if let Some(node) = self.node() {
            let question = Question::CloseUser { user: user.to_owned(), reason: reason.to_owned() };
            return Ok(self.ask(node, question).await?.iter().map(|reply| reply.connections).sum());
        }
        let connections = self.hub().connections_of(user);
        connections.iter().for_each(|id| self.hub().close(*id, CloseCode::Disconnected, reason));
        Ok(connections.len())
    }

    /// Answers the questions of other nodes that are for a module above this one.
    pub fn answer_others(&self, answer: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) {
        if let Some(node) = self.node() {
            node.answer_others(Box::new(answer));
        }
    }

    /// Asks all other nodes, whose modules above this one answer; none if this host is alone.
    ///
    /// # Errors
    /// Where a node does not answer. The others have.
    pub async fn ask_others(&self, question: Vec<u8>) -> Result<Vec<Vec<u8>>, Failure> {
        let Some(node) = self.node() else { return Ok(Vec::new()) };
        let replies = self.ask(node, Question::Other(question)).await?;
        // The first is this node's own.
        Ok(replies.into_iter().skip(1).map(|reply| reply.other).collect())
    }
}

/// The first `limit` connections of all pages, in the order of their ids.
fn merge(replies: Vec<Reply>, limit: usize) -> Page {
    let connections = replies.into_iter().flat_map(|reply| reply.page).map(ConnectionInfo::from);
    let mut connections: Vec<_> = connections.collect();
    connections.sort_unstable_by_key(|connection| connection.id);
    let has_more = connections.len() > limit;
    connections.truncate(limit);
    let next = connections.last().filter(|_| has_more).map(|connection| connection.id);
    Page { connections, next }
}

//! Connections, users and rooms of the whole cluster, or of this host if it is alone.

use std::collections::HashSet;
use std::sync::Arc;

use super::run::clustered::node::Node;
use super::run::clustered::operators::Blocking;
use super::run::clustered::questions::{Question, Reply};
use super::runtime::Runtime;
use crate::hub::{ConnectionInfo, Hub, Page, Publication, RecipientCount, RoomPage};
use crate::model::{ConnId, Failure};

/// Connections on all nodes of a cluster. Each answer is exact if no connection comes or goes meanwhile.
impl Runtime {
    /// This host as a node of its cluster, if it is in one.
    pub(super) fn node(&self) -> Option<&Arc<Node>> {
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
            let replies = self.ask(node, Question::Emit((&publication).into())).await?;
            return Ok(connections(&replies));
        }
        Ok(self.hub().publish_counted(publication))
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
        let limit_of_each = limit.saturating_add(1);
        let question = Question::Connections { user, after: after.map(ConnId::to_bits), limit: limit_of_each };
        Ok(merge(self.ask(node, question).await?, limit))
    }

    /// All connections of a user.
    ///
    /// # Errors
    /// Where a node does not answer.
    pub async fn connections_of(&self, user: &str) -> Result<Vec<ConnectionInfo>, Failure> {
        Ok(self.page_of_connections(Some(user), None, usize::MAX).await?.connections)
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
        let connections = connections(&replies);
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
            return Ok(connections(&self.ask(node, question).await?) > 0);
        }
        Ok(self.hub().disconnect_one(id, reason))
    }

    /// Sets what puts the blocks of other nodes in force here.
    pub(crate) fn set_blocking(&self, blocking: Box<dyn Blocking>) {
        if let Some(node) = self.node() {
            node.set_blocking(blocking);
        }
    }

    /// Has all other nodes put a block in force or lift it, and returns how many connections that has closed there.
    ///
    /// # Errors
    /// Where a node does not answer.
    pub async fn block_on_others(&self, change: String) -> Result<usize, Failure> {
        let Some(node) = self.node() else { return Ok(0) };
        Ok(connections(&self.ask(node, Question::Block(change)).await?))
    }

    /// Closes the connections of a user, and returns how many.
    ///
    /// # Errors
    /// Where a node does not answer. The others have closed theirs.
    pub async fn close_user(&self, user: &str, reason: &str) -> Result<usize, Failure> {
        if let Some(node) = self.node() {
            let question = Question::CloseUser { user: user.to_owned(), reason: reason.to_owned() };
            return Ok(connections(&self.ask(node, question).await?));
        }
        Ok(self.hub().disconnect_user(user, reason))
    }
}

/// The connections that all nodes have counted.
fn connections(replies: &[Reply]) -> usize {
    replies.iter().map(|reply| reply.connections).sum()
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

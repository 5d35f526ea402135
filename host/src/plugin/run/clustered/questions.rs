//! What nodes ask each other on behalf of operators, services and features: each answers for its own connections.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::node::Node;
use super::operators::{RunningBuild, TryBuild};
use super::transfers::{WireClaimed, WireFound, WireLateAnswer, WireReleased};
use super::wire::{WireAudiences, WireIdentity, WireOutput, WirePublication, audiences_of_wire, decode, encode};
use crate::cluster::{Answer, Partition, Responder};
use crate::hub::{Claim, ConnectionInfo, Publication};
use crate::model::{ConnId, ErrorCode, Failure, NodeId};
use crate::plugin::run::job::Answers;
use crate::plugin::run::shared::Shared;

/// The time that an answer may take: a node that was killed is given up within it.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A question to a node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Emits to connections, and counts them.
    Emit(WirePublication),
    /// Counts the recipients of these emits together.
    Count(Vec<WireAudiences>),
    /// At most `limit` connections after `after`, of one user or of all.
    Connections {
        user: Option<String>,
        after: Option<u64>,
        limit: usize,
    },
    Connection(u64),
    /// The size of a room, and at most `limit` of its members after `after`.
    Room {
        room: String,
        after: Option<u64>,
        limit: usize,
    },
    CloseConnection {
        connection: u64,
        reason: String,
    },
    CloseUser {
        user: String,
        reason: String,
    },
    /// Asks every scope of a plugin that the node owns.
    Gather {
        plugin: String,
        name: String,
        data: String,
        limit: usize,
    },
    /// Tries a build that is to run on all nodes.
    Try(TryBuild),
    /// The builds that the node runs.
    Builds,
    /// Whether the user has a connection there that a client of the plain protocol may resume.
    HasSession(String),
    /// Claims a connection, whose client has come back to the node that asks.
    Claim(Claim),
    /// Gives up a connection that was claimed, once its scopes know the node that asks.
    Release(u64),
    /// The scopes that have a connection as a member whose nodes have all gone: see [`super::news::News::Find`].
    Find {
        connection: u64,
        user: String,
        gone: u16,
    },
    /// Does what a commit of this partition has the node do for a connection that goes on there.
    Perform(u8, WireOutput),
    /// Answers the event of a client that goes on there.
    Answer(WireLateAnswer),
    /// Puts a block in force or lifts it: what [`super::operators::Blocking`] takes.
    Block(String),
}

/// A node's answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// Connections that were reached, closed or counted.
    pub(crate) connections: usize,
    /// The users of those that were counted.
    pub(crate) users: HashSet<String>,
    pub(crate) page: Vec<WireConnection>,
    pub(crate) answers: Vec<Box<str>>,
    pub(crate) omitted: u32,
    /// Why a build cannot run there.
    pub(crate) refusal: Option<String>,
    pub(crate) builds: Vec<RunningBuild>,
    pub(crate) claimed: Option<WireClaimed>,
    /// Whether a connection that was claimed is there, and its client may not go on with it.
    pub(crate) is_refused: bool,
    /// The node at which a connection that was claimed goes on already.
    pub(crate) is_at: Option<u16>,
    pub(crate) released: Option<WireReleased>,
    pub(crate) found: Option<Vec<WireFound>>,
}

/// A connection, for other nodes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireConnection {
    id: u64,
    identity: WireIdentity,
    since_ms: u64,
    rooms: Vec<String>,
}

impl From<ConnectionInfo> for WireConnection {
    fn from(connection: ConnectionInfo) -> Self {
        let ConnectionInfo { id, identity, since_ms, rooms } = connection;
        let rooms = rooms.iter().map(|room| (**room).to_owned()).collect();
        Self { id: id.to_bits(), identity: (&*identity).into(), since_ms, rooms }
    }
}

impl From<WireConnection> for ConnectionInfo {
    fn from(connection: WireConnection) -> Self {
        let WireConnection { id, identity, since_ms, rooms } = connection;
        let rooms = rooms.into_iter().map(Into::into).collect();
        Self { id: ConnId::from_bits(id), identity: identity.into(), since_ms, rooms }
    }
}

/// Answers another node's question.
pub(super) fn answer(shared: &Arc<Shared>, question: &[u8], responder: Responder) {
    match decode::<Question>(question) {
        Ok(Question::Claim(claim)) => {
            let (shared, by) = (shared.clone(), responder.node());
            tokio::spawn(async move { responder.answer(encode(&shared.claimed(claim, by).await)) });
        }
        Ok(Question::Find { connection, user, gone }) => {
            let finding = shared.find(ConnId::from_bits(connection), &user, NodeId(gone));
            tokio::spawn(async move { responder.answer(encode(&Reply { found: finding.await, ..Reply::default() })) });
        }
        Ok(Question::Release(id)) => {
            let (shared, by) = (shared.clone(), responder.node());
            tokio::spawn(async move {
                let released = shared.released(ConnId::from_bits(id), by).await;
                responder.answer(encode(&Reply { released, ..Reply::default() }));
            });
        }
        Ok(Question::Gather { plugin, name, data, limit }) => {
            let gathered =
                shared.plugin(&plugin).map(|plugin| shared.begin_gathering(&plugin, &name, &data, limit, None));
            tokio::spawn(async move {
                let (answers, omitted) = collect(gathered.unwrap_or_default()).await;
                responder.answer(encode(&Reply { answers, omitted, ..Reply::default() }));
            });
        }
        Ok(Question::Try(build)) => {
            let Some(builds) = shared.node.as_ref().and_then(|node| node.builds()) else { return };
            let answer = |refusal| responder.answer(encode(&Reply { refusal, ..Reply::default() }));
            builds.try_build(build, Box::new(answer));
        }
        Ok(Question::Block(change)) => {
            let Some(blocking) = shared.node.as_ref().and_then(|node| node.blocking()) else { return };
            let changing = blocking.change(change);
            tokio::spawn(async move {
                responder.answer(encode(&Reply { connections: changing.await, ..Reply::default() }));
            });
        }
        Ok(question) => responder.answer(encode(&shared.reply(question))),
        Err(error) => tracing::error!(%error, "a question of another node is not answered"),
    }
}

/// The answers of all threads.
async fn collect(gathered: Vec<oneshot::Receiver<Answers>>) -> Answers {
    let (mut answers, mut omitted) = (Vec::new(), 0);
    for thread in gathered {
        if let Ok((more, left_out)) = thread.await {
            answers.extend(more);
            omitted += left_out;
        }
    }
    (answers, omitted)
}

impl Shared {
    /// Answers a question for the connections of this node.
    fn reply(self: &Arc<Self>, question: Question) -> Reply {
        let hub = &self.hub;
        let page = |connections: Vec<ConnectionInfo>| connections.into_iter().map(Into::into).collect();
        match question {
            Question::Emit(publication) => {
                let publication = Publication::try_from(publication).ok();
                let connections = publication.map_or(0, |publication| hub.publish_counted(publication));
                Reply { connections, ..Reply::default() }
            }
            Question::Count(audiences) => {
                let audiences: Vec<_> = audiences.into_iter().map(audiences_of_wire).collect();
                let borrowed: Vec<_> = audiences.iter().map(|(to, except)| (&to[..], &except[..])).collect();
                let recipients = hub.recipients_of_all(&borrowed);
                let users = recipients.iter().filter_map(|id| Some(hub.identity(*id)?.user.to_string())).collect();
                Reply { connections: recipients.len(), users, ..Reply::default() }
            }
            Question::Connections { user, after, limit } => {
                let after = after.map(ConnId::from_bits);
                Reply {
                    page: page(hub.page_of_connections(user.as_deref(), after, limit).connections),
                    ..Reply::default()
                }
            }
            Question::Connection(id) => {
                Reply { page: page(hub.connection(ConnId::from_bits(id)).into_iter().collect()), ..Reply::default() }
            }
            Question::Room { room, after, limit } => self.reply_room(&room, after, limit),
            Question::CloseConnection { connection, reason } => {
                let is_here = hub.disconnect_one(ConnId::from_bits(connection), &reason);
                Reply { connections: usize::from(is_here), ..Reply::default() }
            }
            Question::CloseUser { user, reason } => {
                Reply { connections: hub.disconnect_user(&user, &reason), ..Reply::default() }
            }
            Question::Builds => {
                let builds = self.node.as_ref().and_then(|node| node.builds());
                Reply { builds: builds.map(|builds| builds.running()).unwrap_or_default(), ..Reply::default() }
            }
            Question::HasSession(user) => {
                Reply { connections: usize::from(hub.has_session(&user)), ..Reply::default() }
            }
            Question::Perform(partition, output) => {
                self.perform_passed(Partition(partition), output);
                Reply::default()
            }
            Question::Answer(answer) => {
                self.answer_passed(answer);
                Reply::default()
            }
            Question::Gather { .. }
            | Question::Try(_)
            | Question::Block(_)
            | Question::Claim(_)
            | Question::Find { .. }
            | Question::Release(_) => Reply::default(),
        }
    }

    fn reply_room(&self, room: &str, after: Option<u64>, limit: usize) -> Reply {
        let hub = &self.hub;
        let Some(found) = hub.page_of_room(room, after.map(ConnId::from_bits), limit) else { return Reply::default() };
        let users = hub.members(room).iter().filter_map(|id| Some(hub.identity(*id)?.user.to_string())).collect();
        let page = found.page.connections.into_iter().map(Into::into).collect();
        Reply { connections: found.size.connections, users, page, ..Reply::default() }
    }

    /// Asks this node and all others. The answer of this node is the first.
    ///
    /// # Errors
    /// If a node does not answer in time. What was asked may be done there all the same.
    pub(crate) async fn ask_all(self: &Arc<Self>, node: &Node, question: Question) -> Result<Vec<Reply>, Failure> {
        let asked = node.cluster.ask(node.cluster.others(), encode(&question), ANSWER_WITHIN);
        // This node does it when it has asked the others, and at once: a connection that goes from one node to another meets
        // it on one of them, and once.
        let mut replies = match question {
            // This node has begun it itself.
            Question::Gather { .. } | Question::Block(_) => Vec::new(),
            question => vec![self.reply(question)],
        };
        let answers = read_all(asked.await);
        for (other, reply) in answers {
            // A node that has gone has no connections any more.
            if let (None, Some(silent)) = (&reply, node.cluster.view().nodes.get(&other)) {
                return Err(no_answer(&silent.name));
            }
            replies.extend(reply);
        }
        Ok(replies)
    }

    /// Asks nodes.
    pub(crate) async fn ask_nodes(
        &self,
        node: &Node,
        nodes: Vec<NodeId>,
        question: &Question,
        within: Duration,
    ) -> Vec<(NodeId, Option<Reply>)> {
        if nodes.is_empty() {
            return Vec::new();
        }
        read_all(node.cluster.ask(nodes, encode(question), within).await)
    }
}

/// The answers that can be read.
fn read_all(answers: Vec<Answer>) -> Vec<(NodeId, Option<Reply>)> {
    answers.into_iter().map(|(node, answer)| (node, answer.and_then(|answer| decode(&answer).ok()))).collect()
}

fn no_answer(node: &str) -> Failure {
    let message = format!("{node} does not answer, though the other nodes of the cluster may have: try again soon");
    Failure::new(ErrorCode::FeatureUnavailable, message)
}

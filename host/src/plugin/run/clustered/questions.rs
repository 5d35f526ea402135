//! What nodes ask each other on behalf of operators, services and features: each answers for its own connections.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::node::Node;
use super::wire::{WireAudience, WireIdentity, WirePayload, decode, encode};
use crate::cluster::Responder;
use crate::hub::{Audience, ConnectionInfo, Publication, WakeBatch};
use crate::model::{CloseCode, ConnId, ErrorCode, Failure, Payload};
use crate::plugin::run::job::{Answers, Gather, Job};
use crate::plugin::run::shared::Shared;
use crate::protocol::Outgoing;

/// A question to a node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Emits to connections, and counts them.
    Emit(Vec<WireEmit>),
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
    /// A question of a module above, which answers it.
    Other(Vec<u8>),
}

/// An emit to connections.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireEmit {
    to: Vec<WireAudience>,
    except: Vec<WireAudience>,
    event: String,
    payload: WirePayload,
}

/// Audiences, and their exceptions.
pub(crate) type WireAudiences = (Vec<WireAudience>, Vec<WireAudience>);

impl WireEmit {
    pub(super) fn audiences((to, except): &(Vec<Audience>, Vec<Audience>)) -> WireAudiences {
        (to.iter().map(Into::into).collect(), except.iter().map(Into::into).collect())
    }

    pub(crate) fn of(publication: &Publication) -> Self {
        let Publication { to, except, outgoing, .. } = publication;
        Self {
            to: to.iter().map(Into::into).collect(),
            except: except.iter().map(Into::into).collect(),
            event: outgoing.event().to_owned(),
            payload: outgoing.payload().into(),
        }
    }
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
    pub(crate) other: Vec<u8>,
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
pub(super) fn answer(shared: &Arc<Shared>, node: &Node, question: &[u8], responder: Responder) {
    match decode::<Question>(question) {
        Ok(Question::Gather { plugin, name, data, limit }) => {
            let gathered = shared.begin_gathering(&plugin, &name, &data, limit);
            tokio::spawn(async move {
                let (answers, omitted) = collect(gathered).await;
                responder.answer(encode(&Reply { answers, omitted, ..Reply::default() }));
            });
        }
        Ok(question) => responder.answer(encode(&shared.reply(node, question))),
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
    fn reply(&self, node: &Node, question: Question) -> Reply {
        let hub = &self.hub;
        let page = |connections: Vec<ConnectionInfo>| connections.into_iter().map(Into::into).collect();
        match question {
            Question::Emit(emits) => {
                let wakes = WakeBatch::default();
                let publications = emits.into_iter().filter_map(publication);
                let connections = publications.map(|publication| {
                    let n = hub.count_recipients(&publication.to, &publication.except).connections;
                    hub.publish(publication, &wakes);
                    n
                });
                Reply { connections: connections.sum(), ..Reply::default() }
            }
            Question::Count(audiences) => {
                let of = |audiences: Vec<WireAudience>| audiences.into_iter().map(Audience::from).collect::<Vec<_>>();
                let audiences: Vec<_> = audiences.into_iter().map(|(to, except)| (of(to), of(except))).collect();
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
            Question::Room { room, after, limit } => {
                let Some(found) = hub.page_of_room(&room, after.map(ConnId::from_bits), limit) else {
                    return Reply::default();
                };
                let members = hub.members(&room);
                let users = members.iter().filter_map(|id| Some(hub.identity(*id)?.user.to_string())).collect();
                let (connections, page) = (found.size.connections, page(found.page.connections));
                Reply { connections, users, page, ..Reply::default() }
            }
            Question::CloseConnection { connection, reason } => {
                let id = ConnId::from_bits(connection);
                let is_here = hub.identity(id).is_some();
                hub.close(id, CloseCode::Disconnected, &reason);
                Reply { connections: usize::from(is_here), ..Reply::default() }
            }
            Question::CloseUser { user, reason } => {
                let connections = hub.connections_of(&user);
                connections.iter().for_each(|id| hub.close(*id, CloseCode::Disconnected, &reason));
                Reply { connections: connections.len(), ..Reply::default() }
            }
            Question::Other(question) => {
                let other = node.above.get().map(|above| above(&question)).unwrap_or_default();
                Reply { other, ..Reply::default() }
            }
            Question::Gather { .. } => Reply::default(),
        }
    }

    /// Has all threads ask the scopes of a plugin, for another node.
    fn begin_gathering(&self, plugin: &str, name: &str, data: &str, limit: usize) -> Vec<oneshot::Receiver<Answers>> {
        let Some(plugin) = self.plugin(plugin) else { return Vec::new() };
        let gather = |inbox: &Arc<crate::model::Mailbox<Job>>| {
            let (reply, answers) = oneshot::channel();
            let limit = limit / self.inboxes.len();
            let (plugin, name, data) = (plugin.clone(), name.into(), data.into());
            inbox.push(Job::Gather(Gather { plugin, name, data, limit, reply, progress: None, place: None }));
            answers
        };
        self.inboxes.iter().map(gather).collect()
    }

    /// Asks this node and all others. The answer of this node is the first.
    ///
    /// # Errors
    /// If a node does not answer in time. What was asked may be done there all the same.
    pub(crate) async fn ask_all(&self, node: &Node, question: Question) -> Result<Vec<Reply>, Failure> {
        let bytes = encode(&question);
        let mut replies = match question {
            // This node has begun it itself.
            Question::Gather { .. } => Vec::new(),
            question => vec![self.reply(node, question)],
        };
        let others = node.cluster.others();
        if !others.is_empty() {
            for (other, answer) in node.cluster.ask(others, bytes).await {
                match answer.and_then(|answer| decode::<Reply>(&answer).ok()) {
                    Some(reply) => replies.push(reply),
                    None if node.cluster.view().nodes.contains_key(&other) => return Err(silent(node, other)),
                    // It has gone with its connections.
                    None => {}
                }
            }
        }
        Ok(replies)
    }
}

fn silent(node: &Node, other: crate::model::NodeId) -> Failure {
    let view = node.cluster.view();
    let name = view.nodes.get(&other).map_or("a node that has gone", |info| info.name.as_str());
    let message = format!("{name} does not answer, though the other nodes of the cluster may have: try again soon");
    Failure::new(ErrorCode::FeatureUnavailable, message)
}

fn publication(emit: WireEmit) -> Option<Publication> {
    let WireEmit { to, except, event, payload } = emit;
    Some(Publication {
        to: to.into_iter().map(Into::into).collect(),
        except: except.into_iter().map(Into::into).collect(),
        outgoing: Arc::new(Outgoing::new(event, Payload::try_from(payload).ok()?)),
        volatile: false,
        receipt: None,
    })
}

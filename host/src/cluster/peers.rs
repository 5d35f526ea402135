//! Questions from node to node, for what operators and services ask of any node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::model::NodeId;

/// How often it is looked whether a node that has not answered lives.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The answer of a node; `None` if it did not come in time.
pub type Answer = (NodeId, Option<Bytes>);

/// The answers of all nodes that were asked.
pub type Answers = Vec<Answer>;

/// The questions that wait for answers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    questions: HashMap<u64, mpsc::UnboundedSender<(NodeId, Bytes)>>,
}

/// A question that waits for its answers.
pub(super) struct Pending {
    peers: Arc<Peers>,
    id: u64,
    nodes: Vec<NodeId>,
    answers: mpsc::UnboundedReceiver<(NodeId, Bytes)>,
}

impl Peers {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // No code that holds the lock can panic half way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a question to these nodes.
    pub(super) fn begin(self: &Arc<Self>, nodes: &[NodeId]) -> (u64, Pending) {
        let (sender, answers) = mpsc::unbounded_channel();
        let mut waiting = self.lock();
        waiting.last += 1;
        let id = waiting.last;
        waiting.questions.insert(id, sender);
        drop(waiting);
        (id, Pending { peers: self.clone(), id, nodes: nodes.to_vec(), answers })
    }

    /// Takes in an answer.
    pub(super) fn answered(&self, id: u64, node: NodeId, answer: Bytes) {
        if let Some(question) = self.lock().questions.get(&id) {
            // The asker may have gone.
            let _ = question.send((node, answer));
        }
    }
}

impl Pending {
    /// The answers that come within this time, of nodes that live.
    pub(super) async fn wait(mut self, within: Duration, lives: impl Fn(NodeId) -> bool) -> Answers {
        let mut answers: Answers = self.nodes.iter().map(|node| (*node, None)).collect();
        let until = Instant::now() + within;
        while answers.iter().any(|(node, answer)| answer.is_none() && lives(*node)) && Instant::now() < until {
            let Ok(answer) = timeout_at(until.min(Instant::now() + LOOK_AGAIN), self.answers.recv()).await else {
                continue;
            };
            let Some((node, answer)) = answer else { break };
            if let Some((_, place)) = answers.iter_mut().find(|(asked, _)| *asked == node) {
                *place = Some(answer);
            }
        }
        answers
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.peers.lock().questions.remove(&self.id);
    }
}

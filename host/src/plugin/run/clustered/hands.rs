//! The way of the cluster's news to the plugin threads.

use std::sync::Arc;

use bytes::Bytes;

use super::news::News;
use super::node::{Node, not_known};
use super::questions::answer;
use crate::cluster::{Committed, EventId, Listener, Partition, Responder, Snapshot, View};
use crate::hub::WakeBatch;
use crate::model::{CloseCode, NodeId};
use crate::plugin::run::job::Job;
use crate::plugin::run::shared::Shared;

/// Hands the cluster's news to the plugin threads, and does what commits of other nodes have this node do.
pub(crate) struct Hands {
    shared: Arc<Shared>,
    node: Arc<Node>,
}

impl Hands {
    /// The listener of a node. Without a cluster there is none.
    pub(crate) fn new(shared: &Arc<Shared>) -> Option<Self> {
        Some(Self { shared: shared.clone(), node: shared.node.clone()? })
    }

    fn tell(&self, partition: Partition, news: News) {
        self.shared.inboxes.of_number(partition.0.into()).push(Job::News(news));
    }

    fn tell_all(&self, news: impl Fn() -> News) {
        self.shared.submit_to_all(|| Job::News(news()));
    }
}

impl Listener for Hands {
    fn taken(&self, snapshot: Snapshot) {
        self.tell(snapshot.partition, News::Taken(Box::new(snapshot)));
    }

    fn committed(&self, partition: Partition, epoch: u64, sequence: u64, answer: Committed) {
        self.tell(partition, News::Committed { partition, epoch, sequence, answer });
    }

    fn event(&self, partition: Partition, id: EventId, event: Bytes) {
        self.tell(partition, News::Event { partition, id, event });
    }

    fn output(&self, partition: Partition, output: Bytes) {
        self.tell(partition, News::Output { partition, output });
    }

    fn missing(&self, partition: Partition, after: u64) {
        self.node.forwarding.forward_again(&self.node.cluster, partition, after);
    }

    fn nodes(&self, view: &Arc<View>) {
        self.tell_all(|| News::View(view.clone()));
    }

    fn plugins(&self, revision: u64) {
        if let Some(builds) = self.node.builds() {
            builds.follow(revision);
        }
    }

    fn reachable(&self, is_up: bool) {
        self.tell_all(|| News::Reachable(is_up));
    }

    fn reborn(&self, number: NodeId) {
        // New connections belong to the new node; those of the old one are gone for all others.
        self.shared.hub.set_node(number);
        self.node.count_as(number);
        let wakes = WakeBatch::default();
        for forwarded in self.node.forwarding.take_all() {
            self.shared.answer(forwarded.event.name(), forwarded.reply, Err(not_known()), &wakes);
        }
        self.tell_all(|| News::Reborn);
        self.shared.hub.close_all(CloseCode::Restart, "this node had lost its cluster: connect again");
    }

    fn ask(&self, question: &[u8], responder: Responder) {
        answer(&self.shared, question, responder);
    }
}

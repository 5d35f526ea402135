//! The state that all plugin threads share, with methods to queue events and to answer them.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arc_swap::ArcSwap;
use roundhouse_contract::PayloadBounds;

use super::clustered::node::Node;
use super::inboxes::Inboxes;
use super::job::{Envelope, Job};
use crate::hub::{Hub, ShardCommand, WakeBatch};
use crate::metrics::Metrics;
use crate::model::{Clock, ConnId, ErrorCode, Failure, Payload};
use crate::plugin::event::senders::Senders;
use crate::plugin::event::{AckMissing, ReplyTo};
use crate::plugin::guest::engine::Ticker;
use crate::plugin::load::catalogue::{Catalogue, Plugin};
use crate::plugin::load::options::PluginConfig;
use crate::store::Store;

/// The event name in the error of a client whose acknowledgement is too large.
const ACKNOWLEDGEMENT: &str = "acknowledgement";

/// The state that plugin threads, operators' requests and the rest of the host share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<PluginConfig>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) catalogue: Arc<ArcSwap<Catalogue>>,
    pub(crate) inboxes: Inboxes,
    /// This host as a node of a cluster; none if it is alone.
    pub(crate) node: Option<Arc<Node>>,
    /// The database of documents and durable states. A host that only inspects plugins has none.
    pub(crate) store: Option<Store>,
    /// Whether the host is stopping.
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) senders: Senders,
    /// The connections whose rooms are checked again when a backend has answered.
    pub(crate) rechecks: Mutex<HashSet<ConnId>>,
}

impl Shared {
    /// Queues a job for each thread.
    pub(crate) fn submit_to_all(&self, job: impl Fn() -> Job) {
        self.inboxes.iter().for_each(|inbox| inbox.push(job()));
    }

    /// Answers an event. A client's shard is woken together with the others of `wakes`.
    pub(crate) fn answer(&self, event: &str, reply: ReplyTo, outcome: Result<Payload, Failure>, wakes: &WakeBatch) {
        let Some((reply, outcome)) = self.pass_answer(event, reply, outcome) else { return };
        match reply {
            ReplyTo::Nobody => {}
            // Without an id, success is silent.
            ReplyTo::Client { id: None, .. } if outcome.is_ok() => {}
            ReplyTo::Client { connection, id, read_at } => {
                let command = ShardCommand::Reply { connection, event: event.into(), id, outcome, read_at };
                self.tell_shard(connection, command, wakes);
            }
            ReplyTo::Admission { connection } => {
                let command = ShardCommand::Admit { connection, outcome: outcome.map(drop) };
                self.tell_shard(connection, command, wakes);
            }
            // The gate answers events of other nodes.
            ReplyTo::Node { .. } => {}
            ReplyTo::Caller { caller, .. } => {
                // The caller may have gone.
                let _ = caller.send(outcome);
            }
        }
    }

    /// Tells the shard of a connection something.
    pub(crate) fn tell_shard(&self, connection: ConnId, command: ShardCommand, wakes: &WakeBatch) {
        if let Some(shard) = self.hub.queue_of(connection) {
            shard.push_quietly(command, wakes);
        }
    }

    /// Queues an event for the thread of its scope.
    pub(crate) fn submit(&self, envelope: Envelope) {
        self.inboxes.of(&envelope.address.key).push(Job::Event(envelope));
    }
    pub(crate) fn plugin(&self, name: &str) -> Option<Arc<Plugin>> {
        self.catalogue.load().plugins.get(name).cloned()
    }

    /// The failure of a request for a plugin that does not run.
    pub(crate) fn no_plugin(&self, name: &str) -> Failure {
        let catalogue = self.catalogue.load();
        match catalogue.idle.get(name).map(|idle| &idle.failed) {
            Some(Some(failed)) => Failure::new(
                ErrorCode::FeatureUnavailable,
                format!("the plugin {name} could not be started: {}", failed.error.message),
            ),
            Some(None) => Failure::new(
                ErrorCode::NotFound,
                format!("the plugin {name} is unloaded: load it, or reset it to the bundled build"),
            ),
            None => Failure::new(ErrorCode::NotFound, format!("there is no plugin {name}")),
        }
    }

    /// Checks a payload before it is queued.
    ///
    /// # Errors
    /// With `too_large` if the payload is over a bound.
    pub(crate) fn check_limits(&self, limits: &PayloadBounds, event: &str, payload: &Payload) -> Result<(), Failure> {
        let attached = payload.attachments.iter().map(bytes::Bytes::len).sum();
        limits.check(event, payload.args(), attached).map_err(|why| {
            self.metrics.events_over_limits.inc();
            Failure::new(ErrorCode::TooLarge, why)
        })
    }

    /// Checks the payload of a client's acknowledgement. If it is too large, the feature gets no answer, and the client
    /// gets an error.
    pub(crate) fn checked_answer(
        &self,
        plugin: &Plugin,
        connection: ConnId,
        payload: Payload,
    ) -> Result<Payload, AckMissing> {
        let limits = plugin.current().manifest.limits.of_others();
        match self.check_limits(&limits, ACKNOWLEDGEMENT, &payload) {
            Ok(()) => Ok(payload),
            Err(failure) => {
                let reply = ReplyTo::Client { connection, id: None, read_at: Instant::now() };
                self.answer(ACKNOWLEDGEMENT, reply, Err(failure), &WakeBatch::default());
                Err(AckMissing::TooLarge)
            }
        }
    }
}

pub(super) fn unavailable(message: String) -> Failure {
    Failure::new(ErrorCode::FeatureUnavailable, message)
}

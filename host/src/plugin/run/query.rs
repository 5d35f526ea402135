//! Queries to features, and the wait for their answers.

use std::sync::Arc;
use std::time::Duration;

use roundhouse_contract::ScopeAddress;
use tokio::sync::oneshot;

use super::clustered::questions::Question;
use super::job::{Answers, Envelope, Gather, Job};
use super::shared::Shared;
use crate::model::{ErrorCode, Failure, Mailbox, Payload};
use crate::plugin::event::senders::Reservation;
use crate::plugin::event::{Event, ReplyTo};
use crate::plugin::load::catalogue::Plugin;

/// The most scopes that one query without a scope asks.
const MAX_GATHERED_SCOPES: usize = 10_000;

/// The longest wait of a caller for an answer: far longer than any deadline, because events may wait before the query.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Shared {
    /// Sends a query to a feature and returns the answer. `data` is JSON.
    ///
    /// # Errors
    /// If there is no such feature or query, or the feature refuses the query or does not answer within
    /// [`ANSWER_TIMEOUT`].
    pub(crate) async fn query(self: &Arc<Self>, plugin: &str, name: &str, data: &str) -> Result<Payload, Failure> {
        let not_found = |message: String| Failure::new(ErrorCode::NotFound, message);
        let (plugin, address) = {
            let catalogue = self.catalogue.load();
            let plugin = catalogue.plugins.get(plugin).ok_or_else(|| self.no_plugin(plugin))?;
            let manifest = &plugin.current().manifest;
            let scope = manifest.queries.get(name);
            let scope = scope.ok_or_else(|| not_found(format!("{} has no query {name}", plugin.name)))?;
            let address =
                scope.map(|scope| manifest.scopes[scope].template.address(data)).transpose().map_err(bad_request)?;
            (plugin.clone(), address)
        };
        // Queries are bounded as events are.
        let place = Arc::new(Reservation::of_service(&plugin.backlog, &plugin.name, data.len())?);
        let (caller, answer) = oneshot::channel();
        let reply = ReplyTo::Caller { caller, once: None };
        if let Some(address) = address {
            let event = Event::Query { name: name.into(), data: data.into(), place: Some(place) };
            self.submit(Envelope { plugin, address, event, reply });
            return wait_for(answer).await?;
        }
        let (mut answers, mut omitted) = (Vec::new(), 0);
        for thread in self.begin_gathering(&plugin, name, data, MAX_GATHERED_SCOPES, Some(&place)) {
            let (more, left_out) = wait_for(thread).await?;
            answers.extend(more);
            omitted += left_out;
        }
        if let Some(node) = &self.node {
            let (name, data, limit) = (name.to_owned(), data.to_owned(), MAX_GATHERED_SCOPES);
            let question = Question::Gather { plugin: plugin.name.clone(), name, data, limit };
            for reply in self.ask_all(node, question).await? {
                answers.extend(reply.answers);
                omitted += reply.omitted;
            }
        }
        let event = Event::Gathered { name: name.into(), data: data.into(), answers, omitted };
        // The gathered answers have no scope, and so no state and no room.
        let address = ScopeAddress { key: "".into(), params: Arc::new([]) };
        self.submit(Envelope { plugin, address, event, reply });
        wait_for(answer).await?
    }

    /// Has all threads ask the scopes of a plugin that they have, at most `limit` together. `place` is the query's place in
    /// the plugin's backlog.
    pub(super) fn begin_gathering(
        &self,
        plugin: &Arc<Plugin>,
        name: &str,
        data: &str,
        limit: usize,
        place: Option<&Arc<Reservation>>,
    ) -> Vec<oneshot::Receiver<Answers>> {
        let gather = |inbox: &Arc<Mailbox<Job>>| {
            let (reply, answers) = oneshot::channel();
            let limit = limit / self.inboxes.len();
            let (plugin, name, data, place) = (plugin.clone(), name.into(), data.into(), place.cloned());
            inbox.push(Job::Gather(Gather { plugin, name, data, limit, reply, progress: None, place }));
            answers
        };
        self.inboxes.iter().map(gather).collect()
    }
}

/// A feature's answer that has yet to come.
#[derive(Debug)]
pub struct PendingAnswer(pub(crate) oneshot::Receiver<Result<Payload, Failure>>);

impl PendingAnswer {
    /// The answer, if it comes within [`ANSWER_TIMEOUT`].
    ///
    /// # Errors
    /// If the feature refuses the event, or does not answer in time.
    pub async fn in_time(self) -> Result<Payload, Failure> {
        wait_for(self.0).await?
    }

    /// The answer, however long it takes: that of a durable scope may wait for the store.
    ///
    /// # Errors
    /// If the feature refuses the event, or the host shuts down before the answer.
    pub async fn at_last(self) -> Result<Payload, Failure> {
        self.0.await.unwrap_or_else(|_| Err(Failure::new(ErrorCode::FeatureUnavailable, "the host is shutting down")))
    }
}

async fn wait_for<T>(answer: oneshot::Receiver<T>) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Failure::new(ErrorCode::FeatureUnavailable, "the host is shutting down")),
        Err(_) => Err(Failure::new(
            ErrorCode::FeatureUnavailable,
            "no answer came in time, but what was asked may still be done: repeat it with an idempotencyKey to be sure",
        )),
    }
}

/// The refusal of a payload that names no scope.
pub(crate) fn bad_request(message: String) -> Failure {
    Failure::new(ErrorCode::BadRequest, message)
}

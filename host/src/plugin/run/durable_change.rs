//! The change of a durable scope, as it is written to the store.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::envelope::Envelope;
use super::scope::Scope;
use super::shared::Shared;
use crate::ledger::Charge;
use crate::model::{ErrorCode, Failure, Payload};
use crate::plugin::event::{Event, ReplyTo};
use crate::store::{Acknowledge, AnsweredCall, ScopeRecord, StoreFailure, TimerRecord};

/// The answer to a call with an idempotency key, which is stored with the change that the call made.
pub(super) fn answered_call(shared: &Shared, reply: &ReplyTo, answer: &Payload) -> Option<AnsweredCall> {
    let ReplyTo::Caller { once: Some(once), .. } = reply else { return None };
    Some(AnsweredCall {
        caller: once.caller.clone(),
        key: once.key.clone(),
        fingerprint: once.fingerprint,
        answer: answer.first().to_owned(),
        answered_ms: shared.clock.now_ms(),
    })
}

/// A change of a durable scope, as it is written to the store.
#[derive(Debug)]
pub(super) enum DurableChange {
    Put(ScopeRecord, Charge),
    Drop { plugin: String, key: Arc<str>, epoch: u64 },
}

impl DurableChange {
    /// The whole of a durable scope that has changed since this was called last; none if it has not. `epoch` is that of the
    /// scope's owner in a cluster, and 0 on a host that is alone.
    pub(super) fn of(shared: &Shared, scope: &mut Scope, event: Option<&Event>, epoch: u64) -> Option<Self> {
        if shared.store.is_none() || !scope.is_durable || !scope.is_dirty {
            return None;
        }
        scope.is_dirty = false;
        scope.written = shared.clock.uptime_ms();
        let (plugin, key) = (scope.plugin.name.clone(), scope.address.key.clone());
        if scope.state.is_none() && scope.timers.is_empty() {
            return Some(Self::Drop { plugin, key, epoch });
        }
        // The scope expires after its last timer, so that a host that was down for long finds its timers.
        let last_due_ms = scope.timers.values().map(|timer| timer.due_ms).max().unwrap_or(0);
        let timers = scope.timers.iter().map(|(name, timer)| TimerRecord {
            name: name.to_string(),
            due_ms: timer.due_ms,
            after_ms: timer.after_ms,
            payload: timer.payload.to_string(),
        });
        let record = ScopeRecord {
            plugin,
            key: key.to_string(),
            version: scope.state.as_ref().map_or(0, |state| state.version),
            state: scope.state.as_ref().map(|state| state.bytes.to_vec()),
            before: scope.previous_schema_state.as_ref().map(|before| (before.version, before.bytes.to_vec())),
            sequence: scope.sequence,
            epoch,
            timers: timers.collect(),
            expires_ms: last_due_ms.max(shared.clock.now_ms()) + scope.idle_ms,
        };
        let before = record.before.as_ref().map_or(0, |(_, state)| state.len());
        let bytes = record.state.as_ref().map_or(0, Vec::len) + before;
        let charge = shared.charge_state(&scope.plugin, event, bytes);
        Some(Self::Put(record, charge))
    }

    pub(super) fn hand_over(self, shared: &Shared, acknowledge: Option<Acknowledge>, answered: Option<AnsweredCall>) {
        let Some(store) = &shared.store else { return };
        match self {
            Self::Put(record, charge) => store.put_scope(record, charge, acknowledge, answered),
            Self::Drop { plugin, key, epoch } => store.drop_scope(&plugin, &key, epoch, acknowledge, answered),
        }
    }

    /// Begins to write the change. What is returned resolves when it is written.
    pub(super) fn begin(self, shared: &Shared) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let (report, written) = oneshot::channel();
        let acknowledge: Acknowledge = Box::new(move |outcome| {
            // The receiver is gone if the host is stopping.
            let _ = report.send(outcome);
        });
        self.hand_over(shared, Some(acknowledge), None);
        async move {
            let stopping = || Failure::new(ErrorCode::FeatureUnavailable, "the host is stopping: try again");
            written.await.map_err(|_| stopping())?.map_err(Failure::from)
        }
    }

    /// Writes the change of a committed event, and has the event answered then.
    pub(super) fn write(
        self,
        shared: &Shared,
        envelope: Envelope,
        answer: Payload,
        then: impl FnOnce(Envelope, Result<Payload, Failure>) + Send + 'static,
    ) {
        let answered = answered_call(shared, &envelope.reply, &answer);
        let acknowledge: Acknowledge = Box::new(move |written: Result<(), StoreFailure>| {
            then(envelope, written.map(|()| answer).map_err(Failure::from));
        });
        self.hand_over(shared, Some(acknowledge), answered);
    }
}

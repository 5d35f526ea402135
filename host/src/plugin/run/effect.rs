//! Checked effects as the host commits them: with their charges, and with each event encoded for all of its recipients.

use std::sync::Arc;

use bytes::Bytes;
use roundhouse_contract as contract;
use roundhouse_contract::raw::StateChange;
use roundhouse_contract::{ConnectRefusal, Counted, Refusal, Rules, Uses, World};

use crate::hub::Publication;
use crate::ledger::Charge;
use crate::metrics::PluginMetrics;
use crate::model::{ConnId, Payload};
use crate::plugin::guest::lift;
use crate::plugin::guest::sandbox::Outcome;
use crate::protocol::Outgoing;

/// A checked effect.
#[derive(Debug)]
pub(crate) enum Effect {
    Publish(Publication),
    Ask {
        connections: Vec<ConnId>,
        outgoing: Arc<Outgoing>,
        tag: Box<str>,
        timeout_ms: u64,
        /// One charge for each connection; empty until the effect is charged.
        charges: Vec<Charge>,
    },
    Reply(Payload),
    /// A reply with the number of recipients of the outcome's emits, in this field.
    ReplyReached {
        field: Box<str>,
        of: Counted,
    },
    Join {
        connection: ConnId,
        room: Arc<str>,
    },
    Leave {
        connection: ConnId,
        room: Arc<str>,
    },
    Watch(ConnId),
    SetTimer {
        name: Box<str>,
        after_ms: u64,
        payload: Box<str>,
        charge: Charge,
    },
    CancelTimer(Box<str>),
    Save(Document),
    Fetch(Fetch),
    Disconnect {
        connection: ConnId,
        reason: String,
    },
    /// The only effect of its outcome.
    Refuse(ConnectRefusal),
}

/// A document to store.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) tag: String,
    pub(crate) collection: String,
    pub(crate) key: Option<String>,
    pub(crate) document: String,
    /// None until the document is charged.
    pub(crate) charge: Option<Arc<Charge>>,
}

/// A page of documents to fetch.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) tag: Box<str>,
    pub(crate) collection: String,
    pub(crate) before: Option<String>,
    pub(crate) limit: u32,
    pub(crate) charge: Charge,
}

/// A checked outcome.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) effects: Vec<Effect>,
    pub(crate) state: StateChange,
    /// The needs that the effects made use of.
    pub(crate) uses: Uses,
}

/// The connections as the contract's rules see them, while one event is handled.
pub(crate) struct Connections<K, C> {
    /// See [`World::is_known`].
    pub(crate) is_known: K,
    /// See [`World::has_come`].
    pub(crate) has_come: C,
}

impl<K: Fn(ConnId) -> bool, C: Fn(ConnId) -> bool> World for Connections<K, C> {
    type Connection = ConnId;

    fn connection(&self, id: &str) -> Option<ConnId> {
        id.parse().ok()
    }

    fn is_known(&self, connection: ConnId) -> bool {
        (self.is_known)(connection)
    }

    fn has_come(&self, connection: ConnId) -> bool {
        (self.has_come)(connection)
    }
}

/// Checks an outcome. `room` is the scope's room.
///
/// # Errors
/// With the first rule that the outcome breaks.
pub(crate) fn check<W: World<Connection = ConnId>>(
    rules: &Rules<'_, W>,
    room: &Arc<str>,
    outcome: Outcome,
) -> Result<Checked, Refusal> {
    let (effects, state) = lift::outcome(outcome);
    let (effects, state, uses) = rules.check(effects, state, |effect| Effect::new(effect, room))?;
    Ok(Checked { effects, state, uses })
}

/// How many effects an outcome has.
#[derive(Debug, Clone, Copy)]
pub(super) struct EffectCounts {
    effects: usize,
    /// The bytes of emits, each once.
    emitted_bytes: usize,
    saves: usize,
}

impl EffectCounts {
    pub(super) fn of(effects: &[Effect]) -> Self {
        let bytes = |effect: &Effect| match effect {
            Effect::Publish(Publication { outgoing, .. }) | Effect::Ask { outgoing, .. } => outgoing.bytes(),
            _ => 0,
        };
        Self {
            effects: effects.len(),
            emitted_bytes: effects.iter().map(bytes).sum(),
            saves: effects.iter().filter(|effect| matches!(effect, Effect::Save(_))).count(),
        }
    }

    pub(super) fn add_to(self, metrics: &PluginMetrics) {
        metrics.effects.inc_by(self.effects as u64);
        metrics.emitted_bytes.inc_by(self.emitted_bytes as u64);
        metrics.saves.inc_by(self.saves as u64);
    }
}

impl Effect {
    fn new(effect: contract::Effect<ConnId>, room: &Arc<str>) -> Self {
        let room = |named: Option<String>| named.map_or_else(|| room.clone(), Into::into);
        match effect {
            contract::Effect::Emit { to, except, event, payload, volatile } => {
                let outgoing = Arc::new(Outgoing::new(event, self::payload(payload)));
                Self::Publish(Publication { to, except, outgoing, volatile, receipt: None })
            }
            contract::Effect::EmitWithAck { connections, event, payload, tag, timeout_ms } => {
                let outgoing = Arc::new(Outgoing::new(event, self::payload(payload)));
                Self::Ask { connections, outgoing, tag: tag.into(), timeout_ms, charges: Vec::new() }
            }
            contract::Effect::Reply(reply) => Self::Reply(payload(reply)),
            contract::Effect::ReplyReached(field, of) => Self::ReplyReached { field: field.into(), of },
            contract::Effect::Join(connection, named) => Self::Join { connection, room: room(named) },
            contract::Effect::Leave(connection, named) => Self::Leave { connection, room: room(named) },
            contract::Effect::Watch(connection) => Self::Watch(connection),
            contract::Effect::SetTimer(timer) => Self::SetTimer {
                name: timer.name.into(),
                after_ms: timer.after_ms,
                payload: timer.payload.into(),
                charge: Charge::default(),
            },
            contract::Effect::CancelTimer(name) => Self::CancelTimer(name.into()),
            contract::Effect::Save(save) => Self::Save(Document {
                tag: save.tag,
                collection: save.collection,
                key: save.key,
                document: save.document,
                charge: None,
            }),
            contract::Effect::Fetch(fetch) => Self::Fetch(Fetch {
                tag: fetch.tag.into(),
                collection: fetch.collection,
                before: fetch.before,
                limit: fetch.limit,
                charge: Charge::default(),
            }),
            contract::Effect::Disconnect(connection, reason) => Self::Disconnect { connection, reason },
            contract::Effect::Refuse(refusal) => Self::Refuse(refusal),
        }
    }
}

fn payload(payload: contract::Payload) -> Payload {
    Payload::of_arguments(payload.arguments, payload.attachments.into_iter().map(Bytes::from).collect())
}

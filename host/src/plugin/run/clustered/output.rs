//! What a commit has a node do, and how the node does it: to its own connections.

use std::sync::Arc;

use roundhouse_contract::ScopeAddress;

use super::node::Node;
use super::pending::Owed;
use super::wire::{WireOutcome, WireOutput, WireScope, close_code, outcome_of_wire};
use crate::cluster::Partition;
use crate::hub::{Audience, Joined, Publication, ShardCommand, WakeBatch};
use crate::model::{CloseCode, ConnId, Identity, NodeId, Payload};
use crate::plugin::event::{AckMissing, Event, LeftReason, Member};
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::run::job::Envelope;
use crate::plugin::run::shared::Shared;
use crate::policy::{Action, Verdict};
use crate::protocol::Outgoing;

/// What a commit has a node do.
#[derive(Debug)]
pub(super) enum Output {
    Publish(Publication),
    Ask {
        connection: ConnId,
        ask: u64,
        outgoing: Arc<Outgoing>,
        scope: WireScope,
        timeout_ms: u64,
    },
    Join {
        connection: ConnId,
        room: Arc<str>,
        scope: WireScope,
        is_told: bool,
    },
    Leave {
        connection: ConnId,
        room: Arc<str>,
        scope: WireScope,
    },
    Watch {
        connection: ConnId,
        scope: WireScope,
        is_told: bool,
    },
    Unwatch {
        connection: ConnId,
        scope: WireScope,
    },
    Close {
        connection: ConnId,
        code: CloseCode,
        reason: String,
    },
    /// The scope knows that a connection goes on at another node, or that it does so here.
    Placed {
        connection: ConnId,
        scope: WireScope,
    },
    /// See [`WireOutput::Answer`].
    Answer {
        number: u64,
        outcome: Option<WireOutcome>,
    },
    /// See [`WireOutput::Underway`].
    Underway {
        number: u64,
        owner: NodeId,
    },
}

impl Output {
    pub(super) fn to_wire(&self) -> WireOutput {
        match self {
            Self::Publish(publication) => WireOutput::Publish(publication.into()),
            Self::Ask { connection, ask, outgoing, scope, timeout_ms } => WireOutput::Ask {
                timeout_ms: *timeout_ms,
                connection: connection.to_bits(),
                ask: *ask,
                event: outgoing.event().into(),
                payload: outgoing.payload().into(),
                scope: scope.clone(),
            },
            Self::Join { connection, room, scope, is_told } => {
                let (room, scope) = ((**room).into(), scope.clone());
                WireOutput::Join { connection: connection.to_bits(), room, scope, is_told: *is_told }
            }
            Self::Leave { connection, room, scope } => {
                let (room, scope) = ((**room).into(), scope.clone());
                WireOutput::Leave { connection: connection.to_bits(), room, scope }
            }
            Self::Watch { connection, scope, is_told } => {
                WireOutput::Watch { connection: connection.to_bits(), scope: scope.clone(), is_told: *is_told }
            }
            Self::Unwatch { connection, scope } => {
                WireOutput::Unwatch { connection: connection.to_bits(), scope: scope.clone() }
            }
            Self::Close { connection, code, reason } => WireOutput::Close {
                connection: connection.to_bits(),
                code: code.code(),
                reason: reason.as_str().into(),
            },
            Self::Placed { connection, scope } => {
                WireOutput::Placed { connection: connection.to_bits(), scope: scope.clone() }
            }
            Self::Answer { number, outcome } => WireOutput::Answer { number: *number, outcome: outcome.clone() },
            Self::Underway { number, owner } => WireOutput::Underway { number: *number, owner: owner.0 },
        }
    }

    /// The connection that this is for, if it is for one alone.
    pub(super) fn connection(&self) -> Option<ConnId> {
        match self {
            Self::Publish(publication) => match publication.to[..] {
                [Audience::Connection(connection)] => Some(connection),
                _ => None,
            },
            Self::Ask { connection, .. }
            | Self::Join { connection, .. }
            | Self::Leave { connection, .. }
            | Self::Watch { connection, .. }
            | Self::Unwatch { connection, .. }
            | Self::Close { connection, .. } => Some(*connection),
            Self::Placed { .. } | Self::Answer { .. } | Self::Underway { .. } => None,
        }
    }

    pub(super) fn of_wire(output: WireOutput) -> anyhow::Result<Self> {
        let id = ConnId::from_bits;
        let outgoing =
            |event: Box<str>, payload| anyhow::Ok(Arc::new(Outgoing::new(event, Payload::try_from(payload)?)));
        Ok(match output {
            WireOutput::Publish(publication) => Self::Publish(publication.try_into()?),
            WireOutput::Ask { connection, ask, event, payload, scope, timeout_ms } => {
                Self::Ask { connection: id(connection), ask, outgoing: outgoing(event, payload)?, scope, timeout_ms }
            }
            WireOutput::Join { connection, room, scope, is_told } => {
                Self::Join { connection: id(connection), room: room.into(), scope, is_told }
            }
            WireOutput::Leave { connection, room, scope } => {
                Self::Leave { connection: id(connection), room: room.into(), scope }
            }
            WireOutput::Watch { connection, scope, is_told } => {
                Self::Watch { connection: id(connection), scope, is_told }
            }
            WireOutput::Unwatch { connection, scope } => Self::Unwatch { connection: id(connection), scope },
            WireOutput::Close { connection, code, reason } => {
                Self::Close { connection: id(connection), code: close_code(code), reason: reason.into() }
            }
            WireOutput::Placed { connection, scope } => Self::Placed { connection: id(connection), scope },
            WireOutput::Answer { number, outcome } => Self::Answer { number, outcome },
            WireOutput::Underway { number, owner } => Self::Underway { number, owner: NodeId(owner) },
        })
    }
}

impl Shared {
    /// Does what a commit of a partition has this node do.
    pub(super) fn perform_output(
        self: &Arc<Self>,
        node: &Node,
        partition: Partition,
        output: Output,
        wakes: &WakeBatch,
    ) {
        if let Some(connection) = output.connection()
            && let Some(to) = node.transfers.node_of(connection)
        {
            return self.pass_on(node, to, partition, &output);
        }
        match output {
            Output::Publish(publication) => drop(self.hub.publish(publication, wakes)),
            Output::Ask { connection, ask, outgoing, scope, timeout_ms } => {
                let until_ms = self.clock.uptime_ms() + timeout_ms;
                self.ask_here(node, Owed { scope, ask, connection, until_ms }, outgoing, wakes);
            }
            Output::Join { connection, room, scope, is_told } => {
                self.join_here(connection, &room, &scope, is_told, wakes);
            }
            Output::Leave { connection, room, scope } => {
                let identity = self.hub.identity(connection);
                if self.hub.leave(connection, &room, wakes) && *room != *scope.key {
                    self.tell_room_owner(&room, connection, identity, |member| Event::Left {
                        member,
                        reason: LeftReason::Left,
                        is_gone: false,
                    });
                }
            }
            Output::Watch { connection, scope, is_told } => self.watch_here(connection, &scope, is_told),
            Output::Unwatch { connection, scope } => {
                if let Some((plugin, address)) = self.scope_of_wire(&scope) {
                    self.hub.unwatch(connection, plugin.number, &address.key);
                }
            }
            Output::Close { connection, code, reason } => self.hub.close(connection, code, &reason),
            Output::Placed { connection, scope } => {
                if !node.transfers.told(connection, &scope) && self.hub.identity(connection).is_none() {
                    self.tell_departure(connection, &scope, LeftReason::Disconnected);
                }
            }
            Output::Answer { number, outcome } => {
                let Some(forwarded) = node.forwarding.done(partition, number) else { return };
                if let Some(outcome) = outcome {
                    self.answer(forwarded.event.name(), forwarded.reply, outcome_of_wire(outcome), wakes);
                }
            }
            Output::Underway { number, owner } => node.forwarding.underway(partition, number, owner),
        }
    }

    /// Sends a client an event that it is to acknowledge.
    fn ask_here(self: &Arc<Self>, node: &Node, owed: Owed, outgoing: Arc<Outgoing>, wakes: &WakeBatch) {
        for (id, connection) in node.asks.sweep(self.clock.uptime_ms()) {
            self.hub.take_ack(connection, id);
        }
        let connection = owed.connection;
        let id = node.asks.add(owed);
        if self.hub.expect_ack(connection, id) {
            self.tell_shard(connection, ShardCommand::Ask { connection, id, outgoing }, wakes);
        } else {
            self.answered_ask(node, id, Err(AckMissing::Disconnected));
        }
    }

    fn watch_here(self: &Arc<Self>, connection: ConnId, scope: &WireScope, is_told: bool) {
        let Some((plugin, address)) = self.scope_of_wire(scope) else { return };
        if is_told && !self.may_join(connection, &scope.key, Action::Subscribe) {
            return self.tell_departure(connection, scope, LeftReason::Disconnected);
        }
        match self.hub.watch(connection, (plugin.number, address.key.clone())) {
            true => self.catch_up(connection, plugin, address),
            false => self.tell_departure(connection, scope, LeftReason::Disconnected),
        }
    }

    fn join_here(
        self: &Arc<Self>,
        connection: ConnId,
        room: &Arc<str>,
        scope: &WireScope,
        is_told: bool,
        wakes: &WakeBatch,
    ) {
        let identity = self.hub.identity(connection);
        let is_own = **room == *scope.key;
        if is_told && !self.may_join(connection, room, Action::Join) {
            return if is_own {
                self.tell_departure(connection, scope, LeftReason::Left)
            };
        }
        match self.hub.join(connection, room, wakes) {
            Joined::Gone => self.tell_departure(connection, scope, LeftReason::Disconnected),
            Joined::TooMany if is_own => self.tell_departure(connection, scope, LeftReason::Left),
            Joined::TooMany => {
                tracing::warn!(%connection, %room, "a join came to nothing: the connection is in as many rooms as it may be");
            }
            Joined::Yes | Joined::Already if is_own => {
                let Some((plugin, address)) = self.scope_of_wire(scope) else { return };
                if let Some(identity) = identity.filter(|_| is_told) {
                    let event = Event::Joined(Member { connection, identity });
                    self.submit(Envelope::without_reply(plugin.clone(), address.clone(), event));
                }
                self.catch_up(connection, plugin, address);
            }
            Joined::Yes => self.tell_room_owner(room, connection, identity, Event::Joined),
            Joined::Already => {}
        }
    }

    /// Whether the room policy lets a connection in that the owner of a scope did not know.
    fn may_join(&self, connection: ConnId, room: &str, action: Action) -> bool {
        let (Some(policy), Some(identity)) = (&self.config.rooms, self.hub.identity(connection)) else { return true };
        let may = matches!(policy.check(&identity, room, action, ""), Verdict::Allowed | Verdict::Authorized);
        if !may {
            self.metrics.plugin_dropped.inc();
            tracing::debug!(room, %connection, "a join is dropped by the room policy");
        }
        may
    }

    /// Tells a scope that a connection is away, if it is, of which the connection becomes a member.
    fn catch_up(&self, connection: ConnId, plugin: Arc<Plugin>, address: ScopeAddress) {
        if !plugin.current().manifest.has_presence(&address.key) {
            return;
        }
        let Some((true, n_changes)) = self.hub.presence(connection) else { return };
        if let Some(identity) = self.hub.identity(connection) {
            let event = Event::Presence { member: Member { connection, identity }, is_away: true, n_changes };
            self.submit(Envelope::without_reply(plugin, address, event));
        }
    }

    /// Tells a scope that a connection is no member, which it takes for one.
    fn tell_departure(&self, connection: ConnId, scope: &WireScope, reason: LeftReason) {
        let Some((plugin, address)) = self.scope_of_wire(scope) else { return };
        // The scope knows who it was.
        let member = Member { connection, identity: Arc::new(Identity::of_user("")) };
        let event = Event::Left { member, reason, is_gone: reason == LeftReason::Disconnected };
        self.submit(Envelope::without_reply(plugin, address, event));
    }

    /// Tells the scope that owns a room of a change that another scope made.
    fn tell_room_owner(
        &self,
        room: &str,
        connection: ConnId,
        identity: Option<Arc<Identity>>,
        event: impl FnOnce(Member) -> Event,
    ) {
        let Some(identity) = identity else { return };
        let catalogue = self.catalogue.load();
        if let Some((plugin, address)) = catalogue.owner(room) {
            let event = event(Member { connection, identity });
            self.submit(Envelope::without_reply(plugin.clone(), address, event));
        }
    }

    /// A client has answered, or will not.
    pub(crate) fn answered_ask(&self, node: &Node, id: u64, answer: Result<Payload, AckMissing>) {
        let Some(Owed { scope, ask, connection, .. }) = node.asks.take(id) else { return };
        if let Some((plugin, address)) = self.scope_of_wire(&scope) {
            let event = Event::Answered { ask, connection, answer };
            self.submit(Envelope::without_reply(plugin, address, event));
        }
    }

    /// The scope of these names, if its feature is loaded here.
    pub(super) fn scope_of_wire(&self, scope: &WireScope) -> Option<(Arc<Plugin>, ScopeAddress)> {
        let plugin = self.plugin(&scope.plugin)?;
        let (_, address) = plugin.current().manifest.scope_of_key(&scope.key)?;
        Some((plugin, address))
    }
}

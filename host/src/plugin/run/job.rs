//! The jobs of a plugin thread.

use std::collections::VecDeque;
use std::sync::Arc;

use roundhouse_contract::ScopeAddress;
use tokio::sync::oneshot;

use super::clustered::news::News;
use super::deadlines::Deadline;
pub(crate) use super::envelope::Envelope;
use super::scope_view::ScopeView;
use crate::model::{ConnId, Payload};
use crate::plugin::event::AckMissing;
use crate::plugin::event::senders::Reservation;
use crate::plugin::load::call::Call;
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::generation::Generation;
use crate::plugin::load::migrate::State;
use crate::store::{ScopeRecord, StoreFailure};

/// A job of a plugin thread.
#[derive(Debug)]
pub(crate) enum Job {
    /// Commit what waits, and tell that this was done. It has a turn behind the jobs that wait.
    Flush(std::sync::mpsc::Sender<()>),
    /// Take in news of the cluster.
    News(News),
    /// Handle an event of a scope.
    Event(Envelope),
    /// Hand a client's acknowledgement, or the reason why there is none, to the scope that waits for it.
    Acknowledged { id: u64, connection: ConnId, answer: Result<Payload, AckMissing>, place: Option<Reservation> },
    /// Fire a timer of a scope.
    Timer { plugin: u32, scope: Arc<str>, name: Box<str>, deadline: Deadline },
    /// Handle the deferred events of a scope.
    Deferred { plugin: Arc<Plugin>, address: ScopeAddress },
    /// Handle the events that came in while a scope was read.
    AfterLoad { plugin: u32, key: Arc<str> },
    /// Ask every scope of a plugin.
    Gather(Gather),
    /// Reply with the states that a generation would have to migrate.
    FindStates { plugin: u32, by: Arc<Generation>, reply: oneshot::Sender<StatesToMigrate> },
    /// Migrate the states of scopes to the running generation's schema, in turns of their own.
    Migrate(Migration),
    /// Give up the states that the running generation cannot take over, and reply with the number of scopes.
    GiveUp { plugin: u32, reply: oneshot::Sender<usize> },
    /// Reply with the recent calls of a plugin: of one scope, or of all.
    Recent { plugin: u32, scope: Option<Arc<str>>, reply: oneshot::Sender<Vec<Arc<Call>>> },
    /// Reply with what is in memory of a scope.
    View { plugin: u32, key: Arc<str>, reply: oneshot::Sender<ScopeView> },
    /// Take over a durable scope that was read from the store, or try again if it could not be read.
    ScopeRead { plugin: u32, key: Arc<str>, result: Result<Option<ScopeRecord>, StoreFailure> },
    /// Take over stored scopes of a plugin that starts.
    Restore { plugin: Arc<Plugin>, records: Vec<ScopeRecord> },
    /// Another generation runs: handle the plugin's deferred events.
    Resume { plugin: u32 },
    /// A plugin does not run any more: drop its scopes, and answer the events that wait for it. With `sets_aside`, a cluster
    /// keeps what it has of them.
    Forget { plugin: u32, sets_aside: bool },
}

/// A migration of states in the background.
#[derive(Debug)]
pub(crate) struct Migration {
    pub(crate) plugin: Arc<Plugin>,
    /// The number of the generation to whose schema the states are migrated.
    pub(super) generation: u64,
    /// Scopes still to migrate.
    pub(super) left: VecDeque<Arc<str>>,
}

/// A migration that has turns, or will have.
#[derive(Debug, Default)]
pub(super) struct Underway {
    /// Whether it is to be looked for more in the end.
    pub(super) again: bool,
    /// The migration while it waits for a deadline.
    pub(super) put_off: Option<Migration>,
}

/// The states that a generation would have to migrate.
#[derive(Debug, Default)]
pub(crate) struct StatesToMigrate {
    /// States of another schema than the generation's, each with the copy from before its last migration.
    pub(crate) states: Vec<(State, Option<State>)>,
    /// A scope for which the generation has no template.
    pub(crate) unroutable_scope: Option<Arc<str>>,
}

/// Answers of scopes, and the number of scopes that were not asked.
pub(crate) type Answers = (Vec<Box<str>>, u32);

/// A query to every scope of a plugin.
#[derive(Debug)]
pub(crate) struct Gather {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) name: Box<str>,
    pub(crate) data: Box<str>,
    /// The largest number of scopes to ask.
    pub(crate) limit: usize,
    pub(crate) reply: oneshot::Sender<Answers>,
    pub(crate) progress: Option<Progress>,
    /// The query's place in the plugin's backlog, kept until the query is answered; none if another node asks.
    pub(crate) place: Option<Arc<Reservation>>,
}

/// The progress of a query to every scope.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Scopes still to ask.
    pub(super) left: VecDeque<ScopeAddress>,
    pub(super) answers: Vec<Box<str>>,
    pub(super) bytes: usize,
    pub(super) n_scopes: usize,
}

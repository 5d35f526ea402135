//! A call of a component that is remembered with all that the component got, so that any build can be called with the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roundhouse_contract::ScopeAddress;
use roundhouse_contract::case::{CASE_FORMAT, Case, CaseBuild, CaseEnd, CaseState};

use super::generation::Generation;
use super::options::CaseOptions;
use super::state::State;
use crate::model::GenerationId;
use crate::plugin::event::Event;
use crate::plugin::guest::case;
use crate::plugin::guest::sandbox::Context;

/// What a remembered call keeps in memory beside its event and its state, roughly.
const OVERHEAD: usize = 512;

/// The part of a context that differs between the calls of one scope; see `context` in the contract.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// In milliseconds since 1970.
    pub(crate) now: u64,
    pub(crate) seed: u64,
    pub(crate) sequence: u64,
    pub(crate) room_connections: u32,
    pub(crate) room_users: u32,
    pub(crate) connection_in_room: bool,
    pub(crate) user_connections: u32,
}

impl Facts {
    /// The context of a call with these facts.
    pub(crate) fn context<'a>(self, scope: &'a str, params: &'a [&'a str], settings: &'a str) -> Context<'a> {
        let Self { now, seed, sequence, room_connections, room_users, connection_in_room, user_connections } = self;
        Context {
            now,
            seed,
            sequence,
            scope,
            params,
            room_connections,
            room_users,
            connection_in_room,
            user_connections,
            settings,
        }
    }
}

/// A call of a component.
#[derive(Debug)]
pub(crate) struct Call {
    /// The build that was called, which may not be loaded any more.
    pub(crate) id: Arc<GenerationId>,
    settings: Arc<str>,
    pub(crate) address: ScopeAddress,
    pub(crate) facts: Facts,
    pub(crate) event: Event,
    /// The state of the scope, as it was kept; none of a new scope.
    pub(crate) state: Option<State>,
    /// What it keeps in memory, roughly.
    pub(crate) bytes: usize,
    /// Whether the host has committed the outcome.
    committed: AtomicBool,
}

impl Call {
    /// `None` where the component got no event.
    pub(crate) fn new(
        generation: &Generation,
        address: &ScopeAddress,
        facts: Facts,
        event: &Event,
        state: Option<&State>,
    ) -> Option<Self> {
        let event = event.remembered()?;
        let bytes = OVERHEAD + event.kept_bytes() + state.map_or(0, |state| state.bytes.len());
        let (id, settings) = (generation.id.clone(), generation.settings.clone());
        let (address, state, committed) = (address.clone(), state.cloned(), AtomicBool::new(false));
        Some(Self { id, settings, address, facts, event, state, bytes, committed })
    }

    /// Notes that the outcome is committed.
    pub(crate) fn note_committed(&self) {
        self.committed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_committed(&self) -> bool {
        self.committed.load(Ordering::Relaxed)
    }

    /// Calls `call` with the context that a build gets.
    pub(crate) fn lend_context<T>(&self, settings: &str, call: impl FnOnce(Context<'_>) -> T) -> T {
        let params: Vec<&str> = self.address.params.iter().map(String::as_str).collect();
        call(self.facts.context(&self.address.key, &params, settings))
    }

    /// The call as a case file, of which `options` leave something out.
    pub(crate) fn case(&self, end: CaseEnd, options: &CaseOptions) -> Case {
        let GenerationId { name, version, generation, digest } = GenerationId::clone(&self.id);
        let mut case = Case {
            format: CASE_FORMAT,
            build: CaseBuild { name, version, generation, digest },
            at_ms: self.facts.now,
            end,
            redacted: Vec::new(),
            context: self.lend_context(&self.settings, |context| case::context_of(&context)),
            event: case::event_of(&self.event),
            state: self.state.as_ref().map(|state| CaseState { version: state.version, bytes: (&*state.bytes).into() }),
        };
        case.redact(!options.keep_claims, &options.redact);
        case
    }
}

//! Replay: a build gets the calls of case files, and what it makes of them is shown. Nothing is committed.

use std::sync::Arc;

use roundhouse_contract::case::{Case, CaseEnd, CaseEvent, CaseOrigin, CaseState, describe, state_json};
use roundhouse_contract::raw::StateChange;
use roundhouse_contract::{CONNECT_EVENT, Rules};

use super::report::loader_for_inspection;
use crate::model::{ConnId, Failure, GenerationId};
use crate::plugin::guest::case::{lend_context, lend_event};
use crate::plugin::guest::engine::Ticker;
use crate::plugin::guest::lift;
use crate::plugin::guest::sandbox::{Fault, Instance, Outcome};
use crate::plugin::load::call::Call;
use crate::plugin::load::generation::{Generation, Source};
use crate::plugin::load::loader::LoadError;
use crate::plugin::load::migrate::{State, take_over};
use crate::plugin::load::options::PluginConfig;
use crate::plugin::run::effect::Connections;

/// What a build made of cases.
#[derive(Debug)]
pub struct Replay {
    /// The build.
    pub id: GenerationId,
    /// What it made of each.
    pub ends: Vec<CaseEnd>,
}

/// Has a component handle the calls of cases, in a sandbox and without a host. It gets all grants that it asks for.
///
/// # Errors
/// With the step that refuses the component.
pub fn replay(component: &[u8], cases: &[Case], config: &PluginConfig) -> Result<Replay, LoadError> {
    let (loader, ticker) = loader_for_inspection(config)?;
    let replayed = loader.prepare(component, None, Source::Bundled, |_| 1).map(|generation| {
        let mut replayer = Replayer::default();
        let ends = cases.iter().map(|case| replayer.replay(&ticker, &generation, case)).collect();
        Replay { id: GenerationId::clone(&generation.id), ends }
    });
    ticker.stop();
    replayed
}

/// Has generations handle calls again. What they log is not written.
#[derive(Debug, Default)]
pub(super) struct Replayer {
    /// The instance of the last call, unless it failed.
    warm: Option<(u64, Instance)>,
    /// What the last call wrote.
    written: Written,
    /// Whether the last call came to nothing because the build cannot take over the state.
    pub(super) cannot_migrate: bool,
}

/// What a call does to the state of its scope.
#[derive(Debug, Default)]
pub(super) enum Written {
    /// It stays.
    #[default]
    Nothing,
    State(Vec<u8>),
    Cleared,
}

/// What the rules of an outcome depend on.
#[derive(Clone, Copy)]
struct Kind<'a> {
    scope: &'a str,
    is_query: bool,
    is_admission: bool,
}

impl<'a> Kind<'a> {
    fn of(call: &'a Call) -> Self {
        let Call { address, event, .. } = call;
        Self { scope: &address.key, is_query: event.is_query(), is_admission: event.is_admission() }
    }
}

/// What a component answers: an outcome or a refusal, unless it fails.
type Answer = Result<Result<Outcome, Failure>, Fault>;

impl Replayer {
    /// What a generation makes of the call of a case file.
    pub(super) fn replay(&mut self, ticker: &Ticker, generation: &Generation, case: &Case) -> CaseEnd {
        let kind = Kind {
            scope: &case.context.scope,
            is_query: matches!(case.event, CaseEvent::Query { .. } | CaseEvent::Gathered { .. }),
            is_admission: is_admission(&case.event),
        };
        let state = match case.state.as_ref().map(state_of).transpose() {
            Ok(state) => state,
            Err(why) => return CaseEnd::Failed(why),
        };
        self.end(ticker, (generation, &[]), kind, state.as_ref(), |instance, state| {
            lend_context(&case.context, |context| {
                lend_event(&case.event, |event| instance.handle_lent(ticker, context, event, state))
            })
        })
    }

    /// What a generation makes of a remembered call. The builds in `newer` help it with states of their schemas.
    pub(super) fn call_again(
        &mut self,
        ticker: &Ticker,
        (generation, newer): (&Generation, &[Arc<Generation>]),
        call: &Call,
    ) -> CaseEnd {
        let kind =
            Kind { scope: &call.address.key, is_query: call.event.is_query(), is_admission: call.event.is_admission() };
        self.end(ticker, (generation, newer), kind, call.state.as_ref(), |instance, state| {
            call.lend_context(&generation.settings, |context| instance.handle(ticker, context, &call.event, state))
        })
    }

    /// What a generation makes of the event of a remembered call on another state, and what it writes.
    pub(super) fn call_from(
        &mut self,
        ticker: &Ticker,
        generation: &Generation,
        call: &Call,
        state: Option<&State>,
    ) -> (CaseEnd, Written) {
        let end = self.end(ticker, (generation, &[]), Kind::of(call), state, |instance, state| {
            call.lend_context(&generation.settings, |context| instance.handle(ticker, context, &call.event, state))
        });
        (end, std::mem::take(&mut self.written))
    }

    fn end(
        &mut self,
        ticker: &Ticker,
        builds: (&Generation, &[Arc<Generation>]),
        kind: Kind<'_>,
        state: Option<&State>,
        call: impl FnOnce(&mut Instance, Option<&[u8]>) -> Answer,
    ) -> CaseEnd {
        self.try_end(ticker, builds, kind, state, call).unwrap_or_else(|fault| {
            self.warm = None;
            CaseEnd::Failed(fault)
        })
    }

    /// # Errors
    /// With the fault of the component.
    fn try_end(
        &mut self,
        ticker: &Ticker,
        (generation, newer): (&Generation, &[Arc<Generation>]),
        kind: Kind<'_>,
        state: Option<&State>,
        call: impl FnOnce(&mut Instance, Option<&[u8]>) -> Answer,
    ) -> Result<CaseEnd, String> {
        let number = generation.id.generation;
        if self.warm.as_ref().is_none_or(|(warm, _)| *warm != number) {
            let instance = generation.instantiate_silently(ticker).map_err(|fault| fault.to_string())?;
            self.warm = Some((number, instance));
        }
        let Some((_, instance)) = &mut self.warm else { return Err("it cannot be instantiated".to_owned()) };
        self.cannot_migrate = false;
        let migrated = match state.filter(|state| state.version != generation.manifest.state_version) {
            Some(stored) => {
                let taken = take_over(ticker, newer, generation, instance, (stored, None));
                self.cannot_migrate = taken.is_err();
                Some(taken.map_err(|cannot| cannot.to_string())?)
            }
            None => None,
        };
        let state = migrated.as_deref().or(state.map(|state| &*state.bytes));
        self.written = Written::Nothing;
        match call(instance, state).map_err(|fault| fault.to_string())? {
            Ok(outcome) => {
                let (end, written) = check(generation, kind, outcome)?;
                self.written = written;
                Ok(end)
            }
            Err(Failure { code, message, .. }) => Ok(CaseEnd::Refused(format!("{}: {message}", code.as_str()))),
        }
    }
}

fn state_of(state: &CaseState) -> Result<State, String> {
    let bytes = state.bytes.to_bytes().ok_or("the state of the case is not hexadecimal")?;
    Ok(State { version: state.version, bytes: bytes.into() })
}

fn check(generation: &Generation, kind: Kind<'_>, outcome: Outcome) -> Result<(CaseEnd, Written), String> {
    let rules = Rules {
        manifest: &generation.manifest,
        room: kind.scope,
        max_state_bytes: generation.bounds.state_bytes,
        is_query: kind.is_query,
        is_admission: kind.is_admission,
        // Who was connected then, nobody knows.
        world: Connections { is_known: |_: ConnId| true, has_come: |_: ConnId| true },
    };
    let (effects, change) = lift::outcome(outcome);
    let checked = rules.check(effects, change, |effect| describe(&effect));
    let (effects, change, _) = checked.map_err(|refusal| format!("it returned {refusal}"))?;
    let state = state_json(&change);
    let written = match change {
        StateChange::Keep => Written::Nothing,
        StateChange::Put(bytes) => Written::State(bytes),
        StateChange::Clear => Written::Cleared,
    };
    Ok((CaseEnd::Handled { effects, state }, written))
}

fn is_admission(event: &CaseEvent) -> bool {
    matches!(event, CaseEvent::Message { event, origin: CaseOrigin::Client(_), wants_reply: true, .. }
        if event == CONNECT_EVENT)
}

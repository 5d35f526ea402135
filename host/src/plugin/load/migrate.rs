//! Migration of states between schemas, and the losses where none is possible.

use std::sync::Arc;

use bytes::Bytes;

use super::catalogue::Plugin;
use super::generation::Generation;
use super::loader::{LoadError, Step};
pub(crate) use super::state::State;
use crate::plugin::event::Event;
use crate::plugin::guest::convert;
use crate::plugin::guest::engine::Ticker;
use crate::plugin::guest::sandbox::Instance;

/// A stored state as the generation that handles its scope gets it.
#[derive(Debug)]
pub(crate) enum Present {
    /// The stored state is in the generation's schema, or there is none.
    AsStored,
    /// The state was migrated to the generation's schema.
    Migrated(Vec<u8>),
    /// No build can migrate the state, and it may be given up. In its place is the copy from before it was migrated
    /// forward, if that has the generation's schema.
    GivenUp(Option<Bytes>),
}

impl Present {
    /// The state in the generation's schema.
    pub(crate) fn bytes<'a>(&'a self, stored: Option<&'a State>) -> Option<&'a [u8]> {
        match self {
            Self::AsStored => stored.map(|stored| &stored.bytes[..]),
            Self::Migrated(bytes) => Some(bytes),
            Self::GivenUp(before) => before.as_deref(),
        }
    }
}

/// Why a state cannot be taken over.
#[derive(Debug, thiserror::Error)]
#[error("it cannot take over the state of schema {schema}: {reason}")]
pub(crate) struct CannotMigrate {
    schema: u32,
    reason: String,
    /// Whether the instance must not be used again.
    pub(crate) is_fault: bool,
}

/// Migrates a stored state to a generation's schema. The builds in `newer`, of the state's schema, are tried first; then the
/// generation itself. `kept` is the copy from before the state was migrated forward: if nothing has changed since, it is taken as
/// it is.
///
/// # Errors
/// If none of these builds can migrate the state.
pub(crate) fn take_over(
    ticker: &Ticker,
    newer: &[Arc<Generation>],
    generation: &Generation,
    instance: &mut Instance,
    (stored, kept): (&State, Option<&State>),
) -> Result<Vec<u8>, CannotMigrate> {
    let wanted = generation.manifest.state_version;
    let cannot = |reason: String, is_fault| CannotMigrate { schema: stored.version, reason, is_fault };
    let limit = generation.bounds.state_bytes;
    let kept = kept.filter(|kept| kept.version == wanted);
    for newer in newer {
        if let Some(kept) = kept.filter(|kept| makes(ticker, newer, kept, stored)) {
            return Ok(kept.bytes.to_vec());
        }
        if !newer.migrates_down_to(wanted) {
            continue;
        }
        match migrate_down(ticker, newer, stored, wanted) {
            Ok(state) if state.len() <= limit => return Ok(state),
            Ok(state) => tracing::warn!(
                plugin = %newer.id.name, generation = newer.id.generation, bytes = state.len(),
                "a state that was migrated down is too large"
            ),
            Err(reason) => tracing::warn!(
                plugin = %newer.id.name, generation = newer.id.generation, schema = wanted,
                "a state was not migrated down: {reason}"
            ),
        }
    }
    match instance.migrate(ticker, stored.version, &stored.bytes) {
        Ok(Ok(state)) if state.len() <= limit => Ok(state),
        Ok(Ok(state)) => {
            Err(cannot(format!("it made {} bytes of it, and a state may have {limit}", state.len()), false))
        }
        Ok(Err(failure)) => Err(cannot(failure.message, false)),
        Err(fault) => Err(cannot(fault.to_string(), true)),
    }
}

/// Whether a newer build makes exactly this state of the copy from before its migration. Then nothing has changed since, because
/// the same input gives the same output.
fn makes(ticker: &Ticker, newer: &Generation, kept: &State, stored: &State) -> bool {
    let migrated =
        newer.instantiate(ticker).and_then(|mut instance| instance.migrate(ticker, kept.version, &kept.bytes));
    matches!(migrated, Ok(Ok(state)) if state == stored.bytes)
}

/// Has a newer build migrate a state of its own schema down to an older one.
fn migrate_down(ticker: &Ticker, newer: &Generation, stored: &State, to: u32) -> Result<Vec<u8>, String> {
    let context = convert::context_without_scope(0, &newer.settings);
    let mut instance = newer.instantiate(ticker).map_err(|fault| fault.to_string())?;
    match instance.handle(ticker, context, &Event::MigrateDown { to }, Some(&stored.bytes)) {
        Ok(Ok(outcome)) => {
            convert::state_alone(outcome).ok_or_else(|| "it did not answer with a state alone".to_owned())
        }
        Ok(Err(failure)) => Err(failure.message),
        Err(fault) => Err(fault.to_string()),
    }
}

/// States that a generation cannot take over.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// Scopes that would go back to the copy from before a newer build migrated their state.
    pub(crate) changes: usize,
    /// Scopes that would lose their whole state.
    pub(crate) states: usize,
    /// The schemas of these states.
    pub(crate) schemas: Vec<u32>,
    /// Why the first of them cannot be taken over.
    pub(crate) reason: String,
    /// The schemas of the builds on which scopes may stay that cannot be taken over. They lose nothing.
    fallbacks: Vec<u32>,
}

impl Losses {
    /// No losses so far, in a change to this generation from the generations of `previous`.
    pub(crate) fn of(generation: &Generation, previous: &[Arc<Generation>]) -> Self {
        let schema = |other: &Arc<Generation>| other.manifest.state_version;
        let fallbacks =
            if generation.manifest.migrates_partially { previous.iter().map(schema).collect() } else { Vec::new() };
        Self { fallbacks, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes + self.states == 0
    }

    /// Adds the states that a generation cannot take over. Each comes with the copy from before it was migrated
    /// forward. `running` is the generation that would be replaced, if one would.
    ///
    /// # Errors
    /// If the component cannot be instantiated.
    pub(crate) fn add(
        &mut self,
        ticker: &Ticker,
        plugin: &Plugin,
        running: Option<&Arc<Generation>>,
        generation: &Generation,
        states: &[(State, Option<State>)],
    ) -> Result<(), LoadError> {
        let wanted = generation.manifest.state_version;
        let mut instance = None;
        let is_foreign = |state: &State| state.version != wanted && !self.fallbacks.contains(&state.version);
        let foreign: Vec<_> = states.iter().filter(|(state, _)| is_foreign(state)).collect();
        for (state, kept) in foreign {
            let instance_now = match &mut instance {
                Some(instance) => instance,
                none => none.insert(generation.instantiate(ticker).map_err(|fault| {
                    LoadError::new(Step::Migrate, format!("the component cannot be instantiated: {fault}"))
                })?),
            };
            let mut newer = plugin.newer(state.version, wanted);
            // The running generation is not in the history of rolled-back builds yet.
            newer.extend(running.filter(|running| running.is_newer(state.version, wanted)).cloned());
            let taken = take_over(ticker, &newer, generation, instance_now, (state, kept.as_ref()));
            let Err(cannot) = taken else { continue };
            if cannot.is_fault {
                instance = None;
            }
            if self.is_empty() {
                self.reason = cannot.to_string();
            }
            if kept.as_ref().is_some_and(|kept| kept.version == wanted) {
                self.changes += 1;
            } else {
                self.states += 1;
            }
            if !self.schemas.contains(&state.version) {
                self.schemas.push(state.version);
            }
        }
        Ok(())
    }

    /// The losses in words.
    pub(crate) fn describe(&self) -> String {
        let scopes = |n: usize| if n == 1 { "1 scope".to_owned() } else { format!("{n} scopes") };
        let changes = format!("{} would lose what happened since the swap", scopes(self.changes));
        let states = format!("{} would lose its whole state", scopes(self.states))
            .replace("scopes would lose its whole state", "scopes would lose their whole state");
        match (self.changes, self.states) {
            (_, 0) => changes,
            (0, _) => states,
            _ => format!("{changes}, and {states}"),
        }
    }

    /// Refuses a change with losses, unless `lose_writes` allows them.
    ///
    /// # Errors
    /// If states or changes would be lost, and `lose_writes` is false.
    pub(crate) fn permit(&self, lose_writes: bool) -> Result<(), LoadError> {
        if self.is_empty() || lose_writes {
            return Ok(());
        }
        let message = format!(
            "{}; {}. Nothing has changed: add a migration of this schema to a build, or accept the loss with --lose-writes \
             (?loseWrites=true)",
            self.reason,
            self.describe()
        );
        Err(LoadError::new(Step::Migrate, message))
    }
}

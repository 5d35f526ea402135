//! Rollouts: a candidate is tried on live events in the shadow of the running build, or as a canary on a share of the scopes,
//! and is promoted or goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::compare::Comparer;
use super::install::{Change, Lifecycle, Load};
use super::threads::lock;
use crate::model::{ErrorCode, Failure};
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::generation::Generation;
use crate::plugin::load::loader::{LoadError, Step};
use crate::plugin::load::migrate::{State, take_over};
use crate::plugin::load::rollout::{Rollout, RolloutKind, RolloutReport};

/// The most states that are migrated to a canary's schema and back before it begins.
const MOST_RETURNED: usize = 1000;

/// How often the calls that wait to be compared are looked for. A look costs a lock.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The niceness of the thread that compares (nice(2)), which makes way for the threads that serve.
const NICENESS: i32 = 10;

/// Checks that a canary has the scopes of the running build, by which events find them and others keep away.
///
/// # Errors
/// If it has others.
fn same_scopes(running: &Generation, candidate: &Generation) -> Result<(), LoadError> {
    let scopes = |build: &Generation| {
        let scopes = build.manifest.scopes.iter();
        let mut scopes: Vec<_> =
            scopes.map(|scope| (scope.template.as_str().to_owned(), scope.is_durable, scope.has_presence)).collect();
        scopes.sort();
        scopes
    };
    if scopes(running) == scopes(candidate) {
        return Ok(());
    }
    let message = "it has other scopes than the running build, and a canary must have the same: try it in the shadow, and load it";
    Err(LoadError::new(Step::Trial, message))
}

impl Lifecycle {
    /// Tries a component on the recent events of its plugin, and then on those to come: in the shadow for a time, or as a
    /// canary until it is promoted or rolled back.
    ///
    /// # Errors
    /// With the step that refuses the component. Then nothing has changed.
    pub async fn begin_rollout(
        self: &Arc<Self>,
        load: Load,
        kind: RolloutKind,
        time: Option<Duration>,
    ) -> Result<RolloutReport, LoadError> {
        let begun = self.request(move |lifecycle| lifecycle.roll_out(load, kind, time));
        begun.await.unwrap_or_else(|why| Err(LoadError::passing(Step::Compile, why)))
    }

    fn roll_out(
        self: &Arc<Self>,
        load: Load,
        kind: RolloutKind,
        time: Option<Duration>,
    ) -> Result<RolloutReport, LoadError> {
        let described = self.described(&load)?;
        let _only_one = self.wait_to_load(&described.name);
        let Some(plugin) = self.shared.plugin(&described.name) else {
            let message = format!("{} does not run, so there is nothing to compare with: load it", described.name);
            return Err(LoadError::passing(Step::Trial, message));
        };
        if plugin.rollout().is_some() {
            let message = format!("a candidate of {0} is tried already: promote it, or roll {0} back", described.name);
            return Err(LoadError::passing(Step::Trial, message));
        }
        if plugin.current().id.digest == described.digest {
            return Err(LoadError::new(Step::Trial, "this component runs already"));
        }
        let candidate = self.prepare(&load, &described)?;
        if let Some(refusal) = self.try_on_the_past(&plugin, &candidate, false)?.refusal() {
            return Err(LoadError::passing(Step::Trial, refusal));
        }
        let _changes = lock(&self.changes);
        if plugin.is_unloaded() {
            return Err(LoadError::unloaded_meanwhile());
        }
        if matches!(kind, RolloutKind::Canary(_)) {
            same_scopes(&plugin.current(), &candidate)?;
            self.prepare_return(&plugin, &candidate, &load.bytes)?;
            self.shared.metrics.show_latency(&candidate.latency);
        }
        plugin.last_candidate.store(candidate.id.generation, Ordering::Relaxed);
        let clock = &self.shared.clock;
        let until = time.map(|time| clock.uptime_ms() + time.as_millis() as u64);
        let bounds = self.shared.config.canary;
        let rollout = Arc::new(Rollout::new((candidate.clone(), load.bytes), kind, clock.now_ms(), until, bounds));
        let (lifecycle, watched, watching) = (self.clone(), plugin.clone(), rollout.clone());
        plugin.begin_rollout(rollout.clone());
        if let Err(why) = self.threads.spawn_own(move || lifecycle.watch(&watched, &watching)) {
            self.shared.end_rollout(&plugin, &rollout, why);
            return Err(LoadError::passing(Step::Trial, why));
        }
        let id = &candidate.id;
        tracing::info!(plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest, ?kind,
            "a candidate is tried");
        Ok(rollout.report(None))
    }

    /// Makes sure that the scopes of a canary can go back to the running build, over a restart, too.
    ///
    /// # Errors
    /// If they cannot.
    fn prepare_return(&self, plugin: &Plugin, candidate: &Arc<Generation>, component: &[u8]) -> Result<(), LoadError> {
        let (running, schema) = (plugin.current(), candidate.manifest.state_version);
        let wanted = running.manifest.state_version;
        if schema == wanted {
            return Ok(());
        }
        let cannot = |why: &str| {
            let message = format!(
                "its states have the schema {schema}, and those of generation {} have {wanted}: {why}",
                running.id.generation
            );
            Err(LoadError::new(Step::Trial, message))
        };
        if self.shared.node.is_some() {
            return cannot(
                "in a cluster, a canary needs the schema of the running build, for other nodes run that alone",
            );
        }
        if schema < wanted || !candidate.migrates_down_to(wanted) {
            return cannot("a canary has to migrate its states back (`migrates_down_to`), for its scopes may have to");
        }
        if let Some(why) = self.cannot_return(plugin, candidate)? {
            return cannot(&format!("a state that it takes over it does not give back: {why}"));
        }
        // The next start migrates what the canary leaves. What no build could migrate back, though it was tried, must not make the
        // running build fail: the scope goes back to the copy from before, and that is counted and logged.
        let history = plugin.history().helped_by(candidate).giving_up([schema]);
        self.store.keep(component, &candidate.id.digest).map_err(LoadError::not_installed)?;
        self.write(plugin, &running, &history, None).map_err(LoadError::not_installed)?;
        plugin.switch(running, history);
        Ok(())
    }

    /// Why a state of a scope that there is would not come back from a candidate of another schema, if one would not.
    ///
    /// # Errors
    /// If a build cannot be instantiated, or the host is shutting down.
    fn cannot_return(&self, plugin: &Plugin, candidate: &Arc<Generation>) -> Result<Option<String>, LoadError> {
        let (running, ticker) = (plugin.current(), self.loader.ticker());
        let instance = |build: &Generation| {
            build.instantiate_silently(ticker).map_err(|fault| LoadError::new(Step::Trial, fault.to_string()))
        };
        let (mut to, mut back) = (instance(candidate)?, instance(&running)?);
        for stored in self.present_states(plugin, candidate)?.into_iter().take(MOST_RETURNED) {
            let taken = take_over(ticker, &[], candidate, &mut to, (&stored, None))
                .map(|bytes| State { version: candidate.manifest.state_version, bytes: bytes.into() });
            if let Err(cannot) = &taken
                && candidate.manifest.migrates_partially
            {
                // The scope stays on the running build.
                if cannot.is_fault {
                    to = instance(candidate)?;
                }
                continue;
            }
            let helper = std::slice::from_ref(candidate);
            let returned = taken.and_then(|state| take_over(ticker, helper, &running, &mut back, (&state, None)));
            if let Err(cannot) = returned {
                return Ok(Some(cannot.to_string()));
            }
        }
        Ok(None)
    }

    /// Compares the calls of a rollout until it ends.
    fn watch(self: &Arc<Self>, plugin: &Arc<Plugin>, rollout: &Arc<Rollout>) {
        // Without the niceness, the thread compares all the same.
        let _ = rustix::process::nice(NICENESS);
        let mut comparer = Comparer::new(rollout.candidate.clone());
        while self.threads.pause(LOOK_INTERVAL) && plugin.tries(rollout) {
            for call in rollout.take_waiting() {
                if !plugin.tries(rollout) || self.shared.stopping.load(Ordering::Relaxed) {
                    break;
                }
                let made = comparer.call_both(self.loader.ticker(), &plugin.current(), &call);
                let is_different = rollout.comparison().add(&call, made);
                self.shared.metrics.plugin_compared.inc();
                self.shared.metrics.plugin_differences.inc_by(u64::from(is_different));
            }
            match rollout.kind {
                RolloutKind::Canary(_) => {
                    if let Some(why) = rollout.is_slower() {
                        self.shared.roll_back_canary(plugin, rollout, &why);
                    }
                }
                RolloutKind::Shadow { promotes } => {
                    if rollout.until.is_some_and(|until| until <= self.shared.clock.uptime_ms()) {
                        self.end_shadow(plugin, rollout, promotes);
                    }
                }
            }
        }
    }

    /// Ends a shadow whose time is over.
    fn end_shadow(self: &Arc<Self>, plugin: &Arc<Plugin>, rollout: &Arc<Rollout>, promotes: bool) {
        let (calls, different) = {
            let comparison = rollout.comparison();
            (comparison.tally.calls, comparison.tally.different)
        };
        let how = match (promotes, calls, different) {
            (false, ..) => "its time is over".to_owned(),
            (true, 0, _) => "not promoted: no event came".to_owned(),
            (true, _, 0) => match self.take_into_use(plugin, rollout, false) {
                Ok(_) => return,
                Err(error) => format!("not promoted: {error}"),
            },
            (true, ..) => format!("not promoted: {different} of {calls} events differ"),
        };
        self.shared.end_rollout(plugin, rollout, &how);
    }

    /// Makes the candidate of a plugin the running build of all scopes.
    ///
    /// # Errors
    /// If there is no such plugin or no candidate, or it cannot take over all states.
    pub async fn promote(self: &Arc<Self>, name: &str, lose_writes: bool) -> Result<Change, Failure> {
        let name = name.to_owned();
        let done = self.request(move |lifecycle| {
            let plugin = lifecycle.shared.plugin(&name).ok_or_else(|| lifecycle.shared.no_plugin(&name))?;
            let rollout = plugin.rollout().ok_or_else(|| {
                Failure::new(
                    ErrorCode::Conflict,
                    format!("no candidate of {name} is tried: there is nothing to promote"),
                )
            })?;
            lifecycle.take_into_use(&plugin, &rollout, lose_writes).map_err(|error| {
                Failure::new(ErrorCode::Conflict, format!("the candidate of {name} is not promoted: {error}"))
            })
        });
        done.await.unwrap_or_else(|why| Err(Failure::new(ErrorCode::FeatureUnavailable, why)))
    }

    fn take_into_use(
        self: &Arc<Self>,
        plugin: &Arc<Plugin>,
        rollout: &Arc<Rollout>,
        lose_writes: bool,
    ) -> Result<Change, LoadError> {
        let _only_one = self.wait_to_load(&plugin.name);
        let candidate: &Arc<Generation> = &rollout.candidate;
        self.have_others_try(candidate, &rollout.component, lose_writes)?;
        let load = Load { lose_writes, ..Load::new(rollout.component.clone(), candidate.source) };
        self.swap(plugin, candidate.clone(), None, &load, Some(rollout))
    }

    /// The report on the rollout of a plugin that is under way, or else on the last one.
    ///
    /// # Errors
    /// If there is no such plugin, or no candidate of it was tried since the host started.
    pub fn rollout(&self, name: &str) -> Result<RolloutReport, Failure> {
        let plugin = self.shared.plugin(name).ok_or_else(|| self.shared.no_plugin(name))?;
        plugin.rollout_report().ok_or_else(|| {
            Failure::new(ErrorCode::NotFound, format!("no candidate of {name} was tried since the host started"))
        })
    }
}

//! The catalogue: the installed plugins, and the events, scopes and namespaces that the running ones handle.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use roundhouse_contract::{PayloadBounds, Permission, ScopeAddress, Template};
use schemars::JsonSchema;
use serde::Serialize;

use super::cases::Cases;
use super::generation::Generation;
use super::generation::Installed;
use super::health::Health;
use super::history::History;
use super::loader::{LoadError, Step};
use super::pins::PinnedScopes;
use super::recorder::Recorder;
use super::rollout::{Rollout, RolloutReport};
use crate::hub::Watcher;
use crate::ledger::{Account, Ledger};
use crate::metrics::PluginMetrics;
use crate::model::Failure;
use crate::plugin::event::senders::Backlog;
use crate::policy::EventPermission;

/// The errors of a plugin that are kept for its report.
const KEPT_ERRORS: usize = 10;

/// A plugin: a name, the generation that runs, and those before it.
#[derive(Debug)]
pub(crate) struct Plugin {
    /// The plugin's number, unique within this process; scopes are found by it.
    pub(crate) number: u32,
    pub(crate) name: String,
    current: ArcSwap<Generation>,
    history: Mutex<History>,
    unloaded: AtomicBool,
    pub(crate) health: Health,
    /// Charged for all resources that the host holds for the plugin.
    pub(crate) account: Arc<Account>,
    /// Events of clients and services that wait for the plugin.
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) metrics: PluginMetrics,
    /// Volatile scopes that were evicted because the plugin had too many scopes.
    pub(crate) evicted: AtomicU64,
    /// Events of the host that the component refused.
    refusals: AtomicU64,
    errors: Mutex<VecDeque<PluginError>>,
    /// The events on which it failed.
    pub(crate) cases: Cases,
    pub(crate) recorder: Recorder,
    /// Whether a rollback is under way that may still be undone.
    undecided: AtomicBool,
    /// The scopes that the running generation cannot take over, and that stay on an older one.
    staying: Mutex<PinnedScopes>,
    /// The rollout under way.
    rollout: ArcSwapOption<Rollout>,
    /// The report on the last one that ended.
    last_rollout: Mutex<Option<RolloutReport>>,
    /// When the last rollout ended by itself, in milliseconds of uptime; 0 if none did.
    pub(crate) rollout_ended: AtomicU64,
    /// The highest number of a candidate, which is not used again.
    pub(crate) last_candidate: AtomicU64,
}

/// An error of a plugin, as its report shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginError {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The generation that failed.
    pub generation: u64,
    /// The scope and the event that it failed on, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// What went wrong.
    pub message: String,
}

impl Plugin {
    /// # Errors
    /// If the name of the plugin cannot be a label of metrics.
    pub(crate) fn new(
        number: u32,
        generation: Arc<Generation>,
        history: History,
        ledger: &Ledger,
    ) -> Result<Self, LoadError> {
        let metrics = PluginMetrics::new(&generation.id.name);
        let metrics = metrics.map_err(|error| LoadError::new(Step::Manifest, error.to_string()))?;
        Ok(Self {
            number,
            name: generation.id.name.clone(),
            current: ArcSwap::new(generation.clone()),
            history: Mutex::new(history),
            unloaded: AtomicBool::new(false),
            health: Health::default(),
            account: ledger.plugin(&generation.id.name),
            backlog: Arc::default(),
            metrics,
            evicted: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            errors: Mutex::default(),
            cases: Cases::default(),
            recorder: Recorder::default(),
            undecided: AtomicBool::new(false),
            staying: Mutex::default(),
            rollout: ArcSwapOption::empty(),
            last_rollout: Mutex::default(),
            rollout_ended: AtomicU64::new(0),
            last_candidate: AtomicU64::new(0),
        })
    }

    fn lock_history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running generation, which handles events.
    pub(crate) fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    pub(crate) fn history(&self) -> History {
        self.lock_history().clone()
    }

    /// All loaded generations, each once: the running one, those behind it, and the candidate.
    fn generations(&self) -> Vec<Arc<Generation>> {
        let mut all: Vec<_> = [self.current()].into_iter().chain(self.history().generations().cloned()).collect();
        let candidate = self.rollout().map(|rollout| rollout.candidate.clone());
        // One that migrates down is among those behind the running one, too.
        all.extend(candidate.filter(|candidate| !all.iter().any(|other| Arc::ptr_eq(other, candidate))));
        all
    }

    /// The loaded generation of this number.
    pub(crate) fn generation(&self, number: u64) -> Option<Arc<Generation>> {
        self.generations().into_iter().find(|generation| generation.id.generation == number)
    }

    /// The linear memory of its instances, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.generations().iter().map(|generation| generation.memory.load(Ordering::Relaxed)).sum()
    }

    /// The generation that an operator's rollback goes back to.
    pub(crate) fn before(&self) -> Option<Arc<Generation>> {
        self.lock_history().previous.last().cloned()
    }

    /// Makes a generation the running one, and replaces the history.
    pub(crate) fn switch(&self, generation: Arc<Generation>, history: History) {
        // The history comes first, because it says how states of other schemas are migrated.
        *self.lock_history() = history;
        self.current.store(generation);
    }

    /// Whether a rollback is under way that may still be undone: states are not migrated in the background meanwhile.
    pub(crate) fn is_undecided(&self) -> bool {
        self.undecided.load(Ordering::Acquire)
    }

    pub(crate) fn set_undecided(&self, is_undecided: bool) {
        self.undecided.store(is_undecided, Ordering::Release);
    }

    /// Whether states of this schema may be given up where no build can migrate them.
    pub(crate) fn gives_up(&self, schema: u32) -> bool {
        self.lock_history().given_up.contains(&schema)
    }

    /// Whether a rollback could take a generation of this schema into use.
    pub(crate) fn can_go_back_to(&self, schema: u32) -> bool {
        // A scope may go back from a canary.
        let is_canarys = self.rollout.load().is_some() && self.current.load().manifest.state_version == schema;
        is_canarys || self.lock_history().previous.iter().any(|generation| generation.manifest.state_version == schema)
    }

    /// The older generation on which a scope stays whose state of this schema `generation` cannot take over; none if that does
    /// not migrate partially, or no loaded one has the schema.
    pub(crate) fn stays_on(&self, generation: &Generation, schema: u32) -> Option<Arc<Generation>> {
        if !generation.manifest.migrates_partially {
            return None;
        }
        let current = self.current();
        if current.manifest.state_version == schema {
            // `generation` is a candidate.
            return Some(current);
        }
        let history = self.lock_history();
        history.previous.iter().rev().find(|other| other.manifest.state_version == schema).cloned()
    }

    /// The scopes that stay on an older generation, each with the reason.
    pub(crate) fn staying(&self) -> MutexGuard<'_, PinnedScopes> {
        self.staying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other loaded generations of the schema `from`, if that is newer than `to`, the newest first.
    pub(crate) fn newer(&self, from: u32, to: u32) -> Vec<Arc<Generation>> {
        let history = self.lock_history();
        let is_newer = |generation: &&Arc<Generation>| generation.is_newer(from, to);
        let mut found: Vec<_> = history.generations().filter(is_newer).cloned().collect();
        found.sort_by_key(|generation| std::cmp::Reverse(generation.id.generation));
        found
    }

    /// Logs that the component refused an event of the host, which has no sender to answer. Only the first, the second,
    /// the fourth refusal and so on are logged, because each connection may cause one.
    pub(crate) fn note_refusal(&self, event: &str, refusal: &Failure) {
        let so_far = self.refusals.fetch_add(1, Ordering::Relaxed) + 1;
        if so_far.is_power_of_two() {
            let id = &self.current().id;
            tracing::warn!(
                plugin = %id.name, version = %id.version, generation = id.generation, event, so_far,
                "the plugin refused what the host told it, which is lost: {}", refusal.message
            );
        }
    }

    /// Keeps an error for the report; the oldest gives way.
    pub(crate) fn note_error(&self, error: PluginError) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() == KEPT_ERRORS {
            errors.pop_front();
        }
        errors.push_back(error);
    }

    /// The last errors, the newest first.
    pub(crate) fn errors(&self) -> Vec<PluginError> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    /// The rollout under way, if there is one.
    pub(crate) fn rollout(&self) -> Option<Arc<Rollout>> {
        self.rollout.load().as_ref().cloned()
    }

    /// Whether this rollout is under way.
    pub(crate) fn tries(&self, rollout: &Arc<Rollout>) -> bool {
        self.rollout.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, rollout))
    }

    /// Begins a rollout, in place of one that has ended.
    pub(crate) fn begin_rollout(&self, rollout: Arc<Rollout>) {
        self.rollout.store(Some(rollout));
    }

    /// Ends a rollout, if it is under way. Returns whether it was.
    pub(crate) fn end_rollout(&self, rollout: &Arc<Rollout>, how: &str) -> bool {
        let before = self.rollout.compare_and_swap(rollout, None);
        let was_it = before.as_ref().is_some_and(|before| Arc::ptr_eq(before, rollout));
        if was_it {
            let report = rollout.report(Some(how.to_owned()));
            *self.last_rollout.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        }
        was_it
    }

    /// The report on the rollout under way, or else on the last one.
    pub(crate) fn rollout_report(&self) -> Option<RolloutReport> {
        let last = || self.last_rollout.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.rollout().map(|rollout| rollout.report(None)).or_else(last)
    }

    /// Whether the plugin was unloaded. Events for it may still be queued.
    pub(crate) fn is_unloaded(&self) -> bool {
        self.unloaded.load(Ordering::Acquire)
    }

    pub(crate) fn mark_unloaded(&self) {
        self.unloaded.store(true, Ordering::Release);
    }
}

/// A plugin that is installed and does not run.
#[derive(Debug, Clone)]
pub(crate) struct Idle {
    /// The generation that could not be started; none if an operator unloaded the plugin.
    pub(crate) failed: Option<FailedStart>,
    /// The events that the plugin routes when it runs.
    pub(crate) events: Vec<String>,
}

/// Why an installed plugin does not run.
#[derive(Debug, Clone)]
pub(crate) struct FailedStart {
    pub(crate) installed: Installed,
    pub(crate) error: PluginError,
}

/// The route of an event: the plugin, the scope template, and the permitted origins.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    /// The event's name.
    pub(crate) event: Arc<str>,
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) from_client: bool,
    pub(crate) from_service: bool,
    pub(crate) template: Template,
    /// What the manifest wants of clients.
    pub(crate) required: Option<Permission>,
    /// What the operator wants of clients besides.
    pub(crate) permission: Option<EventPermission>,
    /// The bounds of its payload.
    pub(crate) limits: PayloadBounds,
}

/// All installed plugins, and the routes of the running ones. The catalogue is replaced as a whole when any of it
/// changes.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) plugins: BTreeMap<String, Arc<Plugin>>,
    /// Plugins that are installed and do not run, by name.
    pub(crate) idle: BTreeMap<String, Idle>,
    routes: HashMap<String, Destination>,
    /// The plugins that get `connect` events, each with the scope that gets them.
    connect_listeners: Vec<(Arc<Plugin>, ScopeAddress)>,
    /// The Socket.IO namespaces that running plugins declare.
    namespaces: HashSet<String>,
}

impl Catalogue {
    /// A catalogue of these plugins. Their routes must not conflict.
    pub(crate) fn new(plugins: BTreeMap<String, Arc<Plugin>>, idle: BTreeMap<String, Idle>) -> Self {
        let mut routes = HashMap::new();
        let mut connect_listeners = Vec::new();
        let mut namespaces = HashSet::new();
        for plugin in plugins.values() {
            let generation = plugin.current();
            let manifest = &generation.manifest;
            connect_listeners.extend(manifest.connect_scope.clone().map(|address| (plugin.clone(), address)));
            namespaces.extend(manifest.namespaces.iter().cloned());
            for (event, route) in &manifest.routes {
                let destination = Destination {
                    event: event.as_str().into(),
                    plugin: plugin.clone(),
                    from_client: route.from_client,
                    from_service: route.from_service,
                    template: manifest.scopes[route.scope].template.clone(),
                    required: route.permission.clone(),
                    permission: generation.permissions.get(event).cloned(),
                    limits: route.limits,
                };
                routes.insert(event.clone(), destination);
            }
        }
        Self { plugins, idle, routes, connect_listeners, namespaces }
    }

    /// The plugins that get `connect` events, each with the scope that gets them.
    pub(crate) fn connect_listeners(&self) -> &[(Arc<Plugin>, ScopeAddress)] {
        &self.connect_listeners
    }

    /// Whether a running plugin declares this Socket.IO namespace.
    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    /// The route of events of this name; none if no running plugin handles them.
    pub(crate) fn destination(&self, event: &str) -> Option<&Destination> {
        self.routes.get(event)
    }

    /// The plugin that would handle events of this name if it ran.
    pub(crate) fn idle_for(&self, event: &str) -> Option<&str> {
        let routes = |idle: &Idle| idle.events.iter().any(|other| other == event);
        self.idle.iter().find(|(_, idle)| routes(idle)).map(|(name, _)| name.as_str())
    }

    /// The plugin whose scope has this room, and the scope.
    pub(crate) fn owner(&self, room: &str) -> Option<(&Arc<Plugin>, ScopeAddress)> {
        self.plugins.values().find_map(|plugin| {
            let (_, address) = plugin.current.load().manifest.scope_of_key(room)?;
            Some((plugin, address))
        })
    }

    /// The plugin of a scope that watches a connection, and the scope's address.
    pub(crate) fn watcher(&self, (number, key): &Watcher) -> Option<(&Arc<Plugin>, ScopeAddress)> {
        let plugin = self.plugins.values().find(|plugin| plugin.number == *number)?;
        Some((plugin, plugin.current().manifest.scope_of_key(key)?.1))
    }

    /// A description of the first event or scope of a generation that another plugin has already.
    pub(crate) fn conflict(&self, generation: &Generation) -> Option<String> {
        let name = &generation.id.name;
        let mut others = self.plugins.values().filter(|plugin| plugin.name != *name);
        others.find_map(|other| {
            let theirs = other.current();
            let event = generation.manifest.routes.keys().find(|event| theirs.manifest.routes.contains_key(*event));
            if let Some(event) = event {
                return Some(format!("the event {event} is routed to {} already", other.name));
            }
            generation.manifest.scopes.iter().find_map(|ours| {
                let taken = theirs.manifest.scopes.iter().find(|scope| ours.template.overlaps(&scope.template))?;
                Some(format!(
                    "the scope {} would share rooms with the scope {} of {}",
                    ours.template.as_str(),
                    taken.template.as_str(),
                    other.name
                ))
            })
        })
    }
}

//! The catalogue: the installed plugins, and the events, scopes and namespaces that the running ones handle.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use roundhouse_contract::{PayloadBounds, Permission, ScopeAddress, Template};
use schemars::JsonSchema;
use serde::Serialize;

use super::cases::Cases;
use super::generation::Generation;
use super::generation::Installed;
use super::health::Health;
use super::recorder::Recorder;
use crate::hub::Watcher;
use crate::ledger::{Account, Ledger};
use crate::model::Failure;
use crate::plugin::event::senders::Backlog;
use crate::policy::EventPermission;

/// The most generations that stay loaded besides the running one, of each kind: previous, and rolled back.
pub(crate) const KEPT_GENERATIONS: usize = 3;

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
    pub(crate) calls: AtomicU64,
    pub(crate) traps: AtomicU64,
    /// Volatile scopes that were evicted because the plugin had too many scopes.
    pub(crate) evicted: AtomicU64,
    /// Events of the host that the component refused.
    refusals: AtomicU64,
    errors: Mutex<VecDeque<PluginError>>,
    /// The events on which it failed.
    pub(crate) cases: Cases,
    pub(crate) recorder: Recorder,
}

/// The generations behind the running one, and the schemas whose states may be given up.
#[derive(Debug, Default, Clone)]
pub(crate) struct History {
    /// Generations that a rollback can go back to, the oldest first.
    pub(crate) previous: Vec<Arc<Generation>>,
    /// Generations that were rolled back and can migrate states down, the oldest first.
    pub(crate) rolled_back: Vec<Arc<Generation>>,
    /// Schemas whose states may be given up if no build can migrate them: an operator accepted the loss, or an
    /// automatic rollback had no other way.
    pub(crate) given_up: Vec<u32>,
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
    pub(crate) fn new(number: u32, generation: Arc<Generation>, history: History, ledger: &Ledger) -> Self {
        Self {
            number,
            name: generation.id.name.clone(),
            current: ArcSwap::new(generation.clone()),
            history: Mutex::new(history),
            unloaded: AtomicBool::new(false),
            health: Health::default(),
            account: ledger.plugin(&generation.id.name),
            backlog: Arc::default(),
            calls: AtomicU64::new(0),
            traps: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            errors: Mutex::default(),
            cases: Cases::default(),
            recorder: Recorder::default(),
        }
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

    /// Whether states of this schema may be given up where no build can migrate them.
    pub(crate) fn gives_up(&self, schema: u32) -> bool {
        self.lock_history().given_up.contains(&schema)
    }

    /// Whether a rollback could take a generation of this schema into use.
    pub(crate) fn can_go_back_to(&self, schema: u32) -> bool {
        self.lock_history().previous.iter().any(|generation| generation.manifest.state_version == schema)
    }

    /// The other loaded generations that can migrate states of schema `from` down to the older schema `to`, the newest
    /// first.
    pub(crate) fn downward(&self, from: u32, to: u32) -> Vec<Arc<Generation>> {
        let history = self.lock_history();
        let can = |generation: &&Arc<Generation>| {
            generation.manifest.state_version == from && generation.migrates_down_to(to)
        };
        let mut found: Vec<_> = history.generations().filter(can).cloned().collect();
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

    /// Whether the plugin was unloaded. Events for it may still be queued.
    pub(crate) fn is_unloaded(&self) -> bool {
        self.unloaded.load(Ordering::Acquire)
    }

    pub(crate) fn mark_unloaded(&self) {
        self.unloaded.store(true, Ordering::Release);
    }
}

impl History {
    /// The history after `before` was replaced by a build of a newer or the same schema.
    pub(crate) fn after_replacing(mut self, before: Arc<Generation>, by: &Generation) -> Self {
        self.previous.push(before);
        keep_newest(&mut self.previous);
        self.given_up.retain(|schema| *schema != by.manifest.state_version);
        self
    }

    /// The history after `current` was rolled back to the previous generation of this number.
    pub(crate) fn after_rolling_back(mut self, current: &Arc<Generation>, number: u64) -> Self {
        if !current.manifest.migrates_down_to.is_empty() {
            self.rolled_back.push(current.clone());
            keep_newest(&mut self.rolled_back);
        }
        let at = self.previous.iter().position(|generation| generation.id.generation == number);
        self.previous.truncate(at.unwrap_or(0));
        self
    }

    /// The history with these schemas added to those whose states may be given up.
    pub(crate) fn giving_up(mut self, schemas: impl IntoIterator<Item = u32>) -> Self {
        self.given_up.extend(schemas);
        self.given_up.sort_unstable();
        self.given_up.dedup();
        self
    }

    /// The previous and the rolled-back generations.
    pub(crate) fn generations(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.previous.iter().chain(&self.rolled_back)
    }
}

fn keep_newest(generations: &mut Vec<Arc<Generation>>) {
    let excess = generations.len().saturating_sub(KEPT_GENERATIONS);
    generations.drain(..excess);
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

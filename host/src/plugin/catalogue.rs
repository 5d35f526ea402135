//! The plugins that are loaded, and which of them an event or a room belongs to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::generation::Generation;
use super::health::Health;
use super::template::{ScopeAddress, Template};
use crate::model::Failure;

/// Generations that stay loaded behind the one that runs.
const KEPT_GENERATIONS: usize = 3;

/// A plugin: a name, the generation that runs, and those before it.
#[derive(Debug)]
pub(super) struct Plugin {
    /// Its number since the host started; scopes belong to it.
    pub(super) number: u32,
    pub(super) name: String,
    current: ArcSwap<Generation>,
    older: Mutex<Vec<Arc<Generation>>>,
    unloaded: AtomicBool,
    pub(super) health: Health,
    pub(super) calls: AtomicU64,
    pub(super) traps: AtomicU64,
    /// Volatile scopes that were dropped for there were too many.
    pub(super) evicted: AtomicU64,
    /// Events of the host that its component refused.
    refusals: AtomicU64,
}

impl Plugin {
    pub(super) fn new(number: u32, generation: Generation) -> Self {
        Self {
            number,
            name: generation.id.name.clone(),
            current: ArcSwap::from_pointee(generation),
            older: Mutex::default(),
            unloaded: AtomicBool::new(false),
            health: Health::default(),
            calls: AtomicU64::new(0),
            traps: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
        }
    }

    /// Logs that the component refused an event of the host, of which nobody else hears: the first, the second, the fourth and
    /// so on, for each connection may bring one.
    pub(super) fn note_refusal(&self, event: &str, refusal: &Failure) {
        let so_far = self.refusals.fetch_add(1, Ordering::Relaxed) + 1;
        if so_far.is_power_of_two() {
            let id = &self.current().id;
            tracing::warn!(
                plugin = %id.name, version = %id.version, generation = id.generation, event, so_far,
                "the plugin refused what the host told it, which is lost: {}", refusal.message
            );
        }
    }

    fn older(&self) -> MutexGuard<'_, Vec<Arc<Generation>>> {
        self.older.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation that events are handled by.
    pub(super) fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Takes a generation into use; the one before stays loaded.
    pub(super) fn replace(&self, generation: Arc<Generation>) {
        let before = self.current.swap(generation);
        let mut older = self.older();
        older.push(before);
        if older.len() > KEPT_GENERATIONS {
            older.remove(0);
        }
    }

    /// The generation that a roll-back would take into use.
    pub(super) fn before(&self) -> Option<Arc<Generation>> {
        self.older().last().cloned()
    }

    /// Takes the generation before into use again, for good.
    pub(super) fn roll_back(&self) {
        if let Some(before) = self.older().pop() {
            self.current.store(before);
        }
    }

    /// Whether it was unloaded, though something may still be on its way to it.
    pub(super) fn is_unloaded(&self) -> bool {
        self.unloaded.load(Ordering::Acquire)
    }

    pub(super) fn mark_unloaded(&self) {
        self.unloaded.store(true, Ordering::Release);
    }
}

/// Where an event goes.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    pub(super) plugin: Arc<Plugin>,
    pub(super) from_client: bool,
    pub(super) from_service: bool,
    pub(super) template: Template,
}

/// Everything that is loaded. It is replaced as a whole when anything changes.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) plugins: BTreeMap<String, Arc<Plugin>>,
    routes: HashMap<String, Destination>,
    /// The plugins that are told of each connection that opens, and the scope in which.
    greeters: Vec<(Arc<Plugin>, ScopeAddress)>,
    /// The Socket.IO namespaces that there are because a plugin says so.
    namespaces: HashSet<String>,
}

impl Catalogue {
    /// A catalogue of these plugins, whose routes must be free of conflict.
    pub(super) fn new(plugins: BTreeMap<String, Arc<Plugin>>) -> Self {
        let mut routes = HashMap::new();
        let mut greeters = Vec::new();
        let mut namespaces = HashSet::new();
        for plugin in plugins.values() {
            let manifest = &plugin.current().manifest;
            greeters.extend(manifest.greets_in.clone().map(|address| (plugin.clone(), address)));
            namespaces.extend(manifest.namespaces.iter().cloned());
            for (event, route) in &manifest.routes {
                let destination = Destination {
                    plugin: plugin.clone(),
                    from_client: route.from_client,
                    from_service: route.from_service,
                    template: manifest.scopes[route.scope].template.clone(),
                };
                routes.insert(event.clone(), destination);
            }
        }
        Self { plugins, routes, greeters, namespaces }
    }

    /// The plugins that are told of each connection that opens, and the scope in which.
    pub(super) fn greeters(&self) -> &[(Arc<Plugin>, ScopeAddress)] {
        &self.greeters
    }

    /// Whether a plugin says that there is this Socket.IO namespace.
    pub(super) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    /// Where events of this name go.
    pub(super) fn destination(&self, event: &str) -> Option<&Destination> {
        self.routes.get(event)
    }

    /// The plugin whose scope has this room, and the scope.
    pub(super) fn owner(&self, room: &str) -> Option<(&Arc<Plugin>, ScopeAddress)> {
        self.plugins.values().find_map(|plugin| {
            let (_, address) = plugin.current.load().manifest.scope_of_key(room)?;
            Some((plugin, address))
        })
    }

    /// What of a generation is taken already by another plugin, in words.
    pub(super) fn conflict(&self, generation: &Generation) -> Option<String> {
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

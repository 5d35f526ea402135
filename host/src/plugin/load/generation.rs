//! A generation: one load of a plugin's build, ready to run. Generations replace each other; the plugin stays.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use prometheus::Histogram;
use roundhouse_contract::Manifest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::grant_use::GrantUse;
use super::grants::Given;
use super::health::Haste;
use crate::model::GenerationId;
use crate::plugin::guest::engine::Ticker;
use crate::plugin::guest::link::LinkedComponent;
use crate::plugin::guest::log::PluginLog;
use crate::plugin::guest::sandbox::{Fault, Instance, InstanceBounds, MemoryUse};
use crate::policy::EventPermission;

/// Where a component came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// It is part of the host's binary.
    Bundled,
    /// A file in the plugin folder.
    Folder,
    /// The HTTP API, and so the command line.
    Api,
}

/// The record of an installed generation, from which the next start loads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installed {
    pub(crate) generation: u64,
    pub(crate) version: String,
    /// SHA-256 of the component, in hexadecimal: the key of the component's file.
    pub(crate) digest: String,
    pub(crate) source: Source,
}

impl Installed {
    /// The id of this generation of the plugin `name`.
    pub(crate) fn generation_id(&self, name: &str) -> GenerationId {
        GenerationId {
            name: name.to_owned(),
            version: self.version.clone(),
            generation: self.generation,
            digest: self.digest.clone(),
        }
    }
}

/// A loaded build of a plugin, with its grants, bounds and settings.
pub(crate) struct Generation {
    pub(crate) id: Arc<GenerationId>,
    pub(crate) manifest: Manifest,
    pub(crate) source: Source,
    pub(crate) component: LinkedComponent,
    pub(crate) bounds: InstanceBounds,
    /// What its instances have.
    pub(crate) memory: MemoryUse,
    pub(crate) given: Given,
    pub(crate) grant_use: GrantUse,
    /// Who may send which events, beyond what the manifest says.
    pub(crate) permissions: HashMap<String, EventPermission>,
    /// The operator's settings, a JSON object.
    pub(crate) settings: Arc<str>,
    pub(crate) log: Arc<PluginLog>,
    pub(crate) haste: Haste,
    /// The duration of calls in seconds, among the metrics while the generation is loaded.
    pub(crate) latency: Histogram,
}

impl Generation {
    /// Instantiates the component.
    ///
    /// # Errors
    /// If the component cannot be instantiated.
    pub(crate) fn instantiate(&self, ticker: &Ticker) -> Result<Instance, Fault> {
        Instance::new(&self.component, ticker, self.bounds, self.log.clone(), &self.memory)
    }

    /// Instantiates the component for calls that do not count: it logs nothing.
    ///
    /// # Errors
    /// If the component cannot be instantiated.
    pub(crate) fn instantiate_silently(&self, ticker: &Ticker) -> Result<Instance, Fault> {
        Instance::new(&self.component, ticker, self.bounds, Arc::new(PluginLog::silent()), &self.memory)
    }

    /// The record of this generation for the next start.
    pub(crate) fn installed(&self) -> Installed {
        let GenerationId { version, generation, digest, .. } = GenerationId::clone(&self.id);
        Installed { generation, version, digest, source: self.source }
    }

    /// Whether the build's states are of the schema `from`, and that is newer than `to`.
    pub(crate) fn is_newer(&self, from: u32, to: u32) -> bool {
        self.manifest.state_version == from && from > to
    }

    /// Whether the build can migrate its states down to an older schema.
    pub(crate) fn migrates_down_to(&self, schema: u32) -> bool {
        self.manifest.migrates_down_to.contains(&schema)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").field("id", &self.id).field("source", &self.source).finish_non_exhaustive()
    }
}

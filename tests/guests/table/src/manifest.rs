//! The manifest as JSON.

use std::time::Duration;

use roundhouse_sdk::{Manifest, Needs, Scope};
use serde::{Deserialize, Serialize};

/// The manifest, with the fields of the SDK's builder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are those of the SDK's manifest")]
pub struct ManifestSpec {
    pub name: String,
    pub version: String,
    pub description: String,
    pub state_version: u32,
    pub scopes: Vec<ScopeSpec>,
    pub gathers: Vec<String>,
    pub emits: Vec<String>,
    pub needs: NeedsSpec,
    pub namespaces: Vec<String>,
    pub migrates_down_to: Vec<u32>,
}

/// A kind of scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are those of the SDK's scope")]
pub struct ScopeSpec {
    pub template: String,
    pub durable: bool,
    pub idle_ms: u64,
    pub presence: bool,
    pub clients: Vec<String>,
    pub services: Vec<String>,
    pub connect: bool,
    pub queries: Vec<String>,
}

/// The needs of the feature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are those of the SDK's needs")]
pub struct NeedsSpec {
    pub rooms: Vec<String>,
    pub audiences: Vec<String>,
    pub actions: Vec<String>,
}

impl From<ManifestSpec> for Manifest {
    fn from(spec: ManifestSpec) -> Self {
        let NeedsSpec { rooms, audiences, actions } = spec.needs;
        let manifest = Self::new(&spec.name, &spec.version, &spec.description)
            .state_version(spec.state_version)
            .emits(spec.emits)
            .namespaces(spec.namespaces)
            .migrates_down_to(spec.migrates_down_to);
        let manifest = spec.gathers.into_iter().fold(manifest, Self::gathers);
        let mut manifest = spec.scopes.into_iter().map(Scope::from).fold(manifest, Self::scope);
        let Needs { actions: own, .. } = manifest.needs;
        manifest.needs = Needs { rooms, audiences, actions: own.into_iter().chain(actions).collect() };
        manifest
    }
}

impl From<ScopeSpec> for Scope {
    fn from(spec: ScopeSpec) -> Self {
        let ScopeSpec { template, durable, idle_ms, presence, clients, services, connect, queries } = spec;
        let scope = if durable { Self::durable(&template) } else { Self::volatile(&template) };
        let scope = scope.idle(Duration::from_millis(idle_ms)).queries(queries);
        let scope = scope.from_clients(clients).from_services(services);
        let scope = if connect { scope.on_connect() } else { scope };
        if presence { scope.on_away() } else { scope }
    }
}

#[cfg(not(target_arch = "wasm32"))]
std::thread_local! {
    static MANIFEST: std::cell::RefCell<ManifestSpec> = std::cell::RefCell::default();
}

/// Sets the manifest for simulations on this thread.
#[cfg(not(target_arch = "wasm32"))]
pub fn set_manifest(manifest: ManifestSpec) {
    MANIFEST.set(manifest);
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn manifest() -> ManifestSpec {
    MANIFEST.with_borrow(Clone::clone)
}

/// The manifest of the component as JSON, padded with spaces. Tests search for its first word and overwrite the bytes.
#[cfg(target_arch = "wasm32")]
static MANIFEST: [u8; 16 * 1024] = {
    let mut bytes = [b' '; 16 * 1024];
    let marker = *b"table-manifest";
    let mut at = 0;
    while at < marker.len() {
        bytes[at] = marker[at];
        at += 1;
    }
    bytes
};

#[cfg(target_arch = "wasm32")]
pub(crate) fn manifest() -> ManifestSpec {
    serde_json::from_slice(std::hint::black_box(&MANIFEST)).expect("the tests have put a manifest here")
}

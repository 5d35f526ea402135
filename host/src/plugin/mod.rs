//! The plugin runtime: it decides what becomes of events by asking WebAssembly components.
//!
//! - [`Runtime`] is what the rest of the host sees; `greeting` and `presence` are the parts of it for connections that open and
//!   that are away, `loads` that for what operators do.
//! - `loader` takes a component through the steps of a load, and `generation` is what comes of it; `manifest`,
//!   `extension`, `template` are what it said of itself, `catalogue` which plugins there are, `health` how each of them
//!   does.
//! - `worker` is a plugin thread, `handle` the call that an event leads to, `commit` what comes of it, `due` what time
//!   brings, `durable` what goes to the store and comes from there. `scope` is its memory, `effect` checks what a feature
//!   wants done.
//! - `engine`, `sandbox`, `cache`, `bindings` and `call` know about wasmtime, and nothing else does. `log` is where a
//!   feature's lines go.
//! - `folder` watches the plugin folder, `bundled` holds the features that are part of the binary, `report` tells
//!   operators how things stand.

mod bindings;
mod bundled;
mod cache;
mod call;
mod catalogue;
mod commit;
mod due;
mod durable;
mod effect;
mod engine;
mod event;
mod extension;
mod folder;
mod generation;
mod greeting;
mod handle;
mod health;
mod loader;
mod loads;
mod log;
mod manifest;
mod presence;
mod report;
mod runtime;
mod sandbox;
mod scope;
mod template;
mod worker;

pub use bundled::{Bundled, bundled};
pub use event::{ClientEvent, Once};
pub use extension::check_namespace;
pub use folder::Folder;
pub use generation::{Loaded, Source};
pub use loader::{LoadError, MAX_COMPONENT_BYTES, Step, digest};
pub use manifest::Grants;
pub use report::{Inspection, Latency, PluginReport, PluginState, inspect};
pub use runtime::{ANSWER_TIMEOUT, PendingAnswer, PluginConfig, PluginOptions, Runtime};

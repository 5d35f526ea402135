//! The plugin runtime: it decides what becomes of events by asking WebAssembly components.
//!
//! - [`Runtime`] is what the rest of the host sees; `greeting` (with `credentials`, which it keeps from features) and
//!   `presence` are the parts of it for connections that open and that are away, `loads` that for what operators do.
//! - `loader` takes a component through the steps of a load, and `generation` is what comes of it; `manifest`,
//!   `extension`, `event_limits` with `bounds`, `template`, `grants` are what it said of itself and may do, `catalogue` which plugins there are, `health` how each of them
//!   does.
//! - `install` and `rollback` change what runs, and `record` writes it to the `component_store`, from which `start`
//!   brings it up again. `restore` takes durable states over, `migrate` turns states of other schemas into a
//!   generation's own.
//! - `worker` is a plugin thread and `serve` its loop; `turns` says who is next, `senders` what a sender may have waiting and
//!   use. `handle` is the call that an event leads to, `commit` what comes of it, `due` what time brings, `parked` what has
//!   to be told later, `gather` the questions to all scopes, `durable` what goes to the store and comes from there, `inherit`
//!   what passes from one generation to another. `scope` is its memory, `effect` checks what a feature wants done,
//!   `budget` charges it to who brought it about, and `owners` knows whose scopes go first.
//! - `engine`, `sandbox`, `compile`, `cache`, `bindings` and `call` know about wasmtime, and nothing else does. `log` is
//!   where a feature's lines go.
//! - `folder` watches the plugin folder, `bundled` holds the features that are part of the binary, `report` tells
//!   operators how things stand.

mod bindings;
#[path = "../../../sdk/src/simulator/bounds.rs"]
mod bounds;
mod budget;
mod bundled;
mod cache;
mod call;
mod catalogue;
mod commit;
mod compile;
mod component_store;
#[path = "../../../sdk/src/simulator/credentials.rs"]
mod credentials;
mod due;
mod durable;
mod effect;
mod effect_parts;
mod engine;
mod event;
mod event_limits;
mod extension;
mod folder;
mod gather;
mod generation;
mod grants;
mod greeting;
mod handle;
mod health;
mod inherit;
mod install;
mod loader;
mod loads;
mod log;
mod manifest;
mod migrate;
mod options;
mod owners;
mod parked;
mod presence;
mod record;
mod report;
mod restore;
mod rollback;
mod runtime;
mod sandbox;
mod scope;
mod senders;
mod serve;
mod start;
mod template;
mod turns;
mod worker;

pub use bundled::{Bundled, bundled};
pub use catalogue::PluginError;
pub use event::{ClientEvent, Once};
pub use extension::check_namespace;
pub use folder::Folder;
pub use generation::{Loaded, Source};
pub use grants::Grants;
pub use install::{Change, Load};
pub use loader::{Described, LoadError, Step, digest};
pub use options::{MAX_COMPONENT_BYTES, PluginConfig, PluginOptions, SenderLimits};
pub use report::{Inspection, Latency, PayloadLimits, PluginReport, PluginState, inspect};
pub use restore::StoredScopes;
pub use runtime::{ANSWER_TIMEOUT, PendingAnswer, Runtime};

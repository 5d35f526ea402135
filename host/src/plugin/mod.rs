//! The plugin runtime: it decides what becomes of events by asking WebAssembly components.
//!
//! [`Runtime`] is what the rest of the host sees; `greeting` is the part of it for connections that open. Below it there are four rooms, each of which imports only those before it:
//!
//! - `guest`: the component and its sandbox, the only room that knows about wasmtime.
//! - `load`: the steps of a load, and the catalogue of what runs.
//! - `run`: the plugin threads, from the inbox to the commit.
//! - `lifecycle`: what operators do, the records of it, and the start that reads them.

mod event;
mod greeting;
mod guest;
mod lifecycle;
mod load;
mod run;
mod runtime;

pub use event::senders::SenderLimits;
pub use event::{ClientEvent, Once};
pub use lifecycle::folder::Folder;
pub use lifecycle::install::{Change, Lifecycle, Load};
pub use lifecycle::report::{Inspection, Latency, PayloadLimits, PluginReport, PluginState, inspect};
pub use lifecycle::stored_scopes::StoredScopes;
pub use load::bundled::{Bundled, bundled};
pub use load::catalogue::PluginError;
pub use load::generation::{Loaded, Source};
pub use load::loader::{Described, LoadError, Step, digest};
pub use load::options::{MAX_COMPONENT_BYTES, PluginConfig, PluginOptions};
pub use roundhouse_contract::{Grants, check_namespace};
pub use run::query::{ANSWER_TIMEOUT, PendingAnswer};
pub use runtime::Runtime;

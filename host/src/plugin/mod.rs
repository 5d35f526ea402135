//! The plugin runtime: events are handled by WebAssembly components.
//!
//! [`Runtime`] is its interface to the rest of the host, with `connect` for new connections, `directory` for those of all nodes
//! of a cluster, and `transfers` for those that go from one node to another. Below it are five rooms
//! (modules that import one way): each imports only the rooms listed before it.
//!
//! - `event`: the events that features get, their senders, and the bounds of each sender.
//! - `guest`: components and their sandbox, the only room that names wasmtime and the WIT.
//! - `load`: the steps of a load, generations, and the catalogue of plugins.
//! - `run`: the plugin threads, from the inbox to the commit.
//! - `lifecycle`: operators' requests, the records of installed plugins, and the start that reads the records.

mod connect;
mod directory;
mod event;
mod guest;
mod lifecycle;
mod load;
mod run;
mod runtime;
mod transfers;

pub use crate::model::GenerationId;
pub use connect::Opening;
pub use event::senders::SenderLimits;
pub use event::{ClientEvent, Once};
pub use lifecycle::folder::Folder;
pub use lifecycle::grants::{GrantList, GrantReport, LastUse};
pub use lifecycle::install::{Change, Lifecycle, Load};
pub use lifecycle::replay::{Replay, replay};
pub use lifecycle::report::{Inspection, Latency, NodeBehind, PayloadLimits, PluginReport, PluginState, inspect};
pub use lifecycle::scopes::ScopeReport;
pub use lifecycle::trial::TrialReport;
pub use load::bundled::{Bundled, bundled};
pub use load::cases::CaseReport;
pub use load::catalogue::PluginError;
pub use load::comparison::ComparisonReport;
pub use load::generation::Source;
pub use load::loader::{Described, LoadError, Step, digest};
pub use load::options::{CanaryBounds, MAX_COMPONENT_BYTES, PluginConfig, PluginOptions};
pub use load::rollout::{RolloutKind, RolloutReport};
pub use roundhouse_contract::{Grants, check_namespace};
pub(crate) use run::clustered::operators::Blocking;
pub use run::query::{ANSWER_TIMEOUT, PendingAnswer};
pub use runtime::Runtime;
pub use transfers::{Claimed, Whereabouts};

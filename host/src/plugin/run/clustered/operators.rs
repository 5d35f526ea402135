//! What operators change on all nodes of a cluster: the builds of plugins, each of which the others try before it runs, and
//! blocks.

use std::fmt::Debug;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::plugin::load::generation::Installed;

/// A build that is to run on all nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TryBuild {
    pub(crate) plugin: String,
    pub(crate) installed: Installed,
    /// Whether states that it cannot take over may be lost.
    pub(crate) lose_writes: bool,
}

/// The build of a plugin that a node runs, or could not start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunningBuild {
    pub(crate) plugin: String,
    pub(crate) generation: u64,
    pub(crate) digest: String,
    /// Why it does not run.
    pub(crate) failure: Option<String>,
}

/// Makes the cluster's changes of plugins on this node. Its methods do not wait.
pub(crate) trait Builds: Debug + Send + Sync {
    /// The cluster's plugins have this revision. Also called where nothing has changed.
    fn follow(&self, revision: u64);
    /// Tries a build that is to run on all nodes, and tells why it cannot run here.
    fn try_build(&self, build: TryBuild, answer: Box<dyn FnOnce(Option<String>) + Send>);
    /// The builds that this node runs.
    fn running(&self) -> Vec<RunningBuild>;
}

/// Puts the blocks of other nodes in force.
pub(crate) trait Blocking: Debug + Send + Sync {
    /// Puts a block in force or lifts it, and returns how many connections that has closed.
    fn change(&self, change: String) -> BoxFuture<'static, usize>;
}

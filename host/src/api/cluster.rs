//! The cluster, as this node sees it.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::state::Api;
use crate::cluster::Partition;
use crate::model::{ErrorCode, Failure};
use crate::net::response::{Answer, json};

/// The cluster, as a node sees it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterReport {
    /// `cluster.name`.
    name: String,
    /// `cluster.node` of the host that answers.
    node: String,
    /// Its number, which is part of the ids of its connections.
    number: u16,
    redis: RedisState,
    /// The nodes that live, with this one.
    nodes: Vec<NodeReport>,
    partitions: Partitions,
}

/// Whether Redis answers.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum RedisState {
    Up,
    Away,
}

/// A node that lives.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct NodeReport {
    /// Its `cluster.node`.
    node: String,
    number: u16,
}

/// The partitions of all scopes.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct Partitions {
    /// Those that the host that answers owns.
    owned: usize,
    total: usize,
}

impl Api {
    pub(super) async fn cluster(&self) -> Result<Answer, Failure> {
        let Some(cluster) = &self.cluster else {
            let message = "this host is alone: cluster.redis makes it a node of a cluster";
            return Err(Failure::new(ErrorCode::NotFound, message));
        };
        let nodes = cluster.view();
        let nodes = nodes.nodes.iter().map(|(number, info)| NodeReport { node: info.name.clone(), number: number.0 });
        let report = ClusterReport {
            name: cluster.config().name.clone(),
            node: cluster.config().node.clone(),
            number: cluster.me().0,
            redis: if cluster.is_up() { RedisState::Up } else { RedisState::Away },
            nodes: nodes.collect(),
            partitions: Partitions {
                owned: self.runtime.n_owned_partitions().unwrap_or_default(),
                total: Partition::COUNT,
            },
        };
        Ok(json(StatusCode::OK, &report))
    }
}

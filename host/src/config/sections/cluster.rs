//! `[cluster]`: several hosts as one, over Redis.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::cluster::ClusterConfig;
use crate::config::secret_file::value_of;
use crate::config::values::{path, secret, text};

/// The name of a cluster that has none.
const DEFAULT_NAME: &str = "default";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct ClusterSection {
    #[serde(deserialize_with = "secret")]
    redis: Option<String>,
    #[serde(deserialize_with = "path")]
    redis_file: Option<PathBuf>,
    #[serde(deserialize_with = "text")]
    name: Option<String>,
    #[serde(deserialize_with = "text")]
    node: Option<String>,
}

impl fmt::Debug for ClusterSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may have a password.
        f.debug_struct("ClusterSection").field("name", &self.name).field("node", &self.node).finish_non_exhaustive()
    }
}

impl ClusterSection {
    /// The cluster; `None` without `redis`. `listen` is part of the node's name if it has none; `clients_return`: whether clients may
    /// resume connections.
    ///
    /// # Errors
    /// Where the URL cannot be read or is malformed, or a name cannot be used.
    pub(in crate::config) fn into_config(
        self,
        listen: SocketAddr,
        dir: &Path,
        clients_return: bool,
    ) -> anyhow::Result<Option<ClusterConfig>> {
        let Some(url) = value_of("cluster.redis", self.redis, self.redis_file.as_ref(), dir)? else {
            ensure!(
                self.name.is_none() && self.node.is_none(),
                "cluster.redis is missing: without it there is no cluster, and cluster.name and cluster.node mean nothing"
            );
            return Ok(None);
        };
        let name = self.name.unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        ensure!(
            name.len() <= 64 && name.chars().all(is_plain),
            "cluster.name is {name:?}, and may have 64 letters, digits, '-', '_' and '.'"
        );
        let node = self.node.unwrap_or_else(|| format!("{}:{}", machine(), listen.port()));
        ensure!(node.len() <= 128, "cluster.node is longer than 128 bytes");
        let redis = url.parse().context("cluster.redis")?;
        Ok(Some(ClusterConfig { redis, name, node, clients_return }))
    }
}

/// The machine's name.
fn machine() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "node".to_owned() } else { name.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(toml: &str) -> anyhow::Result<Option<ClusterConfig>> {
        let section: ClusterSection = crate::config::file::parse(&format!("[cluster]\n{toml}"), &[])?.cluster;
        section.into_config(([127, 0, 0, 1], 8080).into(), Path::new("/srv"), true)
    }

    #[test]
    fn redis_alone_makes_a_cluster() {
        let config = build("redis = \"redis://127.0.0.1\"").unwrap().unwrap();
        assert_eq!(config.name, "default");
        assert!(config.node.ends_with(":8080"), "{}", config.node);
        assert!(build("").unwrap().is_none());
    }

    #[test]
    fn wrong_cluster_says_what_to_write() {
        for (toml, says) in [
            ("name = \"a\"", "cluster.redis is missing"),
            ("redis = \"localhost\"", "must begin with redis://"),
            ("redis = \"redis://127.0.0.1\"\nname = \"a b\"", "cluster.name is \"a b\""),
        ] {
            let error = format!("{:#}", build(toml).unwrap_err());
            assert!(error.contains(says), "{toml}: {error}");
        }
    }
}

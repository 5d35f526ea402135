//! `[socketio]`: the path of Socket.IO, and its namespaces.

use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use serde::Deserialize;

use crate::config::values::check_duration;
use crate::conn::ClientBundle;
use crate::plugin::check_namespace;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct SocketIoSection {
    path: String,
    #[serde(with = "humantime_serde")]
    pub(in crate::config) connect_timeout: Duration,
    pub(in crate::config) namespaces: Vec<String>,
    client: String,
}

impl Default for SocketIoSection {
    fn default() -> Self {
        Self {
            path: "/socket.io/".to_owned(),
            connect_timeout: Duration::from_secs(45),
            namespaces: Vec::new(),
            client: String::new(),
        }
    }
}

impl SocketIoSection {
    /// # Errors
    /// Where the time-out is out of range, or a namespace is malformed.
    pub(in crate::config) fn check(&self) -> anyhow::Result<()> {
        check_duration("socketio.connect_timeout", self.connect_timeout, Duration::from_millis(10))?;
        for namespace in &self.namespaces {
            check_namespace(namespace).map_err(|wrong| anyhow!("socketio.namespaces: {wrong}"))?;
        }
        Ok(())
    }

    /// The path without a slash at its end.
    ///
    /// # Errors
    /// Where the path is malformed, or used by the host otherwise.
    pub(in crate::config) fn path(&self) -> anyhow::Result<String> {
        let path = self.path.trim_end_matches('/');
        ensure!(
            path.starts_with('/')
                && path.len() > 1
                && !path.contains(['?', '#'])
                && !["/ws", "/healthz", "/readyz"].contains(&path),
            "socketio.path is {:?}, and must be a path of its own like /socket.io/",
            self.path
        );
        Ok(path.to_owned())
    }

    /// # Errors
    /// Where the client's files cannot be read.
    pub(in crate::config) fn bundle(&self, dir: &Path) -> anyhow::Result<ClientBundle> {
        ClientBundle::read(&self.client, dir).map_err(|wrong| anyhow!("socketio.client: {wrong}"))
    }
}

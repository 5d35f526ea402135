//! `[tls]`: certificates of the two listeners.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use serde::Deserialize;

use crate::config::values::path;
use crate::net::TlsFiles;

/// The TLS of the listeners; each without files is plain.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The clients'.
    pub clients: Option<TlsFiles>,
    /// The API's.
    pub api: Option<TlsFiles>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct TlsSection {
    #[serde(deserialize_with = "path")]
    certificate_file: Option<PathBuf>,
    #[serde(deserialize_with = "path")]
    key_file: Option<PathBuf>,
    api: ApiTlsSection,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct ApiTlsSection {
    enabled: bool,
    #[serde(deserialize_with = "path")]
    certificate_file: Option<PathBuf>,
    #[serde(deserialize_with = "path")]
    key_file: Option<PathBuf>,
    #[serde(deserialize_with = "path")]
    client_ca_file: Option<PathBuf>,
}

impl Default for ApiTlsSection {
    fn default() -> Self {
        Self { enabled: true, certificate_file: None, key_file: None, client_ca_file: None }
    }
}

impl TlsSection {
    /// # Errors
    /// Where a certificate lacks its key, a key its certificate, or clients' authorities the TLS.
    pub(in crate::config) fn into_config(self, dir: &Path) -> anyhow::Result<TlsConfig> {
        let clients = files("tls", self.certificate_file, self.key_file, dir)?;
        let ApiTlsSection { enabled, certificate_file, key_file, client_ca_file } = self.api;
        let own = files("tls.api", certificate_file, key_file, dir)?;
        let is_set = own.is_some() || client_ca_file.is_some();
        if !enabled {
            ensure!(!is_set, "tls.api.enabled is false, and tls.api has files: leave one out");
            return Ok(TlsConfig { clients, api: None });
        }
        // By default the API has the clients' certificate.
        let mut api = own.or_else(|| clients.clone());
        match (&mut api, client_ca_file) {
            (Some(api), ca) => api.client_ca = ca.map(|path| dir.join(path)),
            (None, None) => {}
            (None, Some(_)) => bail!(
                "tls.api.client_ca_file is configured, and the API has no certificate of its own: configure \
                 tls.certificate_file and tls.key_file, or both in tls.api"
            ),
        }
        Ok(TlsConfig { clients, api })
    }
}

fn files(
    section: &'static str,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    dir: &Path,
) -> anyhow::Result<Option<TlsFiles>> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            Ok(Some(TlsFiles { section, certificate: dir.join(certificate), key: dir.join(key), client_ca: None }))
        }
        (Some(_), None) => bail!("{section}.certificate_file is configured, and {section}.key_file is not: give both"),
        (None, Some(_)) => bail!("{section}.key_file is configured, and {section}.certificate_file is not: give both"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(json: serde_json::Value) -> anyhow::Result<TlsConfig> {
        serde_json::from_value::<TlsSection>(json)?.into_config(Path::new("/etc/host"))
    }

    #[test]
    fn api_takes_the_clients_certificate_by_default() {
        let pair = serde_json::json!({"certificate_file": "c.pem", "key_file": "k.pem"});
        let config = section(pair.clone()).unwrap();
        assert_eq!(config.api, config.clients);
        assert_eq!(config.api.unwrap().certificate, Path::new("/etc/host/c.pem"));
        let api_alone = section(serde_json::json!({"api": pair})).unwrap();
        assert!(api_alone.clients.is_none() && api_alone.api.is_some());
        let mut off = pair;
        off["api"] = serde_json::json!({"enabled": false});
        let config = section(off).unwrap();
        assert!(config.clients.is_some() && config.api.is_none());
    }

    #[test]
    fn incomplete_sections_are_refused_by_key() {
        for (json, key) in [
            (serde_json::json!({"certificate_file": "c"}), "tls.key_file"),
            (serde_json::json!({"key_file": "c"}), "tls.certificate_file"),
            (serde_json::json!({"api": {"key_file": "c"}}), "tls.api.certificate_file"),
            (serde_json::json!({"api": {"client_ca_file": "c"}}), "tls.api.client_ca_file"),
            (serde_json::json!({"api": {"enabled": false, "client_ca_file": "c"}}), "tls.api.enabled"),
        ] {
            let refused = section(json).unwrap_err().to_string();
            assert!(refused.contains(key), "{refused}");
        }
    }
}

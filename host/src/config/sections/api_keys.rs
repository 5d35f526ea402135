//! `[[api_keys]]`: the keys of the API.

use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;

use crate::api::{ApiKey, KeyScope, Narrowing, Patterns, rate};
use crate::config::secret_file::value_of;
use crate::config::values::{path, secret};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ApiKeySection {
    name: String,
    #[serde(default, deserialize_with = "secret")]
    key: Option<String>,
    #[serde(default, deserialize_with = "path")]
    key_file: Option<PathBuf>,
    key_sha256: Option<String>,
    scopes: Vec<KeyScope>,
    plugins: Option<Vec<String>>,
    events: Option<Vec<String>>,
    rooms: Option<Vec<String>>,
    requests_per_second: Option<NonZeroU32>,
    request_burst: Option<NonZeroU32>,
}

impl fmt::Debug for ApiKeySection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets are left out.
        f.debug_struct("ApiKeySection").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

impl ApiKeySection {
    fn into_key(self, dir: &Path) -> anyhow::Result<ApiKey> {
        let name = self.name;
        if name.trim().is_empty() {
            bail!("api_keys: a key has an empty name: it is what the log calls the caller");
        }
        if self.scopes.is_empty() {
            bail!("api_keys: the key {name} has no scopes: give it publish, admin or both");
        }
        let patterns = |kind: &str, patterns: Option<Vec<String>>| {
            let parsed = patterns.map(Patterns::parse).transpose();
            parsed.map_err(|wrong| anyhow!("api_keys: {kind} of the key {name}: {wrong}"))
        };
        if self.request_burst.is_some() && self.requests_per_second.is_none() {
            bail!("api_keys: the key {name} has a request_burst without requests_per_second");
        }
        let narrowing = Narrowing {
            plugins: patterns("plugins", self.plugins)?,
            events: patterns("events", self.events)?,
            rooms: patterns("rooms", self.rooms)?,
            rate: self.requests_per_second.map(|per_second| rate(per_second, self.request_burst.unwrap_or(per_second))),
        };
        let key = value_of("key", self.key, self.key_file.as_ref(), dir);
        match (key.with_context(|| format!("api_keys: the key {name}"))?, self.key_sha256) {
            (Some(key), None) => Ok(ApiKey { narrowing, ..ApiKey::new(name, &key, self.scopes) }),
            (None, Some(hash)) => {
                let bytes = parse_hex(&hash)
                    .with_context(|| format!("api_keys: key_sha256 of {name} must be 64 hexadecimal digits"))?;
                Ok(ApiKey { name, sha256: bytes, scopes: self.scopes, narrowing })
            }
            _ => bail!("api_keys: the key {name} needs one of key, key_file and key_sha256"),
        }
    }
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// # Errors
/// Where a key is incomplete, or the same as another.
pub(in crate::config) fn into_keys(sections: Vec<ApiKeySection>, dir: &Path) -> anyhow::Result<Vec<ApiKey>> {
    let keys = sections.into_iter().map(|section| section.into_key(dir)).collect::<anyhow::Result<Vec<_>>>()?;
    for (at, key) in keys.iter().enumerate() {
        if let Some(other) = keys[..at].iter().find(|other| other.sha256 == key.sha256) {
            bail!("api_keys: {} and {} are the same key: give each its own", other.name, key.name);
        }
    }
    Ok(keys)
}

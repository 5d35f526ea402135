//! API keys, and the calls that they allow.

use std::fmt;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::config_file::ConfigFile;
use super::narrowing::Narrowing;
use crate::model::{ErrorCode, Failure};

/// The calls that a key allows. Neither scope includes the other: a key may have both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyScope {
    /// To send events, emit, and query features.
    Publish,
    /// To manage plugins and connections, and to list connections, users and rooms.
    Admin,
}

impl KeyScope {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Admin => "admin",
        }
    }
}

/// An API key. Of the key itself only the hash is kept.
#[derive(Clone)]
pub struct ApiKey {
    /// The name of its user, for the log.
    pub name: String,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// The key's scopes.
    pub scopes: Vec<KeyScope>,
    /// What the key may do within its scopes.
    pub narrowing: Narrowing,
}

impl ApiKey {
    /// A key by its text, of which only the hash is kept.
    pub fn new(name: impl Into<String>, key: &str, scopes: Vec<KeyScope>) -> Self {
        let sha256 = Sha256::digest(key.as_bytes()).into();
        Self { name: name.into(), sha256, scopes, narrowing: Narrowing::default() }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// The configuration of the API.
#[derive(Debug, Clone, Default)]
pub struct ApiConfig {
    /// All keys.
    pub keys: Vec<ApiKey>,
    /// The configuration file in use, if any.
    pub file: Option<ConfigFile>,
    /// How long a connection may be idle.
    pub keep_alive: Duration,
    /// Time for the head of a request.
    pub handshake: Duration,
    /// The longest head of a request, in bytes.
    pub header_bytes: usize,
    /// Bytes of incomplete and unanswered requests that may be held.
    pub memory_bytes: usize,
}

/// The caller: the key that the request carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller<'a> {
    /// The key's name.
    pub(super) name: &'a str,
    /// What it may do within its scopes.
    pub(super) narrowing: &'a Narrowing,
}

impl ApiConfig {
    /// The caller, if its key has the scope.
    ///
    /// # Errors
    /// `unauthorized` without a known key, `forbidden` without the scope, `rate_limited` over the key's rate.
    pub(super) fn authorize(&self, headers: &HeaderMap, needed: KeyScope) -> Result<Caller<'_>, Failure> {
        let unauthorized = |message: &str| Failure::new(ErrorCode::Unauthorized, message);
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given =
            given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, given)) = given else {
            return Err(unauthorized("the call needs Authorization: Bearer and an API key"));
        };
        let hash: [u8; 32] = Sha256::digest(given.trim().as_bytes()).into();
        // All keys are compared, each in constant time, against timing attacks.
        let found = self.keys.iter().fold(None, |found, key| {
            let is_it: bool = key.sha256.ct_eq(&hash).into();
            if is_it { Some(key) } else { found }
        });
        let key = found.ok_or_else(|| unauthorized("the API key is not one that this host knows"))?;
        key.narrowing.check_rate(&key.name)?;
        if key.scopes.contains(&needed) {
            Ok(Caller { name: &key.name, narrowing: &key.narrowing })
        } else {
            let message = format!("the API key {} does not have the scope {}", key.name, needed.as_str());
            Err(Failure::new(ErrorCode::Forbidden, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Many keys, so that a comparison that ends at the first match would be seen on a busy machine.
    const KEYS: usize = 2000;
    const ROUNDS: usize = 51;

    #[test]
    fn key_check_takes_as_long_for_any_key() {
        let key = |n: usize| ApiKey::new(n.to_string(), &format!("key-{n}"), vec![KeyScope::Publish]);
        let config = ApiConfig { keys: (0..KEYS).map(key).collect(), ..ApiConfig::default() };
        let asked = ["key-0", &format!("key-{}", KEYS - 1), "key-x"]
            .map(|key| HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {key}").parse().unwrap())]));
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            for (headers, times) in asked.iter().zip(&mut times) {
                let began = Instant::now();
                let found = config.authorize(headers, KeyScope::Publish).map(|caller| caller.name.to_owned());
                times.push(began.elapsed());
                let is_known = headers[AUTHORIZATION] != "Bearer key-x";
                assert_eq!(found.is_ok(), is_known);
            }
        }
        let [first, last, unknown] = times.map(|mut times| {
            times.sort();
            times[ROUNDS / 2]
        });
        assert!(first * 2 > last && first * 2 > unknown, "first {first:?}, last {last:?}, unknown {unknown:?}");
    }
}

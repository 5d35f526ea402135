//! `[auth]`: the authentication of clients.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use figment::value::Value;
use jsonwebtoken::Algorithm;
use serde::Deserialize;

use crate::auth::{AuthConfig, JwtConfig};
use crate::config::secret_file::{value_of, values_of};
use crate::config::values::{check_duration, cookie_name, path, secret, secrets, text};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct AuthSection {
    pub(in crate::config) anonymous: bool,
    #[serde(with = "humantime_serde")]
    pub(in crate::config) grace: Duration,
    pub(in crate::config) jwt: JwtSection,
    pub(in crate::config) session: Option<Value>,
}

impl Default for AuthSection {
    fn default() -> Self {
        Self { anonymous: false, grace: Duration::from_secs(5), jwt: JwtSection::default(), session: None }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct JwtSection {
    #[serde(deserialize_with = "secret")]
    secret: Option<String>,
    #[serde(deserialize_with = "path")]
    secret_file: Option<PathBuf>,
    #[serde(deserialize_with = "secrets")]
    secrets: Vec<String>,
    #[serde(deserialize_with = "path")]
    secrets_file: Option<PathBuf>,
    algorithms: Vec<Algorithm>,
    #[serde(deserialize_with = "text")]
    issuer: Option<String>,
    #[serde(deserialize_with = "text")]
    audience: Option<String>,
    #[serde(deserialize_with = "cookie_name")]
    pub(in crate::config) cookie: Option<String>,
    #[serde(with = "humantime_serde")]
    leeway: Duration,
    pub(in crate::config) public_key_file: Option<PathBuf>,
    pub(in crate::config) jwks_url: Option<String>,
}

impl fmt::Debug for JwtSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets are left out.
        f.debug_struct("JwtSection")
            .field("secret_file", &self.secret_file)
            .field("secrets_file", &self.secrets_file)
            .finish_non_exhaustive()
    }
}

impl Default for JwtSection {
    fn default() -> Self {
        Self {
            secret: None,
            secret_file: None,
            secrets: Vec::new(),
            secrets_file: None,
            algorithms: Vec::new(),
            issuer: None,
            audience: None,
            cookie: None,
            // More than the offset between the clocks of two synchronised machines.
            leeway: Duration::from_secs(60),
            public_key_file: None,
            jwks_url: None,
        }
    }
}

impl AuthSection {
    /// # Errors
    /// Where a time or an algorithm is not supported, or a file of secrets cannot be read.
    pub(in crate::config) fn into_config(self, dir: &Path) -> anyhow::Result<AuthConfig> {
        let Self { anonymous, grace, jwt, .. } = self;
        check_duration("auth.grace", grace, Duration::from_millis(10))?;
        Ok(AuthConfig { anonymous, jwt: jwt.into_config(dir)? })
    }
}

impl JwtSection {
    fn into_config(self, dir: &Path) -> anyhow::Result<JwtConfig> {
        check_duration("auth.jwt.leeway", self.leeway, Duration::ZERO)?;
        for algorithm in &self.algorithms {
            ensure!(
                matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512),
                "auth.jwt.algorithms names {algorithm:?}, and this version checks HS256, HS384 and HS512"
            );
        }
        // The first secret also signs.
        let first = value_of("auth.jwt.secret", self.secret, self.secret_file.as_ref(), dir)?;
        let more = values_of("auth.jwt.secrets", self.secrets, self.secrets_file.as_ref(), dir)?;
        Ok(JwtConfig {
            secrets: first.into_iter().chain(more).collect(),
            algorithms: self.algorithms,
            issuer: self.issuer,
            audience: self.audience,
            leeway: self.leeway,
        })
    }
}

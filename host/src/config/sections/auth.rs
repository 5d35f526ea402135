//! `[auth]`: the authentication of clients.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use figment::value::Value;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::auth_session::SessionSection;
use crate::auth::{AuthConfig, ClaimNames, JwtConfig, VerificationKey};
use crate::config::secret_file::{value_of, values_of};
use crate::config::values::{check_duration, cookie_name, parse_url, path, secret, text, texts};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct AuthSection {
    pub(in crate::config) anonymous: bool,
    #[serde(with = "humantime_serde")]
    pub(in crate::config) grace: Duration,
    pub(in crate::config) jwt: JwtSection,
    pub(in crate::config) session: SessionSection,
}

impl Default for AuthSection {
    fn default() -> Self {
        Self {
            anonymous: false,
            grace: Duration::from_secs(5),
            jwt: JwtSection::default(),
            session: SessionSection::default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct JwtSection {
    #[serde(deserialize_with = "secret")]
    secret: Option<String>,
    #[serde(deserialize_with = "path")]
    secret_file: Option<PathBuf>,
    secrets: Vec<SecretEntry>,
    #[serde(deserialize_with = "path")]
    secrets_file: Option<PathBuf>,
    algorithms: Vec<Algorithm>,
    #[serde(deserialize_with = "texts")]
    issuer: Vec<String>,
    #[serde(deserialize_with = "texts")]
    audience: Vec<String>,
    #[serde(deserialize_with = "cookie_name")]
    pub(in crate::config) cookie: Option<String>,
    #[serde(with = "humantime_serde")]
    leeway: Duration,
    #[serde(with = "humantime_serde")]
    max_age: Option<Duration>,
    #[serde(deserialize_with = "path")]
    public_key_file: Option<PathBuf>,
    #[serde(deserialize_with = "text")]
    jwks_url: Option<String>,
    claims: ClaimsSection,
}

/// A further secret: its text, or a table with the `kid` of the tokens that it signs.
#[derive(Debug)]
struct SecretEntry {
    kid: Option<String>,
    secret: String,
}

impl<'de> Deserialize<'de> for SecretEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            #[serde(deserialize_with = "text")]
            kid: Option<String>,
            #[serde(deserialize_with = "secret")]
            secret: Option<String>,
        }
        // No error repeats the value.
        let wrong = || {
            Error::custom(
                "secrets must be a list of texts, or of tables { kid = \"…\", secret = \"…\" }: put each in quotes",
            )
        };
        match <Value as Deserialize>::deserialize(deserializer).map_err(|_| wrong())? {
            Value::String(_, secret) if secret.trim().is_empty() => {
                Err(Error::custom("it is empty: give it a value, or leave the key out"))
            }
            Value::String(_, secret) => Ok(Self { kid: None, secret }),
            table @ Value::Dict(..) => match table.deserialize().map_err(|_| wrong())? {
                Table { kid, secret: Some(secret) } => Ok(Self { kid, secret }),
                Table { secret: None, .. } => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

/// Which claims have the identity.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct ClaimsSection {
    #[serde(deserialize_with = "texts")]
    id: Vec<String>,
    #[serde(deserialize_with = "texts")]
    name: Vec<String>,
    #[serde(deserialize_with = "texts")]
    roles: Vec<String>,
}

impl Default for ClaimsSection {
    fn default() -> Self {
        let ClaimNames { id, name, roles } = ClaimNames::default();
        Self { id, name, roles }
    }
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
            issuer: Vec::new(),
            audience: Vec::new(),
            cookie: None,
            // More than the offset between the clocks of two synchronised machines.
            leeway: Duration::from_secs(60),
            max_age: None,
            public_key_file: None,
            jwks_url: None,
            claims: ClaimsSection::default(),
        }
    }
}

impl AuthSection {
    /// # Errors
    /// Where a time or an algorithm is not supported, or a file of secrets cannot be read.
    pub(in crate::config) fn into_config(self, dir: &Path) -> anyhow::Result<AuthConfig> {
        let Self { anonymous, grace, jwt, session } = self;
        check_duration("auth.grace", grace, Duration::from_millis(10))?;
        Ok(AuthConfig { anonymous, jwt: jwt.into_config(dir)?, session: session.into_config()? })
    }

    /// The cookie of sessions, where an endpoint for them is configured.
    ///
    /// # Errors
    /// Where tokens have the same cookie.
    pub(in crate::config) fn session_cookie(&self) -> anyhow::Result<Option<String>> {
        let cookie = self.session.cookie();
        ensure!(
            cookie.is_none() || cookie != self.jwt.cookie,
            "auth.session.cookie and auth.jwt.cookie are both {:?}: a cookie has either a session or a token",
            cookie.unwrap_or_default()
        );
        Ok(cookie)
    }
}

impl JwtSection {
    fn into_config(self, dir: &Path) -> anyhow::Result<JwtConfig> {
        check_duration("auth.jwt.leeway", self.leeway, Duration::ZERO)?;
        let ClaimsSection { id, name, roles } = self.claims;
        for (key, path) in [("id", &id), ("name", &name), ("roles", &roles)] {
            ensure!(!path.is_empty(), "auth.jwt.claims.{key} is empty: name a claim, or leave the key out");
        }
        // The first secret also signs.
        let first = value_of("auth.jwt.secret", self.secret, self.secret_file.as_ref(), dir)?;
        let (with_kid, without): (Vec<_>, Vec<_>) = self.secrets.into_iter().partition(|entry| entry.kid.is_some());
        let more = without.into_iter().map(|entry| entry.secret).collect();
        let more = values_of("auth.jwt.secrets", more, self.secrets_file.as_ref(), dir)?;
        let mut keys: Vec<_> = with_kid
            .into_iter()
            .map(|SecretEntry { kid, secret }| {
                VerificationKey::of_secret(&secret, kid.map(Box::from), &self.algorithms)
            })
            .collect();
        if let Some(file) = &self.public_key_file {
            let path = dir.join(file);
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("auth.jwt.public_key_file: cannot read {}", path.display()))?;
            let public = VerificationKey::parse_public(&text, &self.algorithms);
            keys.extend(public.with_context(|| format!("auth.jwt.public_key_file: {}", path.display()))?);
        }
        let secrets: Vec<String> = first.into_iter().chain(more).collect();
        let jwks_url = self.jwks_url.map(|url| parse_url("auth.jwt.jwks_url", &url)).transpose()?;
        let config = JwtConfig {
            secrets,
            keys,
            jwks_url,
            algorithms: self.algorithms,
            issuers: self.issuer,
            audiences: self.audience,
            leeway: self.leeway,
            max_age: self.max_age,
            claims: ClaimNames { id, name, roles },
        };
        check_algorithms(&config)?;
        Ok(config)
    }
}

/// # Errors
/// Where no algorithm is for the secrets that are configured, or would be generated.
fn check_algorithms(config: &JwtConfig) -> anyhow::Result<()> {
    let are_for_secrets = config.algorithms.is_empty()
        || config.algorithms.iter().any(|algorithm| algorithm.family() == AlgorithmFamily::Hmac);
    ensure!(
        are_for_secrets || config.secrets.is_empty() && !config.has_no_key(),
        "auth.jwt.algorithms has {:?}, and none of them checks a secret: add HS256, or replace the secret by \
         auth.jwt.public_key_file or auth.jwt.jwks_url",
        config.algorithms
    );
    Ok(())
}

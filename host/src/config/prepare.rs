//! Generated secrets, for those that are not configured. Only a host generates secrets, before it serves.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::build::Config;
use super::private;
use super::secrets::{Needs, Secret};
use crate::api::{ApiKey, KeyScope};
use crate::auth::VerificationKey;

impl Config {
    /// Checks the host's own files, and reports all problems at once, so that one restart suffices to fix them.
    ///
    /// # Errors
    /// All problems found, each with its remedy.
    pub fn check_files(&self) -> anyhow::Result<()> {
        private::check(&self.own_files())
    }

    /// Reads or generates the secrets that are not configured, and removes the group's permissions where a volume added them.
    /// Until then the configuration lacks these secrets.
    ///
    /// # Errors
    /// Where a file cannot be used or created.
    pub fn prepare(&mut self) -> anyhow::Result<()> {
        self.check_files()?;
        private::close_to_group(&self.own_files());
        if self.lacks_jwt_secret() {
            self.auth.jwt.secrets.push(self.generated.find_or_make(Secret::Jwt)?);
            if !self.development {
                let path = self.generated.path(Secret::Jwt);
                tracing::warn!(
                    "auth.jwt.secret is not configured: only tokens by the secret in {} are taken",
                    path.display()
                );
            }
        }
        if self.needs.api_key && self.api_access.keys.is_empty() {
            let key = self.generated.find_or_make(Secret::ApiKey)?;
            self.api_access.keys.push(ApiKey::new("generated", &key, vec![KeyScope::Publish, KeyScope::Admin]));
        }
        self.client.demo_secret = self.auth.jwt.secrets.first().filter(|_| self.development).cloned();
        Ok(())
    }

    /// The keys and algorithms by which tokens are checked, for people to read. It contains no secret.
    pub fn keys_in_force(&self) -> Value {
        let jwt = &self.auth.jwt;
        let secrets = jwt.secrets.iter().map(|secret| VerificationKey::of_secret(secret, None, &jwt.algorithms));
        let keys = secrets.chain(jwt.keys.iter().cloned()).map(|key| {
            let algorithms: Vec<_> = key.algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect();
            json!({ "kid": key.kid, "algorithms": algorithms })
        });
        json!({
            "keys": keys.collect::<Vec<_>>(),
            "hasGeneratedSecret": self.needs.jwt_secret,
            "jwksUrl": jwt.jwks_url.as_ref().map(ToString::to_string),
            "issuer": jwt.issuers,
            "audience": jwt.audiences,
        })
    }

    fn lacks_jwt_secret(&self) -> bool {
        self.needs.jwt_secret && self.auth.jwt.secrets.is_empty()
    }

    fn own_files(&self) -> private::OwnFiles<'_> {
        let Needs { jwt_secret, api_key } = self.needs;
        let in_use = [(jwt_secret, Secret::Jwt), (api_key, Secret::ApiKey)].into_iter().filter(|(is_used, _)| *is_used);
        let secrets = in_use.map(|(_, secret)| self.generated.path(secret)).collect();
        private::OwnFiles {
            secrets,
            private_dir: self.generated.dir(),
            cache: self.plugins.cache_dir.as_deref(),
            journal: &self.store.journal,
            components: self.plugins.components_dir.as_deref(),
            database: self.store.url.file(),
        }
    }

    /// The secret to sign tokens with: the first configured one, or the one that a host generated in this folder.
    ///
    /// # Errors
    /// Where no secret exists. None is generated, because no running host would know it.
    pub fn signing_secret(&self) -> anyhow::Result<String> {
        if let Some(secret) = self.auth.jwt.secrets.first() {
            return Ok(secret.clone());
        }
        ensure!(
            self.needs.jwt_secret,
            "auth.jwt.secret is not configured, and public keys cannot sign: have the issuer of the keys sign the token, or \
             configure auth.jwt.secret besides them"
        );
        let path = self.generated.path(Secret::Jwt);
        self.generated.find(Secret::Jwt)?.with_context(|| {
            format!(
                "there is no secret to sign with: auth.jwt.secret is not configured, and no host has made {} yet. Run this \
                 in the folder of the host, or give its --config",
                path.display()
            )
        })
    }
}

//! `[auth.session]`: sessions in a cookie, which the operator's own endpoint checks.

use std::time::Duration;

use anyhow::ensure;
use serde::Deserialize;

use crate::auth::{ClaimNames, CookieSessionConfig, SessionFields};
use crate::config::values::{check_duration, cookie_name, parse_url, text, texts};

/// The cookie that Lucia and front-ends made for it use.
const USUAL_COOKIE: &str = "auth_session";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct SessionSection {
    #[serde(deserialize_with = "text")]
    url: Option<String>,
    #[serde(deserialize_with = "cookie_name")]
    cookie: Option<String>,
    #[serde(with = "humantime_serde")]
    timeout: Duration,
    max_concurrent: usize,
    #[serde(with = "humantime_serde")]
    cache: Duration,
    #[serde(with = "humantime_serde")]
    recheck: Duration,
    claims: SessionClaimsSection,
}

impl Default for SessionSection {
    fn default() -> Self {
        Self {
            url: None,
            cookie: None,
            timeout: Duration::from_secs(2),
            max_concurrent: 32,
            cache: Duration::from_secs(5),
            recheck: Duration::from_secs(60),
            claims: SessionClaimsSection::default(),
        }
    }
}

/// Where the endpoint's answers have what.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct SessionClaimsSection {
    #[serde(deserialize_with = "texts")]
    id: Vec<String>,
    #[serde(deserialize_with = "texts")]
    name: Vec<String>,
    #[serde(deserialize_with = "texts")]
    roles: Vec<String>,
    #[serde(deserialize_with = "texts")]
    expires: Vec<String>,
    #[serde(deserialize_with = "texts")]
    session_id: Vec<String>,
}

impl Default for SessionClaimsSection {
    fn default() -> Self {
        let SessionFields { user: ClaimNames { id, name, roles }, expires, session_id } = SessionFields::default();
        Self { id, name, roles, expires, session_id }
    }
}

impl SessionSection {
    pub(super) fn cookie(&self) -> Option<String> {
        self.url.as_ref().map(|_| self.cookie.clone().unwrap_or_else(|| USUAL_COOKIE.to_owned()))
    }

    /// `None` where no endpoint is configured.
    ///
    /// # Errors
    /// Where a value is out of its bounds, or there are others without the URL.
    pub(super) fn into_config(self) -> anyhow::Result<Option<CookieSessionConfig>> {
        check_duration("auth.session.timeout", self.timeout, Duration::from_millis(10))?;
        check_duration("auth.session.cache", self.cache, Duration::ZERO)?;
        check_duration("auth.session.recheck", self.recheck, Duration::from_secs(1))?;
        let cookie = self.cookie();
        let SessionClaimsSection { id, name, roles, expires, session_id } = self.claims;
        ensure!(
            (1..=1000).contains(&self.max_concurrent),
            "auth.session.max_concurrent is {}, and must be 1 to 1000",
            self.max_concurrent
        );
        ensure!(!id.is_empty(), "auth.session.claims.id is empty: name a field, or leave the key out");
        let (Some(url), Some(cookie)) = (&self.url, cookie) else {
            ensure!(
                self.cookie.is_none(),
                "auth.session.cookie is set, and auth.session.url is not: name the endpoint that checks the cookie"
            );
            return Ok(None);
        };
        Ok(Some(CookieSessionConfig {
            url: parse_url("auth.session.url", url)?,
            cookie,
            timeout: self.timeout,
            max_concurrent: self.max_concurrent,
            cache: self.cache,
            recheck: self.recheck,
            fields: SessionFields { user: ClaimNames { id, name, roles }, expires, session_id },
        }))
    }
}

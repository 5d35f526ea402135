//! `[cors]`: the origins of pages that may connect with a cookie, and poll.

use anyhow::anyhow;
use serde::Deserialize;

use crate::conn::AllowedOrigin;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct CorsSection {
    origins: Vec<String>,
}

impl CorsSection {
    /// # Errors
    /// Where an origin is malformed, or one that no page has.
    pub(in crate::config) fn allowed(&self, has_cookie: bool) -> anyhow::Result<Vec<AllowedOrigin>> {
        let parse = |origin: &String| {
            AllowedOrigin::parse(origin)
                .map_err(|wrong| anyhow!("cors.origins has {origin:?}, which no page can have: {wrong}"))
        };
        let origins = self.origins.iter().map(parse).collect::<anyhow::Result<Vec<_>>>()?;
        if has_cookie && !origins.iter().all(AllowedOrigin::is_named) {
            tracing::warn!(
                "cors.origins has \"*\" or \"null\", which count for tokens alone and not for cookies, or any site \
                 could connect as its visitors: list the origins whose pages connect with the cookie"
            );
        }
        Ok(origins)
    }
}

//! `[[rooms]]`: which users may use which rooms.

use std::time::Duration;

use anyhow::ensure;
use serde::Deserialize;

use crate::config::values::{check_duration, parse_url, text};
use crate::policy::{AuthorizeConfig, RoomRule};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RoomSection {
    pattern: String,
    #[serde(default, deserialize_with = "text")]
    allow: Option<String>,
    #[serde(default, deserialize_with = "text")]
    join: Option<String>,
    #[serde(default, deserialize_with = "text")]
    publish: Option<String>,
    #[serde(default, deserialize_with = "text")]
    subscribe: Option<String>,
    #[serde(default, deserialize_with = "text")]
    authorize: Option<String>,
    #[serde(default, with = "humantime_serde")]
    timeout: Option<Duration>,
    #[serde(default, with = "humantime_serde")]
    cache: Option<Duration>,
    max_concurrent: Option<usize>,
}

/// The rules of these sections.
///
/// # Errors
/// With the number of the rule, and its mistake.
pub(in crate::config) fn into_rules(sections: Vec<RoomSection>) -> anyhow::Result<Vec<RoomRule>> {
    sections.into_iter().enumerate().map(|(at, section)| section.into_rule(at)).collect()
}

impl RoomSection {
    fn into_rule(self, at: usize) -> anyhow::Result<RoomRule> {
        let Self { pattern, allow, join, publish, subscribe, authorize, timeout, cache, max_concurrent } = self;
        let key = |key: &str| format!("rooms[{at}].{key}");
        ensure!(
            authorize.is_some() || timeout.is_none() && cache.is_none() && max_concurrent.is_none(),
            "rooms[{at}] has timeout, cache or max_concurrent, and no authorize, which they are for"
        );
        let (timeout, cache) = (timeout.unwrap_or(Duration::from_secs(2)), cache.unwrap_or(Duration::from_secs(60)));
        check_duration(&key("timeout"), timeout, Duration::from_millis(10))?;
        ensure!(timeout <= Duration::from_secs(30), "{} is {timeout:?}, and must be at most 30s", key("timeout"));
        // Less than an event takes to be handled would ask again in the middle of it.
        check_duration(&key("cache"), cache, Duration::from_secs(1))?;
        let max_concurrent = max_concurrent.unwrap_or(32);
        ensure!((1..=1000).contains(&max_concurrent), "{} must be 1 to 1000", key("max_concurrent"));
        let authorize = authorize.map(|url| {
            let url = parse_url(&key("authorize"), &url)?;
            anyhow::Ok(AuthorizeConfig { url, timeout, cache, max_concurrent })
        });
        Ok(RoomRule { pattern, allow, join, publish, subscribe, authorize: authorize.transpose()? })
    }
}

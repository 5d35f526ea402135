//! `[[rooms]]`: which users may use which rooms.

use serde::Deserialize;

use crate::config::values::text;
use crate::policy::RoomRule;

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
}

impl From<RoomSection> for RoomRule {
    fn from(section: RoomSection) -> Self {
        let RoomSection { pattern, allow, join, publish, subscribe } = section;
        Self { pattern, allow, join, publish, subscribe }
    }
}

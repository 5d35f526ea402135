//! The figures of all rooms and channels.

use serde::{Deserialize, Serialize};

/// The figures of one room or channel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlaceStats {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) room_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) channel_id: Option<String>,
    pub(crate) connected_users: u32,
    pub(crate) connections: u32,
}

/// The stats: the figures of all rooms and channels with members.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    active_rooms: usize,
    active_channels: usize,
    /// The number of connections in rooms and channels; one that is in two counts twice.
    connections: u32,
    rooms: Vec<PlaceStats>,
    channels: Vec<PlaceStats>,
}

impl Stats {
    pub(crate) fn of(mut places: Vec<PlaceStats>) -> Self {
        places.retain(|place| place.connections > 0);
        places.sort_by(|a, b| (&a.room_id, &a.channel_id).cmp(&(&b.room_id, &b.channel_id)));
        let connections = places.iter().map(|place| place.connections).sum();
        let (rooms, channels): (Vec<_>, Vec<_>) = places.into_iter().partition(|place| place.room_id.is_some());
        Self { active_rooms: rooms.len(), active_channels: channels.len(), connections, rooms, channels }
    }
}

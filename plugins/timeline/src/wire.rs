//! Messages, events, answers and settings, as they are on the wire.

use std::cmp::Ordering;

use roundhouse_sdk::{ClaimedSender, Id, Passthrough};
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};

/// The operator's settings.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// The types of entities that have timelines.
    pub(crate) entity_types: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        const TYPES: [&str; 7] = ["client", "contact", "lead", "case", "invoice", "organization", "ticket"];
        Self { entity_types: TYPES.map(str::to_owned).into() }
    }
}

roundhouse_sdk::messages! {
    /// Messages of clients and services. The host has read `entityType` and `entityId` from each payload.
    #[derive(Debug)]
    pub enum Message {
        /// A client opens the timeline.
        client "timeline:subscribe" => Subscribe(ClaimedSender),
        /// A client closes the timeline.
        client "timeline:unsubscribe" => Unsubscribe(ClaimedSender),
        /// An item is new, or has changed.
        passthrough "timeline:new_item" | "timeline:item_updated" => Item(Passthrough<Item>),
        /// An item was deleted.
        passthrough "timeline:item_deleted" => ItemDeleted(Passthrough<DeletedItem>),
        /// Clients have to read the timeline again.
        passthrough "timeline:refresh" => Refresh(Passthrough<IgnoredAny>),
        /// Several items are new or have changed.
        passthrough "timeline:bulk_update" => BulkUpdate(Passthrough<BulkUpdate>),
    }
}

/// The field of a payload with an item, which must be present.
#[derive(Debug, Deserialize)]
pub struct Item {
    #[serde(rename = "item", deserialize_with = "not_null")]
    _item: IgnoredAny,
}

/// The field of `timeline:item_deleted`.
#[derive(Debug, Deserialize)]
pub struct DeletedItem {
    #[serde(rename = "itemId")]
    _item_id: Id,
}

/// The field of `timeline:bulk_update`, which must be a list.
#[derive(Debug, Deserialize)]
pub struct BulkUpdate {
    #[serde(rename = "items")]
    _items: Vec<IgnoredAny>,
}

fn not_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IgnoredAny, D::Error> {
    Option::deserialize(deserializer)?.ok_or_else(|| D::Error::custom("`item` must not be null"))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subscribed<'a> {
    pub(crate) entity_type: &'a str,
    pub(crate) entity_id: &'a str,
    pub(crate) subscribers: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Unsubscribed<'a> {
    pub(crate) entity_type: &'a str,
    pub(crate) entity_id: &'a str,
}

roundhouse_sdk::outgoing! {
    pub(crate) const EMITS;
    Subscribed<'_> => "timeline:subscribed",
    Unsubscribed<'_> => "timeline:unsubscribed",
}

/// The acknowledgement of a service's event without subscribers.
#[derive(Debug, Serialize)]
pub(crate) struct Delivered {
    pub(crate) delivered: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Count {
    pub(crate) count: u32,
}

/// One timeline's figures, for the stats.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EntityAnswer {
    pub(crate) entity: EntityStats,
    pub(crate) n_connections: usize,
    /// The ids of the known connections.
    pub(crate) connections: Vec<String>,
}

/// One timeline's figures, as operators see them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EntityStats {
    pub(crate) entity_type: String,
    pub(crate) entity_id: String,
    pub(crate) subscribers: u32,
}

impl EntityStats {
    pub(crate) fn busiest_first(&self, other: &Self) -> Ordering {
        let by_name = || (&self.entity_type, &self.entity_id).cmp(&(&other.entity_type, &other.entity_id));
        other.subscribers.cmp(&self.subscribers).then_with(by_name)
    }
}

/// The stats: the figures of all timelines.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    pub(crate) total_sockets: usize,
    pub(crate) total_entities: usize,
    pub(crate) entities: Vec<EntityStats>,
    /// The number of timelines that are not listed, because there are too many.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) omitted: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

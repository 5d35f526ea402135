//! Messages, events, answers and settings, as they are on the wire.

use std::num::NonZeroU64;

use roundhouse_sdk::{ClaimedSender, Id, IdOr, Passthrough};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::stage::Stage;

/// The operator's settings.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// The number of processed messages between two `campaign:progress`.
    pub(crate) progress_every: NonZeroU64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { progress_every: const { NonZeroU64::new(100).expect("a default is not 0") } }
    }
}

roundhouse_sdk::messages! {
    /// Messages of clients and services.
    #[derive(Debug)]
    pub enum Message {
        /// A client subscribes to the campaign.
        client "subscribe:campaign" => Subscribe(OnCampaign),
        /// A client unsubscribes.
        client "unsubscribe:campaign" => Unsubscribe(OnCampaign),
        /// The campaign starts.
        passthrough "campaign:started" => Started(Passthrough<Started>),
        /// Messages were sent, delivered, read, or have failed.
        service "campaign:message" => Report(Report),
        /// The campaign is paused.
        passthrough "campaign:paused" => Paused(Passthrough<OnCampaign>),
        /// The campaign is resumed.
        passthrough "campaign:resumed" => Resumed(Passthrough<OnCampaign>),
        /// The campaign ends as completed.
        passthrough "campaign:completed" => Completed(Passthrough<OnCampaign>),
        /// The campaign ends as failed.
        passthrough "campaign:failed" => Failed(Passthrough<Failed>),
    }
}

/// A payload with the campaign's id alone, as an object or as the bare id. The host has read the id.
pub type OnCampaign = IdOr<ClaimedSender>;

/// The fields of `campaign:started`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    pub(crate) name: String,
    pub(crate) total: u64,
    pub(crate) owner_id: Option<Id>,
}

/// The fields of `campaign:message`: the status of a number of messages.
#[derive(Debug, Deserialize)]
pub struct Report {
    pub(crate) status: Status,
    count: Option<NonZeroU64>,
}

impl Report {
    /// The number of messages, by default one.
    pub(crate) fn count(&self) -> u64 {
        self.count.map_or(1, NonZeroU64::get)
    }
}

/// The status of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Sent,
    Delivered,
    Read,
    Failed,
}

/// The fields of `campaign:failed`.
#[derive(Debug, Deserialize)]
pub struct Failed {
    pub(crate) reason: String,
}

/// The campaign's id as an object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Named<'a> {
    pub(crate) campaign_id: &'a str,
}

/// The progress of a campaign.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Progress<'a> {
    pub(crate) campaign_id: &'a str,
    pub(crate) state: Stage,
    pub(crate) total: u64,
    pub(crate) processed: u64,
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) read: u64,
    pub(crate) failed: u64,
    pub(crate) percent: Hundredths,
    pub(crate) rate_per_second: Hundredths,
    pub(crate) eta_ms: Option<u64>,
}

impl<'a> Progress<'a> {
    /// The progress of a campaign that was not started.
    pub(crate) fn none(campaign_id: &'a str) -> Self {
        Self {
            campaign_id,
            state: Stage::Pending,
            total: 0,
            processed: 0,
            sent: 0,
            delivered: 0,
            read: 0,
            failed: 0,
            percent: Hundredths::default(),
            rate_per_second: Hundredths::default(),
            eta_ms: None,
        }
    }
}

/// The progress, name and reason of failure, for a new subscriber.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Snapshot<'a> {
    #[serde(flatten)]
    pub(crate) progress: Progress<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'a str>,
}

roundhouse_sdk::outgoing! {
    pub(crate) const EMITS;
    Progress<'_> => "campaign:progress",
    Snapshot<'_> => "campaign:snapshot",
}

/// A number with two decimals, rounded down. On the wire it is an integer if it has no decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hundredths(u64);

impl Hundredths {
    pub(crate) fn of(dividend: u128, divisor: u64) -> Self {
        Self(u64::try_from(dividend * 100 / u128::from(divisor)).unwrap_or(u64::MAX))
    }
}

impl Serialize for Hundredths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 100 {
            0 => serializer.serialize_u64(self.0 / 100),
            _ => serializer.serialize_f64(self.0 as f64 / 100.0),
        }
    }
}

impl<'de> Deserialize<'de> for Hundredths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(|number| Self((number * 100.0).round() as u64))
    }
}

/// One campaign's figures for the stats.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CampaignStats {
    pub(crate) campaign_id: String,
    pub(crate) state: Stage,
    pub(crate) total: u64,
    pub(crate) processed: u64,
    pub(crate) percent: Hundredths,
}

/// The stats: the figures of all campaigns.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats<'a> {
    pub(crate) active: usize,
    pub(crate) paused: usize,
    pub(crate) completed: usize,
    pub(crate) failed: usize,
    pub(crate) campaigns: &'a [CampaignStats],
    /// The number of campaigns that are not listed, because there are too many.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) omitted: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

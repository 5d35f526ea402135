//! What crosses the wire: messages, questions and settings that come in, events and answers that go out.

use std::num::NonZeroU64;

use roundhouse_sdk::{ClaimedSender, Id, IdOr, Passthrough};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::campaign::Stage;

/// The operator's settings.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// Progress is told whenever so many more messages are processed.
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

/// A payload that names the campaign and wants nothing more, as an object or as the bare id. The host made the scope of
/// the id.
pub type OnCampaign = IdOr<ClaimedSender>;

/// What is read of `campaign:started`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    pub(crate) name: String,
    pub(crate) total: u64,
    pub(crate) owner_id: Option<Id>,
}

/// `campaign:message`: what became of so many messages.
#[derive(Debug, Deserialize)]
pub struct Report {
    pub(crate) status: Status,
    count: Option<NonZeroU64>,
}

impl Report {
    /// How many messages it is about: one, where it does not say.
    pub(crate) fn count(&self) -> u64 {
        self.count.map_or(1, NonZeroU64::get)
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Sent,
    Delivered,
    Read,
    Failed,
}

/// What is read of `campaign:failed`.
#[derive(Debug, Deserialize)]
pub struct Failed {
    pub(crate) reason: String,
}

/// Which campaign an event is about, and nothing more.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Named<'a> {
    pub(crate) campaign_id: &'a str,
}

/// How far a campaign is.
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
    /// The figures of a campaign that was not started.
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

/// All that a page which comes late has to know.
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

/// A figure with two decimals, rounded down. On the wire it is a number, and a whole one where it is whole.
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

/// One campaign's figures, no more than an operator needs to find it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CampaignStats {
    pub(crate) campaign_id: String,
    pub(crate) state: Stage,
    pub(crate) total: u64,
    pub(crate) processed: u64,
    pub(crate) percent: Hundredths,
}

/// The figures of all campaigns.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats<'a> {
    pub(crate) active: usize,
    pub(crate) paused: usize,
    pub(crate) completed: usize,
    pub(crate) failed: usize,
    pub(crate) campaigns: &'a [CampaignStats],
    /// Campaigns that are not listed, for there are too many.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) omitted: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

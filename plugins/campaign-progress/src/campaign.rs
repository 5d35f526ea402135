//! The state of a campaign: its counts, its stage and the time that it has run. This file emits nothing.

use roundhouse_sdk::{Failure, Id, check_name};
use serde::{Deserialize, Serialize};

use crate::stage::Stage;
use crate::wire::{Hundredths, Progress, Snapshot, Started, Status};

/// The greatest length of a campaign's name, in characters: it is shown in one line.
const MAX_NAME_CHARS: usize = 256;

/// The greatest length of the reason of a failure in the state, in characters. A longer one, such as a stack trace, is cut
/// and not refused.
const MAX_REASON_CHARS: usize = 1000;

/// The greatest number of messages of a campaign: the greatest integer that is exact in JavaScript.
const MAX_TOTAL: u64 = 9_007_199_254_740_991;

/// A campaign: `None` until it is started.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Campaign(Option<Run>);

/// A campaign that was started.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Run {
    name: String,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_id: Option<Id>,
    stage: Stage,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    sent: u64,
    delivered: u64,
    read: u64,
    failed: u64,
    /// The running time until `since`, without pauses, in milliseconds.
    ran_ms: u64,
    /// The time of the start or the last resume, in epoch milliseconds.
    since: u64,
}

impl Campaign {
    pub(crate) fn run(&self) -> Option<&Run> {
        self.0.as_ref()
    }

    /// The campaign, which must have been started.
    pub(crate) fn run_mut(&mut self) -> Result<&mut Run, Failure> {
        self.0.as_mut().ok_or_else(|| Failure::conflict("the campaign was not started; send campaign:started first"))
    }

    pub(crate) fn start(&mut self, started: &Started, now: u64) -> Result<&mut Run, Failure> {
        if self.0.is_some() {
            return Err(Failure::conflict("the campaign was started already; a new one needs a new campaignId"));
        }
        check_name("name", &started.name, MAX_NAME_CHARS)?;
        if started.total > MAX_TOTAL {
            return Err(Failure::bad_request(format!("total has to be at most {MAX_TOTAL}")));
        }
        Ok(self.0.insert(Run {
            name: started.name.clone(),
            total: started.total,
            owner_id: started.owner_id.clone(),
            stage: Stage::Running,
            reason: None,
            sent: 0,
            delivered: 0,
            read: 0,
            failed: 0,
            ran_ms: 0,
            since: now,
        }))
    }

    pub(crate) fn snapshot<'a>(&'a self, campaign_id: &'a str, now: u64) -> Snapshot<'a> {
        let run = self.run();
        Snapshot {
            progress: run.map_or(Progress::none(campaign_id), |run| run.progress(campaign_id, now)),
            name: run.map(|run| run.name.as_str()),
            reason: run.and_then(|run| run.reason.as_deref()),
        }
    }
}

impl Run {
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn owner_id(&self) -> Option<&str> {
        self.owner_id.as_deref()
    }

    pub(crate) fn processed(&self) -> u64 {
        self.sent + self.failed
    }

    /// Adds to the count of a status. No count exceeds the total.
    pub(crate) fn count(&mut self, status: Status, count: u64) -> Result<(), Failure> {
        let (so_far, counter) = match status {
            Status::Sent => (self.processed(), &mut self.sent),
            Status::Failed => (self.processed(), &mut self.failed),
            Status::Delivered => (self.delivered, &mut self.delivered),
            Status::Read => (self.read, &mut self.read),
        };
        if self.stage.is_end() && matches!(status, Status::Sent | Status::Failed) {
            return Err(self.stage.ended());
        }
        let left = self.total.saturating_sub(so_far);
        if count > left {
            return Err(Failure::conflict(format!(
                "the campaign has {} messages, and {left} are left to be reported so",
                self.total
            )));
        }
        *counter += count;
        Ok(())
    }

    pub(crate) fn pause(&mut self, now: u64) -> Result<(), Failure> {
        match self.stage {
            Stage::Running => {
                self.ran_ms = self.ran_until(now);
                self.stage = Stage::Paused;
                Ok(())
            }
            Stage::Paused => Err(Failure::conflict("the campaign is paused already")),
            end => Err(end.ended()),
        }
    }

    pub(crate) fn resume(&mut self, now: u64) -> Result<(), Failure> {
        match self.stage {
            Stage::Paused => {
                self.since = now;
                self.stage = Stage::Running;
                Ok(())
            }
            Stage::Running => Err(Failure::conflict("the campaign is running already")),
            end => Err(end.ended()),
        }
    }

    /// Ends the campaign, as completed or failed.
    pub(crate) fn end(&mut self, stage: Stage, reason: Option<&str>, now: u64) -> Result<(), Failure> {
        if self.stage.is_end() {
            return Err(self.stage.ended());
        }
        self.ran_ms = self.ran_until(now);
        self.stage = stage;
        self.reason = reason.map(|reason| reason.chars().take(MAX_REASON_CHARS).collect());
        Ok(())
    }

    pub(crate) fn progress<'a>(&self, campaign_id: &'a str, now: u64) -> Progress<'a> {
        Progress {
            campaign_id,
            state: self.stage,
            total: self.total,
            processed: self.processed(),
            sent: self.sent,
            delivered: self.delivered,
            read: self.read,
            failed: self.failed,
            percent: self.percent(),
            rate_per_second: self.rate_per_second(now),
            eta_ms: self.eta_ms(now),
        }
    }

    /// The processed part, rounded down, so that it is 100 only when all messages are processed. A campaign without messages
    /// is at 100 when it is completed.
    pub(crate) fn percent(&self) -> Hundredths {
        match (self.total, self.stage) {
            (0, Stage::Completed) => Hundredths::of(100, 1),
            (0, _) => Hundredths::default(),
            _ => Hundredths::of(u128::from(self.processed()) * 100, self.total),
        }
    }

    /// The processed messages per second of running time.
    fn rate_per_second(&self, now: u64) -> Hundredths {
        match self.ran_until(now) {
            0 => Hundredths::default(),
            ran_ms => Hundredths::of(u128::from(self.processed()) * 1000, ran_ms),
        }
    }

    /// The remaining time at the rate so far; `None` while the campaign is paused or has no rate.
    fn eta_ms(&self, now: u64) -> Option<u64> {
        let (ran_ms, processed) = (self.ran_until(now), self.processed());
        match self.stage {
            stage if stage.is_end() => Some(0),
            Stage::Running if processed == self.total => Some(0),
            Stage::Running if processed > 0 && ran_ms > 0 => {
                let left = u128::from(self.total - processed) * u128::from(ran_ms) / u128::from(processed);
                Some(u64::try_from(left).unwrap_or(u64::MAX))
            }
            _ => None,
        }
    }

    /// The running time until `now`, without pauses, in milliseconds.
    fn ran_until(&self, now: u64) -> u64 {
        match self.stage {
            Stage::Running => self.ran_ms + now.saturating_sub(self.since),
            _ => self.ran_ms,
        }
    }
}

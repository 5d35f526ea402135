//! Live progress of bulk campaigns, for their subscribers and their owners.
//!
//! # Layout
//! - this file: the handling of events, and the recipients of emits
//! - `campaign`: the state of one campaign, and its figures
//! - `stage`: its stages
//! - `wire`: messages, events, answers and settings

mod campaign;
mod stage;
mod wire;

use std::time::Duration;

use roundhouse_sdk::{
    Answer, Answers, Audience, Audiences, Context, EventLimits, Failure, Feature, Manifest, Member, Passthrough,
    Payload, Query, Scope, Sender,
};

pub use campaign::Campaign;
use campaign::Run;
use stage::Stage;
use wire::{CampaignStats, EMITS, Named, Stats};
pub use wire::{Failed, Message, OnCampaign, Report, Settings, Started};

/// The feature.
#[derive(Debug)]
pub struct CampaignProgress;

roundhouse_sdk::export!(CampaignProgress);

type Cx<'a> = Context<'a, CampaignProgress>;

/// The time that a campaign's state is kept after its last event: long enough for the last read receipts.
const IDLE: Duration = Duration::from_secs(28 * 24 * 60 * 60);

/// The greatest number of campaigns in the stats: with ids of the greatest length, the answer stays below its limit of a
/// megabyte.
const MAX_LISTED: usize = 1000;

impl Feature for CampaignProgress {
    type Settings = Settings;
    type State = Campaign;
    type Message = Message;

    fn describe() -> Manifest {
        roundhouse_sdk::manifest!()
            .scope(Scope::durable("campaign:{campaignId}").idle(IDLE).takes::<Message>())
            .limits(EventLimits::default().bytes(16 * 1024).values(256).keys(256).depth(8))
            .gathers("stats")
            .emits(EMITS)
            .needs_audiences(["user"])
    }

    fn message(campaign: &mut Campaign, cx: &mut Cx, sender: &Sender, message: Message) -> Result<(), Failure> {
        let now = cx.now();
        let run = match message {
            Message::Subscribe(payload) => {
                subscribe(campaign, cx, payload.verify(sender)?);
                return Ok(());
            }
            Message::Unsubscribe(payload) => {
                cx.leave(payload.verify(sender)?);
                return Ok(());
            }
            Message::Started(sent) => {
                let run = campaign.start(&sent.fields, now)?;
                emit_life_cycle(run, cx, &sent)?;
                run
            }
            Message::Report(report) => {
                let run = campaign.run_mut()?;
                let before = run.processed();
                run.count(report.status, report.count())?;
                if crosses_multiple(before, run.processed(), cx.settings().progress_every.get()) {
                    emit_progress(run, cx);
                }
                run
            }
            Message::Paused(sent) => {
                let run = campaign.run_mut()?;
                run.pause(now)?;
                emit_life_cycle(run, cx, &sent)?;
                run
            }
            Message::Resumed(sent) => {
                let run = campaign.run_mut()?;
                run.resume(now)?;
                emit_life_cycle(run, cx, &sent)?;
                run
            }
            Message::Completed(sent) => {
                let run = campaign.run_mut()?;
                run.end(Stage::Completed, None, now)?;
                // The progress goes first, so that a page which closes its bar at the end has shown 100 %.
                emit_progress(run, cx);
                emit_life_cycle(run, cx, &sent)?;
                run
            }
            Message::Failed(sent) => {
                let run = campaign.run_mut()?;
                run.end(Stage::Failed, Some(&sent.fields.reason), now)?;
                emit_progress(run, cx);
                emit_life_cycle(run, cx, &sent)?;
                run
            }
        };
        let progress = run.progress(campaign_id(cx), now);
        cx.reply(&progress);
        Ok(())
    }

    fn query(campaign: &Campaign, cx: &Cx, _: &Query) -> Result<Answer, Failure> {
        Ok(Answer::of(&campaign.run().map(|run| CampaignStats {
            campaign_id: campaign_id(cx).to_owned(),
            state: run.stage(),
            total: run.total(),
            processed: run.processed(),
            percent: run.percent(),
        })))
    }

    fn gathered(_: &Cx, _: &Query, answers: &Answers) -> Result<Answer, Failure> {
        // A campaign that was not started has no figures.
        let mut campaigns: Vec<CampaignStats> = answers.decode::<Option<_>>()?.into_iter().flatten().collect();
        campaigns.sort_by(|a, b| (a.state, &a.campaign_id).cmp(&(b.state, &b.campaign_id)));
        let in_state = |state| campaigns.iter().filter(|campaign| campaign.state == state).count();
        let n_omitted = campaigns.len().saturating_sub(MAX_LISTED);
        Ok(Answer::of(&Stats {
            active: in_state(Stage::Running),
            paused: in_state(Stage::Paused),
            completed: in_state(Stage::Completed),
            failed: in_state(Stage::Failed),
            omitted: n_omitted + answers.omitted as usize,
            campaigns: &campaigns[..campaigns.len() - n_omitted],
        }))
    }
}

fn subscribe(campaign: &Campaign, cx: &mut Cx, member: &Member) {
    cx.join(member);
    let snapshot = campaign.snapshot(campaign_id(cx), cx.now());
    cx.emit(member, &snapshot);
    cx.reply(&snapshot);
}

/// Passes a life-cycle event on as the service sent it, but a bare id as the object that it stands for.
fn emit_life_cycle<T>(run: &Run, cx: &mut Cx, sent: &Passthrough<T>) -> Result<(), Failure> {
    let payload = match sent.is_object() {
        true => sent.payload(),
        false => Payload::of(&Named { campaign_id: campaign_id(cx) })?,
    };
    cx.emit_payload(audience(run, cx), cx.event(), payload);
    Ok(())
}

fn emit_progress(run: &Run, cx: &mut Cx) {
    let progress = run.progress(campaign_id(cx), cx.now());
    cx.emit(audience(run, cx), &progress);
}

/// The subscribers and the owner; each connection gets an event once.
fn audience(run: &Run, cx: &Cx) -> Audiences {
    let owner = run.owner_id().map(Audience::user);
    Audiences([cx.room()].into_iter().chain(owner).collect())
}

/// Whether a growing count reached or passed a multiple of `every`. Counts never decrease, so that no multiple is crossed
/// twice.
fn crosses_multiple(before: u64, after: u64, every: u64) -> bool {
    before / every < after / every
}

fn campaign_id<'a>(cx: &Cx<'a>) -> &'a str {
    cx.param("campaignId")
}

#[cfg(test)]
mod tests {
    use super::crosses_multiple;

    #[test]
    fn multiple_is_crossed_when_reached_or_passed() {
        for (before, after, crosses) in
            [(0, 99, false), (99, 100, true), (100, 199, false), (150, 450, true), (100, 100, false), (0, 0, false)]
        {
            assert_eq!(crosses_multiple(before, after, 100), crosses, "{before} to {after}");
        }
    }
}

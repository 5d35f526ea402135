//! A service: it posts numbered events to the scopes of a group, one after the other, and compares the answers with the
//! model.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::board::{Board, Check, Phase, Totals, campaign_key, count};
use super::caller::Caller;
use super::group::{Group, SIZE, user, with};
use super::seen::check_figures;
use super::tally::Kind;
use super::viewers::same;
use crate::{Random, TestHost};

/// The number of messages of a campaign: more than the run reports.
const CAMPAIGN: u64 = 1_000_000_000;

/// The number of processed messages between two `campaign:progress`: the default.
const PROGRESS_EVERY: u64 = 100;

/// The part of events that have an idempotency key and are posted twice, in per cent.
const KEYED: usize = 30;

/// A campaign's figures, as they have to be.
#[derive(Debug, Default)]
struct Campaign {
    /// The number of life-cycle events.
    n_events: u64,
    is_paused: bool,
    /// Sent, delivered, read, failed.
    counts: [u64; 4],
}

const STATUSES: [&str; 4] = ["sent", "delivered", "read", "failed"];

impl Campaign {
    fn processed(&self) -> u64 {
        self.counts[0] + self.counts[3]
    }

    /// In the form of [`figures`](super::board::figures).
    fn figures(&self) -> Value {
        let [sent, delivered, read, failed] = self.counts;
        let state = if self.is_paused { "paused" } else { "running" };
        json!([state, self.processed(), sent, delivered, read, failed])
    }
}

/// The service of a group.
#[derive(Debug)]
pub(super) struct Service {
    group: Group,
    /// The second repeats calls while the first waits for its answer.
    callers: [Caller; 2],
    board: Arc<Board>,
    random: Random,
    campaign: Campaign,
    /// The state of the last message of the contact: its number, and the number of its statuses.
    message: (u64, usize),
    n_keys: u64,
    /// The number of calls.
    pub(super) n_calls: u64,
}

/// The statuses of a message in their order.
const MESSAGE: [&str; 3] = ["Queued", "Sent", "Delivered"];

impl Service {
    /// Connects a service.
    pub(super) async fn open(host: &TestHost, group: Group, board: Arc<Board>, random: Random) -> anyhow::Result<Self> {
        let callers = [Caller::open(host).await?, Caller::open(host).await?];
        let campaign = Campaign::default();
        Ok(Self { group, callers, board, random, campaign, message: (0, 0), n_keys: 0, n_calls: 0 })
    }

    /// Posts events until the load is over.
    ///
    /// # Errors
    /// If a call is not answered.
    pub(super) async fn run(mut self) -> anyhow::Result<Self> {
        let name = format!("the service of group {}", self.group.0);
        self.start().await.with_context(|| name.clone())?;
        while !self.board.has_begun(Phase::Rest) {
            self.act().await.with_context(|| name.clone())?;
            tokio::time::sleep(Duration::from_millis(self.random.below(40) as u64)).await;
        }
        Ok(self)
    }

    /// The figures of the campaign, as they have to be.
    pub(super) fn figures(&self) -> Value {
        self.campaign.figures()
    }

    /// The group whose service it is.
    pub(super) fn group(&self) -> Group {
        self.group
    }

    fn totals(&self) -> &Totals {
        &self.board.totals[self.group.0]
    }

    /// Starts the campaign, and names the participants of the ticket.
    async fn start(&mut self) -> anyhow::Result<()> {
        let owner = user(self.group.0 * SIZE);
        let more = [("name", json!("Spring")), ("total", json!(CAMPAIGN)), ("ownerId", json!(owner))];
        self.life_cycle("campaign:started", &more).await?;
        let users: Vec<String> = self.group.users().collect();
        self.comment(&[("participants", json!(users))]).await
    }

    async fn act(&mut self) -> anyhow::Result<()> {
        match self.random.below(10) {
            0 | 1 => {
                let n = count(&self.totals().timeline);
                let event = *self.random.pick(&["timeline:new_item", "timeline:item_updated"]);
                let answer = self.post(event, with(self.group.timeline(), &[("item", json!({ "n": n }))])).await?;
                self.check(event, same("the number of recipients", &answer["delivered"], &SIZE.into()));
                Ok(())
            }
            2 | 3 => self.comment(&[]).await,
            4 => {
                let event = if self.campaign.is_paused { "campaign:resumed" } else { "campaign:paused" };
                self.campaign.is_paused = !self.campaign.is_paused;
                self.life_cycle(event, &[]).await
            }
            5 | 6 => self.report().await,
            7 => self.status().await,
            _ => {
                let n = count(&self.totals().pushes);
                self.push("message:received", &[("n", json!(n))]).await
            }
        }
    }

    /// A comment, which all participants get: the feature remembers who they are.
    async fn comment(&mut self, more: &[(&str, Value)]) -> anyhow::Result<()> {
        let n = count(&self.totals().comments);
        let comment = json!({ "n": n, "user": { "id": user(self.group.0 * SIZE) } });
        let data = with(with(self.group.told_ticket(), &[("comment", comment)]), more);
        let answer = self.post("ticket:commentAdded", data).await?;
        self.check("ticket:commentAdded", same("the number of recipients", &answer["recipients"], &SIZE.into()));
        Ok(())
    }

    async fn life_cycle(&mut self, event: &str, more: &[(&str, Value)]) -> anyhow::Result<()> {
        let data = with(with(self.group.campaign(), &[("n", json!(self.campaign.n_events))]), more);
        self.campaign.n_events += 1;
        self.totals().campaign().push((event.to_owned(), campaign_key(event, &data)));
        let answer = self.post(event, data).await?;
        self.check(event, check_figures(&answer, &self.campaign.figures()));
        Ok(())
    }

    /// Reports some messages of the campaign.
    async fn report(&mut self) -> anyhow::Result<()> {
        let (status, n) = (self.random.below(STATUSES.len()), 1 + self.random.below(60) as u64);
        let before = self.campaign.processed();
        self.campaign.counts[status] += n;
        if before / PROGRESS_EVERY < self.campaign.processed() / PROGRESS_EVERY {
            self.totals().campaign().push(("campaign:progress".to_owned(), self.campaign.figures()));
        }
        let data = with(self.group.campaign(), &[("status", json!(STATUSES[status])), ("count", json!(n))]);
        let answer = self.post("campaign:message", data).await?;
        self.check("campaign:message", check_figures(&answer, &self.campaign.figures()));
        Ok(())
    }

    /// The next status of a message; after the last one an earlier one, which the feature drops because it remembers.
    async fn status(&mut self) -> anyhow::Result<()> {
        let (message, n_statuses) = self.message;
        let id = ("messageId", json!(format!("g{}m{message}", self.group.0)));
        let Some(status) = MESSAGE.get(n_statuses) else {
            self.message = (message + 1, 0);
            let data = with(self.group.contact(), &[id, ("status", json!("Sent"))]);
            let answer = self.post("message:status:update", data).await?;
            let dropped = json!({ "delivered": 0, "dropped": true, "status": "Delivered" });
            self.check("message:status:update", same("the answer to a late status", &answer, &dropped));
            return Ok(());
        };
        self.message.1 += 1;
        let n = count(&self.totals().pushes);
        self.push("message:status:update", &[("n", json!(n)), id, ("status", json!(status))]).await
    }

    async fn push(&mut self, event: &str, more: &[(&str, Value)]) -> anyhow::Result<()> {
        let answer = self.post(event, with(self.group.contact(), more)).await?;
        self.check(event, same("the number of recipients", &answer["delivered"], &SIZE.into()));
        Ok(())
    }

    /// Posts an event, some with an idempotency key and twice: at once, or one after the other.
    async fn post(&mut self, event: &str, data: Value) -> anyhow::Result<Value> {
        let mut call = json!({ "event": event, "data": data });
        self.n_calls += 1;
        let [first, second] = &mut self.callers;
        let (status, body) = if self.random.in_hundred(KEYED) {
            self.n_keys += 1;
            call["idempotencyKey"] = json!(format!("g{}k{}", self.group.0, self.n_keys));
            let (one, two) = if self.random.in_hundred(50) {
                tokio::try_join!(first.post(&call), second.post(&call))?
            } else {
                (first.post(&call).await?, second.post(&call).await?)
            };
            self.check(event, same("the answer to the repeated call", &two, &one));
            one
        } else {
            first.post(&call).await?
        };
        if status != 200 {
            self.check(event, Err((Kind::Refused, format!("answered with {status}: {body}"))));
        }
        Ok(body)
    }

    fn check(&self, event: &str, check: Check) {
        if let Err((kind, what)) = check {
            let what = format!("the service of group {}, {event}: {what}", self.group.0);
            self.board.tally().add(kind, 1, what);
        }
    }
}

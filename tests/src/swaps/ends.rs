//! The comparison of the host's reports with the model, when all has arrived.

use serde_json::{Value, json};

use super::board::{Board, Check};
use super::caller::Caller;
use super::group::{FEATURES, Group, SIZE, client_of};
use super::member::Member;
use super::seen::{VISITOR, check_figures};
use super::service::Service;
use super::swapper::Swapper;
use super::tally::Kind;
use super::viewers::same;
use crate::bench::token;
use crate::{TestClient, TestHost};

/// The host's answers, and where faults are counted.
pub(super) struct Ends<'a> {
    pub(super) host: &'a TestHost,
    pub(super) caller: Caller,
    pub(super) board: &'a Board,
}

impl Ends<'_> {
    /// Compares all that the host reports.
    ///
    /// # Errors
    /// If it does not answer.
    pub(super) async fn compare(&mut self, swapper: &Swapper, services: &[Service]) -> anyhow::Result<()> {
        for (feature, (name, _)) in FEATURES.iter().enumerate() {
            let (_, report) = self.caller.call("GET", &format!("/v1/plugins/{name}"), "").await?;
            let got = json!([report["generation"], report["traps"], report["state"], report["errors"]]);
            let expected = json!([1 + swapper.n_swaps_of(feature), 0, "running", null]);
            self.check(name, same("generation, traps, state and errors", &got, &expected));
            for service in services {
                self.check(name, check_stats(name, service, &report["stats"]));
            }
        }
        for service in services {
            self.compare_group(service.group()).await?;
        }
        self.compare_campaigns(services).await
    }

    async fn compare_group(&mut self, group: Group) -> anyhow::Result<()> {
        let viewers = self.query("ticket-collision/viewers", &group.ticket()).await?;
        let mut viewing: Vec<usize> = viewers["viewers"].as_array().into_iter().flatten().filter_map(viewer).collect();
        viewing.sort_unstable();
        let expected: Vec<usize> = (group.0 * SIZE..(group.0 + 1) * SIZE).collect();
        self.check("ticket-collision", same("the viewers who do not type", &viewing, &expected));
        let subscribers = self.query("timeline/subscribers", &group.timeline()).await?;
        self.check("timeline", same("the subscribers", &subscribers, &json!({ "count": SIZE })));
        Ok(())
    }

    async fn query(&mut self, query: &str, data: &Value) -> anyhow::Result<Value> {
        Ok(self.caller.call("POST", &format!("/v1/query/{query}"), data.to_string()).await?.1)
    }

    /// Compares the figures of all campaigns, which a new subscriber gets.
    async fn compare_campaigns(&mut self, services: &[Service]) -> anyhow::Result<()> {
        let mut page = TestClient::connect(&self.host.ws, &token("page")?).await;
        for service in services {
            let snapshot = page.emit_with_ack("subscribe:campaign", service.group().campaign()).await;
            self.check("campaign-progress", check_figures(&snapshot.unwrap_or_else(|error| error), &service.figures()));
        }
        Ok(())
    }

    /// Checks that all clients of a group have seen the same in the same order.
    pub(super) fn compare_orders(&self, members: &[Member]) {
        for group in members.chunks(SIZE) {
            let [first, others @ ..] = group else { continue };
            for other in others {
                self.check_order(other, "messages", first.seen.talk.shown == other.seen.talk.shown);
                // The visitor has not seen all changes.
                let is_same = first.seen.viewers.changes == other.seen.viewers.changes;
                self.check_order(other, "changes of viewers", is_same || other.index() == VISITOR);
            }
        }
    }

    fn check_order(&self, member: &Member, what: &str, is_same: bool) {
        if !is_same {
            let what =
                format!("{} has seen other {what} than the first of its group, or in another order", member.name());
            self.board.tally().add(Kind::Disordered, 1, what);
        }
    }

    fn check(&self, name: &str, check: Check) {
        if let Err((kind, what)) = check {
            self.board.tally().add(kind, 1, format!("{name} at the end: {what}"));
        }
    }
}

/// The client of a listed viewer that does not type.
fn viewer(viewer: &Value) -> Option<usize> {
    client_of(&viewer["agentId"]).filter(|_| viewer["status"] == "viewing")
}

/// Checks a feature's own figures of the scope of a group.
fn check_stats(name: &str, service: &Service, stats: &Value) -> Check {
    let group = service.group();
    let (list, id, expected) = match name {
        "ticket-collision" => {
            let ticket = group.ticket();
            ("tickets", "ticketId", json!({ "ticketId": ticket["ticketId"], "viewerCount": SIZE, "typingCount": 0 }))
        }
        "timeline" => {
            let mut entity = group.timeline();
            entity["subscribers"] = SIZE.into();
            ("entities", "entityId", entity)
        }
        "crm-events" => return same("the number of typists", &stats["typing"], &json!(0)),
        "campaign-progress" => {
            let (id, figures) = (group.campaign()["campaignId"].clone(), service.figures());
            let of = |campaign: &&Value| campaign["campaignId"] == id;
            let campaign = stats["campaigns"].as_array().into_iter().flatten().find(of);
            let got = campaign.map(|campaign| json!([campaign["state"], campaign["processed"]]));
            return same("state and processed messages", &got, &Some(json!([figures[0], figures[1]])));
        }
        _ => return Ok(()),
    };
    let entry = stats[list].as_array().into_iter().flatten().find(|entry| entry[id] == expected[id]);
    same("the figures of a group", &entry, &Some(&expected))
}

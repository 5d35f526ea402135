//! What one client has seen of its group's scopes, and its comparison with what was done there.

use std::sync::Arc;

use serde_json::Value;

use super::acks::Asked;
use super::board::{Board, Check, Totals, campaign_key, figures, read};
use super::group::{Group, SIZE, client_of};
use super::sequence::Sequence;
use super::talk::Talk;
use super::tally::Kind;
use super::viewers::{Change, Viewers, same};

/// The field of `system:notification` that marks the end of a phase.
pub(super) const FENCE: &str = "fence";

/// What a client has seen.
#[derive(Debug)]
pub(super) struct Seen {
    /// The index of the client in its group.
    me: usize,
    group: Group,
    board: Arc<Board>,
    pub(super) viewers: Viewers,
    pub(super) talk: Talk,
    timeline: Sequence,
    comments: Sequence,
    pushes: Sequence,
    campaign: Sequence,
    /// By the index of the typist, the indicators of its typing to the contact: each second one says that it has ended.
    typists: [u64; SIZE],
    /// Events that must come once before the acknowledgement of what they answer.
    subscribed: Option<Value>,
    snapshot: Option<Value>,
    /// The number of fences that have come.
    pub(super) fences: u64,
    /// The number of events that have come.
    pub(super) n_events: u64,
}

impl Seen {
    /// A client that has seen nothing.
    pub(super) fn new(client: usize, board: Arc<Board>) -> Self {
        Self {
            me: client % SIZE,
            group: Group(client / SIZE),
            board,
            viewers: Viewers::new(client),
            talk: Talk::default(),
            timeline: Sequence::default(),
            comments: Sequence::default(),
            pushes: Sequence::default(),
            campaign: Sequence::default(),
            typists: [0; SIZE],
            subscribed: None,
            snapshot: None,
            fences: 0,
            n_events: 0,
        }
    }

    fn totals(&self) -> &Totals {
        &self.board.totals[self.group.0]
    }

    /// An event has arrived.
    pub(super) fn see(&mut self, event: &str, data: &Value) -> Check {
        self.n_events += 1;
        if let Some(chat) = event.strip_prefix(self.group.family()).filter(|rest| rest.starts_with("Message")) {
            return self.talk.see(self.me, chat, data);
        }
        match event {
            "viewers:updated" | "collision:warning" => self.viewers.see(event, data),
            "timeline:new_item" | "timeline:item_updated" => take(&mut self.timeline, event, &data["item"]["n"]),
            "ticket:commentAdded" => take(&mut self.comments, event, &data["comment"]["n"]),
            "message:received" | "message:status:update" => take(&mut self.pushes, event, &data["n"]),
            "timeline:subscribed" => once(&mut self.subscribed, event, data),
            "campaign:snapshot" => once(&mut self.snapshot, event, data),
            "typing:indicator" => self.see_typing(data),
            "system:notification" => {
                self.fences += 1;
                same("the number of the fence", &data[FENCE], &self.fences.into())
            }
            "error" => Err((Kind::Refused, format!("an error came: {data}"))),
            _ if event.starts_with("agent:") => self.viewers.see(event, data),
            _ if event.starts_with("campaign:") => self.see_campaign(event, data),
            _ => Err((Kind::Wrong, format!("{event} is not for this client: {data}"))),
        }
    }

    fn see_campaign(&mut self, event: &str, data: &Value) -> Check {
        let key = campaign_key(event, data);
        let next = self.campaign.next() as usize;
        let at = {
            let events = self.totals().campaign();
            let is_it = |at: &usize| events[*at].0 == event && events[*at].1 == key;
            (next..events.len()).find(is_it).or_else(|| (0..next.min(events.len())).find(is_it))
        };
        let at = at.ok_or_else(|| (Kind::Wrong, format!("{event} with {key} is not in the model: {data}")))?;
        take(&mut self.campaign, event, &at.into())
    }

    fn see_typing(&mut self, data: &Value) -> Check {
        let typist =
            client_of(&data["userId"]).filter(|client| client / SIZE == self.group.0).map(|client| client % SIZE);
        let typist = typist.filter(|typist| *typist != self.me);
        let typist = typist.ok_or_else(|| (Kind::Wrong, format!("an indicator of another's typing: {data}")))?;
        let n_seen = self.typists[typist];
        let is_typing = data["isTyping"] == true;
        if is_typing != n_seen.is_multiple_of(2) {
            return Err((
                Kind::Doubled,
                format!("client {typist} types: {is_typing}, which was known, after {n_seen}"),
            ));
        }
        self.typists[typist] += 1;
        let ends = &self.totals().contact_ends[typist];
        ends.fetch_max(self.typists[typist] / 2, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }

    /// The acknowledgement of an event has arrived, which the host has not refused.
    pub(super) fn see_answer(&mut self, asked: Asked, data: &Value) -> Check {
        match asked {
            Asked::Other => Ok(()),
            Asked::View => self.viewers.see_answer(data),
            Asked::Leave => {
                self.viewers.left();
                Ok(())
            }
            Asked::Subscribe => {
                let told = self.subscribed.take();
                same("the event before the acknowledgement", &told.as_ref(), &Some(data))?;
                // Clients enter one after the other, and all have entered when the load begins.
                let is_whole = data["subscribers"] == SIZE || !self.board.has_begun(super::board::Phase::Load);
                same("the number of subscribers is right", &is_whole, &true)
            }
            Asked::Snapshot => {
                let told = self.snapshot.take();
                same("the event before the acknowledgement", &told.as_ref(), &Some(data))
            }
            Asked::Say(number) => self.talk.is_known_as(number, data["tempId"].as_str().unwrap_or_default()),
            Asked::History => same("the answer has messages", &data["messages"].is_array(), &true),
        }
    }

    /// The chat messages of each client.
    fn said(&self) -> [u64; SIZE] {
        std::array::from_fn(|sender| read(&self.totals().said[sender]))
    }

    /// Whether all has arrived that others have done.
    pub(super) fn is_complete(&self) -> bool {
        self.talk.is_complete(self.me, &self.said())
            && self.numbered().iter().all(|(_, seen, total)| seen.is_complete(*total))
    }

    fn numbered(&self) -> [(&'static str, &Sequence, u64); 4] {
        let totals = self.totals();
        [
            ("events of the timeline", &self.timeline, read(&totals.timeline)),
            ("comments of the ticket", &self.comments, read(&totals.comments)),
            ("events of the contact", &self.pushes, read(&totals.pushes)),
            ("events of the campaign", &self.campaign, totals.campaign().len() as u64),
        ]
    }

    /// What was done and has not arrived: the number of events, and a description.
    pub(super) fn missing(&self) -> Vec<(u64, String)> {
        let lost = |(what, seen, total): (&str, &Sequence, u64)| {
            let (n, first) = seen.lost(total);
            first.map(|first| (n, format!("{what}, first {first} of {total}")))
        };
        self.numbered().into_iter().filter_map(lost).chain(self.talk.missing(self.me, &self.said())).collect()
    }

    /// Compares what has to be equal when all has arrived: typing, viewers, and the sums of both.
    pub(super) fn compare(&self) -> Vec<(Kind, String)> {
        let totals = self.totals();
        let first = self.group.0 * SIZE;
        let mut checks = vec![self.viewers.check_end(first..first + SIZE)];
        for typist in (0..SIZE).filter(|typist| *typist != self.me) {
            let what = format!("the indicators of client {}", first + typist);
            checks.push(same(&what, &self.typists[typist], &(2 * read(&totals.contact_typings[typist]))));
        }
        for (typist, typings) in totals.ticket_typings.iter().enumerate().filter(|_| self.me != VISITOR) {
            for change in [Change::Typed, Change::Stopped] {
                let n_seen = self.viewers.n_changes(change, first + typist);
                checks.push(same(&format!("{change:?} of client {}", first + typist), &n_seen, &read(typings)));
            }
        }
        for change in [Change::Left, Change::Joined] {
            let n_seen = self.viewers.n_changes(change, first + VISITOR);
            let expected = if self.me == VISITOR { n_seen } else { read(&totals.visits) };
            checks.push(same(&format!("{change:?} of the visitor"), &n_seen, &expected));
        }
        checks.into_iter().filter_map(Result::err).collect()
    }
}

/// The index of the client that leaves its ticket and views it again. It does not see what happens in between.
pub(super) const VISITOR: usize = 2;

fn take(sequence: &mut Sequence, event: &str, number: &Value) -> Check {
    let number = number.as_u64().ok_or_else(|| (Kind::Wrong, format!("{event} has no number")))?;
    sequence.take(number).map_err(|kind| (kind, format!("{event} {number} came, where {} was next", sequence.next())))
}

fn once(place: &mut Option<Value>, event: &str, data: &Value) -> Check {
    match place.replace(data.clone()) {
        None => Ok(()),
        Some(_) => Err((Kind::Doubled, format!("{event} came again before an acknowledgement"))),
    }
}

/// Checks the figures of a campaign in an answer or in a report.
pub(super) fn check_figures(of: &Value, expected: &Value) -> Check {
    same("the campaign's figures", &figures(of), expected)
}

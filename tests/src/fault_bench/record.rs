//! The record: what pages have seen on each of their connections, and the story of the run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;

pub(super) use super::health::At;
use super::health::Health;
use super::model::{CAMPAIGNS, Place};

/// A page's time in a place: from the acknowledgement of its entry until it leaves or its connection ends.
#[derive(Debug, Clone)]
pub(super) struct Stay {
    /// The place.
    pub(super) place: Place,
    /// When the entry was acknowledged.
    pub(super) from: At,
    /// When the page left, or began to.
    pub(super) to: Option<At>,
}

/// The outcome of a chat message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The message is stored.
    Confirmed,
    /// The message is not stored.
    Failed,
}

/// What a page has seen on one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    /// The page.
    pub(super) page: usize,
    /// The host.
    pub(super) node: usize,
    /// When it ended.
    pub(super) closed: Option<At>,
    /// The places where the page was.
    pub(super) stays: Vec<Stay>,
    /// By ticket: the agents in the last list, and whether each types.
    pub(super) viewers: BTreeMap<usize, Vec<(usize, bool)>>,
    /// Agents that were told as gone: time, ticket and agent.
    pub(super) left: Vec<(At, usize, usize)>,
    /// By timeline: the numbers of its events, in the order of arrival.
    pub(super) items: BTreeMap<usize, Vec<usize>>,
    /// By room: the temporary ids and numbers of messages, in the order of arrival.
    pub(super) shown: BTreeMap<usize, Vec<(String, usize)>>,
    /// The outcomes of messages, by temporary id.
    pub(super) ended: Vec<(At, String, Outcome)>,
}

impl Session {
    /// The stays in a place.
    pub(super) fn stays_in(&self, place: Place) -> impl Iterator<Item = &Stay> {
        self.stays.iter().filter(move |stay| stay.place == place)
    }

    /// Whether the page was in a place from one time to the other.
    pub(super) fn was_in(&self, place: Place, from: At, to: At) -> bool {
        let lasts = |end: Option<At>| end.is_none_or(|end| end > to);
        lasts(self.closed) && self.stays_in(place).any(|stay| stay.from < from && lasts(stay.to))
    }
}

/// A numbered event of a service.
#[derive(Debug, Clone)]
pub(super) struct Post {
    /// When the call began.
    pub(super) began: At,
    /// When it ended.
    pub(super) ended: Option<At>,
    /// Whether the call succeeded; else the event may have been handled or not.
    pub(super) is_acknowledged: bool,
}

/// What a campaign has to have counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Campaign {
    /// The messages of acknowledged calls.
    pub(super) processed: u64,
    /// The messages of calls that were repeated, each as often as it was.
    pub(super) repeated: u64,
    /// Whether a call has yet to be acknowledged.
    pub(super) is_counting: bool,
}

/// A chat message.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// The page that wrote it.
    pub(super) page: usize,
    /// The room.
    pub(super) room: usize,
    /// Whether it has a client's id, and is repeated until it is acknowledged.
    pub(super) is_keyed: bool,
    /// When it was first sent.
    pub(super) sent: Option<At>,
    /// When it was acknowledged, and the temporary id of the acknowledgement.
    pub(super) acknowledged: Option<(At, String)>,
}

/// Everything that was done and seen.
#[derive(Debug)]
pub(super) struct Record {
    start: Instant,
    /// The faults of hosts.
    pub(super) health: Health,
    /// All connections of all pages.
    pub(super) sessions: Vec<Session>,
    /// By timeline, the events by their numbers.
    pub(super) posts: Vec<Vec<Post>>,
    /// The campaigns, by their numbers.
    pub(super) campaigns: Vec<Campaign>,
    /// The chat messages, by their numbers.
    pub(super) messages: Vec<Message>,
    /// Times at which Redis may have lost what was written to it.
    pub(super) losses: Vec<At>,
    /// What pages are waiting for, by page; absent when a page has all it wants.
    pub(super) unsettled: BTreeMap<usize, String>,
    /// The number of refusals, by code.
    pub(super) refusals: BTreeMap<String, usize>,
    story: Vec<Line>,
}

/// A line of the story.
#[derive(Debug)]
struct Line {
    at: At,
    page: Option<usize>,
    place: Option<Place>,
    text: String,
}

impl Record {
    /// A record of this many hosts and timelines, which begins now.
    pub(super) fn new(nodes: usize, timelines: usize) -> Self {
        Self {
            start: Instant::now(),
            health: Health::new(nodes),
            sessions: Vec::new(),
            posts: vec![Vec::new(); timelines],
            campaigns: vec![Campaign::default(); CAMPAIGNS],
            messages: Vec::new(),
            losses: Vec::new(),
            unsettled: BTreeMap::new(),
            refusals: BTreeMap::new(),
            story: Vec::new(),
        }
    }

    /// The time.
    pub(super) fn now(&self) -> At {
        self.start.elapsed().as_millis() as At
    }

    /// Notes something that concerns everything, as a fault does.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.tell(None, None, text.into());
    }

    /// Notes something of a page, and of the place where it was.
    pub(super) fn note_of(&mut self, page: usize, place: Option<Place>, text: impl Into<String>) {
        self.tell(Some(page), place, text.into());
    }

    fn tell(&mut self, page: Option<usize>, place: Option<Place>, text: String) {
        let at = self.now();
        self.story.push(Line { at, page, place, text });
    }

    /// The last lines of the story that concern one of the pages or places, or everything.
    pub(super) fn story(&self, pages: &BTreeSet<usize>, places: &BTreeSet<Place>, n_lines: usize) -> Vec<String> {
        let concerns = |line: &&Line| match (line.page, line.place) {
            (None, None) => true,
            (Some(page), None) => pages.contains(&page),
            (page, Some(place)) => page.is_some_and(|page| pages.contains(&page)) || places.contains(&place),
        };
        let lines: Vec<&Line> = self.story.iter().filter(concerns).collect();
        let shown = lines.iter().skip(lines.len().saturating_sub(n_lines));
        shown.map(|Line { at, text, .. }| format!("{:>8.3} s  {text}", *at as f64 / 1000.0)).collect()
    }

    /// A page has connected to a host. Returns the number of the session.
    pub(super) fn open(&mut self, page: usize, node: usize) -> usize {
        self.sessions.push(Session { page, node, ..Session::default() });
        self.note_of(page, None, format!("page {page} is connected to host {node}"));
        self.sessions.len() - 1
    }

    /// The connection has ended.
    pub(super) fn close(&mut self, session: usize, why: &str) {
        let at = self.now();
        let Session { page, node, closed, .. } = &mut self.sessions[session];
        *closed = Some(at);
        let (page, node) = (*page, *node);
        self.note_of(page, None, format!("page {page} is not connected to host {node} any more: {why}"));
    }

    /// The open session of each connected page.
    pub(super) fn open_sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().filter(|session| session.closed.is_none())
    }

    /// The host that a page is connected to.
    pub(super) fn node_of(&self, page: usize) -> Option<usize> {
        self.open_sessions().find(|session| session.page == page).map(|session| session.node)
    }

    /// A frame has arrived that is no acknowledgement.
    pub(super) fn see(&mut self, session: usize, event: &str, data: &Value) {
        let at = self.now();
        let seen = &mut self.sessions[session];
        match event {
            "viewers:updated" => self.see_viewers(session, data),
            "agent:left" => {
                seen.left.extend(number(&data["ticketId"]).zip(number(&data["agentId"])).map(|(t, a)| (at, t, a)))
            }
            "timeline:new_item" => {
                let Some(timeline) = number(&data["entityId"]) else { return };
                seen.items.entry(timeline).or_default().extend(number(&data["item"]["n"]));
            }
            "roomMessageRecieved" => {
                let Some(room) = number(&data["roomId"]) else { return };
                seen.shown.entry(room).or_default().extend(temp_id(data).zip(number(&data["body"])));
            }
            "roomMessageConfirmed" => seen.ended.extend(temp_id(data).map(|id| (at, id, Outcome::Confirmed))),
            "roomMessageFailed" => seen.ended.extend(temp_id(data).map(|id| (at, id, Outcome::Failed))),
            "error" => self.refused(data),
            _ => {}
        }
    }

    /// A list of a ticket's viewers has arrived, by an event or an acknowledgement.
    pub(super) fn see_viewers(&mut self, session: usize, data: &Value) {
        let Some(ticket) = number(&data["ticketId"]) else { return };
        let viewers = data["viewers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of = |viewer: &Value| Some((number(&viewer["agentId"])?, viewer["status"] == "typing"));
        let list: Vec<(usize, bool)> = viewers.iter().filter_map(of).collect();
        let page = self.sessions[session].page;
        let agents: Vec<usize> = list.iter().map(|(agent, _)| *agent).collect();
        self.note_of(page, Some(Place::Ticket(ticket)), format!("page {page} sees {agents:?} on ticket {ticket}"));
        self.sessions[session].viewers.insert(ticket, list);
    }

    /// A refusal has arrived.
    pub(super) fn refused(&mut self, error: &Value) {
        let code = error["code"].as_str().unwrap_or("none");
        *self.refusals.entry(code.to_owned()).or_default() += 1;
    }
}

fn temp_id(data: &Value) -> Option<String> {
    data["tempId"].as_str().map(str::to_owned)
}

/// A number, or the digits at the end of a name such as `agent7`.
pub(super) fn number(value: &Value) -> Option<usize> {
    match value {
        Value::String(name) => name.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse().ok(),
        value => value.as_u64().map(|number| number as usize),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn frames_are_recorded_by_their_session() {
        let mut record = Record::new(1, 1);
        let session = record.open(0, 0);
        let viewers = json!([{ "agentId": "agent7", "status": "typing" }]);
        record.see(session, "viewers:updated", &json!({ "ticketId": "t3", "viewers": viewers }));
        record.see(session, "timeline:new_item", &json!({ "entityId": "e0", "item": { "n": 4 } }));
        record.see(session, "roomMessageRecieved", &json!({ "roomId": "r1", "tempId": "x", "body": "m9" }));
        record.see(session, "roomMessageFailed", &json!({ "tempId": "x" }));
        let seen = &record.sessions[session];
        assert_eq!(seen.viewers[&3], [(7, true)]);
        assert_eq!(seen.items[&0], [4]);
        assert_eq!(seen.shown[&1], [("x".to_owned(), 9)]);
        assert_eq!(seen.ended[0].2, Outcome::Failed);
    }

    #[test]
    fn story_is_of_the_concerned_alone() {
        let mut record = Record::new(1, 1);
        record.note("a fault");
        record.note_of(1, None, "of page 1");
        record.note_of(2, Some(Place::Ticket(5)), "of ticket 5");
        let told = |pages: &[usize], places: &[Place]| {
            record.story(&pages.iter().copied().collect(), &places.iter().copied().collect(), 9).len()
        };
        assert_eq!((told(&[], &[]), told(&[1], &[]), told(&[1], &[Place::Ticket(5)])), (1, 2, 3));
    }
}

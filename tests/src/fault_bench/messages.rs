//! The invariants of optimistic chat messages: each is shown once, in one order, and ends once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::health::RECOVERY;
use super::model::{Place, ROOMS};
use super::order::{disagreement, repetition};
use super::record::{At, Message, Outcome, Record, Session};
use super::violation::Violation;

const ONCE: &str = "a client's message is handled once";
const TWICE: &str = "no page is shown a message twice";
const ORDER: &str = "all are shown the messages of a room in one order";
const MISSING: &str = "who is on a healthy host is shown each acknowledged message";
const ENDS: &str = "each message ends by confirmation or by failure, and never by both";
const STORED: &str = "the history has each confirmed message once, and no failed one";

/// Checks all messages, but for the history.
pub(super) fn messages(record: &Record) -> Option<Violation> {
    let view = View::of(record);
    view.handled_once()
        .or_else(|| view.shown_once())
        .or_else(|| view.one_order())
        .or_else(|| view.ended_once())
        .or_else(|| view.received())
}

/// Checks the history of a room, as numbers of messages.
pub(super) fn history(record: &Record, room: usize, stored: &[usize]) -> Option<Violation> {
    let view = View::of(record);
    let violation = |what: String| Some(Violation::new(STORED, what).within(Place::Room(room)));
    if let Some(number) = repetition(stored) {
        return violation(format!("message {number} is twice in the history of room {room}"));
    }
    let stored: BTreeSet<usize> = stored.iter().copied().collect();
    let written = record.messages.iter().enumerate().filter(|(_, message)| message.room == room);
    written.filter_map(|(number, message)| Some((number, message, message.acknowledged.as_ref()?))).find_map(
        |(number, message, (_, temp))| {
            let failed = view.outcomes.get(temp.as_str()).is_some_and(|all| all.contains(&Outcome::Failed));
            let what = match (failed, stored.contains(&number)) {
                (true, true) => "failed, and is in the history",
                (false, false) => "did not fail, and is not in the history",
                _ => return None,
            };
            violation(format!("message {number} ({temp}) of page {} {what} of room {room}", message.page))
                .map(|violation| violation.of([message.page]))
        },
    )
}

/// What is known of messages.
struct View<'a> {
    record: &'a Record,
    /// By temporary id: the outcomes that any page has seen.
    outcomes: HashMap<&'a str, Vec<Outcome>>,
    /// By number: the temporary ids.
    ids: BTreeMap<usize, BTreeSet<&'a str>>,
    now: At,
}

impl<'a> View<'a> {
    fn of(record: &'a Record) -> Self {
        let mut view = Self { record, outcomes: HashMap::new(), ids: BTreeMap::new(), now: record.now() };
        for session in &record.sessions {
            for (_, temp, outcome) in &session.ended {
                view.outcomes.entry(temp).or_default().push(*outcome);
            }
            for (temp, number) in session.shown.values().flatten() {
                view.ids.entry(*number).or_default().insert(temp);
            }
        }
        for (number, message) in record.messages.iter().enumerate() {
            let temp = message.acknowledged.as_ref().map(|(_, temp)| temp.as_str());
            view.ids.entry(number).or_default().extend(temp);
        }
        view
    }

    fn violation(&self, number: usize, invariant: &'static str, what: String) -> Violation {
        let message = &self.record.messages[number];
        Violation::new(invariant, what).of([message.page]).within(Place::Room(message.room))
    }

    /// Checks that no message has two temporary ids. A repetition may be shown again where Redis lost its first showing.
    fn handled_once(&self) -> Option<Violation> {
        self.ids.iter().filter(|(_, temps)| temps.len() > 1).find_map(|(number, temps)| {
            let message = self.record.messages.get(*number)?;
            let is_lost = message.sent.is_some_and(|sent| self.record.losses.iter().any(|loss| loss + RECOVERY > sent));
            let what = format!("message {number} of page {} has the ids {temps:?}", message.page);
            (!message.is_keyed || !is_lost).then(|| self.violation(*number, ONCE, what))
        })
    }

    fn shown_once(&self) -> Option<Violation> {
        self.record.sessions.iter().find_map(|session| {
            session.shown.values().find_map(|shown| {
                let (temp, number) = repetition(shown)?;
                let what = format!("page {} was shown message {number} ({temp}) twice", session.page);
                Some(self.violation(*number, TWICE, what).of([session.page]))
            })
        })
    }

    fn one_order(&self) -> Option<Violation> {
        (0..ROOMS).find_map(|room| {
            let shown = self.record.sessions.iter().filter_map(|session| session.shown.get(&room));
            let temps = |shown: &'a Vec<(String, usize)>| shown.iter().map(|(temp, _)| temp.as_str()).collect();
            let sequences: Vec<Vec<&str>> = shown.map(temps).collect();
            let (a, b) = disagreement(&sequences)?;
            let what = format!("messages {a} and {b} of room {room} were shown in different orders");
            Some(Violation::new(ORDER, what).within(Place::Room(room)))
        })
    }

    /// Checks that no outcome contradicts another, nor is repeated on a connection unless a host had a fault meanwhile.
    fn ended_once(&self) -> Option<Violation> {
        for (temp, outcomes) in &self.outcomes {
            if outcomes.iter().any(|outcome| *outcome != outcomes[0]) {
                return Some(Violation::new(
                    ENDS,
                    format!("message {temp} was confirmed by some, and failed by others"),
                ));
            }
        }
        self.record.sessions.iter().find_map(|session| {
            let mut first: HashMap<&str, At> = HashMap::new();
            session.ended.iter().find_map(|(at, temp, _)| {
                let before = first.insert(temp, *at)?;
                let sent = self.sent(temp).unwrap_or(before);
                let what = format!("page {} got the outcome of message {temp} twice", session.page);
                let is_harmed = self.record.health.is_harmed(sent, *at);
                (!is_harmed).then(|| Violation::new(ENDS, what).of([session.page]))
            })
        })
    }

    fn sent(&self, temp: &str) -> Option<At> {
        let (number, _) = self.ids.iter().find(|(_, temps)| temps.contains(temp))?;
        self.record.messages.get(*number)?.sent
    }

    /// Checks that members got each acknowledged message, and its outcome.
    fn received(&self) -> Option<Violation> {
        let members = self.record.sessions.iter().filter(|session| session.stays.iter().any(is_in_room));
        members.into_iter().find_map(|session| {
            let shown: BTreeSet<&str> = session.shown.values().flatten().map(|(temp, _)| temp.as_str()).collect();
            let ended: BTreeSet<&str> = session.ended.iter().map(|(_, temp, _)| temp.as_str()).collect();
            self.record.messages.iter().enumerate().find_map(|(number, message)| {
                let (at, temp) = message.acknowledged.as_ref()?;
                // Of a repetition, one time of sending is unknown: the first, at which it may have been shown.
                let sent = message.sent?;
                let (shown_by, ended_by) = (self.now.max(*at).min(at + RECOVERY), self.now.max(*at));
                let lacks = if !shown.contains(temp.as_str()) && self.is_due(session, message, sent, shown_by) {
                    (MISSING, "was not shown")
                } else if !ended.contains(temp.as_str()) && self.is_due(session, message, sent, ended_by) {
                    (ENDS, "did not get the outcome of")
                } else {
                    return None;
                };
                let (invariant, verb) = lacks;
                let (page, node) = (session.page, session.node);
                let what = format!(
                    "page {page} on host {node} {verb} message {number} ({temp}), sent at {:.3} s and acknowledged at {:.3} s",
                    sent as f64 / 1000.0,
                    *at as f64 / 1000.0
                );
                Some(self.violation(number, invariant, what).of([page]))
            })
        })
    }

    fn is_due(&self, session: &Session, message: &Message, from: At, to: At) -> bool {
        session.was_in(Place::Room(message.room), from, to) && self.record.health.is_healthy(session.node, from, to)
    }
}

fn is_in_room(stay: &super::record::Stay) -> bool {
    matches!(stay.place, Place::Room(_))
}

#[cfg(test)]
mod tests {
    use super::super::record::Stay;
    use super::*;

    /// A member of room 0 on one host, and a message of it that was acknowledged as `temp`.
    fn room() -> Record {
        let mut record = Record::new(1, 1);
        let session = record.open(0, 0);
        record.sessions[session].stays.push(Stay { place: Place::Room(0), from: 1, to: None });
        let acknowledged = Some((20, "temp".to_owned()));
        record.messages.push(Message { page: 0, room: 0, is_keyed: false, sent: Some(10), acknowledged });
        record
    }

    fn show(record: &mut Record, temp: &str) {
        record.sessions[0].shown.entry(0).or_default().push((temp.to_owned(), 0));
    }

    fn end(record: &mut Record, at: At, outcome: Outcome) {
        record.sessions[0].ended.push((at, "temp".to_owned(), outcome));
    }

    fn found(record: &Record) -> Option<&'static str> {
        messages(record).map(|violation| violation.invariant)
    }

    #[test]
    fn message_is_shown_and_ends_once() {
        let mut record = room();
        assert_eq!(found(&record), Some(MISSING));
        show(&mut record, "temp");
        assert_eq!(found(&record), Some(ENDS), "it has not ended");
        end(&mut record, 30, Outcome::Confirmed);
        assert_eq!(found(&record), None);
        end(&mut record, 40, Outcome::Confirmed);
        assert_eq!(found(&record), Some(ENDS), "it has ended twice");
        record.health.harm(0, 35);
        assert_eq!(found(&record), None, "after a fault it may");
        end(&mut record, 50, Outcome::Failed);
        assert_eq!(found(&record), Some(ENDS), "it has ended both ways");
    }

    #[test]
    fn second_id_shows_that_a_message_was_handled_twice() {
        let mut record = room();
        show(&mut record, "temp");
        show(&mut record, "other");
        assert_eq!(found(&record), Some(ONCE));
        record.losses.push(15);
        assert_eq!(found(&record), Some(ONCE), "nothing may repeat a message without a client's id");
        record.messages[0].is_keyed = true;
        assert_eq!(found(&record), Some(ENDS), "a repetition may be shown again after a loss");
    }

    #[test]
    fn history_has_what_did_not_fail() {
        let mut record = room();
        let check = |record: &Record, stored: &[usize]| history(record, 0, stored).is_some();
        assert!(!check(&record, &[0]));
        assert!(check(&record, &[]) && check(&record, &[0, 0]));
        end(&mut record, 30, Outcome::Failed);
        assert!(check(&record, &[0]) && !check(&record, &[]));
    }
}

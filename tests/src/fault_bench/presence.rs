//! The invariants of presence: each agent sees exactly the agents who are there.

use std::collections::BTreeSet;

use super::health::RECOVERY;
use super::model::{Model, Place};
use super::record::{At, Record, Session};
use super::violation::Violation;

const EXACT: &str = "at rest, each page sees exactly the agents who view its ticket";
const GHOST: &str = "an agent who died with its host is gone for all others in time";
const TOLD: &str = "an agent who is there, on a healthy host, is not told as gone";
const SETTLED: &str = "at rest, each page is connected and has what it asked for";

/// Checks that each page is connected, in its places, and has its messages acknowledged.
pub(super) fn settled(record: &Record) -> Option<Violation> {
    let (page, waits) = record.unsettled.first_key_value()?;
    let others = record.unsettled.len() - 1;
    Some(Violation::new(SETTLED, format!("page {page} {waits} ({others} other pages wait too)")).of([*page]))
}

/// Checks each page's last list of each ticket that it views.
pub(super) fn lists(record: &Record, model: &Model) -> Option<Violation> {
    record.open_sessions().find_map(|session| {
        let places = model.places_of(session.page);
        places.into_iter().find_map(|place| match place {
            Place::Ticket(ticket) => list(session, ticket, model),
            Place::Room(_) | Place::Timeline(_) => None,
        })
    })
}

fn list(session: &Session, ticket: usize, model: &Model) -> Option<Violation> {
    let (page, node) = (session.page, session.node);
    let violation = |what: String| Some(Violation::new(EXACT, what).of([page]).within(Place::Ticket(ticket)));
    let Some(list) = session.viewers.get(&ticket) else {
        return violation(format!("page {page} on host {node} has no list of ticket {ticket}"));
    };
    let seen: BTreeSet<usize> = list.iter().map(|(agent, _)| *agent).collect();
    let there = model.viewers(ticket);
    if seen != there || seen.len() != list.len() {
        let pages = seen.symmetric_difference(&there).flat_map(|agent| model.pages_of(*agent));
        let pages: Vec<usize> = pages.collect();
        let what = format!("page {page} on host {node} sees {list:?} on ticket {ticket}, where {there:?} are");
        return violation(what).map(|violation| violation.of(pages));
    }
    let typist = list.iter().find(|(_, is_typing)| *is_typing)?.0;
    violation(format!("page {page} on host {node} sees agent {typist} type on ticket {ticket}, who has stopped"))
}

/// Checks that no page on a healthy host sees one of the agents who died.
pub(super) fn ghosts(record: &Record, dead: &BTreeSet<usize>) -> Option<Violation> {
    let now = record.now();
    record.open_sessions().filter(|session| record.health.is_healthy(session.node, now, now)).find_map(|session| {
        session.viewers.iter().find_map(|(ticket, list)| {
            let place = Place::Ticket(*ticket);
            session.stays_in(place).find(|stay| stay.to.is_none())?;
            let ghost = list.iter().find(|(agent, _)| dead.contains(agent))?.0;
            let what = format!("page {} on host {} sees agent {ghost}", session.page, session.node);
            Some(Violation::new(GHOST, what).of([session.page]).within(place))
        })
    })
}

/// Checks each `agent:left` that a page on a healthy host got.
pub(super) fn told_as_gone(record: &Record, model: &Model) -> Option<Violation> {
    record.sessions.iter().find_map(|session| {
        session.left.iter().find_map(|&(at, ticket, agent)| {
            let before = at.saturating_sub(RECOVERY);
            record.health.is_healthy(session.node, before, at).then_some(())?;
            let there = presence(record, model, ticket, agent, before, at)?;
            let what = format!(
                "page {} on host {} was told at {:.3} s that agent {agent} left ticket {ticket}, which page {} \
                 views on host {}",
                session.page,
                session.node,
                at as f64 / 1000.0,
                there.page,
                there.node
            );
            Some(Violation::new(TOLD, what).of([session.page, there.page]).within(Place::Ticket(ticket)))
        })
    })
}

/// A session of the agent, on a healthy host, that was on the ticket all the time and stayed a second longer.
fn presence<'a>(
    record: &'a Record,
    model: &Model,
    ticket: usize,
    agent: usize,
    from: At,
    to: At,
) -> Option<&'a Session> {
    record.sessions.iter().find(|session| {
        model.agent_of(session.page) == agent
            && session.was_in(Place::Ticket(ticket), from, to + 1_000)
            && record.health.is_healthy(session.node, from, to)
    })
}

#[cfg(test)]
mod tests {
    use super::super::model::Command;
    use super::super::record::Stay;
    use super::*;

    /// Two agents on ticket 0, each on a host of its own.
    fn two_on_a_ticket() -> (Record, Model) {
        let (mut record, mut model) = (Record::new(2, 1), Model::new(2));
        for page in 0..2 {
            model.apply(page, Command::Open);
            model.apply(page, Command::View(0));
            let session = record.open(page, page);
            record.sessions[session].stays.push(Stay { place: Place::Ticket(0), from: 1, to: None });
            record.sessions[session].viewers.insert(0, vec![(0, false), (1, false)]);
        }
        (record, model)
    }

    #[test]
    fn lists_are_compared_with_the_model() {
        let (mut record, mut model) = two_on_a_ticket();
        assert!(lists(&record, &model).is_none());
        record.sessions[0].viewers.insert(0, vec![(0, false), (1, false), (1, false)]);
        assert!(lists(&record, &model).is_some(), "twice");
        record.sessions[0].viewers.insert(0, vec![(0, false), (1, true)]);
        assert!(lists(&record, &model).is_some(), "typing");
        record.sessions[0].viewers.insert(0, vec![(0, false), (1, false)]);
        model.apply(1, Command::Leave(0));
        assert!(lists(&record, &model).is_some(), "gone");
    }

    #[test]
    fn dead_agent_in_a_list_is_a_ghost() {
        let (mut record, _) = two_on_a_ticket();
        assert!(ghosts(&record, &BTreeSet::from([5])).is_none());
        assert!(ghosts(&record, &BTreeSet::from([1])).is_some());
        record.sessions[0].stays[0].to = Some(2);
        record.sessions[1].stays[0].to = Some(2);
        assert!(ghosts(&record, &BTreeSet::from([1])).is_none(), "nobody looks");
    }

    #[test]
    fn agents_on_healthy_hosts_are_not_told_gone() {
        let (mut record, model) = two_on_a_ticket();
        record.sessions[0].left.push((9_000, 0, 1));
        assert!(told_as_gone(&record, &model).is_some());
        record.health.harm(1, 8_000);
        assert!(told_as_gone(&record, &model).is_none(), "its host was stopped");
        record.sessions[0].left[0] = (2_000, 0, 1);
        assert!(told_as_gone(&record, &model).is_none(), "it had just come");
    }
}

//! The invariants of a service's numbered events: one order, none twice, none missing.

use std::collections::{BTreeMap, BTreeSet};

use super::health::RECOVERY;
use super::model::Place;
use super::order::{disagreement, repetition};
use super::record::{At, Post, Record, Session};
use super::violation::Violation;

const TWICE: &str = "no page gets an event of a service twice";
const ORDER: &str = "all get the events of a scope in one order, in which a service sent them";
const MISSING: &str = "who is on a healthy host gets each acknowledged event, and each event that another gets";

/// Checks all timelines.
pub(super) fn timelines(record: &Record) -> Option<Violation> {
    let place = |timeline: usize| move |violation: Violation| violation.within(Place::Timeline(timeline));
    (0..record.posts.len()).find_map(|timeline| {
        twice(record, timeline)
            .or_else(|| order(record, timeline))
            .or_else(|| missing(record, timeline))
            .map(place(timeline))
    })
}

fn sequences(record: &Record, timeline: usize) -> impl Iterator<Item = (&Session, &Vec<usize>)> {
    record.sessions.iter().filter_map(move |session| Some((session, session.items.get(&timeline)?)))
}

fn twice(record: &Record, timeline: usize) -> Option<Violation> {
    let mut of_pages: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (session, items) in sequences(record, timeline) {
        of_pages.entry(session.page).or_default().extend(items);
    }
    of_pages.into_iter().find_map(|(page, items)| {
        let event = repetition(items)?;
        let what = format!("page {page} got event {event} of timeline {timeline} twice");
        Some(Violation::new(TWICE, what).of([page]))
    })
}

fn order(record: &Record, timeline: usize) -> Option<Violation> {
    let mut all: Vec<Vec<usize>> = sequences(record, timeline).map(|(_, items)| items.clone()).collect();
    all.extend(sent_order(&record.posts[timeline]));
    let (a, b) = disagreement(&all)?;
    let has_both = |items: &Vec<usize>| items.contains(&a) && items.contains(&b);
    let pages = sequences(record, timeline).filter(|(_, items)| has_both(items)).map(|(session, _)| session.page);
    let pages: BTreeSet<usize> = pages.collect();
    let what = format!("events {a} and {b} of timeline {timeline} came in different orders, to pages {pages:?}");
    Some(Violation::new(ORDER, what).of(pages.into_iter().take(2)))
}

/// The order in which the events were handled, as far as the service knows: an event is sent when the call before has
/// ended, but an event whose call failed may be handled at any later time.
fn sent_order(posts: &[Post]) -> Vec<Vec<usize>> {
    let acknowledged: Vec<usize> = (0..posts.len()).filter(|n| posts[*n].is_acknowledged).collect();
    let unknown = (0..posts.len()).filter(|n| !posts[*n].is_acknowledged);
    let behind = unknown.filter_map(|n| Some(vec![*acknowledged.iter().rfind(|before| **before < n)?, n]));
    let mut sequences: Vec<Vec<usize>> = behind.collect();
    sequences.push(acknowledged);
    sequences
}

fn missing(record: &Record, timeline: usize) -> Option<Violation> {
    let now = record.now();
    let seen: BTreeSet<usize> = sequences(record, timeline).flat_map(|(_, items)| items.iter().copied()).collect();
    let place = Place::Timeline(timeline);
    record.sessions.iter().filter(|session| session.stays_in(place).next().is_some()).find_map(|session| {
        let got: BTreeSet<usize> = session.items.get(&timeline).into_iter().flatten().copied().collect();
        let posts = record.posts[timeline].iter().enumerate();
        let (event, post) = posts.filter(|(n, _)| !got.contains(n)).find(|(n, post)| {
            (post.is_acknowledged || seen.contains(n)) && is_due(record, session, place, post, now)
        })?;
        let known = if post.is_acknowledged { "which was acknowledged" } else { "which others got" };
        let what = format!(
            "page {} on host {} did not get event {event} of timeline {timeline}, {known}, and which was sent at {:.3} s",
            session.page,
            session.node,
            post.began as f64 / 1000.0
        );
        Some(Violation::new(MISSING, what).of([session.page]))
    })
}

/// Whether the session must have got the event: it was there all the time, on a healthy host.
fn is_due(record: &Record, session: &Session, place: Place, post: &Post, now: At) -> bool {
    let Some(ended) = post.ended else { return false };
    // One whose call failed may be handled at any later time.
    let until = now.max(ended);
    let until = if post.is_acknowledged { until.min(ended + RECOVERY) } else { until };
    session.was_in(place, post.began, until) && record.health.is_healthy(session.node, post.began, until)
}

#[cfg(test)]
mod tests {
    use super::super::record::Stay;
    use super::*;

    /// Pages that got these events of the three that were sent, of which the second call failed.
    fn check(got: &[&[usize]], harmed: &[usize]) -> Option<&'static str> {
        let mut record = Record::new(got.len(), 1);
        let post = |is_acknowledged| Post { began: 10, ended: Some(20), is_acknowledged };
        record.posts[0] = vec![post(true), post(false), post(true)];
        for (page, items) in got.iter().enumerate() {
            let session = record.open(page, page);
            record.sessions[session].stays.push(Stay { place: Place::Timeline(0), from: 1, to: None });
            record.sessions[session].items.insert(0, items.to_vec());
        }
        for node in harmed {
            record.health.harm(*node, 5);
        }
        timelines(&record).map(|violation| violation.invariant)
    }

    #[test]
    fn failed_call_may_deliver_late_or_never() {
        assert_eq!(check(&[&[0, 2], &[0, 2]], &[]), None);
        assert_eq!(check(&[&[0, 2, 1], &[0, 2, 1]], &[]), None);
        assert_eq!(check(&[&[0, 2, 1], &[0, 2]], &[]), Some(MISSING), "all get it, or none");
    }

    #[test]
    fn lost_repeated_and_exchanged_events_are_found() {
        assert_eq!(check(&[&[0, 1, 2], &[0, 1]], &[]), Some(MISSING));
        assert_eq!(check(&[&[0, 1, 2], &[0, 1]], &[1]), None, "its host was harmed");
        assert_eq!(check(&[&[0, 0, 1, 2]], &[]), Some(TWICE));
        assert_eq!(check(&[&[2, 0]], &[0]), Some(ORDER));
        assert_eq!(check(&[&[0, 1, 2], &[0, 2, 1]], &[]), Some(ORDER));
        assert_eq!(check(&[&[1, 0, 2]], &[]), Some(ORDER), "it was sent after the first was acknowledged");
    }
}

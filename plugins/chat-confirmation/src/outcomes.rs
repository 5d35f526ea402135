//! The outcomes of messages that were sent before a restart of the host. Their senders' connections are gone, and come back
//! as new ones: each member that joins within [`REPLAY_WINDOW`] is sent the outcomes once more, from the state or from the
//! store.

use std::time::Duration;

use roundhouse_sdk::{Audience, Failure, Member, Page};
use serde_json::value::RawValue;

use crate::context::{Cx, emit, family, outcome_event, place};
use crate::room::{Outcome, Room};
use crate::wire::{Confirmed, Stored};

/// The time that an outcome is replayed to members who join. Clients reconnect within seconds; a laptop that was closed just
/// then has the history.
const REPLAY_WINDOW: Duration = Duration::from_secs(120);

/// The timer at which the next outcome expires. It also keeps the scope while it has no members.
const EXPIRY_TIMER: &str = "ended";

/// Keeps an outcome for members who come back.
pub(crate) fn keep(room: &mut Room, cx: &mut Cx, temp_id: &str, id: Option<&String>, payload: Box<RawValue>) {
    let until = cx.now() + u64::try_from(REPLAY_WINDOW.as_millis()).unwrap_or(u64::MAX);
    let outcome = Outcome { temp_id: temp_id.to_owned(), id: id.cloned(), payload, until };
    let n_lost = room.keep_outcome(outcome, &roundhouse_sdk::iso8601(cx.now()));
    if n_lost > 0 {
        roundhouse_sdk::warn!("{n_lost} ends of messages in {} are not kept for who comes back", cx.scope());
    }
    drop_expired(room, cx);
}

/// Drops expired outcomes, and sets the timer for the next one.
pub(crate) fn drop_expired(room: &mut Room, cx: &mut Cx) {
    if let Some(until) = room.drop_expired_outcomes(cx.now()) {
        cx.set_timer(EXPIRY_TIMER, Duration::from_millis(until.saturating_sub(cx.now())), "EndedAreOld");
    }
}

/// Sends the kept outcomes to a member who joins.
pub(crate) fn replay(room: &Room, cx: &mut Cx, member: &Member) -> Result<(), Failure> {
    room.outcomes().try_for_each(|outcome| emit(cx, member, outcome_event(cx, outcome.id.is_some()), &outcome.payload))
}

/// The progress of a replay from the store, page by page.
pub(crate) struct Progress {
    /// Whether the latest of the stored outcomes was on this page or before.
    pub(crate) is_reached: bool,
    /// Whether nothing is left to replay.
    pub(crate) is_done: bool,
}

/// Sends the stored outcomes on this page to the connection with this ticket.
pub(crate) fn replay_stored(
    room: &Room,
    cx: &mut Cx,
    ticket: u64,
    page: &Page,
    is_reached: bool,
) -> Result<Progress, Failure> {
    let Some((connection, range)) = room.replay(ticket) else { return Ok(Progress { is_reached, is_done: true }) };
    let documents = &page.documents;
    let start = if is_reached { Some(0) } else { documents.iter().position(|one| one.id == range.last) };
    let Some(start) = start else { return Ok(Progress { is_reached: false, is_done: false }) };
    let first = documents.iter().position(|one| one.id == range.first);
    let end = first.map_or(documents.len(), |first| first + 1);
    for document in documents.get(start..end).unwrap_or_default().iter().rev() {
        let Ok(stored) = document.decode::<Stored>() else { continue };
        // The outcomes of messages that were sent after the restart reached the members of that time.
        if stored.created_at <= range.restarted_at && !room.has_outcome(&stored.temp_id) {
            let confirmed = Confirmed::new(place(cx), &document.id, &stored.temp_id, &stored);
            emit(cx, Audience::connection(connection), family(cx).confirmed, &confirmed)?;
        }
    }
    Ok(Progress { is_reached: true, is_done: first.is_some() })
}

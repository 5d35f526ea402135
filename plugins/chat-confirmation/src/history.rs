//! Stored messages: the pages of the history, and the newest messages for a room that does not know the recent clients' ids,
//! or that has outcomes in the store to replay.

use roundhouse_sdk::{Document, Failure, Fetched, Id, StoreFailure};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use crate::context::{Cx, MESSAGES, place, reply_connected};
use crate::outcomes::{Progress, replay_stored};
use crate::room::Room;
use crate::wire::{Confirmed, HistoryPage, Stored};

/// The purpose of a fetch: its tag.
#[derive(Debug, Serialize, Deserialize)]
enum Purpose {
    /// A page of the history.
    Page,
    /// The newest messages, for a member who joins.
    Newest {
        /// Whether the room needs the recent clients' ids.
        fills: bool,
        /// The ticket of a replay of stored outcomes.
        #[serde(rename = "tells")]
        replay: Option<u64>,
        /// The number of pages before this one.
        n_pages: u32,
        /// Whether one of them had the latest of the stored outcomes.
        is_reached: bool,
    },
}

impl Purpose {
    fn tag(&self) -> String {
        // Encoding fails for maps without text keys alone, and there is no map in it.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The greatest number of pages of a replay: the messages of a minute's outage in a busy room.
const MAX_PAGES: u32 = 20;

/// The number of newest messages on a page: as many as a room keeps ids.
const N_NEWEST: u32 = 100;

/// The greatest size of a page of the history, in bytes, below the host's limit of 1 MiB for the effects of an event. The
/// host reads less at once, but messages grow when they are encoded for clients.
const MAX_PAGE_BYTES: usize = 900 * 1024;

/// Asks for a page of the history, which acknowledges this event.
pub(crate) fn fetch_page(cx: &mut Cx, before: Option<Id>, limit: u32) {
    let fetch = cx.fetch(Purpose::Page.tag(), MESSAGES).limit(limit);
    if let Some(before) = before {
        fetch.before(&*before);
    }
}

/// Asks for the newest messages if the room needs them, or has stored outcomes for `connection`. Returns whether it does:
/// then the fetch acknowledges the join.
pub(crate) fn fetch_newest(room: &mut Room, cx: &mut Cx, connection: Option<&str>) -> bool {
    // Joins until the answer need not ask again. A message that is repeated meanwhile is still stored once.
    let fills = !std::mem::replace(&mut room.is_filled, true);
    let ticket = cx.random();
    let replay = connection.and_then(|connection| room.begin_replay(connection, ticket));
    let is_needed = fills || replay.is_some();
    if is_needed {
        let purpose = Purpose::Newest { fills, replay, n_pages: 0, is_reached: false };
        cx.fetch(purpose.tag(), MESSAGES).limit(N_NEWEST);
    }
    is_needed
}

/// Handles the outcome of a fetch.
pub(crate) fn fetched(room: &mut Room, cx: &mut Cx, fetched: &Fetched) -> Result<(), Failure> {
    let purpose = serde_json::from_str(&fetched.tag)
        .map_err(|error| Failure::internal(format!("a fetch has the tag {:?}: {error}", fetched.tag)))?;
    let Purpose::Newest { fills, replay, n_pages, is_reached } = purpose else {
        let page = fetched.outcome.as_ref().map_err(|why| why.failure.clone())?;
        return reply_page(cx, &page.documents, page.has_more);
    };
    if fills {
        fill(room, cx, fetched.outcome.as_ref().map(|page| page.documents.as_slice()));
    }
    if let (Some(ticket), Ok(page)) = (replay, &fetched.outcome) {
        let Progress { is_reached, is_done } = replay_stored(room, cx, ticket, page, is_reached)?;
        let oldest = page.documents.last().filter(|_| !is_done && page.has_more && n_pages < MAX_PAGES);
        if let Some(oldest) = oldest {
            let purpose = Purpose::Newest { fills: false, replay, n_pages: n_pages + 1, is_reached };
            cx.fetch(purpose.tag(), MESSAGES).limit(N_NEWEST).before(&*oldest.id);
            return Ok(());
        }
    }
    replay.into_iter().for_each(|ticket| room.end_replay(ticket));
    reply_connected(cx, cx.room_users());
    Ok(())
}

/// The fields of a stored message by which a repetition is recognised.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    temp_id: String,
    client_id: Option<String>,
    sender_id: HeadAuthor,
}

#[derive(Deserialize)]
struct HeadAuthor {
    #[serde(rename = "_id")]
    id: String,
}

/// Takes over the clients' ids of the newest messages. Without them, repetitions of earlier messages are shown again, though
/// stored once.
fn fill(room: &mut Room, cx: &Cx, documents: Result<&[Document], &StoreFailure>) {
    let documents = documents.unwrap_or_else(|why| {
        roundhouse_sdk::warn!("{} does not know what was said before: {}", cx.scope(), why.failure);
        room.is_filled = false;
        &[]
    });
    let heads = documents.iter().filter_map(|document| head(cx, document));
    room.recent.insert_older(heads.filter_map(|head| Some([head.sender_id.id, head.client_id?, head.temp_id])));
}

/// The head of a stored message. One that does not decode is logged and skipped.
fn head(cx: &Cx, document: &Document) -> Option<Head> {
    document.decode().inspect_err(|why| roundhouse_sdk::warn!("{} in {}: {why}", document.id, cx.scope())).ok()
}

/// Replies with messages in the form of their confirmations. If they exceed the greatest size, the page has fewer of them.
fn reply_page(cx: &mut Cx, documents: &[Document], has_more: bool) -> Result<(), Failure> {
    let mut page = HistoryPage { messages: Vec::with_capacity(documents.len()), has_more };
    let mut n_bytes = 0;
    for document in documents {
        let stored: Stored = document.decode()?;
        let message = to_raw_value(&Confirmed::new(place(cx), &document.id, &stored.temp_id, &stored))
            .map_err(|error| Failure::internal(format!("a message does not become JSON: {error}")))?;
        n_bytes += message.get().len();
        if n_bytes > MAX_PAGE_BYTES {
            page.has_more = true;
            break;
        }
        page.messages.push(message);
    }
    cx.reply(&page);
    Ok(())
}

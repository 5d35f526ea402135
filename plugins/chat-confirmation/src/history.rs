//! Stored messages: what is asked of the store, and what becomes of it. A page of history answers who wants to read; the
//! newest messages tell a room that knows nothing yet which of its clients' ids are taken.

use roundhouse_sdk::{Document, Failure, Fetched, Id, StoreFailure};
use serde::Deserialize;
use serde_json::value::to_raw_value;

use crate::room::Room;
use crate::wire::{Confirmed, Page, Stored};
use crate::{Cx, MESSAGES, place, reply_connected};

/// Tag of a fetch that is for a page of history.
const PAGE: &str = "page";

/// Tag of a fetch of the newest messages.
const NEWEST: &str = "newest";

/// Newest messages that are looked through at once: as many as a room remembers.
const N_NEWEST: u32 = 100;

/// Bytes of messages that are sent at once, below the host's limit of 1 MiB on what comes of one event: what the host reads
/// at once is less, but a message grows on its way.
const MAX_PAGE_BYTES: usize = 900 * 1024;

/// Asks for a page: it answers the sender of this event.
pub(crate) fn ask_for_page(cx: &mut Cx, before: Option<Id>, limit: u32) {
    let fetch = cx.fetch(PAGE, MESSAGES).limit(limit);
    if let Some(before) = before {
        fetch.before(&*before);
    }
}

/// Asks for the newest messages where the room does not know them, and gives whether that is so: then they are what the
/// join waits for.
pub(crate) fn ask_for_newest(room: &mut Room, cx: &mut Cx) -> bool {
    if room.is_filled {
        return false;
    }
    // Whoever comes in until the answer is there need not ask the same. What they send again is still stored once.
    room.is_filled = true;
    cx.fetch(NEWEST, MESSAGES).limit(N_NEWEST);
    true
}

/// Stored messages are there, or cannot be had.
pub(crate) fn fetched(room: &mut Room, cx: &mut Cx, fetched: &Fetched) -> Result<(), Failure> {
    if fetched.tag == PAGE {
        let page = fetched.outcome.as_ref().map_err(|why| why.failure.clone())?;
        return reply_page(cx, &page.documents, page.has_more);
    }
    fill(room, cx, fetched.outcome.as_ref().map(|page| page.documents.as_slice()));
    reply_connected(cx, cx.room_users());
    Ok(())
}

/// What has to be known of a message to recognise its repetition.
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

/// Takes over the clients' ids of the newest messages. Without them a room works as well, but for repetitions of what
/// was sent before: those are shown a second time, though stored once.
fn fill(room: &mut Room, cx: &Cx, documents: Result<&[Document], &StoreFailure>) {
    let documents = documents.unwrap_or_else(|why| {
        roundhouse_sdk::warn!("{} does not know what was said before: {}", cx.scope(), why.failure);
        room.is_filled = false;
        &[]
    });
    let heads = documents.iter().filter_map(|document| head(cx, document));
    room.recent.remember_older(heads.filter_map(|head| Some([head.sender_id.id, head.client_id?, head.temp_id])));
}

/// What is read of a stored message, unless it cannot be read: that is logged, and in nobody's way.
fn head(cx: &Cx, document: &Document) -> Option<Head> {
    document.decode().inspect_err(|why| roundhouse_sdk::warn!("{} in {}: {why}", document.id, cx.scope())).ok()
}

/// Answers with messages as their confirmations show them. Where they are too many bytes there are fewer of them, and
/// more to come.
fn reply_page(cx: &mut Cx, documents: &[Document], has_more: bool) -> Result<(), Failure> {
    let mut page = Page { messages: Vec::with_capacity(documents.len()), has_more };
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

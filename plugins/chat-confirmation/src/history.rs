//! Stored messages: what is asked of the store, and what becomes of it. A page of history answers who wants to read; the
//! newest messages tell a room that knows nothing yet which of its clients' ids are taken.

use roundhouse_sdk::{Audience, Document, Failure, Fetched, Id, Page, StoreFailure};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use crate::room::Room;
use crate::wire::{Confirmed, HistoryPage, Stored};
use crate::{Cx, MESSAGES, emit, family, place, reply_connected};

/// What a fetch is for: its tag.
#[derive(Debug, Serialize, Deserialize)]
enum Wanted {
    /// A page of history.
    Page,
    /// The newest messages, for who joins.
    Newest {
        /// The room does not know yet which clients' ids are taken.
        fills: bool,
        /// Somebody is to be told how older messages ended, by its ticket.
        tells: Option<u64>,
        /// The pages before this one.
        n_pages: u32,
        /// Whether the last that is to be told of was on one of them.
        is_reached: bool,
    },
}

impl Wanted {
    fn tag(&self) -> String {
        // It has no map in it, which alone could have no JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Pages that are read for somebody who joins after a restart: what a minute's outage leaves behind in a busy room.
const MAX_PAGES: u32 = 20;

/// Newest messages that are looked through at once: as many as a room remembers.
const N_NEWEST: u32 = 100;

/// Bytes of messages that are sent at once, below the host's limit of 1 MiB on what comes of one event: what the host reads
/// at once is less, but a message grows on its way.
const MAX_PAGE_BYTES: usize = 900 * 1024;

/// Asks for a page: it answers the sender of this event.
pub(crate) fn ask_for_page(cx: &mut Cx, before: Option<Id>, limit: u32) {
    let fetch = cx.fetch(Wanted::Page.tag(), MESSAGES).limit(limit);
    if let Some(before) = before {
        fetch.before(&*before);
    }
}

/// Asks for the newest messages where the room does not know them, or has left ends of messages to the store that
/// `connection` is to be told of, and gives whether that is so: then they are what the join waits for.
pub(crate) fn ask_for_newest(room: &mut Room, cx: &mut Cx, connection: Option<&str>) -> bool {
    // Whoever comes in until the answer is there need not ask the same. What they send again is still stored once.
    let fills = !std::mem::replace(&mut room.is_filled, true);
    let ticket = cx.random();
    let tells = connection.and_then(|connection| room.begin_to_tell(connection, ticket));
    if fills || tells.is_some() {
        let wanted = Wanted::Newest { fills, tells, n_pages: 0, is_reached: false };
        cx.fetch(wanted.tag(), MESSAGES).limit(N_NEWEST);
    }
    fills || tells.is_some()
}

/// Stored messages are there, or cannot be had.
pub(crate) fn fetched(room: &mut Room, cx: &mut Cx, fetched: &Fetched) -> Result<(), Failure> {
    let wanted = serde_json::from_str(&fetched.tag)
        .map_err(|error| Failure::internal(format!("a fetch has the tag {:?}: {error}", fetched.tag)))?;
    let Wanted::Newest { fills, tells, n_pages, is_reached } = wanted else {
        let page = fetched.outcome.as_ref().map_err(|why| why.failure.clone())?;
        return reply_page(cx, &page.documents, page.has_more);
    };
    if fills {
        fill(room, cx, fetched.outcome.as_ref().map(|page| page.documents.as_slice()));
    }
    if let (Some(ticket), Ok(page)) = (tells, &fetched.outcome) {
        let (is_reached, is_done) = tell_older(room, cx, ticket, page, is_reached)?;
        let oldest = page.documents.last().filter(|_| !is_done && page.has_more && n_pages < MAX_PAGES);
        if let Some(oldest) = oldest {
            let wanted = Wanted::Newest { fills: false, tells, n_pages: n_pages + 1, is_reached };
            cx.fetch(wanted.tag(), MESSAGES).limit(N_NEWEST).before(&*oldest.id);
            return Ok(());
        }
    }
    tells.into_iter().for_each(|ticket| room.told(ticket));
    reply_connected(cx, cx.room_users());
    Ok(())
}

/// Tells somebody who has joined of the messages on this page that ended over a restart and that the room does not keep.
/// Gives whether the last of them was on this page or before, and whether nothing is left to be told.
fn tell_older(room: &Room, cx: &mut Cx, ticket: u64, page: &Page, is_reached: bool) -> Result<(bool, bool), Failure> {
    let Some((connection, older)) = room.telling(ticket) else { return Ok((is_reached, true)) };
    let documents = &page.documents;
    let start = if is_reached { Some(0) } else { documents.iter().position(|one| one.id == older.last) };
    let Some(start) = start else { return Ok((false, false)) };
    let first = documents.iter().position(|one| one.id == older.first);
    let end = first.map_or(documents.len(), |first| first + 1);
    for document in documents.get(start..end).unwrap_or_default().iter().rev() {
        let Ok(stored) = document.decode::<Stored>() else { continue };
        // What was sent since the restart was told to whoever was there.
        if stored.created_at <= older.restarted_at && !room.has_ended(&stored.temp_id) {
            let confirmed = Confirmed::new(place(cx), &document.id, &stored.temp_id, &stored);
            emit(cx, Audience::connection(connection), family(cx).confirmed, &confirmed)?;
        }
    }
    Ok((true, first.is_some()))
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

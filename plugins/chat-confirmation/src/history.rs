//! Stored messages: what is asked of the store, and what becomes of it. A page of history answers who wants to read; the
//! newest messages tell a room that knows nothing yet which of its clients' ids are taken, and who comes back after a
//! restart what became of messages meanwhile.

use roundhouse_sdk::{Audience, Document, Failure, Fetched, Id, Member, StoreFailure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::to_raw_value;

use crate::room::{Became, Ended, Room};
use crate::wire::{Confirmed, Failed, Page, Reason, Stored};
use crate::{Cx, MESSAGES, emit, family, place, reply_connected};

/// Tag of a fetch that is for a page of history.
const PAGE: &str = "page";

/// Newest messages that are looked through at once. With the longest bodies they take 13 MB, and a feature has 32.
const N_NEWEST: u32 = 200;

/// Bytes of messages that are sent at once, below the host's limit of 1 MiB on what comes of one event.
const MAX_PAGE_BYTES: usize = 900 * 1024;

/// What an event has besides the message in it, at most: ids and names.
const OVERHEAD_BYTES: usize = 1024;

/// Asks for a page: it answers the sender of this event.
pub(crate) fn ask_for_page(cx: &mut Cx, before: Option<Id>, limit: u32) {
    let fetch = cx.fetch(PAGE, MESSAGES).limit(limit);
    if let Some(before) = before {
        fetch.before(&*before);
    }
}

/// Asks for the newest messages where the room or who comes in has to learn of them, and gives whether that is so: then
/// they are what the join waits for.
pub(crate) fn ask_for_news(room: &mut Room, cx: &mut Cx, member: &Member, is_new: bool) -> bool {
    let has_missed = is_new && room.ended().next().is_some();
    if room.is_filled && !has_missed {
        return false;
    }
    // Whoever comes in until the answer is there need not ask the same. What they send again is still stored once.
    room.is_filled = true;
    let news = News { connection: is_new.then_some(&member.connection), before: cx.sequence() };
    cx.fetch(news.tag(), MESSAGES).limit(N_NEWEST);
    true
}

/// Stored messages are there, or cannot be had.
pub(crate) fn fetched(room: &mut Room, cx: &mut Cx, fetched: &Fetched) -> Result<(), Failure> {
    match News::of(&fetched.tag) {
        None => {
            let page = fetched.outcome.as_ref().map_err(|why| why.failure.clone())?;
            reply_page(cx, &page.documents, page.has_more)
        }
        Some(news) => {
            let documents = fetched.outcome.as_ref().map(|page| page.documents.as_slice());
            fill(room, cx, documents);
            if let Some(member) = news.connection.filter(|connection| room.has_connection(connection)) {
                tell_ended(room, cx, member, news.before, documents.unwrap_or_default())?;
            }
            reply_connected(room, cx);
            Ok(())
        }
    }
}

/// What a fetch of the newest messages is for, as its tag says.
struct News<'a> {
    /// Who is told of the messages that ended meanwhile.
    connection: Option<&'a str>,
    /// It has heard itself of what ended after this event.
    before: u64,
}

impl<'a> News<'a> {
    fn tag(&self) -> String {
        format!("news {} {}", self.before, self.connection.unwrap_or_default())
    }

    fn of(tag: &'a str) -> Option<Self> {
        let (before, connection) = tag.strip_prefix("news ")?.split_once(' ')?;
        Some(Self { connection: Some(connection).filter(|id| !id.is_empty()), before: before.parse().ok()? })
    }
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
    for document in documents {
        let Some(head) = readable::<Head>(cx, document) else { continue };
        if let Some(client_id) = head.client_id
            && !room.remember_older(&head.sender_id.id, &client_id, &head.temp_id)
        {
            break;
        }
    }
    room.make_room();
}

/// Tells who comes back what became of messages while it was away.
fn tell_ended(room: &Room, cx: &mut Cx, member: &str, before: u64, documents: &[Document]) -> Result<(), Failure> {
    let to = || Audience::connection(member);
    let mut n_bytes = 0;
    for Ended { temp_id, became, .. } in room.ended().filter(|ended| ended.sequence < before) {
        match became {
            Became::Stored(id) => {
                let document = documents.iter().find(|document| document.id == *id);
                let Some(stored) = document.and_then(|document| readable::<Stored>(cx, document)) else { continue };
                n_bytes += document.map_or(0, |document| document.text.len()) + OVERHEAD_BYTES;
                if n_bytes > MAX_PAGE_BYTES {
                    roundhouse_sdk::warn!("{member} is not told of all that was stored in {} meanwhile", cx.scope());
                    return Ok(());
                }
                emit(cx, to(), family(cx).confirmed, &Confirmed::new(place(cx), id, temp_id, &stored))?;
            }
            Became::Failed { client_id, code, message, retryable } => {
                let (client_id, error) = (client_id.as_deref(), Reason { code, message });
                emit(cx, to(), family(cx).failed, &Failed { temp_id, client_id, error, retryable: *retryable })?;
            }
        }
    }
    Ok(())
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

/// A stored message, unless it cannot be read: that is logged, and in nobody's way.
fn readable<T: DeserializeOwned>(cx: &Cx, document: &Document) -> Option<T> {
    document.decode().inspect_err(|why| roundhouse_sdk::warn!("{} in {}: {why}", document.id, cx.scope())).ok()
}

//! The replay buffer of one connection: entries that are sent again when its client resumes.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::session_key::SessionKey;
use crate::hub::{Progress, Released, ReleasedEntry};
use crate::model::ConnId;
use crate::protocol::{Outgoing, Protocol};

/// The size of an entry in the buffer, in bytes.
const ENTRY_BYTES: usize = size_of::<Entry>();

/// A recorded message to a connection, whether it was sent or the connection was detached.
#[derive(Debug)]
pub(crate) enum Entry {
    /// An event, and the length of its frames.
    Event(Arc<Outgoing>, u32),
    /// The frames of an event of this number, which another node has encoded.
    Encoded(Box<(u64, Bytes)>),
    /// Frames for this connection alone.
    Frames(Box<Bytes>),
}

impl Entry {
    /// An event whose frames are of this length on the connection's protocol.
    pub(crate) fn event(outgoing: Arc<Outgoing>, length: usize) -> Self {
        Self::Event(outgoing, u32::try_from(length).unwrap_or(u32::MAX))
    }

    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Event(_, length) => *length as usize,
                Self::Encoded(encoded) => encoded.1.len(),
                Self::Frames(frames) => frames.len(),
            }
    }

    /// The bytes that no other connection shares, without the entry's slot in the buffer.
    fn unshared_bytes(&self) -> usize {
        match self {
            Self::Event(..) => 0,
            Self::Encoded(encoded) => size_of::<(u64, Bytes)>() + encoded.1.len(),
            Self::Frames(frames) => size_of::<Bytes>() + frames.len(),
        }
    }

    /// The number of an event.
    fn number(&self) -> Option<u64> {
        match self {
            Self::Event(outgoing, _) => Some(outgoing.number()),
            Self::Encoded(encoded) => Some(encoded.0),
            Self::Frames(_) => None,
        }
    }

    pub(crate) fn frames(&self, protocol: &Protocol) -> Bytes {
        match self {
            Self::Event(outgoing, _) => outgoing.frames(protocol),
            Self::Encoded(encoded) => encoded.1.clone(),
            Self::Frames(frames) => (**frames).clone(),
        }
    }
}

/// The recorded entries of one connection. Events are shared with their other recipients.
#[derive(Debug)]
pub(crate) struct ReplayBuffer {
    secret: u128,
    entries: VecDeque<Entry>,
    /// The bytes of all entries, with their frames.
    bytes: usize,
    /// The bytes of frames that no other connection shares.
    unshared: usize,
    /// Entries that were dropped from the front.
    n_dropped: u64,
    /// The last event among the dropped entries: a client that received up to there misses nothing.
    last_dropped: Option<u64>,
    /// The number of entries ever appended when the unanswered ping was sent.
    pinged: Option<u64>,
    /// The number of entries ever appended when the transport was last lost. The client may have received any of them.
    detached_at: u64,
    /// The end of the recovery window of a detached connection, in milliseconds of uptime.
    pub(crate) resumable_until: u64,
}

impl ReplayBuffer {
    pub(crate) fn key(&self, connection: ConnId) -> SessionKey {
        SessionKey::new(connection, self.secret)
    }

    /// The empty buffer of a connection that its client knows by this key.
    pub(crate) fn of_key(key: &SessionKey) -> Self {
        Self::new(key.secret())
    }

    pub(crate) fn new(secret: u128) -> Self {
        Self {
            secret,
            entries: VecDeque::new(),
            bytes: 0,
            unshared: 0,
            n_dropped: 0,
            last_dropped: None,
            pinged: None,
            detached_at: 0,
            resumable_until: 0,
        }
    }

    /// Whether `key` matches, compared in constant time.
    pub(crate) fn has_key(&self, key: &SessionKey) -> bool {
        key.has_secret(self.secret)
    }

    /// Appends an entry, and drops the oldest entries beyond `max_bytes`.
    pub(crate) fn append(&mut self, entry: Entry, max_bytes: usize) {
        self.bytes += entry.bytes();
        self.unshared += entry.unshared_bytes();
        self.entries.push_back(entry);
        while self.bytes > max_bytes && self.pop() {}
    }

    /// The number of entries ever appended.
    fn n_entries(&self) -> u64 {
        self.n_dropped + self.entries.len() as u64
    }

    /// Whether no entry was dropped that a detached client missed.
    pub(crate) fn is_complete(&self) -> bool {
        self.n_dropped <= self.detached_at
    }

    /// Marks the loss of the transport. The client may resume until `until`, in milliseconds of uptime.
    pub(crate) fn detach(&mut self, until: u64) {
        self.resumable_until = until;
        self.detached_at = self.n_entries();
        // The answer would have come over the lost transport.
        self.pinged = None;
    }

    fn pop(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else { return false };
        self.bytes -= entry.bytes();
        self.unshared -= entry.unshared_bytes();
        self.n_dropped += 1;
        self.last_dropped = entry.number().or(self.last_dropped);
        true
    }

    /// Marks a ping that is sent. If an earlier ping is unanswered, the mark stays on that one, whose answer arrives
    /// first.
    pub(crate) fn mark_ping(&mut self) {
        let n_entries = self.n_entries();
        self.pinged.get_or_insert(n_entries);
    }

    /// Marks the answer to a ping: the client has received all entries from before the ping, which are dropped.
    pub(crate) fn mark_pong(&mut self) {
        if let Some(pinged) = self.pinged.take() {
            while self.n_dropped < pinged && self.pop() {}
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// Drops the older half of the entries.
    pub(crate) fn drop_older_half(&mut self) {
        for _ in 0..self.entries.len().div_ceil(2) {
            self.pop();
        }
        self.entries.shrink_to_fit();
    }

    /// The index of the first entry that a client has not received. `None` where that is unknown, or the entry was
    /// dropped.
    pub(crate) fn resume_point(&self, progress: Progress) -> Option<usize> {
        match progress {
            Progress::Frames(n) => {
                let at = n.checked_sub(self.n_dropped)?;
                (at <= self.entries.len() as u64).then_some(at as usize)
            }
            Progress::Event(None) => (self.n_dropped == 0).then_some(0),
            Progress::Event(last) if last == self.last_dropped => Some(0),
            Progress::Event(Some(number)) => {
                self.entries.iter().rposition(|entry| entry.number() == Some(number)).map(|at| at + 1)
            }
        }
    }

    /// The frames from an index on.
    pub(crate) fn frames_from(&mut self, at: usize, protocol: &Protocol) -> Vec<Bytes> {
        let frames = self.entries.range(at..).map(|entry| entry.frames(protocol)).collect();
        if matches!(protocol, Protocol::SocketIo { .. }) {
            // A Socket.IO client counts events alone: at a further resume it would get these frames twice.
            for entry in self.entries.range_mut(at..) {
                if let Entry::Frames(frames) = entry {
                    self.bytes -= frames.len();
                    self.unshared -= frames.len();
                    frames.clear();
                }
            }
        }
        frames
    }

    /// The entries from index `at` on, for another node, whose entries before that the client has received.
    pub(crate) fn release(&self, at: usize, protocol: &Protocol) -> Released {
        let received = self.entries.range(..at);
        let entry = |entry: &Entry| ReleasedEntry { number: entry.number(), frames: entry.frames(protocol).to_vec() };
        Released {
            n_received: self.n_dropped + at as u64,
            last_received: received.rev().find_map(Entry::number).or(self.last_dropped),
            entries: self.entries.range(at..).map(entry).collect(),
        }
    }

    /// Puts the entries of another node before those of this one, of which some are the same events.
    pub(crate) fn precede(&mut self, released: Released) {
        let numbers: HashSet<u64> = released.entries.iter().filter_map(|entry| entry.number).collect();
        let own = std::mem::take(&mut self.entries);
        (self.bytes, self.unshared) = (0, 0);
        (self.n_dropped, self.last_dropped) = (released.n_received, released.last_received);
        // Nothing is missing that the client has not received.
        self.detached_at = self.n_dropped;
        let shared: HashSet<u64> = own.iter().filter_map(Entry::number).filter(|own| numbers.contains(own)).collect();
        let mut own = own.into_iter();
        for ReleasedEntry { number, frames } in released.entries {
            if let Some(number) = number.filter(|number| shared.contains(number)) {
                // What came here between two shared events came there between them, too.
                for entry in own.by_ref() {
                    let is_same = entry.number() == Some(number);
                    let is_new = entry.number().is_none_or(|own| !shared.contains(&own));
                    if is_new {
                        self.append(entry, usize::MAX);
                    }
                    if is_same {
                        break;
                    }
                }
            }
            let entry = match number {
                Some(number) => Entry::Encoded(Box::new((number, frames.into()))),
                None => Entry::Frames(Box::new(frames.into())),
            };
            self.append(entry, usize::MAX);
        }
        let is_new = |entry: &Entry| entry.number().is_none_or(|number| !shared.contains(&number));
        own.filter(is_new).for_each(|entry| self.append(entry, usize::MAX));
    }

    /// The number of entries ever appended before index `at`, which stays while entries are dropped.
    pub(crate) fn position(&self, at: usize) -> u64 {
        self.n_dropped + at as u64
    }

    /// The index of a [`ReplayBuffer::position`]; `None` where entries behind it were dropped.
    pub(crate) fn index(&self, position: u64) -> Option<usize> {
        position.checked_sub(self.n_dropped).map(|at| at as usize)
    }

    /// The buffer's memory in bytes: its own, and with shared events included.
    pub(crate) fn memory(&self) -> (usize, usize) {
        let own = self.entries.capacity() * ENTRY_BYTES + self.unshared;
        (own, own + self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Payload;

    fn event(name: &str) -> Arc<Outgoing> {
        Arc::new(Outgoing::new(name, Payload::empty()))
    }

    fn filled(events: &[Arc<Outgoing>]) -> ReplayBuffer {
        let mut buffer = ReplayBuffer::new(1);
        for event in events {
            buffer.append(Entry::event(event.clone(), 9), usize::MAX);
        }
        buffer
    }

    #[test]
    fn resume_point_follows_the_last_received_entry() {
        let events = [event("a"), event("b"), event("c")];
        let mut buffer = filled(&events);
        let after = |buffer: &ReplayBuffer, n: usize| buffer.resume_point(Progress::Event(Some(events[n].number())));
        assert_eq!(buffer.resume_point(Progress::Event(None)), Some(0));
        assert_eq!(buffer.resume_point(Progress::Frames(0)), Some(0));
        assert_eq!((after(&buffer, 0), buffer.resume_point(Progress::Frames(1))), (Some(1), Some(1)));
        assert_eq!((after(&buffer, 2), buffer.resume_point(Progress::Frames(3))), (Some(3), Some(3)));
        assert_eq!(buffer.resume_point(Progress::Frames(4)), None, "more than there was");
        assert_eq!(buffer.resume_point(Progress::Event(Some(u64::MAX))), None, "an event that it never had");
        buffer.mark_ping();
        buffer.append(Entry::event(event("d"), 9), usize::MAX);
        buffer.mark_pong();
        assert_eq!(buffer.entries.len(), 1, "what the client is known to have is let go");
        assert_eq!((after(&buffer, 2), buffer.resume_point(Progress::Frames(3))), (Some(0), Some(0)));
        assert_eq!((after(&buffer, 1), buffer.resume_point(Progress::Frames(2))), (None, None));
        assert_eq!(buffer.resume_point(Progress::Event(None)), None);
    }

    #[test]
    fn resume_point_follows_sending_order() {
        let (first, second) = (event("a"), event("b"));
        let buffer = filled(&[second.clone(), first.clone()]);
        assert_eq!(buffer.resume_point(Progress::Event(Some(second.number()))), Some(1));
        assert_eq!(buffer.resume_point(Progress::Event(Some(first.number()))), Some(2));
    }

    #[test]
    fn append_over_the_bound_makes_replay_incomplete() {
        let mut buffer = ReplayBuffer::new(1);
        let max_bytes = 2 * Entry::event(event("a"), 9).bytes();
        buffer.append(Entry::event(event("a"), 9), max_bytes);
        buffer.detach(0);
        buffer.append(Entry::event(event("b"), 9), max_bytes);
        buffer.append(Entry::event(event("c"), 9), max_bytes);
        assert_eq!((buffer.entries.len(), buffer.n_dropped), (2, 1));
        assert!(buffer.is_complete(), "the client may have had the one that was let go");
        buffer.append(Entry::Frames(Box::new(Bytes::from(vec![0; max_bytes]))), max_bytes);
        assert!(!buffer.is_complete());
        assert_eq!(
            (buffer.entries.len(), buffer.bytes, buffer.unshared),
            (0, 0, 0),
            "one over the bound alone is not kept"
        );
        buffer.append(Entry::event(event("d"), 9), usize::MAX);
        buffer.drop_older_half();
        assert_eq!(buffer.entries.len(), 0);
    }

    #[test]
    fn pong_confirms_only_entries_before_its_ping() {
        let mut buffer = filled(&[event("a")]);
        buffer.mark_ping();
        buffer.append(Entry::event(event("b"), 9), usize::MAX);
        buffer.mark_ping();
        buffer.mark_pong();
        assert_eq!((buffer.n_dropped, buffer.entries.len()), (1, 1), "it is the first ping that is answered");
        buffer.mark_pong();
        assert_eq!((buffer.n_dropped, buffer.entries.len()), (1, 1), "nobody asked");
    }

    #[test]
    fn acknowledgement_requests_are_replayed_once() {
        let socket_io = Protocol::SocketIo { namespace: None, offsets: true };
        let mut buffer = filled(&[event("a")]);
        buffer.append(Entry::Frames(Box::new(Bytes::from_static(b"question"))), usize::MAX);
        assert_eq!(buffer.frames_from(1, &socket_io), [&b"question"[..]]);
        assert_eq!(buffer.frames_from(1, &socket_io), [&b""[..]]);
        assert!(buffer.unshared < b"question".len() + size_of::<Bytes>());
    }

    #[test]
    fn released_entries_precede_new_ones_once() {
        let events = ["a", "b", "c", "d"].map(event);
        let mut there = filled(&events[..3]);
        there.append(Entry::Frames(Box::new(Bytes::from_static(b"reply"))), usize::MAX);
        let position = there.position(1);
        let mut here = ReplayBuffer::new(1);
        here.append(Entry::Frames(Box::new(Bytes::from_static(b"question"))), usize::MAX);
        for event in &events[2..] {
            here.append(Entry::event(event.clone(), 9), usize::MAX);
        }
        let released = there.release(there.index(position).unwrap(), &Protocol::Plain);
        assert_eq!((released.n_received, released.last_received), (1, Some(events[0].number())));
        here.precede(released);
        let numbers: Vec<_> = here.entries.iter().map(Entry::number).collect();
        let [_, second, third, fourth] = events.clone().map(|event| Some(event.number()));
        assert_eq!(
            numbers,
            [second, None, third, None, fourth],
            "the question before the third event, the reply after it"
        );
        let frames = [1, 2].map(|at: usize| events[at].frames(&Protocol::Plain));
        let sent = here.frames_from(0, &Protocol::Plain);
        assert_eq!((&sent[0], &sent[1][..], &sent[2]), (&frames[0], &b"question"[..], &frames[1]));
        assert!(here.is_complete());
        assert_eq!(here.resume_point(Progress::Frames(1)), Some(0), "frames are counted on");
        assert_eq!(here.resume_point(Progress::Event(third)), Some(3));
        there.drop_older_half();
        assert_eq!(there.index(position), None);
    }
}

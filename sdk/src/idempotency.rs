//! Idempotency keys, by which a repeated message gets the answer of the first one.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

/// The greatest number of keys: the messages of all users in the scope that clients may repeat after a short absence.
const MAX_KEYS: usize = 100;

/// The characters of a mark that identify the sender.
const SENDER_CHARS: usize = 8;

/// The recent messages of a scope by their idempotency keys, each a sender and the id that the sender's client gave the
/// message. A key leads to the tag of the first message with it, which answers a repetition.
///
/// Use it beside [`Save::key`](crate::Save::key), by which the store knows all keys: it spares a repetition the way to the
/// store. It is part of a scope's state, and therefore small: the latest 100 keys, each of one size whatever its ids are, in
/// one JSON string.
///
/// ```
/// let mut keys = roundhouse_sdk::IdempotencyKeys::default();
/// keys.insert("ana", "m1", "temp_1");
/// assert_eq!(keys.first("ana", "m1"), Some("temp_1"));
/// assert_eq!(keys.first("ben", "m1"), None);
/// ```
// Entries, oldest first, separated by spaces. Each is the mark of a key and the tag.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct IdempotencyKeys(String);

impl IdempotencyKeys {
    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tag of the first message with this key.
    #[must_use]
    pub fn first(&self, sender: &str, client_id: &str) -> Option<&str> {
        let mark = mark(sender, client_id);
        self.entries().find_map(|entry| entry.strip_prefix(&mark))
    }

    /// Adds the key of a new message. If there are too many, the oldest key of the sender with most of them is dropped, so
    /// that one busy sender does not displace the others.
    pub fn insert(&mut self, sender: &str, client_id: &str, tag: &str) {
        if self.entries().count() >= MAX_KEYS {
            self.drop_one();
        }
        if !self.is_empty() {
            self.0.push(' ');
        }
        self.0.push_str(&mark(sender, client_id));
        self.0.push_str(tag);
    }

    /// Adds the key of a message that the store has as the first with this key, in place of a later message's tag.
    pub fn replace(&mut self, sender: &str, client_id: &str, tag: &str) {
        let mark = mark(sender, client_id);
        self.retain(|entry| !entry.starts_with(&mark));
        self.insert(sender, client_id, tag);
    }

    /// Adds the keys of messages that are older than all others, newest first, while there is room. Each has a sender,
    /// a client's id and a tag.
    pub fn insert_older(&mut self, messages: impl Iterator<Item = [String; 3]>) {
        let mut entries: Vec<String> = messages
            .filter(|[sender, client_id, _]| self.first(sender, client_id).is_none())
            .map(|[sender, client_id, tag]| mark(&sender, &client_id) + &tag)
            .take(MAX_KEYS - self.entries().count())
            .collect();
        entries.reverse();
        entries.extend(self.entries().map(str::to_owned));
        self.0 = entries.join(" ");
    }

    /// Removes the key of the message with this tag, so that it may be sent again as a new one.
    pub fn remove(&mut self, tag: &str) {
        self.retain(|entry| !entry.ends_with(tag));
    }

    /// Drops the oldest key of the sender with most keys; among equals, the oldest of all.
    fn drop_one(&mut self) {
        let mut senders: Vec<(&str, usize)> = Vec::new();
        for entry in self.entries() {
            let sender = sender_of(entry);
            match senders.iter_mut().find(|(known, _)| *known == sender) {
                Some((_, n_keys)) => *n_keys += 1,
                None => senders.push((sender, 1)),
            }
        }
        let most = senders.iter().map(|(_, n_keys)| *n_keys).max();
        // Senders are in the order of their oldest keys.
        let Some((sender, _)) = senders.iter().find(|(_, n_keys)| Some(*n_keys) == most) else { return };
        let mut start = 0;
        for entry in self.0.split(' ') {
            if sender_of(entry) == *sender {
                let end = (start + entry.len() + 1).min(self.0.len());
                self.0.drain(start..end);
                return;
            }
            start += entry.len() + 1;
        }
    }

    fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let kept: Vec<&str> = self.entries().filter(|entry| keep(entry)).collect();
        self.0 = kept.join(" ");
    }

    fn entries(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|entry| !entry.is_empty())
    }
}

/// The mark of a key, in 24 characters instead of 2 to 257: 32 bits for the sender and 64 for the key, so that neither
/// chance nor a search for another user's next key finds two keys with the same mark. Another build may make other
/// marks: then a repetition passes as a new message, and the store recognises it.
fn mark(sender: &str, client_id: &str) -> String {
    let hash = |what: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        what(&mut hasher);
        hasher.finish()
    };
    let (whose, which) = (hash(&|hasher| sender.hash(hasher)), hash(&|hasher| (sender, client_id).hash(hasher)));
    format!("{:0SENDER_CHARS$x}{which:016x}", whose >> 32)
}

/// The part of an entry's mark that identifies the sender.
fn sender_of(entry: &str) -> &str {
    entry.get(..SENDER_CHARS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{IdempotencyKeys, MAX_KEYS};

    #[test]
    fn oldest_is_evicted_when_full() {
        let mut keys = IdempotencyKeys::default();
        for n in 0..=MAX_KEYS {
            keys.insert("ana", &n.to_string(), &format!("temp_{n}"));
        }
        assert_eq!(keys.first("ana", "0"), None);
        assert_eq!(keys.first("ana", "1"), Some("temp_1"));
        assert_eq!(keys.first("ana", &MAX_KEYS.to_string()), Some(&*format!("temp_{MAX_KEYS}")));
        assert_eq!(keys.entries().count(), MAX_KEYS);
    }

    #[test]
    fn most_active_sender_is_evicted_first() {
        let mut keys = IdempotencyKeys::default();
        keys.insert("ana", "a", "temp_a");
        keys.insert("ben", "b", "temp_b");
        for n in 0..2 * MAX_KEYS {
            keys.insert("cleo", &n.to_string(), &format!("temp_{n}"));
        }
        keys.insert("ben", "c", "temp_c");
        assert_eq!(
            [("ana", "a"), ("ben", "b"), ("ben", "c")].map(|(sender, id)| keys.first(sender, id)),
            [Some("temp_a"), Some("temp_b"), Some("temp_c")]
        );
        let last = 2 * MAX_KEYS - 1;
        assert_eq!(keys.first("cleo", &last.to_string()), Some(&*format!("temp_{last}")));
        assert_eq!(keys.entries().count(), MAX_KEYS);

        let mut keys = IdempotencyKeys::default();
        for n in 0..=MAX_KEYS {
            keys.insert(&format!("user{n}"), "1", &format!("temp_{n}"));
        }
        assert_eq!(keys.first("user0", "1"), None, "among equals the oldest goes");
        assert_eq!(keys.first("user1", "1"), Some("temp_1"));
    }

    #[test]
    fn insert_older_fills_only_free_capacity() {
        let mut keys = IdempotencyKeys::default();
        for n in 2..MAX_KEYS {
            keys.insert("ana", &format!("new{n}"), "temp_new");
        }
        let older = ["new5", "b", "a", "0"].map(|client_id| ["ana", client_id, "temp_old"].map(str::to_owned));
        keys.insert_older(older.into_iter());
        assert_eq!(
            ["new5", "b", "a", "0"].map(|id| keys.first("ana", id)),
            [Some("temp_new"), Some("temp_old"), Some("temp_old"), None]
        );
        keys.insert("ana", "newest", "temp_new");
        assert_eq!((keys.first("ana", "a"), keys.first("ana", "b")), (None, Some("temp_old")));
    }

    #[test]
    fn keys_distinguish_sender_from_client_id() {
        let mut keys = IdempotencyKeys::default();
        keys.insert("ana", "1", "temp_a");
        for (sender, client_id) in [("an", "a1"), ("ana1", ""), ("1", "ana"), ("ana", "2"), ("bob", "1")] {
            assert_eq!(keys.first(sender, client_id), None, "{sender} {client_id}");
        }
    }

    #[test]
    fn remove_deletes_only_the_named_entry() {
        let mut keys = IdempotencyKeys::default();
        keys.insert("ana", "1", "temp_a");
        keys.insert("ana", "2", "temp_b");
        keys.remove("temp_a");
        assert_eq!((keys.first("ana", "1"), keys.first("ana", "2")), (None, Some("temp_b")));
        keys.remove("temp_b");
        assert!(keys.is_empty());
    }
}

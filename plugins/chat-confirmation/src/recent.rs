//! The messages that a repetition is known of. They are read and written at each message that has a client's id, so they
//! are few, of one size whatever the ids are, and one JSON string instead of a list of many.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

/// Messages that are remembered: what a page may send again after it was away for a moment, of everybody in the room.
const MAX_RECENT: usize = 100;

/// Characters of a mark that tell whose a message is.
const SENDER_CHARS: usize = 8;

/// Messages, the oldest first, parted by spaces: the mark of each, which tells whose it is and under which client's id,
/// and its temporary id.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Recent(String);

impl Recent {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The temporary id of the message that this one repeats.
    pub(crate) fn repeated(&self, sender: &str, client_id: &str) -> Option<&str> {
        let mark = mark(sender, client_id);
        self.entries().find_map(|entry| entry.strip_prefix(&mark))
    }

    /// A message that was just sent.
    pub(crate) fn remember(&mut self, sender: &str, client_id: &str, temp_id: &str) {
        if self.entries().count() >= MAX_RECENT {
            self.forget_one();
        }
        if !self.is_empty() {
            self.0.push(' ');
        }
        self.0.push_str(&mark(sender, client_id));
        self.0.push_str(temp_id);
    }

    /// A message that was sent before the host was started anew. It is the first of its client's id.
    pub(crate) fn remember_first(&mut self, sender: &str, client_id: &str, temp_id: &str) {
        let mark = mark(sender, client_id);
        self.retain(|entry| !entry.starts_with(&mark));
        self.remember(sender, client_id, temp_id);
    }

    /// Messages that are older than all that are known, the newest first, as far as there is room for them: sender,
    /// client's id and temporary id of each.
    pub(crate) fn remember_older(&mut self, messages: impl Iterator<Item = [String; 3]>) {
        let mut entries: Vec<String> = messages
            .filter(|[sender, client_id, _]| self.repeated(sender, client_id).is_none())
            .map(|[sender, client_id, temp_id]| mark(&sender, &client_id) + &temp_id)
            .take(MAX_RECENT - self.entries().count())
            .collect();
        entries.reverse();
        entries.extend(self.entries().map(str::to_owned));
        self.0 = entries.join(" ");
    }

    /// A message that was not stored may be sent again.
    pub(crate) fn forget(&mut self, temp_id: &str) {
        self.retain(|entry| !entry.ends_with(temp_id));
    }

    /// Forgets the oldest message of whoever has most: somebody who was away for a moment must not be forgotten because
    /// the others went on. Among equals it is the oldest of all.
    fn forget_one(&mut self) {
        let mut senders: Vec<(&str, usize)> = Vec::new();
        for entry in self.entries() {
            let sender = sender_of(entry);
            match senders.iter_mut().find(|(known, _)| *known == sender) {
                Some((_, n_messages)) => *n_messages += 1,
                None => senders.push((sender, 1)),
            }
        }
        let most = senders.iter().map(|(_, n_messages)| *n_messages).max();
        // Those who come first were first to write what is remembered.
        let Some((sender, _)) = senders.iter().find(|(_, n_messages)| Some(*n_messages) == most) else { return };
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

/// What a message and its repetitions have in common, in 24 characters instead of 2 to 257: 32 bits for the sender, and 64
/// for the message, so that no two get the same by chance, nor by trying for somebody else's next one. Another build may
/// make others: then it takes a repetition for a new message, and the store knows better.
fn mark(sender: &str, client_id: &str) -> String {
    let hash = |what: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        what(&mut hasher);
        hasher.finish()
    };
    let (whose, which) = (hash(&|hasher| sender.hash(hasher)), hash(&|hasher| (sender, client_id).hash(hasher)));
    format!("{:0SENDER_CHARS$x}{which:016x}", whose >> 32)
}

/// What tells whose a message is, at the beginning of its mark.
fn sender_of(entry: &str) -> &str {
    entry.get(..SENDER_CHARS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{MAX_RECENT, Recent};

    #[test]
    fn oldest_is_evicted_when_full() {
        let mut recent = Recent::default();
        for n in 0..=MAX_RECENT {
            recent.remember("ana", &n.to_string(), &format!("temp_{n}"));
        }
        assert_eq!(recent.repeated("ana", "0"), None);
        assert_eq!(recent.repeated("ana", "1"), Some("temp_1"));
        assert_eq!(recent.repeated("ana", &MAX_RECENT.to_string()), Some(&*format!("temp_{MAX_RECENT}")));
        assert_eq!(recent.entries().count(), MAX_RECENT);
    }

    #[test]
    fn most_active_sender_is_evicted_first() {
        let mut recent = Recent::default();
        recent.remember("ana", "a", "temp_a");
        recent.remember("ben", "b", "temp_b");
        for n in 0..2 * MAX_RECENT {
            recent.remember("cleo", &n.to_string(), &format!("temp_{n}"));
        }
        recent.remember("ben", "c", "temp_c");
        assert_eq!(
            [("ana", "a"), ("ben", "b"), ("ben", "c")].map(|(sender, id)| recent.repeated(sender, id)),
            [Some("temp_a"), Some("temp_b"), Some("temp_c")]
        );
        let last = 2 * MAX_RECENT - 1;
        assert_eq!(recent.repeated("cleo", &last.to_string()), Some(&*format!("temp_{last}")));
        assert_eq!(recent.entries().count(), MAX_RECENT);

        let mut recent = Recent::default();
        for n in 0..=MAX_RECENT {
            recent.remember(&format!("user{n}"), "1", &format!("temp_{n}"));
        }
        assert_eq!(recent.repeated("user0", "1"), None, "among equals the oldest goes");
        assert_eq!(recent.repeated("user1", "1"), Some("temp_1"));
    }

    #[test]
    fn older_entries_precede_known_ones_when_room_allows() {
        let mut recent = Recent::default();
        for n in 2..MAX_RECENT {
            recent.remember("ana", &format!("new{n}"), "temp_new");
        }
        let older = ["new5", "b", "a", "0"].map(|client_id| ["ana", client_id, "temp_old"].map(str::to_owned));
        recent.remember_older(older.into_iter());
        assert_eq!(
            ["new5", "b", "a", "0"].map(|id| recent.repeated("ana", id)),
            [Some("temp_new"), Some("temp_old"), Some("temp_old"), None]
        );
        recent.remember("ana", "newest", "temp_new");
        assert_eq!((recent.repeated("ana", "a"), recent.repeated("ana", "b")), (None, Some("temp_old")));
    }

    #[test]
    fn sender_and_client_id_are_not_confused() {
        let mut recent = Recent::default();
        recent.remember("ana", "1", "temp_a");
        for (sender, client_id) in [("an", "a1"), ("ana1", ""), ("1", "ana"), ("ana", "2"), ("bob", "1")] {
            assert_eq!(recent.repeated(sender, client_id), None, "{sender} {client_id}");
        }
    }

    #[test]
    fn forgotten_entries_leave_nothing_behind() {
        let mut recent = Recent::default();
        recent.remember("ana", "1", "temp_a");
        recent.remember("ana", "2", "temp_b");
        recent.forget("temp_a");
        assert_eq!((recent.repeated("ana", "1"), recent.repeated("ana", "2")), (None, Some("temp_b")));
        recent.forget("temp_b");
        assert!(recent.is_empty());
    }
}

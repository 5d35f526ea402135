//! The sessions in use, with what their endpoint last said of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sha2::{Digest as _, Sha256};

use super::answer::{KnownSession, Told};

/// The hash of a session's cookie, by which a session is known in the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    pub(super) fn of(cookie: &str) -> Self {
        Self(Sha256::digest(cookie.as_bytes()).into())
    }
}

/// Keeps a session in use: as long as there is one, the session is checked again.
pub type SessionHandle = Arc<SessionKey>;

struct Entry {
    cookie: Box<str>,
    handle: Weak<SessionKey>,
    told: Told,
    /// When the endpoint said so, in milliseconds of uptime.
    told_at: u64,
    /// When the endpoint is asked again, by the same clock.
    due: u64,
}

/// A session about which the endpoint now says something else.
pub(super) type Change = (SessionHandle, Told);

#[derive(Default)]
struct State {
    entries: HashMap<SessionKey, Entry>,
    /// Changes that were not handed on yet.
    changes: Vec<Change>,
}

#[derive(Default)]
pub(super) struct Table(Mutex<State>);

/// When something was told, and when the endpoint is asked again; in milliseconds of uptime.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) now: u64,
    pub(super) due: u64,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle of a session that the endpoint knew at `since` or later.
    pub(super) fn recent(&self, key: &SessionKey, since: u64) -> Option<SessionHandle> {
        let state = &mut *self.lock();
        let entry = state.entries.get_mut(key)?;
        let is_known = matches!(entry.told, Told::Known(_)) && entry.told_at >= since;
        is_known.then(|| entry.handle(*key))
    }

    /// What the endpoint last said of a session in use.
    pub(super) fn find(&self, key: &SessionKey) -> Option<KnownSession> {
        match &self.lock().entries.get(key)?.told {
            Told::Known(session) => Some(session.clone()),
            Told::Ended => None,
        }
    }

    /// Notes what the endpoint says of a cookie. Returns a handle if there is a session.
    pub(super) fn note(&self, key: SessionKey, cookie: &str, told: Told, times: Times) -> Option<SessionHandle> {
        let state = &mut *self.lock();
        let known = match state.entries.get_mut(&key) {
            Some(entry) => {
                if entry.told != told {
                    let told = told.with_identity_of(&entry.told);
                    state.changes.extend(entry.handle.upgrade().map(|handle| (handle, told.clone())));
                    entry.told = told;
                }
                (entry.told_at, entry.due) = (times.now, times.due);
                entry
            }
            // No connection uses it.
            None if told == Told::Ended => return None,
            None => state.entries.entry(key).or_insert(Entry {
                cookie: cookie.into(),
                handle: Weak::new(),
                told,
                told_at: times.now,
                due: times.due,
            }),
        };
        matches!(known.told, Told::Known(_)).then(|| known.handle(key))
    }

    /// Up to `limit` sessions in use about which the endpoint is to be asked again now, those first that are due longest. They
    /// are due again at `retry`, unless [`Table::note`] says otherwise.
    pub(super) fn take_due(&self, now: u64, retry: u64, limit: usize) -> Vec<(SessionKey, Box<str>)> {
        let state = &mut *self.lock();
        let is_due = |entry: &Entry| entry.due <= now && entry.told != Told::Ended && entry.handle.strong_count() > 0;
        let mut due: Vec<_> = state.entries.iter_mut().filter(|(_, entry)| is_due(entry)).collect();
        if due.len() > limit {
            due.select_nth_unstable_by_key(limit, |(_, entry)| entry.due);
            due.truncate(limit);
        }
        due.into_iter()
            .map(|(key, entry)| {
                entry.due = retry;
                (*key, entry.cookie.clone())
            })
            .collect()
    }

    /// Drops the sessions that no connection uses and that were told before `since`.
    pub(super) fn drop_unused(&self, since: u64) {
        self.lock().entries.retain(|_, entry| entry.handle.strong_count() > 0 || entry.told_at >= since);
    }

    /// The changes since the last call; of each session the last.
    pub(super) fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.lock().changes)
    }

    /// The number of sessions in use.
    pub(super) fn len(&self) -> usize {
        self.lock().entries.len()
    }
}

impl Entry {
    fn handle(&mut self, key: SessionKey) -> SessionHandle {
        self.handle.upgrade().unwrap_or_else(|| {
            let handle = Arc::new(key);
            self.handle = Arc::downgrade(&handle);
            handle
        })
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Cookies must not be logged.
        f.debug_struct("Table").field("sessions", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Identity;

    fn known(user: &str) -> Told {
        Told::Known(KnownSession { identity: Arc::new(Identity::of_user(user)), expires_ms: None, id: None })
    }

    #[test]
    fn sessions_are_kept_while_in_use() {
        let (table, key) = (Table::default(), SessionKey::of("c"));
        let handle = table.note(key, "c", known("ana"), Times { now: 10, due: 70 }).unwrap();
        assert!(Arc::ptr_eq(&handle, &table.recent(&key, 10).unwrap()), "the session is told of once");
        assert!(table.recent(&key, 11).is_none(), "older than wanted");
        table.drop_unused(1000);
        assert!(table.find(&key).is_some());
        assert_eq!(table.take_due(69, 80, 9).len(), 0);
        assert_eq!(table.take_due(70, 80, 9), [(key, "c".into())]);
        assert_eq!(table.take_due(79, 90, 9).len(), 0, "it is asked once");
        drop(handle);
        assert_eq!(table.take_due(1000, 2000, 9).len(), 0);
        table.drop_unused(10);
        assert_eq!(table.len(), 1, "for others that come within the time of the cache");
        table.drop_unused(11);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn changes_of_sessions_in_use_are_told_once() {
        let (table, key) = (Table::default(), SessionKey::of("c"));
        let times = Times { now: 0, due: 60 };
        let handle = table.note(key, "c", known("ana"), times);
        table.note(key, "c", known("ana"), times);
        assert_eq!(table.take_changes(), []);
        assert!(table.note(key, "c", Told::Ended, times).is_none());
        assert!(table.find(&key).is_none() && table.recent(&key, 0).is_none(), "an ended session signs nobody in");
        assert_eq!(table.take_changes(), [(handle.clone().unwrap(), Told::Ended)]);
        assert_eq!(table.take_changes(), []);
        assert_eq!(table.take_due(100, 200, 9).len(), 0, "nobody asks after an ended session");
        drop(handle);
        table.note(key, "c", known("ben"), times);
        assert_eq!(table.take_changes(), [], "nobody uses it");
    }

    #[test]
    fn sessions_due_longest_come_first() {
        let table = Table::default();
        let handles: Vec<_> = (0..10)
            .map(|n| table.note(SessionKey::of(&n.to_string()), &n.to_string(), known("ana"), Times { now: 0, due: n }))
            .collect();
        let taken = |now| table.take_due(now, 1000, 3).into_iter().map(|(_, cookie)| cookie).collect::<Vec<_>>();
        for turn in [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"]] {
            let mut due = taken(100);
            due.sort();
            assert_eq!(due, turn.map(Box::from));
        }
        drop(handles);
    }

    #[test]
    fn unknown_sessions_take_no_memory() {
        let table = Table::default();
        assert!(table.note(SessionKey::of("x"), "x", Told::Ended, Times { now: 0, due: 60 }).is_none());
        assert_eq!(table.len(), 0);
    }
}

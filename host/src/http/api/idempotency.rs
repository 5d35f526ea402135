//! Idempotency keys: a call that is repeated with its key is answered as the first was, and done once.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use prometheus::IntCounter;
use serde::Serialize;
use tokio::sync::watch;

use crate::model::{Clock, ErrorCode, Failure};

/// How long an answer is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Answers that are remembered, at most: more than one a second for a day.
const MAX_ANSWERS: usize = 100_000;

/// Memory for answers, in bytes: room for as many as there may be, where they are short.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// What an answer costs beyond its text, in bytes: its places in the map and in the order.
const BYTES_PER_ANSWER: usize = 192;

/// The longest key, in characters.
pub(super) const MAX_KEY_CHARS: usize = 128;

/// What a call was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Reply {
    /// The answer of a call that went well.
    pub(super) fn of(answer: &impl Serialize) -> Self {
        // Answers are plain structs of ours, which always have a JSON form.
        Self { status: StatusCode::OK, body: serde_json::to_vec(answer).unwrap_or_default().into() }
    }

    /// Whether the same call may well be answered otherwise later.
    fn is_worth_repeating(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS || self.status.is_server_error()
    }
}

/// What was answered to which key. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Idempotency(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    hasher: RandomState,
    forgotten: IntCounter,
    max_bytes: usize,
    // Held for a look-up alone, and only by calls that carry a key.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: HashMap<Key, Call>,
    /// Those that are answered, the oldest first, with the time to forget them.
    answered: VecDeque<(u64, Key)>,
    bytes: usize,
}

/// An API key by its place, and the idempotency key that its owner chose.
type Key = (usize, Arc<str>);

#[derive(Debug)]
struct Call {
    fingerprint: u64,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    /// Whoever waits for it holds a receiver; it ends when the call does.
    Running(watch::Receiver<()>),
    Answered(Reply),
}

/// What a key means at this moment.
#[derive(Debug)]
pub(super) enum Begun {
    /// Nobody has made this call: make it, and say how it ended.
    First(Ticket),
    /// It was made, and this is what it was answered.
    Answered(Reply),
    /// It is being made. When this channel ends, ask again.
    Running(watch::Receiver<()>),
}

/// The duty to say how a call ended. Dropped, the call counts as never made.
#[derive(Debug)]
pub(super) struct Ticket {
    owner: Idempotency,
    key: Key,
    reply: Option<Reply>,
    _running: watch::Sender<()>,
}

impl Idempotency {
    pub(super) fn new(clock: Clock, forgotten: IntCounter) -> Self {
        Self::with_bytes(clock, forgotten, MAX_BYTES)
    }

    fn with_bytes(clock: Clock, forgotten: IntCounter, max_bytes: usize) -> Self {
        let (hasher, state) = (RandomState::new(), Mutex::default());
        Self(Arc::new(Inner { clock, hasher, forgotten, max_bytes, state }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic half way, so a poisoned state is still whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What tells one call from another. It is keyed by a secret, so that nobody can make two that look alike.
    pub(super) fn fingerprint(&self, call: impl Hash) -> u64 {
        self.0.hasher.hash_one(call)
    }

    /// # Errors
    /// `bad_request` where a key is too long, or not printable.
    pub(super) fn check_key(key: &str) -> Result<(), Failure> {
        let n_chars = key.chars().count();
        if (1..=MAX_KEY_CHARS).contains(&n_chars) && !key.chars().any(char::is_control) {
            return Ok(());
        }
        let message = format!("idempotencyKey must be 1 to {MAX_KEY_CHARS} printable characters");
        Err(Failure::new(ErrorCode::BadRequest, message))
    }

    /// Whether a call may be made with this key: it was not used for another.
    ///
    /// # Errors
    /// `conflict` where it was.
    pub(super) fn check(&self, caller: usize, key: &str, fingerprint: u64) -> Result<(), Failure> {
        let mut state = self.lock();
        state.expire(self.0.clock.uptime_ms());
        match state.calls.get(&(caller, key.into())) {
            Some(call) if call.fingerprint != fingerprint => Err(conflict(key)),
            _ => Ok(()),
        }
    }

    /// Begins a call.
    ///
    /// # Errors
    /// `conflict` where the key was used for another call.
    pub(super) fn begin(&self, caller: usize, key: &str, fingerprint: u64) -> Result<Begun, Failure> {
        let mut state = self.lock();
        state.expire(self.0.clock.uptime_ms());
        let key: Key = (caller, key.into());
        match state.calls.get(&key) {
            Some(call) if call.fingerprint != fingerprint => Err(conflict(&key.1)),
            Some(Call { progress: Progress::Answered(reply), .. }) => Ok(Begun::Answered(reply.clone())),
            Some(Call { progress: Progress::Running(ended), .. }) => Ok(Begun::Running(ended.clone())),
            None => {
                let (running, ended) = watch::channel(());
                state.calls.insert(key.clone(), Call { fingerprint, progress: Progress::Running(ended) });
                Ok(Begun::First(Ticket { owner: self.clone(), key, reply: None, _running: running }))
            }
        }
    }
}

pub(super) fn conflict(key: &str) -> Failure {
    let message = format!("the idempotencyKey {key:?} was used for another call: choose a new one");
    Failure::new(ErrorCode::Conflict, message)
}

impl Ticket {
    /// Says how the call ended. What is worth repeating is not remembered.
    pub(super) fn finish(mut self, reply: &Reply) {
        if !reply.is_worth_repeating() {
            self.reply = Some(reply.clone());
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let inner = &self.owner.0;
        let mut state = self.owner.lock();
        let Some(reply) = self.reply.take() else {
            state.calls.remove(&self.key);
            return;
        };
        let expires = inner.clock.uptime_ms() + REMEMBERED_FOR.as_millis() as u64;
        state.bytes += cost(&self.key, &reply);
        if let Some(call) = state.calls.get_mut(&self.key) {
            call.progress = Progress::Answered(reply);
        }
        state.answered.push_back((expires, self.key.clone()));
        while state.answered.len() > MAX_ANSWERS || state.bytes > inner.max_bytes {
            state.forget_oldest();
            inner.forgotten.inc();
        }
    }
}

fn cost(key: &Key, reply: &Reply) -> usize {
    key.1.len() + reply.body.len() + BYTES_PER_ANSWER
}

impl State {
    fn expire(&mut self, now: u64) {
        while self.answered.front().is_some_and(|(expires, _)| *expires <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, key)) = self.answered.pop_front() else { return };
        if let Some(Call { progress: Progress::Answered(reply), .. }) = self.calls.remove(&key) {
            self.bytes -= cost(&key, &reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(clock: &Clock, max_bytes: usize) -> (Idempotency, IntCounter) {
        let forgotten = IntCounter::new("forgotten", "forgotten").unwrap();
        (Idempotency::with_bytes(clock.clone(), forgotten.clone(), max_bytes), forgotten)
    }

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status: StatusCode::from_u16(status).unwrap(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn make(store: &Idempotency, caller: usize, key: &str, reply: &Reply) {
        match store.begin(caller, key, 1).unwrap() {
            Begun::First(ticket) => ticket.finish(reply),
            other => panic!("{key} is not new: {other:?}"),
        }
    }

    fn answer(store: &Idempotency, caller: usize, key: &str) -> Option<Reply> {
        match store.begin(caller, key, 1).unwrap() {
            Begun::Answered(reply) => Some(reply),
            Begun::First(_) => None,
            Begun::Running(_) => panic!("{key} runs"),
        }
    }

    #[test]
    fn a_repeat_gets_what_the_first_was_answered_for_a_day() {
        let clock = Clock::manual(0);
        let (store, forgotten) = store(&clock, MAX_BYTES);
        make(&store, 0, "a", &reply(404, "gone"));
        clock.advance(REMEMBERED_FOR - Duration::from_millis(1));
        assert_eq!(answer(&store, 0, "a"), Some(reply(404, "gone")));
        assert_eq!(answer(&store, 1, "a"), None, "each API key has its own");
        clock.advance(Duration::from_millis(1));
        assert_eq!(answer(&store, 0, "a"), None);
        let state = store.lock();
        assert_eq!((state.calls.len(), state.answered.len(), state.bytes), (0, 0, 0));
        assert_eq!(forgotten.get(), 0, "what has had its time is not forgotten early");
    }

    #[test]
    fn a_key_is_for_one_call() {
        let (store, _) = store(&Clock::manual(0), MAX_BYTES);
        let running = store.begin(0, "a", 1).unwrap();
        assert_eq!(store.begin(0, "a", 2).unwrap_err().code, ErrorCode::Conflict);
        drop(running);
        make(&store, 0, "a", &reply(200, ""));
        assert_eq!(store.check(0, "a", 2).unwrap_err().code, ErrorCode::Conflict);
        store.check(0, "a", 1).unwrap();
        store.check(1, "a", 2).unwrap();
        assert_ne!(store.fingerprint(("a", 1)), store.fingerprint(("a", 2)));
    }

    #[test]
    fn what_is_worth_repeating_is_not_remembered() {
        let (store, _) = store(&Clock::manual(0), MAX_BYTES);
        for status in [429, 500, 503] {
            make(&store, 0, "a", &reply(status, "later"));
            assert_eq!(answer(&store, 0, "a"), None, "{status}");
        }
        make(&store, 0, "a", &reply(409, "no"));
        assert_eq!(answer(&store, 0, "a"), Some(reply(409, "no")));
    }

    #[tokio::test]
    async fn a_repeat_waits_for_the_first_and_takes_over_where_that_came_to_nothing() {
        let (store, _) = store(&Clock::manual(0), MAX_BYTES);
        for ends_well in [false, true] {
            let Begun::First(ticket) = store.begin(0, "a", 1).unwrap() else { panic!("it is new") };
            let Begun::Running(mut ended) = store.begin(0, "a", 1).unwrap() else { panic!("it runs") };
            let waiting = tokio::spawn(async move { ended.changed().await });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            if ends_well {
                ticket.finish(&reply(200, "x"))
            } else {
                drop(ticket)
            }
            assert!(waiting.await.unwrap().is_err(), "the channel has ended");
            assert_eq!(answer(&store, 0, "a"), ends_well.then(|| reply(200, "x")));
        }
    }

    #[test]
    fn the_oldest_are_forgotten_over_the_bounds_and_counted() {
        let clock = Clock::manual(0);
        let (few, forgotten) = store(&clock, 3 * (BYTES_PER_ANSWER + 101));
        for key in ["a", "b", "c", "d"] {
            make(&few, 0, key, &reply(200, &"x".repeat(100)));
        }
        assert_eq!(forgotten.get(), 1);
        assert_eq!((answer(&few, 0, "a"), answer(&few, 0, "b").is_some()), (None, true));
        make(&few, 0, "huge", &reply(200, &"x".repeat(10_000)));
        assert_eq!(few.lock().bytes, 0, "what fits nowhere is not kept");
        assert!(few.lock().calls.is_empty());

        let (many, forgotten) = store(&clock, usize::MAX);
        for n in 0..MAX_ANSWERS + 5 {
            make(&many, 0, &n.to_string(), &reply(200, ""));
        }
        assert_eq!((forgotten.get(), many.lock().calls.len()), (5, MAX_ANSWERS));
    }

    #[test]
    fn a_key_is_1_to_128_printable_characters() {
        for good in ["a", "a b", "é", &"é".repeat(128)] {
            Idempotency::check_key(good).unwrap();
        }
        for bad in ["", "a\n", "\u{7f}", &"x".repeat(129)] {
            assert_eq!(Idempotency::check_key(bad).unwrap_err().code, ErrorCode::BadRequest, "{bad:?}");
        }
    }
}

//! Idempotency: a repeated call with the same key gets the first answer, and has its effect once.

mod answers;
mod key;
mod reply;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use prometheus::IntCounter;
use tokio::sync::watch;

use self::answers::{Answers, Call, Key, MAX_BYTES, Progress};
pub(super) use self::key::{IdempotencyKey, MAX_KEY_CHARS, conflict, header_key, single_key};
pub(super) use self::reply::Reply;
use crate::model::{Clock, Failure};
use crate::store::AnsweredCall;

/// How long an answer is remembered.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The calls with a key, and their answers. Clones share the table.
#[derive(Debug, Clone)]
pub(super) struct Idempotency(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    forgotten: IntCounter,
    max_bytes: usize,
    // Locked for table operations alone, and only by calls with a key.
    state: Mutex<Answers>,
}

/// The state of a call with a key.
#[derive(Debug)]
pub(super) enum Lookup {
    /// The call is new: make it, and report its answer.
    New(InFlight),
    /// The call was made, and answered so.
    Answered(Reply),
    /// The call is being made. Look again when the channel closes.
    Running(watch::Receiver<()>),
}

/// A call that is being made. If this is dropped without an answer, the call counts as never made.
#[derive(Debug)]
pub(super) struct InFlight {
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
        Self(Arc::new(Inner { clock, forgotten, max_bytes, state: Mutex::default() }))
    }

    /// Remembers the answers of an earlier process, the oldest first.
    pub(super) fn restore(&self, calls: Vec<AnsweredCall>) {
        let clock = &self.0.clock;
        let mut state = self.lock();
        for call in calls {
            let AnsweredCall { caller, key, fingerprint, answer, answered_ms } = call;
            let key: Key = (caller.into(), key.into());
            let age = clock.now_ms().saturating_sub(answered_ms);
            let left = (REMEMBERED_FOR.as_millis() as u64).saturating_sub(age);
            let reply = Reply { status: StatusCode::OK, body: answer.into() };
            let progress = Progress::Answered(reply.clone());
            if state.calls.insert(key.clone(), Call { fingerprint, progress }).is_none() {
                state.keep(key, &reply, clock.uptime_ms() + left);
            }
        }
        state.hold_to(self.0.max_bytes, &self.0.forgotten);
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        // Nothing that holds the lock can panic half way, so a poisoned state is still whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// `conflict` where the key was used for another call.
    pub(super) fn check(&self, caller: &str, key: &IdempotencyKey) -> Result<(), Failure> {
        let mut state = self.lock();
        state.expire(self.0.clock.uptime_ms());
        match state.calls.get(&(caller.into(), key.text.as_str().into())) {
            Some(call) if call.fingerprint != key.fingerprint => Err(conflict(&key.text)),
            _ => Ok(()),
        }
    }

    /// Looks a call up, and begins it where it is new.
    ///
    /// # Errors
    /// `conflict` where the key was used for another call.
    pub(super) fn begin(&self, caller: &str, key: &IdempotencyKey) -> Result<Lookup, Failure> {
        let mut state = self.lock();
        state.expire(self.0.clock.uptime_ms());
        let IdempotencyKey { text, fingerprint } = key;
        let key: Key = (caller.into(), text.as_str().into());
        match state.calls.get(&key) {
            Some(call) if call.fingerprint != *fingerprint => Err(conflict(text)),
            Some(Call { progress: Progress::Answered(reply), .. }) => Ok(Lookup::Answered(reply.clone())),
            Some(Call { progress: Progress::Running(ended), .. }) => Ok(Lookup::Running(ended.clone())),
            None => {
                let (running, ended) = watch::channel(());
                state.calls.insert(key.clone(), Call { fingerprint: *fingerprint, progress: Progress::Running(ended) });
                Ok(Lookup::New(InFlight { owner: self.clone(), key, reply: None, _running: running }))
            }
        }
    }
}

impl InFlight {
    /// Reports the call's answer. A refusal is not remembered.
    pub(super) fn finish(mut self, reply: &Reply) {
        if reply.has_effect() {
            self.reply = Some(reply.clone());
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let inner = &self.owner.0;
        let mut state = self.owner.lock();
        let Some(reply) = self.reply.take() else {
            state.calls.remove(&self.key);
            return;
        };
        let expires = inner.clock.uptime_ms() + REMEMBERED_FOR.as_millis() as u64;
        state.keep(self.key.clone(), &reply, expires);
        if let Some(call) = state.calls.get_mut(&self.key) {
            call.progress = Progress::Answered(reply);
        }
        state.hold_to(inner.max_bytes, &inner.forgotten);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::answers::{BYTES_PER_ANSWER, MAX_ANSWERS};
    use super::*;
    use crate::model::ErrorCode;

    fn store(clock: &Clock, max_bytes: usize) -> (Idempotency, IntCounter) {
        let forgotten = IntCounter::new("forgotten", "forgotten").unwrap();
        (Idempotency::with_bytes(clock.clone(), forgotten.clone(), max_bytes), forgotten)
    }

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status: StatusCode::from_u16(status).unwrap(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn key(text: &str, call: u8) -> IdempotencyKey {
        IdempotencyKey::new(text.to_owned(), ("call", call))
    }

    fn make(store: &Idempotency, caller: &str, text: &str, reply: &Reply) {
        match store.begin(caller, &key(text, 1)).unwrap() {
            Lookup::New(in_flight) => in_flight.finish(reply),
            other => panic!("{text} is not new: {other:?}"),
        }
    }

    fn answer(store: &Idempotency, caller: &str, text: &str) -> Option<Reply> {
        match store.begin(caller, &key(text, 1)).unwrap() {
            Lookup::Answered(reply) => Some(reply),
            Lookup::New(_) => None,
            Lookup::Running(_) => panic!("{text} runs"),
        }
    }

    #[test]
    fn repetition_gets_the_first_answer_for_a_day() {
        let clock = Clock::manual(0);
        let (store, forgotten) = store(&clock, MAX_BYTES);
        make(&store, "ops", "a", &reply(200, "done"));
        clock.advance(REMEMBERED_FOR - Duration::from_millis(1));
        assert_eq!(answer(&store, "ops", "a"), Some(reply(200, "done")));
        assert_eq!(answer(&store, "billing", "a"), None, "each API key has its own");
        clock.advance(Duration::from_millis(1));
        assert_eq!(answer(&store, "ops", "a"), None);
        let state = store.lock();
        assert_eq!((state.calls.len(), state.answered.len(), state.bytes), (0, 0, 0));
        assert_eq!(forgotten.get(), 0, "what has had its time is not forgotten early");
    }

    #[test]
    fn key_of_another_call_conflicts() {
        let (store, _) = store(&Clock::manual(0), MAX_BYTES);
        let running = store.begin("ops", &key("a", 1)).unwrap();
        assert_eq!(store.begin("ops", &key("a", 2)).unwrap_err().code, ErrorCode::Conflict);
        drop(running);
        make(&store, "ops", "a", &reply(200, ""));
        assert_eq!(store.check("ops", &key("a", 2)).unwrap_err().code, ErrorCode::Conflict);
        store.check("ops", &key("a", 1)).unwrap();
        store.check("billing", &key("a", 2)).unwrap();
        assert_ne!(key("a", 1), key("a", 2));
    }

    #[test]
    fn restored_answers_expire_a_day_after_the_call() {
        let clock = Clock::manual(0);
        clock.advance(REMEMBERED_FOR);
        let (store, _) = store(&clock, MAX_BYTES);
        let age = |hours: u64| clock.now_ms() - hours * 3_600_000;
        let answered = |text: &str, answered_ms: u64| AnsweredCall {
            caller: "ops".to_owned(),
            key: text.to_owned(),
            fingerprint: key("", 1).fingerprint,
            answer: text.to_owned(),
            answered_ms,
        };
        store.restore(vec![answered("old", age(23)), answered("new", age(1))]);
        assert_eq!(answer(&store, "ops", "old"), Some(reply(200, "old")));
        assert_eq!(answer(&store, "billing", "new"), None);
        assert_eq!(store.check("ops", &key("new", 2)).unwrap_err().code, ErrorCode::Conflict);
        clock.advance(Duration::from_secs(3600));
        assert_eq!((answer(&store, "ops", "old"), answer(&store, "ops", "new")), (None, Some(reply(200, "new"))));
    }

    #[test]
    fn refusals_are_not_remembered() {
        let (store, _) = store(&Clock::manual(0), MAX_BYTES);
        for code in ErrorCode::ALL {
            make(&store, "ops", "a", &reply(code.http_status(), "later"));
            assert_eq!(answer(&store, "ops", "a"), None, "{code:?}");
        }
        make(&store, "ops", "a", &reply(200, "done"));
        assert_eq!(answer(&store, "ops", "a"), Some(reply(200, "done")));
    }

    #[tokio::test]
    async fn repetition_waits_for_the_running_calls_end() {
        let (store, _) = store(&Clock::manual(0), MAX_BYTES);
        for ends_well in [false, true] {
            let Lookup::New(in_flight) = store.begin("ops", &key("a", 1)).unwrap() else { panic!("it is new") };
            let Lookup::Running(mut ended) = store.begin("ops", &key("a", 1)).unwrap() else { panic!("it runs") };
            let waiting = tokio::spawn(async move { ended.changed().await });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            if ends_well {
                in_flight.finish(&reply(200, "x"))
            } else {
                drop(in_flight)
            }
            assert!(waiting.await.unwrap().is_err(), "the channel has ended");
            assert_eq!(answer(&store, "ops", "a"), ends_well.then(|| reply(200, "x")));
        }
    }

    #[test]
    fn oldest_answers_over_the_bounds_are_dropped() {
        let clock = Clock::manual(0);
        let (few, forgotten) = store(&clock, 3 * (BYTES_PER_ANSWER + 101));
        for key in ["a", "b", "c", "d"] {
            make(&few, "ops", key, &reply(200, &"x".repeat(100)));
        }
        assert_eq!(forgotten.get(), 1);
        assert_eq!((answer(&few, "ops", "a"), answer(&few, "ops", "b").is_some()), (None, true));
        make(&few, "ops", "huge", &reply(200, &"x".repeat(10_000)));
        assert_eq!(few.lock().bytes, 0, "what fits nowhere is not kept");
        assert!(few.lock().calls.is_empty());

        let (many, forgotten) = store(&clock, usize::MAX);
        for n in 0..MAX_ANSWERS + 5 {
            make(&many, "ops", &n.to_string(), &reply(200, ""));
        }
        assert_eq!((forgotten.get(), many.lock().calls.len()), (5, MAX_ANSWERS));
    }
}

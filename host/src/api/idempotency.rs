//! Idempotency keys: a call that is repeated with its key is answered as the first was, and done once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use prometheus::IntCounter;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::model::{Clock, ErrorCode, Failure};
use crate::store::{AnsweredCall, MAX_ANSWERED_CALLS};

/// How long an answer is remembered.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Answers that are remembered, at most.
const MAX_ANSWERS: usize = MAX_ANSWERED_CALLS;

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

    /// Whether the call did something, which must not be done again. A refusal, of whatever kind, has changed nothing: what
    /// was missing may be there when the call is repeated (a feature that was unloaded, a campaign that had not begun).
    fn is_of_something_done(&self) -> bool {
        self.status == StatusCode::OK
    }
}

/// What was answered to which key. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Idempotency(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
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

/// The name of an API key, and the idempotency key that its owner chose.
type Key = (Arc<str>, Arc<str>);

/// What tells one call from another: its SHA-256.
pub(super) type Fingerprint = [u8; 32];

#[derive(Debug)]
struct Call {
    fingerprint: Fingerprint,
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
        Self(Arc::new(Inner { clock, forgotten, max_bytes, state: Mutex::default() }))
    }

    /// Goes on with what was answered before the host was started, the oldest first.
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

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic half way, so a poisoned state is still whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What tells one call from another, the same whenever the host is started.
    pub(super) fn fingerprint(call: impl Serialize) -> Fingerprint {
        let mut hash = Sha256::new();
        // A hash takes whatever is written, and calls are texts, which always have a JSON form.
        let _ = serde_json::to_writer(&mut hash, &call);
        hash.finalize().into()
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
    pub(super) fn check(&self, caller: &str, key: &str, fingerprint: Fingerprint) -> Result<(), Failure> {
        let mut state = self.lock();
        state.expire(self.0.clock.uptime_ms());
        match state.calls.get(&(caller.into(), key.into())) {
            Some(call) if call.fingerprint != fingerprint => Err(conflict(key)),
            _ => Ok(()),
        }
    }

    /// Begins a call.
    ///
    /// # Errors
    /// `conflict` where the key was used for another call.
    pub(super) fn begin(&self, caller: &str, key: &str, fingerprint: Fingerprint) -> Result<Begun, Failure> {
        let mut state = self.lock();
        state.expire(self.0.clock.uptime_ms());
        let key: Key = (caller.into(), key.into());
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

/// The key in the header of a request: a string in quotes (draft-ietf-httpapi-idempotency-key-header-07, section 2.1), or the
/// same without them, as most clients send it.
///
/// # Errors
/// `bad_request` where there are several, or one has characters that headers do not carry unharmed.
pub(super) fn key_in(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let bad = |what: &str| Failure::new(ErrorCode::BadRequest, format!("the header Idempotency-Key {what}"));
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next().map(|value| value.as_bytes()) else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("stands there more than once: send one"));
    }
    let key = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
    if !(1..=MAX_KEY_CHARS).contains(&key.len())
        || key.iter().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'"' | b'\\'))
    {
        let what = format!(
            "must be 1 to {MAX_KEY_CHARS} visible ASCII characters without quotes and backslashes, and may stand in quotes: others \
             can be sent as idempotencyKey in the body"
        );
        return Err(bad(&what));
    }
    Ok(Some(key.iter().map(|byte| char::from(*byte)).collect()))
}

/// The one key of a call, which may stand in its header and in its body.
///
/// # Errors
/// `conflict` where they differ.
pub(super) fn one_key(header: Option<String>, body: Option<String>) -> Result<Option<String>, Failure> {
    match (header, body) {
        (Some(header), Some(body)) if header != body => {
            let message = format!(
                "the header Idempotency-Key is {header:?} and idempotencyKey in the body is {body:?}: send one of them, or the \
                 same twice"
            );
            Err(Failure::new(ErrorCode::Conflict, message))
        }
        (header, body) => Ok(header.or(body)),
    }
}

pub(super) fn conflict(key: &str) -> Failure {
    let message = format!("the idempotencyKey {key:?} was used for another call: choose a new one");
    Failure::new(ErrorCode::Conflict, message)
}

impl Ticket {
    /// Says how the call ended. A refusal is not remembered.
    pub(super) fn finish(mut self, reply: &Reply) {
        if reply.is_of_something_done() {
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
        state.keep(self.key.clone(), &reply, expires);
        if let Some(call) = state.calls.get_mut(&self.key) {
            call.progress = Progress::Answered(reply);
        }
        state.hold_to(inner.max_bytes, &inner.forgotten);
    }
}

fn cost(key: &Key, reply: &Reply) -> usize {
    key.1.len() + reply.body.len() + BYTES_PER_ANSWER
}

impl State {
    /// Counts an answer among those that are remembered.
    fn keep(&mut self, key: Key, reply: &Reply, expires: u64) {
        self.bytes += cost(&key, reply);
        self.answered.push_back((expires, key));
    }

    fn hold_to(&mut self, max_bytes: usize, forgotten: &IntCounter) {
        while self.answered.len() > MAX_ANSWERS || self.bytes > max_bytes {
            self.forget_oldest();
            forgotten.inc();
        }
    }

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
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn store(clock: &Clock, max_bytes: usize) -> (Idempotency, IntCounter) {
        let forgotten = IntCounter::new("forgotten", "forgotten").unwrap();
        (Idempotency::with_bytes(clock.clone(), forgotten.clone(), max_bytes), forgotten)
    }

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status: StatusCode::from_u16(status).unwrap(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    /// Some call, as its number tells.
    fn call(n: u8) -> Fingerprint {
        Idempotency::fingerprint(("call", n))
    }

    fn make(store: &Idempotency, caller: &str, key: &str, reply: &Reply) {
        match store.begin(caller, key, call(1)).unwrap() {
            Begun::First(ticket) => ticket.finish(reply),
            other => panic!("{key} is not new: {other:?}"),
        }
    }

    fn answer(store: &Idempotency, caller: &str, key: &str) -> Option<Reply> {
        match store.begin(caller, key, call(1)).unwrap() {
            Begun::Answered(reply) => Some(reply),
            Begun::First(_) => None,
            Begun::Running(_) => panic!("{key} runs"),
        }
    }

    #[test]
    fn a_repeat_gets_what_the_first_was_answered_for_a_day() {
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
    fn a_key_is_for_one_call() {
        let (store, _) = store(&Clock::manual(0), MAX_BYTES);
        let running = store.begin("ops", "a", call(1)).unwrap();
        assert_eq!(store.begin("ops", "a", call(2)).unwrap_err().code, ErrorCode::Conflict);
        drop(running);
        make(&store, "ops", "a", &reply(200, ""));
        assert_eq!(store.check("ops", "a", call(2)).unwrap_err().code, ErrorCode::Conflict);
        store.check("ops", "a", call(1)).unwrap();
        store.check("billing", "a", call(2)).unwrap();
        assert_ne!(call(1), call(2));
    }

    #[test]
    fn what_was_answered_before_a_start_is_known_for_the_rest_of_its_day() {
        let clock = Clock::manual(0);
        clock.advance(REMEMBERED_FOR);
        let (store, _) = store(&clock, MAX_BYTES);
        let age = |hours: u64| clock.now_ms() - hours * 3_600_000;
        let answered = |key: &str, answered_ms: u64| AnsweredCall {
            caller: "ops".to_owned(),
            key: key.to_owned(),
            fingerprint: call(1),
            answer: key.to_owned(),
            answered_ms,
        };
        store.restore(vec![answered("old", age(23)), answered("new", age(1))]);
        assert_eq!(answer(&store, "ops", "old"), Some(reply(200, "old")));
        assert_eq!(answer(&store, "billing", "new"), None);
        assert_eq!(store.check("ops", "new", call(2)).unwrap_err().code, ErrorCode::Conflict);
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

    #[test]
    fn header_holds_a_key_with_or_without_quotes() {
        let read = |values: &[&str]| {
            let values = values.iter().map(|value| ("idempotency-key".parse().unwrap(), value.parse().unwrap()));
            key_in(&HeaderMap::from_iter(values.collect::<Vec<(HeaderName, HeaderValue)>>()))
        };
        assert_eq!(read(&[]).unwrap(), None);
        let longest = "x".repeat(MAX_KEY_CHARS);
        for (value, key) in
            [("a-1", "a-1"), ("\"a-1\"", "a-1"), (&longest, &longest), (&format!("\"{longest}\""), &longest)]
        {
            assert_eq!(read(&[value]).unwrap().as_deref(), Some(key), "{value}");
        }
        let too_long = format!("{longest}x");
        for bad in [&[""][..], &["\"\""], &["\"a"], &["a\""], &["\""], &["a\\b"], &["a b"], &[&too_long], &["a", "a"]] {
            let failure = read(bad).unwrap_err();
            assert!(failure.code == ErrorCode::BadRequest && failure.message.contains("Idempotency-Key"), "{bad:?}");
        }
    }

    #[test]
    fn header_and_body_name_the_same_key() {
        let text = |key: &str| Some(key.to_owned());
        assert_eq!(one_key(None, None).unwrap(), None);
        for (header, body) in [(text("a"), None), (None, text("a")), (text("a"), text("a"))] {
            assert_eq!(one_key(header, body).unwrap(), text("a"));
        }
        assert_eq!(one_key(text("a"), text("b")).unwrap_err().code, ErrorCode::Conflict);
    }

    #[tokio::test]
    async fn a_repeat_waits_for_the_first_and_takes_over_where_that_came_to_nothing() {
        let (store, _) = store(&Clock::manual(0), MAX_BYTES);
        for ends_well in [false, true] {
            let Begun::First(ticket) = store.begin("ops", "a", call(1)).unwrap() else { panic!("it is new") };
            let Begun::Running(mut ended) = store.begin("ops", "a", call(1)).unwrap() else { panic!("it runs") };
            let waiting = tokio::spawn(async move { ended.changed().await });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            if ends_well {
                ticket.finish(&reply(200, "x"))
            } else {
                drop(ticket)
            }
            assert!(waiting.await.unwrap().is_err(), "the channel has ended");
            assert_eq!(answer(&store, "ops", "a"), ends_well.then(|| reply(200, "x")));
        }
    }

    #[test]
    fn the_oldest_are_forgotten_over_the_bounds_and_counted() {
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

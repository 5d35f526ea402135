//! Rooms about which only the operator's backend knows who may use them (`authorize` of a rule): its verdicts, each for a
//! user and a room, are kept for a while.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Request, Response, StatusCode, Uri};
use serde_json::{Map, Value, json};

use super::action::Action;
use crate::model::{Clock, Identity};
use crate::outbound::{Endpoint, EndpointConfig, Outbound};

/// The longest answer, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// The most verdicts that are kept.
const MAX_VERDICTS: usize = 100_000;

/// The most events that wait for verdicts.
const MAX_WAITING: usize = 10_000;

/// How long a missing answer counts, in milliseconds: until an event that was deferred for it is tried again.
const FAILURE_MS: u64 = 2000;

/// How much longer a verdict counts for the effects of an event that was begun with it, in milliseconds: between the question
/// about the event and its effects lies the feature's call.
const SLACK_MS: u64 = 10_000;

/// Time until a question without an answer is asked again for the sake of members of the room.
const RETRY: Duration = Duration::from_secs(10);

/// The backend of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuthorizeConfig {
    /// The URL that is asked.
    pub url: Uri,
    /// Time for an answer, and before that for a turn.
    pub timeout: Duration,
    /// For how long a verdict counts.
    pub cache: Duration,
    /// Questions at a time.
    pub max_concurrent: usize,
}

/// Called when a verdict is there. Must be quick, and must not ask for another verdict.
pub type Then = Box<dyn FnOnce() + Send>;

/// What the backend says of each action, in the order of [`Action::ALL`]; or why it says nothing.
type Answer = Result<[bool; 3], String>;

#[derive(Default)]
struct Entry {
    answer: Option<(Answer, u64)>,
    /// Those who wait for an answer that is under way.
    waiting: Vec<Then>,
    is_asked: bool,
}

#[derive(Default)]
struct State {
    entries: HashMap<(u64, Box<str>), Entry>,
    n_waiting: usize,
}

struct Inner {
    endpoint: Endpoint,
    cache_ms: u64,
    clock: Clock,
    /// Hashes identities with a random key, so that clients cannot construct collisions.
    hasher: RandomState,
    state: Mutex<State>,
}

/// Asks a backend. Clones share the verdicts.
#[derive(Clone)]
pub(super) struct Authorizer(Arc<Inner>);

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authorizer").field(&self.0.endpoint).finish()
    }
}

impl Authorizer {
    pub(super) fn new(config: &AuthorizeConfig, outbound: &Outbound, clock: Clock) -> Self {
        let AuthorizeConfig { url, timeout, cache, max_concurrent } = config.clone();
        let endpoint = outbound.endpoint(EndpointConfig { url, timeout, max_concurrent, max_bytes: MAX_BYTES });
        let cache_ms = cache.as_millis() as u64;
        Self(Arc::new(Inner { endpoint, cache_ms, clock, hasher: RandomState::new(), state: Mutex::default() }))
    }

    /// The verdict on an action; `None` where the backend has to be asked first. `is_begun`: for an event that was begun.
    ///
    /// # Errors
    /// Why the backend gave no answer.
    pub(super) fn verdict(
        &self,
        identity: &Identity,
        room: &str,
        action: Action,
        is_begun: bool,
    ) -> Option<Result<bool, String>> {
        let state = self.lock();
        let (answer, at) = state.entries.get(&self.key(identity, room))?.answer.as_ref()?;
        let slack = if is_begun { SLACK_MS } else { 0 };
        self.is_current(answer, *at, slack).then(|| answer.clone().map(|allowed| allowed[action as usize]))
    }

    /// Calls `then` as soon as there is a verdict: at once if one is known, in the order of the calls. `values` are those
    /// of the placeholders. Returns `false`, and drops `then`, where too many wait.
    pub(super) fn ask(&self, identity: &Arc<Identity>, room: &str, values: Map<String, Value>, then: Then) -> bool {
        let (key, now) = (self.key(identity, room), self.0.clock.uptime_ms());
        let mut state = self.lock();
        if state.entries.len() >= MAX_VERDICTS {
            state.drop_old(now.saturating_sub(self.0.cache_ms));
        }
        let is_full = state.n_waiting >= MAX_WAITING;
        let entry = state.entries.entry(key.clone()).or_default();
        let is_known = entry.answer.as_ref().is_some_and(|(answer, at)| self.is_current(answer, *at, 0));
        if is_known {
            // Under the lock, so that no later caller overtakes those that have waited.
            then();
            return true;
        }
        if is_full {
            return false;
        }
        entry.waiting.push(then);
        let is_first = !std::mem::replace(&mut entry.is_asked, true);
        state.n_waiting += 1;
        drop(state);
        if is_first {
            let (authorizer, identity, room) = (self.clone(), identity.clone(), room.to_owned());
            self.0.endpoint.spawn(async move {
                let answer = authorizer.answer(&identity, &room, values).await;
                authorizer.note(&key, answer);
            });
        }
        true
    }

    /// Calls `then` when it is time to ask again about a question that had no answer.
    pub(super) fn later(&self, then: Then) {
        let (clock, until) = (self.0.clock.clone(), self.0.clock.uptime_ms() + RETRY.as_millis() as u64);
        self.0.endpoint.spawn(async move {
            clock.sleep_until(until).await;
            then();
        });
    }

    /// Asks the backend.
    pub(super) async fn answer(&self, identity: &Identity, room: &str, values: Map<String, Value>) -> Answer {
        let question = json!({ "user": identity.to_json(), "room": room, "values": values });
        let request = Request::post(self.0.endpoint.url())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Bytes::from(question.to_string()))
            .map_err(|error| error.to_string())?;
        read(&self.0.endpoint.call_in_turn(request).await.map_err(|error| error.to_string())?)
    }

    fn note(&self, key: &(u64, Box<str>), answer: Answer) {
        if let Err(why) = &answer {
            tracing::debug!(room = %key.1, "a room's backend gives no verdict: {why}");
        }
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(key) else { return };
        entry.answer = Some((answer, self.0.clock.uptime_ms()));
        entry.is_asked = false;
        let waiting = std::mem::take(&mut entry.waiting);
        state.n_waiting -= waiting.len();
        // Under the lock, so that no later caller overtakes them.
        waiting.into_iter().for_each(|then| then());
    }

    /// Whether an answer from `at` counts still, by uptime in milliseconds.
    fn is_current(&self, answer: &Answer, at: u64, slack: u64) -> bool {
        let lasts = if answer.is_ok() { self.0.cache_ms + slack } else { FAILURE_MS };
        self.0.clock.uptime_ms() < at + lasts
    }

    fn key(&self, identity: &Identity, room: &str) -> (u64, Box<str>) {
        let Identity { user, name, roles, claims, principal } = identity;
        (self.0.hasher.hash_one((user, name, roles, claims, principal)), room.into())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Drops the answers from before `since`, or all where that is not enough.
    fn drop_old(&mut self, since: u64) {
        self.entries.retain(|_, entry| entry.is_asked || entry.answer.as_ref().is_some_and(|(_, at)| *at >= since));
        if self.entries.len() >= MAX_VERDICTS {
            self.entries.retain(|_, entry| entry.is_asked);
        }
    }
}

/// Reads a backend's answer.
fn read(answer: &Response<Bytes>) -> Answer {
    match answer.status() {
        StatusCode::NO_CONTENT => Ok([true; 3]),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok([false; 3]),
        StatusCode::OK => {
            let wrong = || {
                "its answer is not like {\"allow\": true} or {\"join\": true, \"publish\": false, \"subscribe\": true}"
                    .to_owned()
            };
            let fields: Map<String, Value> = serde_json::from_slice(answer.body()).map_err(|_| wrong())?;
            let field = |name: &str| fields.get(name).map(|value| value.as_bool().ok_or_else(wrong)).transpose();
            let allow = field("allow")?;
            let mut allowed = [false; 3];
            let mut is_any = allow.is_some();
            for (action, allowed) in Action::ALL.into_iter().zip(&mut allowed) {
                let own = field(action.as_str())?;
                is_any |= own.is_some();
                *allowed = own.or(allow).unwrap_or(false);
            }
            if is_any { Ok(allowed) } else { Err(wrong()) }
        }
        status => Err(format!("it answers {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, body: &str) -> Answer {
        read(&Response::builder().status(status).body(Bytes::from(body.to_owned())).unwrap())
    }

    #[test]
    fn answers_allow_or_refuse_each_action() {
        for (status, body, allowed) in [
            (204, "", [true; 3]),
            (200, r#"{"allow":true}"#, [true; 3]),
            (200, r#"{"allow":false,"why":"x"}"#, [false; 3]),
            (200, r#"{"join":true,"subscribe":true}"#, [true, false, true]),
            (200, r#"{"allow":true,"publish":false}"#, [true, false, true]),
            (403, "no", [false; 3]),
            (401, "", [false; 3]),
            (404, "", [false; 3]),
        ] {
            assert_eq!(told(status, body), Ok(allowed), "{status} {body}");
        }
    }

    #[test]
    fn answers_without_a_verdict_allow_nothing() {
        for (status, body) in [
            (200, ""),
            (200, "{}"),
            (200, "true"),
            (200, r#"{"allow":"yes"}"#),
            (200, r#"{"error":1}"#),
            (500, ""),
            (302, ""),
        ] {
            assert!(told(status, body).is_err(), "{status} {body}");
        }
    }
}

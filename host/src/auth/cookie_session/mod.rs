//! Sessions in a cookie, about which the host asks the operator's own endpoint: at each connection, and again at
//! intervals.
//!
//! - `answer`: what the endpoint says
//! - `table`: the sessions in use

mod answer;
mod table;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ACCEPT, COOKIE, HeaderValue};
use hyper::{Request, Uri};
use prometheus::{IntCounterVec, IntGauge};
use tokio::task::JoinSet;

pub use answer::SessionFields;
use answer::Told;
pub use table::SessionHandle;
use table::{SessionKey, Table, Times};

use super::session::{AuthError, CredentialIds, Session};
use crate::model::Clock;
use crate::outbound::{Endpoint, EndpointConfig, Flights, Outbound};

/// The longest answer, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// How often it is looked for sessions that are due, in milliseconds.
const TICK_MS: u64 = 1000;

/// Time until the next question about a session after one that had no answer, in milliseconds.
const RETRY_MS: u64 = 10_000;

/// How long before its end a session is asked after, because endpoints prolong sessions in use; in milliseconds. Sooner
/// than its clients are told of the end.
const BEFORE_END_MS: u64 = 40_000;

/// Least time between two questions about a session, in milliseconds.
const LEAST_MS: u64 = 5000;

/// How sessions are checked.
#[derive(Debug, Clone)]
pub struct CookieSessionConfig {
    /// The endpoint.
    pub url: Uri,
    /// The cookie's name.
    pub cookie: String,
    /// Time for an answer, and before that for a turn.
    pub timeout: Duration,
    /// Questions at a time.
    pub max_concurrent: usize,
    /// For how long an answer counts for further connections.
    pub cache: Duration,
    /// Time between two questions about the session of a connection.
    pub recheck: Duration,
    /// Where the answers have what.
    pub fields: SessionFields,
}

/// Metrics of sessions.
#[derive(Debug, Clone)]
pub struct SessionMetrics {
    /// Questions, by their outcome: `known`, `ended` or `failed`.
    pub checks: IntCounterVec,
    /// Sessions in use.
    pub in_use: IntGauge,
}

/// Sessions that have changed, each with what it is now, or none where it has ended.
pub type SessionChanges = std::collections::HashMap<SessionKey, Option<Session>>;

/// Checks sessions. Clones share them.
#[derive(Clone)]
pub struct CookieSessions(Arc<Inner>);

struct Inner {
    config: CookieSessionConfig,
    /// For clients that connect.
    endpoint: Endpoint,
    /// For sessions in use: with turns and a circuit breaker of its own, so that connecting clients cannot use them up.
    recheck: Endpoint,
    flights: Flights<SessionKey, Result<Option<SessionHandle>, String>>,
    table: Table,
    clock: Clock,
    metrics: SessionMetrics,
}

impl fmt::Debug for CookieSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieSessions").field("table", &self.0.table).finish_non_exhaustive()
    }
}

impl CookieSessions {
    /// Begins to check sessions. `on_change` gets the sessions in use that have changed or ended.
    pub fn start(
        config: CookieSessionConfig,
        outbound: &Outbound,
        clock: Clock,
        metrics: SessionMetrics,
        on_change: impl Fn(SessionChanges) + Send + 'static,
    ) -> Self {
        let endpoint = || {
            outbound.endpoint(EndpointConfig {
                url: config.url.clone(),
                timeout: config.timeout,
                max_concurrent: config.max_concurrent,
                max_bytes: MAX_BYTES,
            })
        };
        let (endpoint, recheck) = (endpoint(), endpoint());
        let (flights, table) = (Flights::default(), Table::default());
        let sessions = Self(Arc::new(Inner { config, endpoint, recheck, flights, table, clock, metrics }));
        outbound.spawn(sessions.clone().check_again(on_change));
        sessions
    }

    /// Asks for the session of a cookie. Clients with the same cookie share a question.
    ///
    /// # Errors
    /// Where there is no such session, or no answer.
    pub async fn check(&self, cookie: &str) -> Result<SessionHandle, AuthError> {
        let key = SessionKey::of(cookie);
        let since = self.0.clock.uptime_ms().saturating_sub(self.0.config.cache.as_millis() as u64);
        if !self.0.config.cache.is_zero()
            && let Some(handle) = self.0.table.recent(&key, since)
        {
            return Ok(handle);
        }
        match self.0.flights.join(key, || self.ask(&self.0.endpoint, key, cookie)).await {
            Ok(Some(handle)) => Ok(handle),
            Ok(None) => Err(AuthError::SessionEnded),
            Err(why) => Err(AuthError::SessionUnknown(why)),
        }
    }

    /// The session of a handle, as the endpoint last told.
    ///
    /// # Errors
    /// Where it has ended.
    pub(super) fn session(&self, handle: &SessionHandle) -> Result<Session, AuthError> {
        let known = self.0.table.find(handle).ok_or(AuthError::SessionEnded)?;
        let is_over = known.expires_ms.is_some_and(|expires| expires <= self.0.clock.wall_ms());
        if is_over { Err(AuthError::SessionEnded) } else { Ok(session_of(known, handle)) }
    }

    /// Asks the endpoint.
    async fn ask(&self, endpoint: &Endpoint, key: SessionKey, cookie: &str) -> Result<Option<SessionHandle>, String> {
        let inner = &*self.0;
        let told = self.tell(endpoint, cookie).await;
        let outcome = match &told {
            Ok(Told::Known(_)) => "known",
            Ok(Told::Ended) => "ended",
            Err(_) => "failed",
        };
        inner.metrics.checks.with_label_values(&[outcome]).inc();
        let told = told?;
        let now = inner.clock.uptime_ms();
        let times = Times { now, due: now + self.pause(&told) };
        Ok(inner.table.note(key, cookie, told, times))
    }

    async fn tell(&self, endpoint: &Endpoint, cookie: &str) -> Result<Told, String> {
        let inner = &*self.0;
        let mut header = HeaderValue::try_from(format!("{}={cookie}", inner.config.cookie))
            .map_err(|_| "the cookie has characters that no header may have".to_owned())?;
        header.set_sensitive(true);
        let request = Request::get(endpoint.url()).header(ACCEPT, "application/json").header(COOKIE, header);
        let request = request.body(Bytes::new()).map_err(|error| error.to_string())?;
        let answer = endpoint.call_in_turn(request).await.map_err(|error| error.to_string())?;
        answer::read(&answer, cookie, &inner.config.fields)
    }

    /// Time until the next question about a session, in milliseconds.
    fn pause(&self, told: &Told) -> u64 {
        let recheck = self.0.config.recheck.as_millis() as u64;
        let until_end = match told {
            Told::Known(session) => session
                .expires_ms
                .map_or(u64::MAX, |end| end.saturating_sub(self.0.clock.wall_ms()).saturating_sub(BEFORE_END_MS)),
            Told::Ended => u64::MAX,
        };
        recheck.min(until_end.max(LEAST_MS))
    }

    /// Asks again about sessions in use, as long as the host runs.
    async fn check_again(self, on_change: impl Fn(SessionChanges)) {
        let inner = &*self.0;
        let mut failing = None;
        loop {
            inner.clock.sleep_until(inner.clock.uptime_ms() + TICK_MS).await;
            loop {
                let outcomes = self.check_due().await;
                log_failures(&outcomes, &mut failing);
                // Between two rounds, so that a slow endpoint holds no change back.
                let changes = inner.table.take_changes();
                if !changes.is_empty() {
                    on_change(
                        changes.into_iter().map(|(handle, told)| (*handle, session_told(&handle, told))).collect(),
                    );
                }
                if outcomes.is_empty() {
                    break;
                }
            }
            let cache = inner.config.cache.as_millis() as u64;
            inner.table.drop_unused(inner.clock.uptime_ms().saturating_sub(cache));
            inner.metrics.in_use.set(inner.table.len() as i64);
        }
    }

    /// Asks about sessions that are due, as many as may be asked about at a time. Returns the outcomes.
    async fn check_due(&self) -> Vec<Result<(), String>> {
        let inner = &*self.0;
        let now = inner.clock.uptime_ms();
        let mut asked = JoinSet::new();
        for (key, cookie) in inner.table.take_due(now, now + RETRY_MS, inner.config.max_concurrent) {
            let sessions = self.clone();
            asked.spawn(async move { sessions.ask(&sessions.0.recheck, key, &cookie).await.map(drop) });
        }
        let mut outcomes = Vec::new();
        while let Some(outcome) = asked.join_next().await {
            // A panic is logged by the host's hook, and must not end the checks of other sessions.
            outcomes.push(outcome.unwrap_or_else(|error| Err(error.to_string())));
        }
        outcomes
    }
}

/// Logs the first failure of a kind, and that sessions are checked again after it.
fn log_failures(outcomes: &[Result<(), String>], failing: &mut Option<String>) {
    match (outcomes.iter().find_map(|outcome| outcome.as_ref().err()), &failing) {
        (Some(why), last) if last.as_ref() != Some(why) => {
            tracing::warn!("sessions cannot be checked by auth.session.url, and go on meanwhile: {why}");
            *failing = Some(why.clone());
        }
        (None, Some(_)) if !outcomes.is_empty() => {
            tracing::info!("sessions are checked by auth.session.url again");
            *failing = None;
        }
        _ => {}
    }
}

fn session_told(handle: &SessionHandle, told: Told) -> Option<Session> {
    match told {
        Told::Known(known) => Some(session_of(known, handle)),
        Told::Ended => None,
    }
}

fn session_of(known: answer::KnownSession, handle: &SessionHandle) -> Session {
    let ids = CredentialIds { session_id: known.id, cookie_session: Some(handle.clone()), ..CredentialIds::default() };
    Session { identity: known.identity, expires_ms: known.expires_ms, credential: ids.shared(), is_anonymous: false }
}

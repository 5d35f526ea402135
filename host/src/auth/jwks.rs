//! A JWK set by URL: fetched in the background, and kept while its server is away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use hyper::header::{ACCEPT, CACHE_CONTROL};
use hyper::{HeaderMap, Request, StatusCode, Uri};
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use prometheus::{IntCounterVec, IntGauge};
use tokio::sync::Notify;

use super::keys::{VerificationKey, parse_set};
use crate::model::Clock;
use crate::outbound::{CallError, Endpoint, EndpointConfig, Outbound};

/// The longest answer, in bytes: a hundred keys with their certificates.
const MAX_BYTES: usize = 512 * 1024;

/// Time for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a set is current where the server does not say, and the bounds of what it says.
const USUAL_AGE: Duration = Duration::from_secs(300);
const LEAST_AGE: Duration = Duration::from_secs(60);
const GREATEST_AGE: Duration = Duration::from_secs(3600);

/// Time until the next attempt after a failure.
const RETRY: Duration = Duration::from_secs(10);

/// Time between two fetches for the sake of unknown keys: a client can name any.
const COOL_DOWN_MS: u64 = 10_000;

/// How long the start of the host waits for the first fetch.
const FIRST_TIMEOUT: Duration = Duration::from_secs(6);

/// Metrics of key sets.
#[derive(Debug, Clone)]
pub struct JwksMetrics {
    /// Fetches, by their outcome: `ok` or `failed`.
    pub fetches: IntCounterVec,
    /// When the set in use was fetched, in seconds since 1970.
    pub fetched: IntGauge,
}

/// The keys of a URL. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Jwks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    /// The algorithms of the configuration.
    algorithms: Vec<Algorithm>,
    keys: ArcSwap<Vec<VerificationKey>>,
    /// When the last fetch ended, in milliseconds of uptime plus one; 0 before the first.
    ended: AtomicU64,
    wanted: Notify,
    /// The keys that the last set had and that cannot be used, so that the log names them once.
    skipped: Mutex<String>,
    clock: Clock,
    metrics: JwksMetrics,
}

impl Jwks {
    /// Begins to fetch the keys of a URL, and waits for the first answer for a bounded time.
    pub(super) fn start(
        url: Uri,
        algorithms: Vec<Algorithm>,
        outbound: &Outbound,
        clock: Clock,
        metrics: JwksMetrics,
    ) -> Self {
        let endpoint =
            outbound.endpoint(EndpointConfig { url, timeout: TIMEOUT, max_concurrent: 1, max_bytes: MAX_BYTES });
        let (keys, ended, wanted) = (ArcSwap::default(), AtomicU64::new(0), Notify::new());
        let jwks = Self(Arc::new(Inner {
            endpoint,
            algorithms,
            keys,
            ended,
            wanted,
            skipped: Mutex::default(),
            clock,
            metrics,
        }));
        let (first, fetched) = mpsc::channel();
        outbound.spawn(jwks.clone().refresh(first));
        if fetched.recv_timeout(FIRST_TIMEOUT).is_err() {
            tracing::warn!("the key set of auth.jwt.jwks_url has not come yet: the host serves meanwhile");
        }
        jwks
    }

    pub(super) fn keys(&self) -> Arc<Vec<VerificationKey>> {
        self.0.keys.load_full()
    }

    /// Asks for another fetch, because a token names a key that is not in the set. Returns whether there will be one:
    /// not within seconds of the last, nor for an algorithm for which no set has a usable key.
    pub(super) fn want_newer(&self, algorithm: Algorithm) -> bool {
        let configured = &self.0.algorithms;
        let is_accepted = configured.is_empty() || configured.contains(&algorithm);
        if algorithm.family() == AlgorithmFamily::Hmac || !is_accepted {
            return false;
        }
        let ended = self.0.ended.load(Ordering::Acquire);
        let is_due = ended == 0 || self.0.clock.uptime_ms() + 1 >= ended + COOL_DOWN_MS;
        if is_due {
            self.0.wanted.notify_one();
        }
        is_due
    }

    async fn refresh(self, first: mpsc::Sender<()>) {
        let inner = &*self.0;
        let mut failing = None;
        loop {
            let age = match self.fetch().await {
                Ok(age) => {
                    if failing.take().is_some() {
                        tracing::info!("the key set of auth.jwt.jwks_url is fetched again");
                    }
                    inner.metrics.fetches.with_label_values(&["ok"]).inc();
                    age
                }
                Err(why) => {
                    inner.metrics.fetches.with_label_values(&["failed"]).inc();
                    if failing.as_ref() != Some(&why) {
                        tracing::error!(
                            keys = inner.keys.load().len(),
                            "the key set of auth.jwt.jwks_url cannot be fetched; the keys from before go on: {why}"
                        );
                        failing = Some(why);
                    }
                    RETRY
                }
            };
            inner.ended.store(inner.clock.uptime_ms() + 1, Ordering::Release);
            // The host may no longer wait.
            let _ = first.send(());
            let next = inner.clock.uptime_ms() + age.as_millis() as u64;
            tokio::select! {
                () = inner.clock.sleep_until(next) => {}
                () = inner.wanted.notified() => {}
            }
        }
    }

    /// Fetches the set. Returns for how long it is current.
    async fn fetch(&self) -> Result<Duration, String> {
        let inner = &*self.0;
        let request = Request::get(inner.endpoint.url()).header(ACCEPT, "application/json").body(Bytes::new());
        let request = request.map_err(|error| error.to_string())?;
        let answer = inner.endpoint.call(request).await.map_err(|error| match error {
            // Without the time, which would make each line another.
            CallError::Open(_) => "it has failed several times in a row".to_owned(),
            error => error.to_string(),
        })?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the answer is {}", answer.status()));
        }
        let (keys, skipped) = parse_set(answer.body(), &inner.algorithms).map_err(|error| format!("{error:#}"))?;
        if keys.is_empty() {
            return Err(format!("the set has no key that checks signatures: {}", skipped.join("; ")));
        }
        let skipped = skipped.join("; ");
        let mut named = inner.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        if *named != skipped && !skipped.is_empty() {
            tracing::warn!("keys of auth.jwt.jwks_url are skipped: {skipped}");
        }
        *named = skipped;
        drop(named);
        inner.keys.store(Arc::new(keys));
        inner.metrics.fetched.set((inner.clock.wall_ms() / 1000).cast_signed());
        Ok(max_age(answer.headers()))
    }
}

/// How long an answer is current (RFC 9111, section 5.2.2.1), within bounds.
fn max_age(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let seconds = values
        .flat_map(|value| value.split(','))
        .find_map(|directive| directive.trim().strip_prefix("max-age=")?.parse().ok());
    seconds.map_or(USUAL_AGE, |seconds| Duration::from_secs(seconds).clamp(LEAST_AGE, GREATEST_AGE))
}

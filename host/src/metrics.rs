//! The host's metrics, for Prometheus.

mod cluster;
mod limit;
mod plugin;

use prometheus::core::Collector as _;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use self::cluster::ClusterMetrics;
pub use self::limit::Limit;
use self::limit::Limited;
pub use self::plugin::PluginMetrics;
use crate::model::CloseCode;

/// The host's metrics. Clones share the values.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// WebSockets and polling sessions that are open.
    pub connections: IntGauge,
    /// WebSockets and polling sessions that were ever opened.
    pub connections_opened: IntCounter,
    /// Clients refused by a limit of connections or of file descriptors.
    pub connections_refused: IntCounter,
    /// Connections closed because they kept sending over their rate.
    pub cut_off: IntCounter,
    /// Bytes held for clients' incomplete messages and requests, and for unauthenticated transports.
    pub unfinished_bytes: IntGauge,
    /// Connections and requests closed to make room for others.
    pub unfinished_evicted: IntCounter,
    /// Bytes held for requests to the API.
    pub api_bytes: IntGauge,
    /// Connections and requests closed to make room for others.
    pub api_evicted: IntCounter,
    /// Blocks of users, sessions and tokens in force.
    pub blocks: IntGauge,
    /// Detached connections.
    pub away: IntGauge,
    /// Connections that were resumed.
    pub recovered: IntCounter,
    /// Connections of other nodes of the cluster that went on here.
    pub transferred: IntCounter,
    /// Connections whose node had gone that went on here.
    pub inherited: IntCounter,
    /// Events read from clients.
    pub events_received: IntCounter,
    /// Events refused with a typed error.
    pub events_refused: IntCounter,
    /// Payloads refused for having more bytes, values, keys or depth than the manifest allows.
    pub events_over_limits: IntCounter,
    /// Frames queued for connections.
    pub frames_queued: IntCounter,
    /// Volatile frames dropped for slow connections.
    pub frames_dropped: IntCounter,
    /// Connections ended because they read too slowly.
    pub slow_connections: IntCounter,
    /// From reading an event's frame to queueing its acknowledgement behind its effects, in seconds.
    pub event_seconds: Histogram,
    /// Answers to idempotency keys that were forgotten early, to keep memory bounded.
    pub idempotency_forgotten: IntCounter,
    /// Pauses of reading a user's input, because it was over its share.
    pub reads_paused: IntCounter,
    /// Events refused because their senders are over their own limits.
    pub senders_refused: IntCounter,
    /// Senders disconnected because their events made plugins fail repeatedly.
    pub senders_disconnected: IntCounter,
    /// Calls into plugins.
    pub plugin_calls: IntCounter,
    /// Calls that trapped, passed the deadline, or returned a forbidden outcome.
    pub plugin_faults: IntCounter,
    /// Timers, lifecycle events and scopes dropped for a limit.
    pub plugin_dropped: IntCounter,
    /// Documents that wait to be stored.
    pub documents_waiting: IntGauge,
    /// Documents stored.
    pub documents_stored: IntCounter,
    /// Documents that the database refused, or whose promises expired.
    pub documents_failed: IntCounter,
    /// Attempts to write that failed.
    pub store_failures: IntCounter,
    /// Plugins that are installed and could not be started.
    pub plugins_failed: IntGauge,
    /// Rollbacks, including automatic ones.
    pub plugin_rollbacks: IntCounter,
    /// Events of which a candidate and the running build made something different.
    pub plugin_differences: IntCounter,
    /// Events that a candidate and the running build both got.
    pub plugin_compared: IntCounter,
    /// Scopes that went back from a canary to the running build.
    pub plugin_pinned_scopes: IntCounter,
    /// Scopes that lost the changes of a newer build.
    pub plugin_lost_states: IntCounter,
    /// States that were migrated to another schema.
    pub plugin_migrated_states: IntCounter,
    /// Refusals by a budget, labelled by the kinds of account and limit.
    pub over_budget: IntCounterVec,
    /// Fetches of the key set, by outcome.
    pub jwks_fetches: IntCounterVec,
    /// When the key set in use was fetched, in seconds since 1970.
    pub jwks_fetched: IntGauge,
    /// Questions to the endpoint of sessions, by their outcome.
    pub session_checks: IntCounterVec,
    /// Sessions of cookies in use.
    pub sessions_in_use: IntGauge,
    /// Decisions of the room policy, by action and verdict.
    pub room_decisions: IntCounterVec,
    /// TLS handshakes by listener and outcome.
    pub tls_handshakes: IntCounterVec,
    /// The end of each listener's certificate, in seconds since 1970.
    pub tls_certificate_expiry: IntGaugeVec,
    /// Changes of each listener's certificate files, by outcome.
    pub tls_reloads: IntCounterVec,
    closes: IntCounterVec,
    limited: Limited,
}

/// Buckets from a microsecond to ten seconds, each a quarter wider than the last, fine enough for a median.
fn latency_buckets() -> Vec<f64> {
    let mut bound = 1e-6;
    std::iter::from_fn(|| {
        let this = bound;
        bound *= 1.25;
        (this < 10.0).then_some(this)
    })
    .collect()
}

impl Metrics {
    /// Metrics that all start at zero.
    ///
    /// # Errors
    /// Where two metrics have the same name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("roundhouse".to_owned()), None)?;
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let event_seconds = Histogram::with_opts(
            HistogramOpts::new("event_seconds", "From reading an event to queueing its acknowledgement")
                .buckets(latency_buckets()),
        )?;
        registry.register(Box::new(event_seconds.clone()))?;
        let closes = IntCounterVec::new(
            Opts::new("closes_total", "Connections that the host closed, by the code that their clients were told"),
            &["code"],
        )?;
        registry.register(Box::new(closes.clone()))?;
        for code in CloseCode::ALL {
            // A code that has not occurred is exported as zero, so that its rate is defined from the start.
            closes.with_label_values(&[code.code().to_string()]);
        }
        let over_budget = IntCounterVec::new(
            Opts::new("over_budget_total", "Refusals for a budget, by whose it is and what there was too much of"),
            &["holder", "of"],
        )?;
        registry.register(Box::new(over_budget.clone()))?;
        let jwks_fetches = IntCounterVec::new(
            Opts::new("jwks_fetches_total", "Fetches of the key set of auth.jwt.jwks_url, by their outcome"),
            &["outcome"],
        )?;
        registry.register(Box::new(jwks_fetches.clone()))?;
        for outcome in ["ok", "failed"] {
            jwks_fetches.with_label_values(&[outcome]);
        }
        let session_checks = IntCounterVec::new(
            Opts::new("session_checks_total", "Questions to the endpoint of auth.session, by their outcome"),
            &["outcome"],
        )?;
        registry.register(Box::new(session_checks.clone()))?;
        for outcome in ["known", "ended", "failed"] {
            session_checks.with_label_values(&[outcome]);
        }
        let room_decisions = IntCounterVec::new(
            Opts::new("room_decisions_total", "Decisions of the room policy, by what was asked and the verdict"),
            &["action", "verdict"],
        )?;
        registry.register(Box::new(room_decisions.clone()))?;
        for action in ["join", "publish", "subscribe"] {
            for verdict in ["allowed", "refused"] {
                room_decisions.with_label_values(&[action, verdict]);
            }
        }
        let [tls_handshakes, tls_reloads] = [
            ("tls_handshakes_total", "TLS handshakes, by listener and outcome"),
            ("tls_certificate_reloads_total", "Changes of certificate files, by listener and outcome"),
        ]
        .map(|(name, help)| IntCounterVec::new(Opts::new(name, help), &["listener", "outcome"]));
        let (tls_handshakes, tls_reloads) = (tls_handshakes?, tls_reloads?);
        let tls_certificate_expiry = IntGaugeVec::new(
            Opts::new(
                "tls_certificate_expiry_seconds",
                "The end of each listener's certificate, in seconds since 1970",
            ),
            &["listener"],
        )?;
        registry.register(Box::new(tls_handshakes.clone()))?;
        registry.register(Box::new(tls_reloads.clone()))?;
        registry.register(Box::new(tls_certificate_expiry.clone()))?;
        Ok(Self {
            tls_handshakes,
            tls_certificate_expiry,
            tls_reloads,
            closes,
            limited: Limited::new(&registry)?,
            over_budget,
            room_decisions,
            jwks_fetches,
            session_checks,
            sessions_in_use: gauge("sessions_in_use", "Sessions of cookies that connections use")?,
            jwks_fetched: gauge("jwks_fetched_seconds", "When the key set in use was fetched, in seconds since 1970")?,
            connections: gauge("connections", "WebSockets and polling sessions that are open")?,
            connections_opened: counter(
                "connections_opened_total",
                "WebSockets and polling sessions that were ever opened",
            )?,
            connections_refused: counter(
                "connections_refused_total",
                "Clients refused by a limit of connections or of file descriptors",
            )?,
            cut_off: counter(
                "connections_cut_off_total",
                "Connections ended because they went on sending over their rate",
            )?,
            unfinished_bytes: gauge(
                "unfinished_bytes",
                "Bytes held of unfinished messages and requests, and of clients that are not signed in",
            )?,
            unfinished_evicted: counter(
                "unfinished_evicted_total",
                "Unfinished messages, requests and sign-ins ended to make room for others",
            )?,
            api_bytes: gauge("api_bytes", "Bytes held of the API's requests")?,
            api_evicted: counter("api_evicted_total", "Requests to the API ended to make room for others")?,
            blocks: gauge("blocks", "Blocks of users, sessions and tokens in force")?,
            away: gauge("connections_away", "Connections whose clients are away and may come back")?,
            recovered: counter(
                "connections_recovered_total",
                "Connections that went on after their clients had been away",
            )?,
            transferred: counter("connections_transferred_total", "Connections of other nodes that went on here")?,
            inherited: counter("connections_inherited_total", "Connections whose node had gone that went on here")?,
            events_received: counter("events_received_total", "Events read from clients")?,
            events_refused: counter("events_refused_total", "Events refused with a typed error")?,
            events_over_limits: counter(
                "events_over_limits_total",
                "Payloads refused for more bytes, values, keys or depth than the manifest says",
            )?,
            frames_queued: counter("frames_queued_total", "Frames queued for connections")?,
            frames_dropped: counter("frames_dropped_total", "Volatile frames left out for slow connections")?,
            slow_connections: counter("slow_connections_total", "Connections ended because they read too slowly")?,
            event_seconds,
            idempotency_forgotten: counter(
                "idempotency_forgotten_total",
                "Answers to idempotency keys forgotten before their time",
            )?,
            reads_paused: counter("reads_paused_total", "Times that a client was not read for a moment")?,
            senders_refused: counter(
                "senders_refused_total",
                "Events refused because their senders are over a bound of their own",
            )?,
            senders_disconnected: counter(
                "senders_disconnected_total",
                "Senders disconnected for making plugins fail",
            )?,
            plugin_calls: counter("plugin_calls_total", "Calls into plugins")?,
            plugin_faults: counter("plugin_faults_total", "Calls that trapped, took too long or returned too much")?,
            plugin_dropped: counter("plugin_dropped_total", "Plugin work dropped for a bound")?,
            documents_waiting: gauge("documents_waiting", "Documents that wait to be stored")?,
            documents_stored: counter("documents_stored_total", "Documents stored")?,
            documents_failed: counter("documents_failed_total", "Documents refused by the store or given up")?,
            store_failures: counter("store_failures_total", "Attempts to write to the store that failed")?,
            plugins_failed: gauge("plugins_failed", "Plugins that are installed and could not be started")?,
            plugin_rollbacks: counter("plugin_rollbacks_total", "Rollbacks, by hand and automatic")?,
            plugin_compared: counter(
                "plugin_compared_events_total",
                "Events that a candidate and the running build both got",
            )?,
            plugin_differences: counter(
                "plugin_different_events_total",
                "Events of which a candidate made something else than the running build",
            )?,
            plugin_pinned_scopes: counter(
                "plugin_pinned_scopes_total",
                "Scopes that stay on an older build, because a canary or a build that migrates partially failed on them",
            )?,
            plugin_migrated_states: counter(
                "plugin_migrated_states_total",
                "States that were migrated to the schema of another build",
            )?,
            plugin_lost_states: counter(
                "plugin_lost_states_total",
                "Scopes that lost in a rollback what a newer build had written to them",
            )?,
            registry,
        })
    }

    /// Counts a connection that the host closed. Socket.IO has no codes: its connections count under the plain protocol's.
    pub fn closed(&self, code: CloseCode) {
        self.closes.with_label_values(&[code.code().to_string()]).inc();
    }

    /// Counts a connection, request or message that a limit refused or ended.
    pub fn limited(&self, limit: Limit) {
        self.limited.counter(limit).inc();
    }

    /// The counter of the limit of an event name.
    pub fn limited_event(&self, event: &str) -> IntCounter {
        self.limited.named(&format!("events.{event}"))
    }

    /// A histogram for the time of calls into a generation of a plugin. It is not exported until
    /// [`Metrics::show_latency`].
    ///
    /// # Errors
    /// Where a label cannot be used.
    pub fn plugin_latency(&self, plugin: &str, version: &str, generation: u64) -> prometheus::Result<Histogram> {
        Histogram::with_opts(
            HistogramOpts::new("plugin_call_seconds", "Time of calls into a plugin")
                .const_label("plugin", plugin)
                .const_label("version", version)
                .const_label("generation", generation.to_string())
                .buckets(latency_buckets()),
        )
    }

    /// Exports the histogram of a loaded generation.
    pub fn show_latency(&self, latency: &Histogram) {
        // The histogram of a generation that is used again is registered already.
        let _ = self.registry.register(Box::new(latency.clone()));
    }

    /// Stops exporting the histogram of a generation that is no longer loaded.
    pub fn hide_latency(&self, latency: &Histogram) {
        // The histogram of a generation that was never used was not registered.
        let _ = self.registry.unregister(Box::new(latency.clone()));
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        // Encoding to a string fails only for a metric without values; every metric has one.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

/// The quantile of the observations for `share` (0 to 1), in seconds, interpolated within its bucket. Zero without
/// observations.
pub fn quantile(histogram: &Histogram, share: f64) -> f64 {
    let families = histogram.collect();
    let Some(metric) = families.first().and_then(|family| family.get_metric().first()) else { return 0.0 };
    let histogram = metric.get_histogram();
    if histogram.get_sample_count() == 0 {
        return 0.0;
    }
    let wanted = histogram.get_sample_count() as f64 * share;
    let (mut bound, mut below) = (0.0, 0.0);
    for bucket in histogram.get_bucket() {
        let count = bucket.cumulative_count() as f64;
        if count >= wanted && count > below {
            return bound + (bucket.upper_bound() - bound) * (wanted - below) / (count - below);
        }
        (bound, below) = (bucket.upper_bound(), count);
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_is_within_its_bucket() {
        let metrics = Metrics::new().unwrap();
        assert_eq!(quantile(&metrics.event_seconds, 0.5), 0.0);
        for n in 1..=100 {
            metrics.event_seconds.observe(f64::from(n) * 1e-3);
        }
        let median = quantile(&metrics.event_seconds, 0.5);
        assert!((0.045..0.055).contains(&median), "{median}");
        assert!(metrics.render().contains("roundhouse_event_seconds_count 100"));
    }
}

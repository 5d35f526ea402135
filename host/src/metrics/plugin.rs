//! The metrics of one plugin, which are exported while it is loaded. Their number does not depend on how often it was.

use prometheus::core::Collector;
use prometheus::{Counter, IntCounter, IntGauge, Opts};

use super::Metrics;

/// The metrics of one plugin.
#[derive(Debug, Clone)]
pub struct PluginMetrics {
    /// Events that it handled.
    pub handled: IntCounter,
    /// Calls on which it failed.
    pub traps: IntCounter,
    /// The time of its calls, in seconds.
    pub time: Counter,
    /// The time that events of clients waited for their call, in seconds.
    pub waiting: Counter,
    /// Effects that were committed.
    pub effects: IntCounter,
    /// The bytes of what it emitted, each emit once.
    pub emitted_bytes: IntCounter,
    /// Documents that it saved.
    pub saves: IntCounter,
    /// Events that wait for it.
    pub queued_events: IntGauge,
    /// Their bytes.
    pub queued_bytes: IntGauge,
    /// Timers that are set.
    pub timers: IntGauge,
    /// The bytes of states of durable scopes that wait to be written.
    pub unwritten_bytes: IntGauge,
    /// The bytes of linear memory of its instances.
    pub memory_bytes: IntGauge,
}

impl PluginMetrics {
    /// The metrics of the plugin of this name. They are not exported yet.
    ///
    /// # Errors
    /// Where the name cannot be a label.
    pub fn new(plugin: &str) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(format!("plugin_{name}"), help).const_label("plugin", plugin);
        let counter = |name: &str, help: &str| IntCounter::with_opts(opts(name, help));
        let seconds = |name: &str, help: &str| Counter::with_opts(opts(name, help));
        let gauge = |name: &str, help: &str| IntGauge::with_opts(opts(name, help));
        Ok(Self {
            handled: counter("handled_total", "Events that a plugin handled")?,
            traps: counter("traps_total", "Calls on which a plugin failed")?,
            time: seconds("time_seconds_total", "The time of calls into a plugin")?,
            waiting: seconds("waiting_seconds_total", "The time that events of clients waited for a plugin")?,
            effects: counter("effects_total", "Effects of a plugin that were committed")?,
            emitted_bytes: counter("emitted_bytes_total", "Bytes of what a plugin emitted, each emit once")?,
            saves: counter("saves_total", "Documents that a plugin saved")?,
            queued_events: gauge("queued_events", "Events that wait for a plugin")?,
            queued_bytes: gauge("queued_bytes", "Bytes of the events that wait for a plugin")?,
            timers: gauge("timers", "Timers that a plugin has set")?,
            unwritten_bytes: gauge("unwritten_bytes", "Bytes of states of a plugin that wait to be written")?,
            memory_bytes: gauge("memory_bytes", "Bytes of linear memory of a plugin's instances")?,
        })
    }

    fn collectors(&self) -> [Box<dyn Collector>; 12] {
        [
            Box::new(self.handled.clone()),
            Box::new(self.traps.clone()),
            Box::new(self.time.clone()),
            Box::new(self.waiting.clone()),
            Box::new(self.effects.clone()),
            Box::new(self.emitted_bytes.clone()),
            Box::new(self.saves.clone()),
            Box::new(self.queued_events.clone()),
            Box::new(self.queued_bytes.clone()),
            Box::new(self.timers.clone()),
            Box::new(self.unwritten_bytes.clone()),
            Box::new(self.memory_bytes.clone()),
        ]
    }
}

impl Metrics {
    /// Exports the metrics of a plugin that is loaded.
    pub fn show_plugin(&self, plugin: &PluginMetrics) {
        for collector in plugin.collectors() {
            // Those of a plugin that is shown already are registered.
            let _ = self.registry.register(collector);
        }
    }

    /// Stops exporting the metrics of a plugin that was unloaded.
    pub fn hide_plugin(&self, plugin: &PluginMetrics) {
        for collector in plugin.collectors() {
            // Those of a plugin that never ran were not registered.
            let _ = self.registry.unregister(collector);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_a_plugin_come_and_go() {
        let metrics = Metrics::new().unwrap();
        let (timeline, chat) = (PluginMetrics::new("timeline").unwrap(), PluginMetrics::new("chat").unwrap());
        metrics.show_plugin(&timeline);
        metrics.show_plugin(&chat);
        timeline.handled.inc_by(7);
        assert!(metrics.render().contains("roundhouse_plugin_handled_total{plugin=\"timeline\"} 7"));
        let n_lines = metrics.render().lines().count();
        metrics.hide_plugin(&chat);
        assert!(!metrics.render().contains("plugin=\"chat\""));
        metrics.show_plugin(&PluginMetrics::new("chat").unwrap());
        assert_eq!(metrics.render().lines().count(), n_lines);
    }
}

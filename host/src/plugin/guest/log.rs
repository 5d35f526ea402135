//! The log lines of a plugin: structured, stripped of control characters, and limited in number.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::RateLimiter;
use governor::clock::MonotonicClock;
use governor::state::{InMemoryState, NotKeyed};

use crate::model::is_invisible;

/// Lines of one plugin per second, in the long run.
const LINES_PER_SECOND: NonZeroU32 = NonZeroU32::new(50).expect("not zero");

/// Lines of one plugin in a burst.
const BURST: NonZeroU32 = NonZeroU32::new(200).expect("not zero");

/// The longest line, in characters.
const MAX_LINE_CHARS: usize = 1024;

type Limiter = RateLimiter<NotKeyed, InMemoryState, MonotonicClock>;

/// The log of one generation of a plugin.
pub(crate) struct PluginLog {
    plugin: String,
    version: String,
    generation: u64,
    digest: String,
    /// None where nothing is written.
    limiter: Option<Limiter>,
    dropped: AtomicU64,
}

impl fmt::Debug for PluginLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginLog")
            .field("plugin", &self.plugin)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl PluginLog {
    pub(crate) fn new(plugin: &str, version: &str, generation: u64, digest: &str) -> Self {
        Self {
            plugin: plugin.to_owned(),
            version: version.to_owned(),
            generation,
            digest: digest.to_owned(),
            limiter: Some(RateLimiter::direct_with_clock(
                governor::Quota::per_second(LINES_PER_SECOND).allow_burst(BURST),
                MonotonicClock,
            )),
            dropped: AtomicU64::new(0),
        }
    }

    /// A log that writes nothing, for calls that do not count.
    pub(crate) fn silent() -> Self {
        let (plugin, version, digest) = (String::new(), String::new(), String::new());
        Self { plugin, version, generation: 0, digest, limiter: None, dropped: AtomicU64::new(0) }
    }

    /// Writes one line, or counts it as dropped if the generation is over its rate.
    pub(crate) fn write(&self, level: &str, message: &str) {
        let Some(limiter) = &self.limiter else { return };
        if limiter.check().is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(
                target: "roundhouse::plugin", plugin = %self.plugin, version = %self.version, generation = self.generation,
                digest = %self.digest, dropped, "the plugin logs too much, and lines of it were dropped"
            );
        }
        let message = printable(message);
        macro_rules! write {
            ($level:ident) => {
                tracing::$level!(
                    target: "roundhouse::plugin", plugin = %self.plugin, version = %self.version,
                    generation = self.generation, digest = %self.digest, "{message}"
                )
            };
        }
        match level {
            "error" => write!(error),
            "warn" => write!(warn),
            "debug" => write!(debug),
            _ => write!(info),
        }
    }
}

/// The text as one printable line: no control characters, nothing that hides or reorders what surrounds it, bounded.
fn printable(text: &str) -> String {
    let mut line: String =
        text.chars().take(MAX_LINE_CHARS).map(|c| if c.is_control() || is_invisible(c) { ' ' } else { c }).collect();
    if text.chars().nth(MAX_LINE_CHARS).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_made_printable_and_cut() {
        assert_eq!(printable("a\x1b[31mb\r\nc\u{202e}d\te\u{200b}f"), "a [31mb  c d e f");
        assert_eq!(printable(&"x".repeat(2000)).chars().count(), MAX_LINE_CHARS + 1);
    }

    #[test]
    fn lines_over_the_limit_are_counted() {
        let log = PluginLog::new("p", "1.0.0", 1, "d");
        for _ in 0..u32::from(BURST) + 10 {
            log.write("info", "x");
        }
        // Some of the quota may have been regained meanwhile, but not all.
        assert!(log.dropped.load(Ordering::Relaxed) > 0);
    }
}

//! The signals that end the host.

use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A second signal within this time of the first counts as a duplicate: `docker stop`, terminals and process groups
/// often send the signal twice.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// The signals that the process listens to.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    /// `None` where the process was started with SIGINT ignored, as a shell does for background jobs.
    interrupt: Option<Signal>,
    /// `None` where the process was started with SIGHUP ignored, as `nohup` does.
    hang_up: Option<Signal>,
    first: Option<Instant>,
}

impl Signals {
    /// Begins to listen; to be called within a Tokio runtime. Signals that were ignored at the start of the process
    /// stay ignored, the convention for programs that outlive their terminal. SIGTERM is always listened to, because
    /// supervisors depend on it.
    ///
    /// # Errors
    /// Where a signal handler cannot be installed.
    pub(super) fn listen() -> io::Result<Self> {
        let ignored = ignored_signals(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        let unless_ignored = |number: Number, kind| {
            let is_ignored = ignored & (1 << (number.as_raw() - 1)) != 0;
            (!is_ignored).then(|| signal(kind)).transpose()
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: unless_ignored(Number::INT, SignalKind::interrupt())?,
            hang_up: unless_ignored(Number::HUP, SignalKind::hangup())?,
            first: None,
        })
    }

    /// Waits for the first signal. Returns its name.
    pub(super) async fn first(&mut self) -> &'static str {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            () = next(&mut self.interrupt) => "SIGINT",
            () = next(&mut self.hang_up) => "SIGHUP",
        };
        self.first = Some(Instant::now());
        name
    }

    /// Waits for a second request to end the process. Returns the signal's name. SIGHUP does not count: the terminal
    /// may close meanwhile.
    pub(super) async fn second(&mut self) -> &'static str {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                () = next(&mut self.interrupt) => "SIGINT",
            };
            if self.first.is_none_or(|first| first.elapsed() > SAME_REQUEST) {
                return name;
            }
            tracing::info!(signal = name, "the same order once more");
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
}

/// The ignored signals as a set of bits, from a process's status in `/proc`. Empty where the status lacks them.
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        assert_eq!(ignored_signals("Name:\tx\nSigBlk:\tff\nSigIgn:\t0000000000001003\nSigCgt:\t0"), 0x1003);
        assert_eq!(ignored_signals("SigIgn: nonsense"), 0);
        assert_eq!(ignored_signals(""), 0);
    }
}

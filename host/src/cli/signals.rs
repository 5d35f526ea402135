//! The signals that end the host.

use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A second signal within this time of the first is the same request: `docker stop`, terminals and process groups often
/// send it twice.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// The signals that the process listens to.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    /// `None` where the process was started with it ignored, as a shell does for background jobs.
    interrupt: Option<Signal>,
    /// `None` where the process was started with it ignored, as `nohup` does.
    hang_up: Option<Signal>,
    first: Option<Instant>,
}

impl Signals {
    /// Listens from here on, within a Tokio runtime. Signals that the process was started with ignored stay ignored: that is
    /// how a program is told to outlive its terminal. Except SIGTERM, the only signal that supervisors have.
    ///
    /// # Errors
    /// Where the signals cannot be listened to.
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

    /// Waits for a second request to end. Returns its signal's name. A terminal that closes meanwhile is none.
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

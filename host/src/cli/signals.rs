//! The signals that end the host.

use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals so close to the first are the same order: `docker stop`, a terminal and process groups often send it twice.
const SAME_ORDER: Duration = Duration::from_millis(500);

/// The signals that the process listens to.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    /// None where it was ignored when the process was started, as by a shell for what runs in the background.
    interrupt: Option<Signal>,
    /// None where it was ignored when the process was started, as by `nohup`.
    hang_up: Option<Signal>,
    first: Option<Instant>,
}

impl Signals {
    /// Listens from here on, within a Tokio runtime. What the process was started to ignore stays ignored: a program has
    /// no other way to be told that it is to outlive its terminal. SIGTERM is the exception, for it is the only order that
    /// supervisors have.
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

    /// Waits for the first signal, and gives its name.
    pub(super) async fn first(&mut self) -> &'static str {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            () = next(&mut self.interrupt) => "SIGINT",
            () = next(&mut self.hang_up) => "SIGHUP",
        };
        self.first = Some(Instant::now());
        name
    }

    /// Waits for a second order to end, and gives its name. A terminal that goes away meanwhile is none.
    pub(super) async fn second(&mut self) -> &'static str {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                () = next(&mut self.interrupt) => "SIGINT",
            };
            if self.first.is_none_or(|first| first.elapsed() > SAME_ORDER) {
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

/// The signals that a process ignores, as a set of bits, by its status in `/proc`. Empty where that does not say.
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

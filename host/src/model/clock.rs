//! The source of time for the whole host, which a test can control.
//!
//! The clock has three times. **Uptime** is for deadlines within this process: heartbeats, timers, windows. It excludes
//! suspended time of the machine. **Now** is for features and users: a date that never goes back or jumps. **Wall-clock
//! time** is the system's, for dates from outside: the expiry of tokens.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::steady::{Look, Steady};

type Hook = Box<dyn Fn() + Send>;

/// A source of time: the system's, or one that a test controls. Clones share the source.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    source: Source,
    /// Locked for some nanoseconds, never across a wait.
    steady: Mutex<Steady>,
}

enum Source {
    System {
        start: Instant,
        /// The time since boot at the host's start, including suspended time, in milliseconds.
        awake_or_not: u64,
    },
    Manual {
        /// Wall-clock time at the start, in milliseconds since the epoch.
        epoch: u64,
        elapsed: AtomicU64,
        /// How long the machine was suspended, in milliseconds.
        asleep: AtomicU64,
        /// The offset by which the system's clock was set ahead, in milliseconds.
        ahead: AtomicI64,
        moved: watch::Sender<()>,
        hooks: Mutex<Vec<Hook>>,
    },
}

impl Clock {
    /// The system's time.
    pub fn system() -> Self {
        Self::of(Source::System { start: Instant::now(), awake_or_not: boot_ms() })
    }

    /// A clock that stands still at `epoch_ms` (milliseconds since 1970) until [`Clock::advance`] moves it.
    pub fn manual(epoch_ms: u64) -> Self {
        Self::of(Source::Manual {
            epoch: epoch_ms,
            elapsed: AtomicU64::new(0),
            asleep: AtomicU64::new(0),
            ahead: AtomicI64::new(0),
            moved: watch::channel(()).0,
            hooks: Mutex::default(),
        })
    }

    fn of(source: Source) -> Self {
        let steady = Mutex::new(Steady::new(source.look().wall));
        Self(Arc::new(Inner { source, steady }))
    }

    /// The time for features and users, in milliseconds since 1970. It begins as the system's clock and follows it, but
    /// never goes back or jumps: after the system's clock was set back or ahead, this clock runs slower or faster by a
    /// twelfth until it agrees again. It includes suspended time.
    pub fn now_ms(&self) -> u64 {
        // Locked before uptime is read, so that a later caller gets no earlier time.
        let mut steady = self.0.steady.lock().unwrap_or_else(PoisonError::into_inner);
        steady.now(self.uptime_ms(), || self.0.source.look())
    }

    /// The system's clock, in milliseconds since 1970. It may be set back or ahead at any time.
    pub fn wall_ms(&self) -> u64 {
        self.0.source.look_at_wall()
    }

    /// Milliseconds since the host started, for deadlines. It never goes back.
    pub fn uptime_ms(&self) -> u64 {
        match &self.0.source {
            Source::System { start, .. } => start.elapsed().as_millis() as u64,
            Source::Manual { elapsed, .. } => elapsed.load(Ordering::SeqCst),
        }
    }

    /// The uptime, in milliseconds, at which the system's clock will show `wall_ms` if it is not set back or ahead.
    /// `u64::MAX` is never.
    pub fn deadline_of(&self, wall_ms: u64) -> u64 {
        match wall_ms {
            u64::MAX => u64::MAX,
            wall_ms => self.uptime_ms().saturating_add(wall_ms.saturating_sub(self.wall_ms())),
        }
    }

    /// Moves a manual clock on and wakes the threads and tasks that wait for it.
    ///
    /// # Panics
    /// On the system's clock.
    pub fn advance(&self, by: Duration) {
        self.0.source.change(|elapsed, _, _| elapsed.fetch_add(by.as_millis() as u64, Ordering::SeqCst));
    }

    /// Suspends the machine of a manual clock: only the system's clock advances.
    ///
    /// # Panics
    /// On the system's clock.
    pub fn suspend(&self, by: Duration) {
        self.0.source.change(|_, asleep, _| asleep.fetch_add(by.as_millis() as u64, Ordering::SeqCst));
    }

    /// Sets the system's clock of a manual clock ahead by `by_ms` milliseconds, or back where negative.
    ///
    /// # Panics
    /// On the system's clock.
    pub fn put_wall(&self, by_ms: i64) {
        self.0.source.change(|_, _, ahead| ahead.fetch_add(by_ms, Ordering::SeqCst));
    }

    /// Waits until [`Clock::uptime_ms`] reaches `deadline_ms`.
    pub async fn sleep_until(&self, deadline_ms: u64) {
        match &self.0.source {
            Source::System { start, .. } => {
                let deadline = *start + Duration::from_millis(deadline_ms);
                tokio::time::sleep_until(deadline.into()).await;
            }
            Source::Manual { moved, .. } => {
                let mut moved = moved.subscribe();
                while self.uptime_ms() < deadline_ms {
                    if moved.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// How long a thread may sleep until `deadline_ms`. `None`, without end, before the deadline on a manual clock,
    /// whose hooks wake the thread.
    pub fn wait_for(&self, deadline_ms: u64) -> Option<Duration> {
        match &self.0.source {
            Source::System { .. } => Some(Duration::from_millis(deadline_ms.saturating_sub(self.uptime_ms()))),
            Source::Manual { .. } => (deadline_ms <= self.uptime_ms()).then_some(Duration::ZERO),
        }
    }

    /// Calls `hook` each time a manual clock is moved.
    pub fn on_move(&self, hook: impl Fn() + Send + 'static) {
        if let Source::Manual { hooks, .. } = &self.0.source {
            hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(hook));
        }
    }
}

impl Source {
    fn look_at_wall(&self) -> u64 {
        match self {
            Self::System { .. } => {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
            }
            Self::Manual { epoch, elapsed, asleep, ahead, .. } => {
                let passed = elapsed.load(Ordering::SeqCst) + asleep.load(Ordering::SeqCst);
                (epoch + passed).saturating_add_signed(ahead.load(Ordering::SeqCst))
            }
        }
    }

    fn look(&self) -> Look {
        let asleep = match self {
            Self::System { start, awake_or_not } => {
                boot_ms().saturating_sub(*awake_or_not).saturating_sub(start.elapsed().as_millis() as u64)
            }
            Self::Manual { asleep, .. } => asleep.load(Ordering::SeqCst),
        };
        Look { wall: self.look_at_wall(), asleep }
    }

    fn change<T>(&self, change: impl FnOnce(&AtomicU64, &AtomicU64, &AtomicI64) -> T) {
        let Self::Manual { elapsed, asleep, ahead, moved, hooks, .. } = self else {
            panic!("the system's clock cannot be moved");
        };
        change(elapsed, asleep, ahead);
        moved.send_replace(());
        for hook in hooks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            hook();
        }
    }
}

/// Milliseconds since boot, including suspended time, in steps of ten (proc(5)). Read once a second from /proc and not
/// by `clock_gettime`, for which rustix reads the vDSO itself, which Valgrind hides.
///
/// Zero without /proc: suspended time then counts as a clock that was set ahead, and is made up for slowly.
fn boot_ms() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: Option<f64> = uptime.split_whitespace().next().and_then(|seconds| seconds.parse().ok());
    (seconds.unwrap_or(0.0) * 1000.0) as u64
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0.source {
            Source::System { .. } => "system",
            Source::Manual { .. } => "manual",
        };
        f.debug_struct("Clock").field("kind", &kind).field("uptime_ms", &self.uptime_ms()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clocks_agree_at_the_start() {
        let clock = Clock::system();
        let (wall, now) = (clock.wall_ms(), clock.now_ms());
        assert!(wall.abs_diff(now) < 1000, "{wall} and {now}");
        assert_eq!(clock.deadline_of(u64::MAX), u64::MAX);
        assert!(clock.deadline_of(wall + 60_000).abs_diff(60_000) < 1000);
        assert!(clock.0.source.look().asleep < 1000);
    }

    #[test]
    fn manual_clock_distinguishes_sleep_from_adjustment() {
        let clock = Clock::manual(1_000_000);
        clock.advance(Duration::from_secs(10));
        assert_eq!((clock.now_ms(), clock.wall_ms(), clock.uptime_ms()), (1_010_000, 1_010_000, 10_000));
        clock.put_wall(-60_000);
        assert_eq!((clock.now_ms(), clock.wall_ms()), (1_010_000, 950_000));
        clock.put_wall(60_000);
        clock.suspend(Duration::from_secs(100));
        clock.advance(Duration::from_secs(1));
        assert_eq!((clock.now_ms(), clock.wall_ms(), clock.uptime_ms()), (1_111_000, 1_111_000, 11_000));
    }
}

//! The time, as everything in the host reads it, so that a test can move it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

type Hook = Box<dyn Fn() + Send>;

/// A source of time: the system's, or one that a test moves. Clones share the source.
#[derive(Clone)]
pub struct Clock(Arc<Source>);

enum Source {
    System {
        start: Instant,
    },
    Manual {
        /// Wall-clock time at the start, in milliseconds since the epoch.
        epoch: u64,
        elapsed: AtomicU64,
        moved: watch::Sender<()>,
        hooks: Mutex<Vec<Hook>>,
    },
}

impl Clock {
    /// The system's time.
    pub fn system() -> Self {
        Self(Arc::new(Source::System { start: Instant::now() }))
    }

    /// A clock that stands still at `epoch_ms` (milliseconds since 1970) until [`Clock::advance`] moves it.
    pub fn manual(epoch_ms: u64) -> Self {
        Self(Arc::new(Source::Manual {
            epoch: epoch_ms,
            elapsed: AtomicU64::new(0),
            moved: watch::channel(()).0,
            hooks: Mutex::default(),
        }))
    }

    /// Wall-clock time in milliseconds since 1970: what people and features are shown.
    pub fn now_ms(&self) -> u64 {
        match &*self.0 {
            Source::System { .. } => {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
            }
            Source::Manual { epoch, elapsed, .. } => epoch + elapsed.load(Ordering::SeqCst),
        }
    }

    /// Milliseconds since the host started, never going back: what deadlines are reckoned in.
    pub fn uptime_ms(&self) -> u64 {
        match &*self.0 {
            Source::System { start } => start.elapsed().as_millis() as u64,
            Source::Manual { elapsed, .. } => elapsed.load(Ordering::SeqCst),
        }
    }

    /// Moves a manual clock on and wakes whoever waits for it.
    ///
    /// # Panics
    /// On the system's clock.
    pub fn advance(&self, by: Duration) {
        let Source::Manual { elapsed, moved, hooks, .. } = &*self.0 else {
            panic!("the system's clock cannot be moved");
        };
        elapsed.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
        moved.send_replace(());
        for hook in hooks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            hook();
        }
    }

    /// Waits until [`Clock::uptime_ms`] reaches `deadline_ms`.
    pub async fn sleep_until(&self, deadline_ms: u64) {
        match &*self.0 {
            Source::System { start } => {
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

    /// How long a thread may sleep until `deadline_ms`: for ever on a manual clock, whose hooks wake it.
    pub fn wait_for(&self, deadline_ms: u64) -> Option<Duration> {
        match &*self.0 {
            Source::System { .. } => Some(Duration::from_millis(deadline_ms.saturating_sub(self.uptime_ms()))),
            Source::Manual { .. } => (deadline_ms <= self.uptime_ms()).then_some(Duration::ZERO),
        }
    }

    /// Calls `hook` each time that a manual clock is moved.
    pub fn on_move(&self, hook: impl Fn() + Send + 'static) {
        if let Source::Manual { hooks, .. } = &*self.0 {
            hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(hook));
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &*self.0 {
            Source::System { .. } => "system",
            Source::Manual { .. } => "manual",
        };
        f.debug_struct("Clock").field("kind", &kind).field("uptime_ms", &self.uptime_ms()).finish()
    }
}

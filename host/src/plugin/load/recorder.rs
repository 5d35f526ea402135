//! The recording of a plugin's calls, while an operator asks for one.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::call::Call;

/// The most bytes of a recording.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The recorder of a plugin. It costs a look at a flag while nothing is recorded.
#[derive(Default)]
pub(crate) struct Recorder {
    is_on: AtomicBool,
    recording: Mutex<Option<Recording>>,
}

struct Recording {
    /// The events that are still to be recorded.
    left: usize,
    bytes: usize,
    recorded: Vec<Arc<Call>>,
    full: Option<oneshot::Sender<()>>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("is_on", &self.is_on).finish_non_exhaustive()
    }
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Option<Recording>> {
        // No code that holds the lock can panic half way.
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to record so many events. Returns what ends when they have come; `None` if a recording is being made.
    pub(crate) fn begin(&self, events: usize) -> Option<oneshot::Receiver<()>> {
        let mut recording = self.lock();
        if recording.is_some() {
            return None;
        }
        let (full, filling) = oneshot::channel();
        *recording = Some(Recording { left: events, bytes: 0, recorded: Vec::new(), full: Some(full) });
        self.is_on.store(true, Ordering::Relaxed);
        Some(filling)
    }

    /// Whether calls are recorded now.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Records a call, if calls are recorded now.
    pub(crate) fn record(&self, call: &Arc<Call>) {
        if !self.is_on() {
            return;
        }
        let mut recording = self.lock();
        let Some(recording) = recording.as_mut().filter(|recording| recording.left > 0) else { return };
        recording.bytes += call.bytes;
        recording.recorded.push(call.clone());
        recording.left -= 1;
        if recording.left == 0 || recording.bytes > MAX_BYTES {
            recording.left = 0;
            self.is_on.store(false, Ordering::Relaxed);
            // An error means that the time is over.
            let _ = recording.full.take().map(|full| full.send(()));
        }
    }

    /// Ends the recording, and returns it.
    pub(crate) fn end(&self) -> Vec<Arc<Call>> {
        self.is_on.store(false, Ordering::Relaxed);
        self.lock().take().map(|recording| recording.recorded).unwrap_or_default()
    }
}

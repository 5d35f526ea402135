//! The resources of a host's process: sampled memory, and CPU time.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::bench::resident_bytes;

/// The sampling interval: shorter peaks are not seen.
const PERIOD: Duration = Duration::from_millis(20);
/// Linux's unit of CPU times, on every architecture of the host.
const TICKS_A_SECOND: f64 = 100.0;
const MEGABYTE: f64 = 1_000_000.0;

/// The resident memory of a process, in megabytes; 0 if there is no such process.
pub(super) fn resident(pid: u32) -> f64 {
    resident_bytes(pid).unwrap_or_default() / MEGABYTE
}

/// The CPU time of a process with its ended threads, in seconds; 0 if there is no such process.
pub(super) fn cpu_seconds(pid: u32) -> f64 {
    let figures = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The fields after the program's name, which may contain spaces: the state, and so on.
    let behind = figures.rsplit(") ").next().unwrap_or_default();
    let ticks = behind.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_A_SECOND
}

/// Samples the memory of a process for its peak until this value is dropped.
#[derive(Debug)]
pub(super) struct Peak {
    is_over: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Peak {
    /// Begins sampling.
    pub(super) fn watch(pid: u32) -> std::io::Result<Self> {
        let (is_over, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (over, peak) = (is_over.clone(), bytes.clone());
        let thread = std::thread::Builder::new().name("peak".to_owned()).spawn(move || {
            while !over.load(Ordering::Acquire) {
                peak.fetch_max(resident_bytes(pid).unwrap_or_default() as u64, Ordering::Relaxed);
                std::thread::sleep(PERIOD);
            }
        })?;
        Ok(Self { is_over, bytes, thread: Some(thread) })
    }

    /// The peak so far, in megabytes.
    pub(super) fn megabytes(&self) -> f64 {
        self.bytes.load(Ordering::Relaxed) as f64 / MEGABYTE
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // The panic of that thread has been printed.
            let _ = thread.join();
        }
    }
}

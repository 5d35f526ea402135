//! The time for which a thread has run, which does not count what else the machine does.

use std::time::Duration;

/// The CPU time of this thread. Read through the C library, because rustix reads the vDSO itself, under which Valgrind
/// dies.
#[expect(unsafe_code, reason = "the C library writes where it is told to")]
pub(crate) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `clock_gettime` writes to `time` alone, which outlives the call. Every system has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

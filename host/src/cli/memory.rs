//! Return of freed memory to the system.
//!
//! glibc's allocator maps large blocks on their own and unmaps them when they are freed. But each freed large block
//! raises the threshold of large blocks, up to 32 MiB, and the threshold of trimming to twice that: after a flood of
//! messages of a megabyte nearly all of their memory stayed with the process. Thresholds that are set explicitly stay
//! fixed. Small free blocks between used ones are returned on request (`malloc_trim`), which a thread makes from time
//! to time.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) use glibc::give_back;

/// Does nothing: the thresholds above are those of glibc's allocator.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back() {}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_int;
    use std::time::Duration;

    /// Parameters of `mallopt`, from glibc's `malloc.h`.
    const TRIM_THRESHOLD: c_int = -1;
    const MMAP_THRESHOLD: c_int = -3;

    #[expect(unsafe_code, reason = "the C library's allocator is spoken to in C alone")]
    unsafe extern "C" {
        /// Sets a parameter. Returns 1 on success.
        safe fn mallopt(name: c_int, value: c_int) -> c_int;
        /// Returns free memory to the system, except `kept` bytes.
        safe fn malloc_trim(kept: usize) -> c_int;
    }

    /// The size from which a block is mapped on its own, in bytes: glibc's initial value. Frequently allocated buffers
    /// are smaller (a shard reads into 64 KiB).
    const LARGE_BYTES: c_int = 128 * 1024;

    /// Free memory that each arena keeps at its end, in bytes: enough to avoid a system call in each turn of a thread.
    const KEPT_BYTES: c_int = 1024 * 1024;

    /// Time between two trims, and the longest, where they return little. A trim blocks threads that allocate: for 10 ms for
    /// each 20 MiB that it returns, and hardly at all where it returns nothing.
    const PAUSE: Duration = Duration::from_secs(30);
    const LONGEST_PAUSE: Duration = Duration::from_secs(16 * 60);

    /// Growth since the start below which no trim is made, in bytes.
    const GROWN_BYTES: u64 = 32 * 1024 * 1024;

    /// A trim that returns at least one part in this many of the process's memory is followed by another after
    /// [`PAUSE`].
    const WORTHWHILE_PART: u64 = 8;

    /// Makes the allocator return freed memory. To be called before other threads are started.
    pub(in crate::cli) fn give_back() {
        if !set_thresholds() {
            tracing::warn!("the allocator does not take its thresholds, and may keep memory that is free");
        }
        if let Err(error) = std::thread::Builder::new().name("memory".to_owned()).spawn(trim_now_and_then) {
            tracing::warn!(%error, "cannot start a thread, and free memory may stay with the process");
        }
    }

    fn set_thresholds() -> bool {
        mallopt(MMAP_THRESHOLD, LARGE_BYTES) == 1 && mallopt(TRIM_THRESHOLD, KEPT_BYTES) == 1
    }

    fn trim_now_and_then() {
        let Some(at_start) = resident_bytes() else { return };
        let mut pause = PAUSE;
        loop {
            std::thread::sleep(pause);
            let Some(before) = resident_bytes() else { return };
            if before < at_start + GROWN_BYTES {
                pause = PAUSE;
                continue;
            }
            malloc_trim(0);
            let after = resident_bytes().unwrap_or(before);
            tracing::debug!(before, after, "gave free memory back");
            pause = next_pause(pause, before, after);
        }
    }

    /// Time to the next trim.
    fn next_pause(pause: Duration, before: u64, after: u64) -> Duration {
        let is_worthwhile = before.saturating_sub(after) >= before / WORTHWHILE_PART;
        if is_worthwhile { PAUSE } else { (pause * 2).min(LONGEST_PAUSE) }
    }

    /// The process's resident memory, in bytes; `None` where the kernel does not report it.
    fn resident_bytes() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim_end().parse().ok()?;
        Some(kilobytes * 1024)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn pause_doubles_after_trims_that_return_little() {
            let mut pause = PAUSE;
            for _ in 0..10 {
                pause = next_pause(pause, 1000, 900);
            }
            assert_eq!(pause, LONGEST_PAUSE);
            assert_eq!(next_pause(pause, 1000, 800), PAUSE);
            assert_eq!(next_pause(PAUSE, 1000, 1100), PAUSE * 2);
        }

        #[test]
        fn freed_large_blocks_are_returned_to_the_system() {
            assert!(set_thresholds());
            let before = resident_bytes().unwrap();
            let size = 64 * 1024 * 1024;
            for _ in 0..3 {
                let block = std::hint::black_box(vec![1_u8; size]);
                assert!(resident_bytes().unwrap() > before + size as u64 / 2);
                drop(block);
            }
            assert!(resident_bytes().unwrap() < before + size as u64 / 2);
        }
    }
}

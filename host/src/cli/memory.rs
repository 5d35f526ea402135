//! Memory goes back to the system when it is free again.
//!
//! The C library's allocator gives a block of its own pages to what is large, and those pages back when it is freed. But with
//! the first large block that is freed it raises what counts as large, up to 32 MiB, and what it keeps, up to twice that:
//! after a flood of messages of a megabyte nearly all of their memory stayed with the process for good. To set the
//! thresholds is to keep them. What is small and free between what is in use it gives back when it is asked to, which a
//! thread does now and then.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) use glibc::give_back;

/// Other allocators have no such thresholds.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back() {}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_int;
    use std::time::Duration;

    /// The names of the thresholds, in `malloc.h`.
    const TRIM_THRESHOLD: c_int = -1;
    const MMAP_THRESHOLD: c_int = -3;

    #[expect(unsafe_code, reason = "the C library's allocator is spoken to in C alone")]
    unsafe extern "C" {
        /// Sets a number of the allocator's. 1 where it takes it.
        safe fn mallopt(name: c_int, value: c_int) -> c_int;
        /// Gives free memory back, but for so many bytes.
        safe fn malloc_trim(kept: usize) -> c_int;
    }

    /// From which size on a block has pages of its own, in bytes: what the allocator begins with. Buffers that are made and
    /// freed all the time are smaller (a shard reads into 64 KiB).
    const LARGE_BYTES: c_int = 128 * 1024;

    /// How much of free memory each of the allocator's arenas keeps at its end, in bytes: enough not to ask the system in each
    /// turn of a thread.
    const KEPT_BYTES: c_int = 1024 * 1024;

    /// Time between two attempts to give small pieces back, and the longest, where they come to little. An attempt holds up
    /// threads that allocate: for a hundredth of a second for each 20 MiB that it gives back, and next to nothing without.
    const PAUSE: Duration = Duration::from_secs(30);
    const LONGEST_PAUSE: Duration = Duration::from_secs(16 * 60);

    /// What the process may have grown since its start before that is tried, in bytes: less is not worth it.
    const GROWN_BYTES: u64 = 32 * 1024 * 1024;

    /// The part of its memory that makes an attempt worth another soon.
    const WORTHWHILE_PART: u64 = 8;

    /// Has the allocator give memory back. To be called before other threads are started.
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

    /// How long to wait after an attempt.
    fn next_pause(pause: Duration, before: u64, after: u64) -> Duration {
        let is_worthwhile = before.saturating_sub(after) >= before / WORTHWHILE_PART;
        if is_worthwhile { PAUSE } else { (pause * 2).min(LONGEST_PAUSE) }
    }

    /// The memory that the process has; none where the kernel does not say.
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
        fn attempts_that_come_to_little_get_rare() {
            let mut pause = PAUSE;
            for _ in 0..10 {
                pause = next_pause(pause, 1000, 900);
            }
            assert_eq!(pause, LONGEST_PAUSE);
            assert_eq!(next_pause(pause, 1000, 800), PAUSE);
            assert_eq!(next_pause(PAUSE, 1000, 1100), PAUSE * 2);
        }

        #[test]
        fn large_blocks_go_back_at_once() {
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

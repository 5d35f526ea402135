//! Memory goes back to the system when it is free again.
//!
//! The C library's allocator gives a block of its own pages to what is large, and those pages back when it is freed. But with
//! the first large block that is freed it raises what counts as large, up to 32 MiB, and what it keeps, up to twice that:
//! after a flood of messages of a megabyte nearly all of their memory stayed with the process for good. To set the
//! thresholds is to keep them.

/// From which size on a block has pages of its own, in bytes: what the allocator begins with. Buffers that are made and freed
/// all the time are smaller (a shard reads into 64 KiB).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: libc::c_int = 128 * 1024;

/// How much of free memory each of the allocator's arenas keeps at its end, in bytes: enough not to ask the system in each turn
/// of a thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 1024 * 1024;

/// Has the allocator give memory back. To be called before threads are started.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library has no other way to set its allocator's thresholds")]
pub(super) fn give_back() {
    // SAFETY: it sets two numbers of the allocator's, under the allocator's own lock.
    let is_set = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES) == 1
    };
    if !is_set {
        tracing::warn!("the allocator does not take its thresholds, and may keep memory that is free");
    }
}

/// Other allocators have no such thresholds.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back() {}

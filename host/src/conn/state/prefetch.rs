//! Prefetching: the processor loads memory before it is read.

/// The processor's cache line, in bytes.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Prefetches a value that is read soon. A fan-out visits connections scattered in memory, and the system call for each
/// evicts the next ones from the caches: without prefetching, cache misses are most of a delivery's cost outside the
/// kernel.
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the processor's instruction takes an address"))]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..size_of::<T>()).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, and all addresses are within the value; a prefetch never faults,
        // not even on an unmapped address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast::<i8>().byte_add(at)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

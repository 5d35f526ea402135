//! Prefetching: the processor loads memory before it is read.

/// The processor's cache line, in bytes.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Has the processor load a value that is read soon. A fan-out goes from one connection to the next, each somewhere else in
/// memory, and the system call for each in between evicts them from the caches: without prefetching, waiting for memory is
/// most of a delivery's cost outside of the kernel.
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the processor's instruction takes an address"))]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..size_of::<T>()).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, and all addresses are within the value; it does not fault even where
        // there is nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast::<i8>().byte_add(at)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

//! Memory that is needed soon.

/// What the processor brings in at once, in bytes.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Has the processor bring in a value that is about to be looked at. A fan-out goes from one connection to the next, each
/// somewhere else in memory, and a system call for each in between drives them from the caches: waiting for memory would be
/// most of what a delivery costs outside of the kernel.
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the processor's instruction takes an address"))]
pub(in crate::conn) fn prefetch<T>(value: &T) {
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

//! Having the processor fetch memory before somebody waits for it.

#![allow(unsafe_code, reason = "a prefetch is an instruction")]

/// Has the processor fetch bytes into its cache, all at once: the steps of a search, or the entries of a
/// sorted log, would wait for one line after the other.
#[inline]
pub(crate) fn prefetch(from: *const u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        for line in (0..bytes).step_by(64) {
            // SAFETY: a prefetch reads nothing, whatever the address.
            unsafe { _mm_prefetch(from.wrapping_add(line).cast(), _MM_HINT_T0) };
        }
        if !bytes.is_multiple_of(64) {
            // SAFETY: as above.
            unsafe { _mm_prefetch(from.wrapping_add(bytes - 1).cast(), _MM_HINT_T0) };
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _: (*const u8, usize) = (from, bytes);
}

//! What the allocator keeps of what large requests took.
//!
//! By default it learns from a large piece that is given back to keep the next
//! ones: after a body of 16 MiB that is a multiple of it, for as long as the
//! daemon lives.

/// Pieces of this many bytes go back to the system as soon as they are free.
#[cfg(target_env = "gnu")]
const KEPT_MAX: libc::c_int = 1024 * 1024;

/// Has the allocator keep little. To be called once, at the start.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no safe wrapper exists")]
pub fn keep_little() {
    for bound in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: takes two numbers.
        unsafe { libc::mallopt(bound, KEPT_MAX) };
    }
}

/// Gives back what is free between pieces that are not. Takes milliseconds
/// where there is much of it.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no safe wrapper exists")]
pub(super) fn give_back() {
    // SAFETY: takes a number, and returns pages that nothing lives in.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators have their own mind.
#[cfg(not(target_env = "gnu"))]
pub const fn keep_little() {}

/// See above.
#[cfg(not(target_env = "gnu"))]
pub(super) const fn give_back() {}

//! Runs a check over bytes of a fuzzer, and counts the memory that it takes meanwhile.
//!
//! A decoder may take memory as its input justifies, so each target has a bound: so many bytes, and so many for each byte of
//! input. What takes more at any moment is a finding as a panic is.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that are allocated now, and the most since [`run`] has last begun.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTED: Counted = Counted;

/// The system's allocator, counted.
struct Counted;

impl Counted {
    fn took(bytes: usize) {
        let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
        MOST.fetch_max(live, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came; only numbers are kept beside.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::took(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::took(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there for a moment.
        Self::took(size);
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Runs `check` over `data`.
///
/// # Panics
/// If it panics, or takes more than `fixed` bytes and `each` for every byte of `data`.
pub fn run(check: fn(&[u8]), data: &[u8], fixed: usize, each: usize) {
    let before = LIVE.load(Relaxed);
    MOST.store(before, Relaxed);
    check(data);
    let taken = MOST.load(Relaxed).saturating_sub(before);
    let allowed = fixed + each * data.len();
    assert!(
        taken <= allowed,
        "{} bytes of input took {taken} bytes of memory, allowed are {allowed}",
        data.len()
    );
}

/// A target: what it checks, and the memory that this may take, fixed and for each byte of input.
#[macro_export]
macro_rules! target {
    ($check:path, fixed: $fixed:expr, each: $each:expr) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::run($check, data, $fixed, $each));
    };
}

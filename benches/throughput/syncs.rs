//! Counts the syncs of this process, exactly: SQLite is linked into it, and so calls these.
#![allow(unsafe_code)] // Functions of the C library are replaced by name.

use std::sync::atomic::AtomicU64;
#[cfg(target_os = "linux")]
use std::{os::fd::BorrowedFd, sync::atomic::Ordering};

pub(crate) static SYNCS: AtomicU64 = AtomicU64::new(0);

/// What the C library's function does, and counts it.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
extern "C" fn fdatasync(file: i32) -> i32 {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: whoever calls this has the file open, as with the function that it replaces.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    // rustix asks the kernel itself, and not the C library. A disk that fails ends the bench.
    rustix::fs::fdatasync(file).map_or_else(|_| std::process::abort(), |()| 0)
}

/// The same for the one that syncs lengths and times, too.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
extern "C" fn fsync(file: i32) -> i32 {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: as above.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    rustix::fs::fsync(file).map_or_else(|_| std::process::abort(), |()| 0)
}

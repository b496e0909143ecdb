//! What the operating system is asked.

use std::path::Path;

/// How many bytes are free on the disk that a file is on; nothing where nobody can say.
#[cfg(unix)]
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(not(unix))]
pub(crate) fn free_bytes(_: &Path) -> Option<u64> {
    None
}

/// How many lines the terminal has.
#[cfg(unix)]
pub(crate) fn terminal_lines() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0).then_some(size.ws_row)
}

#[cfg(not(unix))]
pub(crate) fn terminal_lines() -> Option<u16> {
    None
}

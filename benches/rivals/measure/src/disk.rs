use std::path::{Path, PathBuf};

/// The disk below a folder, which counts the flushes that it completes.
#[derive(Clone, Debug)]
pub struct Disk {
    counts: PathBuf,
}

impl Disk {
    /// Nothing where the system doesn't tell, or the folder is on no disk.
    pub fn of(folder: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let device = std::fs::metadata(folder).ok()?.dev();
        // How Linux writes both numbers of a device in one.
        let major = (device >> 8 & 0xfff) | (device >> 32 & !0xfff);
        let minor = (device & 0xff) | (device >> 12 & !0xff);
        let device = format!("/sys/dev/block/{major}:{minor}");
        let device = std::fs::canonicalize(device).ok()?;
        // Flushes are counted for the whole disk only.
        let whole = match device.join("partition").exists() {
            true => device.parent()?,
            false => &device,
        };
        let disk = Self {
            counts: whole.join("stat"),
        };
        disk.flushes().map(|_| disk)
    }

    /// Flushes completed since the system started: the sixteenth count of the disk's.
    pub fn flushes(&self) -> Option<u64> {
        let counts = std::fs::read_to_string(&self.counts).ok()?;
        counts.split_whitespace().nth(15)?.parse().ok()
    }
}

/// A line of what the system says of this process' memory, in KiB.
pub fn memory(line: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|said| said.strip_prefix(line))?;
    line.split_whitespace().next()?.parse().ok()
}

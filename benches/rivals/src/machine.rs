//! Where and with what it was measured, as far as the system tells.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// A line of words about the machine, then one about the versions.
pub(crate) fn lines(folder: &Path) -> [String; 2] {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = read("/proc/cpuinfo");
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name.trim());
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("unknown");
    let machine = format!(
        "{} UTC; {cores} cores of {processor}; Linux {}; files on {}; load of the machine before: {load}.",
        now(),
        kernel.trim(),
        file_system(folder),
    );
    let versions: Vec<String> = ["amends", "cano", "durare", "duroxide", "steno"]
        .iter()
        .map(|engine| format!("{engine} {}", version(engine)))
        .collect();
    [machine, format!("{}; {}.", versions.join(", "), rustc())]
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// To the minute, such as `2026-11-22 12:30`.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since
        .ok()
        .and_then(|since| since.as_micros().try_into().ok());
    let now = amends::Timestamp::from_micros(micros.unwrap_or(0)).to_string();
    now.chars().take(16).collect::<String>().replace('T', " ")
}

fn rustc() -> String {
    let said = Command::new("rustc").arg("--version").output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
    said.ok()
        .filter(|said| !said.is_empty())
        .unwrap_or("rustc unknown".to_owned())
}

/// The version that the lock files pin.
fn version(engine: &str) -> &'static str {
    let locks = [
        include_str!("../Cargo.lock"),
        include_str!("../sqlx/Cargo.lock"),
    ];
    let name = format!("name = \"{engine}\"");
    let mut lines = locks.iter().flat_map(|lock| lock.lines());
    lines.find(|line| **line == name);
    let version = lines.next().and_then(|line| line.split('"').nth(1));
    version.unwrap_or("unknown")
}

/// Kind and device of the file system that a folder is on, by the longest place that it is mounted at.
fn file_system(folder: &Path) -> String {
    let mounts = read("/proc/mounts");
    let mounts = mounts.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [device, place, kind, ..] = words[..] else {
            return None;
        };
        folder
            .starts_with(place)
            .then(|| (place.len(), format!("{kind} ({device})")))
    });
    mounts.max().map_or("unknown".to_owned(), |(_, said)| said)
}

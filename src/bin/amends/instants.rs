//! Instants as people read them.

use amends::Timestamp;

use crate::span;

/// To the second: `2026-11-22 03:12:15Z`.
pub(crate) fn to_the_second(at: Timestamp) -> String {
    let text = at.to_string();
    match text.split_once('T') {
        Some((day, time)) => format!("{day} {}Z", time.split('.').next().unwrap_or(time)),
        None => text,
    }
}

/// To the millisecond, without the day: `03:12:15.042`.
pub(crate) fn time_of_day(at: Timestamp) -> String {
    let text = at.to_string();
    let time = text.split_once('T').map_or("", |(_, time)| time);
    time.get(..12).unwrap_or(time).to_owned()
}

/// How long ago, or in how long: `3m ago`, `in 12s`.
pub(crate) fn from_now(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("in {}", coarse(at.since(now)))
    } else {
        format!("{} ago", coarse(now.since(at)))
    }
}

/// How long ago, in its largest unit: `3m`. For columns.
pub(crate) fn age(at: Timestamp, now: Timestamp) -> String {
    largest(now.since(at))
}

/// A span in its largest unit.
pub(crate) fn largest(span: std::time::Duration) -> String {
    let text = coarse(span);
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// An age in whole seconds and more.
pub(crate) fn coarse(span: std::time::Duration) -> String {
    span::format(std::time::Duration::from_secs(span.as_secs()))
}

/// The instant that ages are told from: now, or what `AMENDS_NOW` says in microseconds since 1970, so that a
/// recorded session can be made again.
pub(crate) fn now() -> Timestamp {
    std::env::var("AMENDS_NOW")
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or_else(Timestamp::now, Timestamp::from_micros)
}

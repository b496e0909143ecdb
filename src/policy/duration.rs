//! Durations as people write them: `250ms`, `10s`, `1h30m`.

use std::fmt::Write;
use std::time::Duration;

/// The units, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The shortest way to write it; whole milliseconds, rounded up.
pub(super) fn text(duration: Duration) -> String {
    let mut left = crate::failure::millis::up(duration);
    if left == 0 {
        return "0ms".to_owned();
    }
    let mut text = String::new();
    for (unit, millis) in UNITS {
        if left >= millis {
            // Writing to a String can't fail.
            let _ = write!(text, "{}{unit}", left / millis);
            left %= millis;
        }
    }
    text
}

/// What the text says: whole numbers with units, the larger units first, each at most once.
#[cfg(feature = "toml")]
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|char: char| !char.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let (_, millis) = units.find(|(unit, _)| *unit == &rest[..letters])?;
        total = total.checked_add(number.checked_mul(*millis)?)?;
        rest = rest[letters..].trim_start_matches(' ');
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

/// `#[serde(with = "..")]`: whole milliseconds.
pub(super) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        crate::failure::millis::up(*time).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(from)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_the_largest_units() {
        for (millis, written) in [
            (0, "0ms"),
            (1, "1ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (1_500, "1s500ms"),
            (60_000, "1m"),
            (5_400_000, "1h30m"),
            (90_000_000, "1d1h"),
        ] {
            assert_eq!(text(Duration::from_millis(millis)), written);
        }
        assert_eq!(text(Duration::from_nanos(1)), "1ms");
    }

    #[cfg(feature = "toml")]
    #[test]
    fn what_was_written_is_read_again() {
        for millis in [0, 1, 59_999, 61_001, 86_400_000, 1_234_567_890, u64::MAX] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&text(duration)), Some(duration));
        }
        assert_eq!(parse("1h 30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(parse("90s"), Some(Duration::from_secs(90)));
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "1.5s",
            "-1s",
            "30m1h",
            "1s1s",
            "5sec",
            "1S",
            " 1s",
            "18446744073709551616ms",
            "999999999999d",
        ] {
            assert_eq!(parse(bad), None, "`{bad}`");
        }
    }
}

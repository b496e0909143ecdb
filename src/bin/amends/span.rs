//! Durations as people write them: `90s`, `2h`, `1d12h`.

use std::time::Duration;

const UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a duration: numbers with units, one after the other.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("a duration is written as `90s`, `15m`, `2h`, `7d` or `1d12h`, not `{text}`");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let (_, unit) = UNITS
            .iter()
            .find(|(unit, _)| *unit == &rest[..letters])
            .ok_or_else(wrong)?;
        millis = number
            .checked_mul(*unit)
            .and_then(|more| millis.checked_add(more))
            .ok_or_else(wrong)?;
        rest = rest[letters..].trim_start();
    }
    Ok(Duration::from_millis(millis))
}

/// A duration in its two largest units at most: `3d 4h`, `12s`, `1.25ms`.
pub(crate) fn format(span: Duration) -> String {
    let micros = span.as_micros();
    match micros {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{micros}µs"),
        1_000..1_000_000 => return decimal(micros, 1_000, "ms"),
        1_000_000..60_000_000 => return decimal(micros, 1_000_000, "s"),
        _ => {}
    }
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut rest = millis;
    let mut parts = Vec::with_capacity(2);
    for (unit, size) in [UNITS[1], UNITS[2], UNITS[3], UNITS[4]] {
        let whole = rest / size;
        rest %= size;
        if whole > 0 {
            parts.push(format!("{whole}{unit}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    parts.join(" ")
}

/// Three digits are enough to compare by.
fn decimal(micros: u128, unit: u128, name: &str) -> String {
    let whole = micros / unit;
    let hundredths = micros % unit * 100 / unit;
    match whole {
        100.. => format!("{whole}{name}"),
        10.. if hundredths >= 10 => format!("{whole}.{}{name}", hundredths / 10),
        10.. => format!("{whole}{name}"),
        _ if hundredths == 0 => format!("{whole}{name}"),
        _ if hundredths.is_multiple_of(10) => format!("{whole}.{}{name}", hundredths / 10),
        _ => format!("{whole}.{hundredths:02}{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("90s", 90_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
            ("1d12h", 129_600_000),
            ("1m 30s", 90_000),
            ("250ms", 250),
            ("0s", 0),
        ] {
            assert_eq!(
                parse(text).unwrap(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "90",
            "2 hours",
            "-1s",
            "1.5h",
            "99999999999999999999s",
            "9999999999999999w",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_written_in_two_units_at_most() {
        for (micros, text) in [
            (0, "0s"),
            (999, "999µs"),
            (1_250, "1.25ms"),
            (12_340, "12.3ms"),
            (250_000, "250ms"),
            (1_500_000, "1.5s"),
            (59_990_000, "59.9s"),
            (61_000_000, "1m 1s"),
            (3_600_000_000, "1h"),
            (3_605_000_000, "1h"),
            (273_600_000_000, "3d 4h"),
        ] {
            assert_eq!(format(Duration::from_micros(micros)), text, "{micros}");
        }
    }
}

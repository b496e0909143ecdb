//! Durations as whole milliseconds, the unit of the journal.
//!
//! Rounding is always up: a wait may be a little longer than was asked for, never shorter, and what
//! was more than nothing never becomes nothing.

use std::time::Duration;

/// Whole milliseconds, rounded up, at most [`u64::MAX`].
pub(crate) fn up(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The duration as the journal gives it back, so that a live run and its replay see the same value.
pub(crate) fn rounded(duration: Duration) -> Duration {
    Duration::from_millis(up(duration))
}

/// `#[serde(with = "..")]` for an optional duration.
pub(crate) mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands the field over by reference")]
    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(super::up).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_up_and_never_overflows() {
        assert_eq!(up(Duration::ZERO), 0);
        assert_eq!(up(Duration::from_nanos(1)), 1);
        assert_eq!(up(Duration::from_millis(7)), 7);
        assert_eq!(up(Duration::from_micros(7001)), 8);
        assert_eq!(up(Duration::MAX), u64::MAX);
        assert_eq!(rounded(Duration::from_micros(1)), Duration::from_millis(1));
    }
}

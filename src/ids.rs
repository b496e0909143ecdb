//! Names and instants that every room speaks of.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The name of a run, unique in its store. The caller may choose it: starting the same id with the same
/// input again gives the same run.
///
/// ```
/// use amends::RunId;
///
/// assert_eq!(RunId::new("order-4711").as_str(), "order-4711");
/// assert_ne!(RunId::random(), RunId::random());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Arc<str>);

impl RunId {
    /// The longest id that a store takes, in bytes.
    pub const MAX_LEN: usize = 512;

    /// The id with this name. [`start`](crate::Coordinator::start) refuses an empty one and one longer than [`MAX_LEN`](Self::MAX_LEN).
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        RunId(id.into())
    }

    /// A new id that nobody else has: 32 hex digits, of which the first 12 are the time in milliseconds,
    /// so that ids made one after the other also sort so.
    #[must_use]
    pub fn random() -> Self {
        let millis = Timestamp::now().as_micros().max(0).unsigned_abs() / 1_000;
        let noise = random_u128();
        RunId(
            format!(
                "{:012x}{:020x}",
                millis & 0xffff_ffff_ffff,
                noise & ((1 << 80) - 1)
            )
            .into(),
        )
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for RunId {
    fn from(id: &str) -> Self {
        RunId::new(id)
    }
}

impl From<String> for RunId {
    fn from(id: String) -> Self {
        RunId::new(id)
    }
}

impl std::borrow::Borrow<str> for RunId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// 128 random bits.
///
/// They come from the operating system, some at a time for each thread: asked for one by one they cost more than a
/// run in memory. What was fetched may be copied, by a fork or with a machine that is saved and brought up twice, and
/// two runs must not share keys then either: another process fetches anew, and each bit is mixed with the time.
pub(crate) fn random_u128() -> u128 {
    const AT_A_TIME: usize = 16;
    struct Left {
        bits: [u128; AT_A_TIME],
        count: usize,
        process: u32,
    }
    thread_local! {
        static LEFT: RefCell<Left> = const { RefCell::new(Left { bits: [0; AT_A_TIME], count: 0, process: 0 }) };
    }
    LEFT.with_borrow_mut(|left| {
        let process = std::process::id();
        if left.count == 0 || left.process != process {
            let mut bytes = [0; AT_A_TIME * 16];
            if getrandom::fill(&mut bytes).is_err() {
                return random_without_help();
            }
            for (bits, bytes) in left.bits.iter_mut().zip(bytes.chunks_exact(16)) {
                *bits = bytes
                    .iter()
                    .fold(0, |bits, byte| bits << 8 | u128::from(*byte));
            }
            (left.count, left.process) = (AT_A_TIME, process);
        }
        left.count -= 1;
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        std::mem::take(&mut left.bits[left.count]) ^ derived(since.unwrap_or_default().as_nanos())
    })
}

/// Without randomness two runs could share keys, and one would be taken for the other's duplicate: this mixes
/// what differs from process to process and call to call.
fn random_without_help() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let (one, two) = (
        RandomState::new().hash_one(1_u8),
        RandomState::new().hash_one(2_u8),
    );
    u128::from(one) << 64 | u128::from(two)
}

/// Other bits made of these. Each step can be taken back, so what is made of different bits is different.
pub(crate) fn derived(mut bits: u128) -> u128 {
    // Odd, so that multiplying by it loses nothing: the fraction of the golden ratio.
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    for _ in 0..2 {
        bits = bits.wrapping_mul(ODD);
        bits ^= bits >> 61;
    }
    bits
}

/// 32 hex digits.
pub(crate) fn hex(bits: u128) -> Arc<str> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bits.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
    Arc::from(str::from_utf8(&digits).unwrap_or_default())
}

/// A wall-clock instant: microseconds since 1970-01-01T00:00:00Z.
///
/// Durations are never computed from wall clocks of different processes but for deadlines and timers,
/// which are meant to be in wall time.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant so many microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Timestamp(micros)
    }

    /// Later than any instant: when a run goes on that waits for a signal without a limit.
    pub const NEVER: Timestamp = Timestamp(i64::MAX);

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// What the system's clock says.
    #[must_use]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        // Without the 128 bits of `as_micros`: this is asked several times for each step.
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        Timestamp(
            seconds
                .saturating_mul(1_000_000)
                .saturating_add(since.subsec_micros().into()),
        )
    }

    /// The instant that much later; the end of time where it would not fit.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Timestamp(
            self.0
                .saturating_add(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// How much later this is than `earlier`; zero where it isn't.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// UTC in the form of RFC 3339, with microseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000));
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Days to civil date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_print_as_people_read_them() {
        assert_eq!(
            Timestamp::from_micros(0).to_string(),
            "1970-01-01T00:00:00.000000Z"
        );
        assert_eq!(
            Timestamp::from_micros(1_795_392_000_000_001).to_string(),
            "2026-11-23T00:00:00.000001Z"
        );
        assert_eq!(
            Timestamp::from_micros(951_782_400_000_000).to_string(),
            "2000-02-29T00:00:00.000000Z"
        );
        assert_eq!(
            Timestamp::from_micros(-1).to_string(),
            "1969-12-31T23:59:59.999999Z"
        );
    }

    #[test]
    fn arithmetic_saturates() {
        let late = Timestamp::from_micros(i64::MAX);
        assert_eq!(late.after(Duration::MAX), late);
        assert_eq!(Timestamp::from_micros(5).since(late), Duration::ZERO);
    }

    #[test]
    fn random_bits_and_what_is_derived_of_them_are_all_different() {
        let random: Vec<u128> = (0..1_000).map(|_| random_u128()).collect();
        let derived = random.iter().map(|bits| derived(*bits));
        let all: std::collections::HashSet<u128> = random.iter().copied().chain(derived).collect();
        assert_eq!(all.len(), 2_000);
    }

    #[test]
    fn hex_has_all_its_digits() {
        assert_eq!(
            &*hex(0x0123_4567_89ab_cdef),
            "00000000000000000123456789abcdef"
        );
        assert_eq!(*hex(u128::MAX), *"f".repeat(32));
    }

    #[test]
    fn random_ids_sort_by_time() {
        let earlier = RunId::random();
        std::thread::sleep(Duration::from_millis(2));
        assert!(earlier < RunId::random());
        assert_eq!(earlier.as_str().len(), 32);
    }
}

//! The checksum of a record: what a row of the journal has to be, in one number.
//!
//! It covers all that a record says, and the run's id, so that a row that was moved to another run or
//! another place is found out too. `docs/format.md` tells how to compute it elsewhere.

use xxhash_rust::xxh3::Xxh3;

/// XXH3 (64 bits, seed 0) over `seq`, `form`, `at` (little-endian: 8, 4, 8 bytes), the append id (16
/// bytes), the length of the run's id (4 bytes, little-endian), the id, and the events' text; as SQLite
/// keeps integers, signed.
pub(super) fn of_record(
    run: &str,
    seq: i64,
    form: u32,
    append_id: &[u8],
    at: i64,
    events: &[u8],
) -> i64 {
    let mut hash = Xxh3::new();
    hash.update(&seq.to_le_bytes());
    hash.update(&form.to_le_bytes());
    hash.update(&at.to_le_bytes());
    hash.update(append_id);
    // The one part of free length that another follows: its length keeps the two apart.
    hash.update(&u32::try_from(run.len()).unwrap_or(u32::MAX).to_le_bytes());
    hash.update(run.as_bytes());
    hash.update(events);
    hash.digest().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::of_record;

    #[test]
    fn every_part_counts() {
        let base = of_record("run", 1, 1, &[7; 16], 5, b"[]");
        assert_eq!(base, of_record("run", 1, 1, &[7; 16], 5, b"[]"));
        let others = [
            of_record("rum", 1, 1, &[7; 16], 5, b"[]"),
            of_record("run", 2, 1, &[7; 16], 5, b"[]"),
            of_record("run", 1, 2, &[7; 16], 5, b"[]"),
            of_record("run", 1, 1, &[8; 16], 5, b"[]"),
            of_record("run", 1, 1, &[7; 16], 6, b"[]"),
            of_record("run", 1, 1, &[7; 16], 5, b"[ ]"),
            of_record("run[", 1, 1, &[7; 16], 5, b"]"),
        ];
        for other in others {
            assert_ne!(base, other);
        }
    }
}

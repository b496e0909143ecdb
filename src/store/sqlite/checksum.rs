//! The checksum of a record: what a row of the journal has to be, in one number.
//!
//! It covers all that a record says, and the run's id, so that a row that was moved to another run or
//! another place is found out too. `docs/format.md` tells how to compute it elsewhere.

use xxhash_rust::xxh3::Xxh3;

use crate::store::record::Covered;

/// XXH3 (64 bits, seed 0) over `seq`, `form`, `at` (little-endian: 8, 4, 8 bytes), the append id (16
/// bytes), the length of the run's id (4 bytes, little-endian), the id, and the events' text; as SQLite
/// keeps integers, signed.
pub(super) fn of_record(covered: Covered<'_>) -> i64 {
    let mut hash = Xxh3::new();
    hash.update(&covered.seq.to_le_bytes());
    hash.update(&covered.form.to_le_bytes());
    hash.update(&covered.at.to_le_bytes());
    hash.update(covered.append_id);
    // The one part of free length that another follows: its length keeps the two apart.
    let length = u32::try_from(covered.run.len()).unwrap_or(u32::MAX);
    hash.update(&length.to_le_bytes());
    hash.update(covered.run.as_bytes());
    hash.update(covered.events);
    hash.digest().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record;

    #[test]
    fn every_part_counts() {
        record::every_part_counts(of_record);
    }
}

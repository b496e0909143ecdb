//! The checksum of a record, in a form that SQL computes too: the database's own functions write records.

use sha2::{Digest as _, Sha256};

use crate::saga::hex;
use crate::store::record::Covered;

/// The first 8 bytes of SHA-256 over `seq`, `form`, `at`, the append id in hex, the length of the run's id in
/// bytes and the id, with a space after each but the last, and the events' text. `docs/format.md` has it in SQL.
pub(super) fn of_record(covered: Covered<'_>) -> [u8; 8] {
    let Covered {
        run,
        seq,
        form,
        append_id,
        at,
        events,
    } = covered;
    let mut hash = Sha256::new();
    let append_id = hex(append_id);
    // The id is the one part of free length that another follows: its length keeps the two apart.
    hash.update(format!("{seq} {form} {at} {append_id} {} {run}", run.len()));
    hash.update(events);
    let mut sum = [0; 8];
    for (to, from) in sum.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    sum
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

//! The checksum of a record, in a form that SQL computes too: the database's own functions write records.

use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};

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
    let mut hash = Hashed(Sha256::new());
    let append_id = Hex(append_id);
    // The id is the one part of free length that another follows: its length keeps the two apart. To write into the
    // hash can't fail.
    let _ = write!(hash, "{seq} {form} {at} {append_id} {} {run}", run.len());
    hash.0.update(events);
    let mut sum = [0; 8];
    for (to, from) in sum.iter_mut().zip(hash.0.finalize()) {
        *to = from;
    }
    sum
}

/// Text goes into the hash as it is written, so that none has to be kept for it.
struct Hashed(Sha256);

impl fmt::Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text);
        Ok(())
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for eight in self.0.chunks(8) {
            let mut text = [0; 16];
            let digits = eight.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            for (to, four) in text.iter_mut().zip(digits) {
                *to = DIGITS[usize::from(four)];
            }
            f.write_str(str::from_utf8(&text[..eight.len() * 2]).unwrap_or_default())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record;

    #[test]
    fn it_is_what_sql_computes() {
        let covered = Covered {
            run: "run",
            seq: 2,
            form: 1,
            append_id: &[0x0f; 16],
            at: -5,
            events: b"[]",
        };
        let text = "2 1 -5 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f 3 run[]";
        assert_eq!(of_record(covered)[..], Sha256::digest(text)[..8]);
    }

    #[test]
    fn every_part_counts() {
        record::every_part_counts(of_record);
    }
}

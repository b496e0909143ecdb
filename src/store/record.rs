//! A record on its way into its row. It is encoded on the caller's thread, so that the writer, which many
//! runs share, does nothing but insert.

use std::collections::BTreeMap;
use std::error::Error;

use crate::ids::RunId;
use crate::journal::{Event, Standing, encode_events, form_of};
use crate::store::{Append, TroubleChange};

use super::owner_of;

/// A row of the journal, and what it changes in the list of runs. Stores differ in the checksums they keep.
#[derive(Debug)]
pub(super) struct NewRecord<C> {
    pub(super) run: RunId,
    pub(super) seq: i64,
    pub(super) append_id: [u8; 16],
    pub(super) at: i64,
    pub(super) form: u32,
    pub(super) events: String,
    pub(super) checksum: C,
    pub(super) standing: Standing,
    pub(super) standing_changed: bool,
    /// What it begins with, where the record begins a run.
    pub(super) begins: Option<Begins>,
    pub(super) trouble: TroubleChange,
    /// The saga, and the version of it that the run has from now on, where the record changes it.
    pub(super) migrated: Option<(String, u32)>,
    /// The worker that it makes the run's owner, by its id; nothing where that stays as it is.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code))]
    pub(super) owner: Option<String>,
}

/// What a checksum covers: all that a record says, and the run's id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Covered<'a> {
    pub(super) run: &'a str,
    pub(super) seq: i64,
    pub(super) form: u32,
    pub(super) append_id: &'a [u8],
    pub(super) at: i64,
    pub(super) events: &'a [u8],
}

/// What is kept of a run from its start.
#[derive(Debug)]
pub(super) struct Begins {
    pub(super) saga: String,
    pub(super) version: u32,
    pub(super) labels: BTreeMap<String, String>,
}

impl<C> NewRecord<C> {
    /// Encodes an append. An error concerns this append only.
    pub(super) fn encode(
        append: Append,
        checksum: impl FnOnce(Covered<'_>) -> C,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let Append {
            run,
            record,
            steps,
            standing,
            standing_changed,
            trouble,
        } = append;
        let begins = match (record.seq, record.events.first()) {
            (1, Some(Event::RunStarted(started))) => Some(Begins {
                saga: started.saga.to_string(),
                version: started.version,
                labels: started.labels.clone(),
            }),
            (1, _) => return Err("the first record of a run begins with its start".into()),
            _ => None,
        };
        let migrated = record
            .migrated()
            .map(|migrated| (migrated.from.saga.clone(), migrated.version));
        let owner = owner_of(&record).map(str::to_owned);
        let events = encode_events(&record.events, &steps)?;
        let form = form_of(&record.events);
        let seq = i64::try_from(record.seq)?;
        let append_id = record.append_id.to_bytes();
        let at = record.at.as_micros();
        let checksum = checksum(Covered {
            run: run.as_str(),
            seq,
            form,
            append_id: &append_id,
            at,
            events: events.as_bytes(),
        });
        Ok(NewRecord {
            run,
            seq,
            append_id,
            at,
            form,
            events,
            checksum,
            standing,
            standing_changed,
            begins,
            trouble,
            migrated,
            owner,
        })
    }
}

/// Holds a checksum to it that each part of a record counts, and that no two of them run into each other.
#[cfg(test)]
pub(super) fn every_part_counts<C: PartialEq + std::fmt::Debug>(sum: impl Fn(Covered<'_>) -> C) {
    let of = |run, seq, form, append_id: u8, at, events: &[u8]| {
        sum(Covered {
            run,
            seq,
            form,
            append_id: &[append_id; 16],
            at,
            events,
        })
    };
    let base = of("run", 1, 1, 7, 5, b"[]");
    assert_eq!(base, of("run", 1, 1, 7, 5, b"[]"));
    for other in [
        of("rum", 1, 1, 7, 5, b"[]"),
        of("run", 2, 1, 7, 5, b"[]"),
        of("run", 1, 2, 7, 5, b"[]"),
        of("run", 1, 1, 8, 5, b"[]"),
        of("run", 1, 1, 7, 6, b"[]"),
        of("run", 1, 1, 7, 5, b"[ ]"),
        of("run[", 1, 1, 7, 5, b"]"),
    ] {
        assert_ne!(base, other);
    }
}

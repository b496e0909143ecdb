//! A record on its way into its row. It is encoded on the caller's thread, so that the one writer thread,
//! which all runs share, does nothing but insert.

use std::collections::BTreeMap;
use std::error::Error;

use crate::ids::RunId;
use crate::journal::{Event, Standing, encode_events, form_of};
use crate::store::{Append, TroubleChange};

use super::checksum;

/// A row of the journal, and what it changes in the list of runs.
#[derive(Debug)]
pub(super) struct NewRecord {
    pub(super) run: RunId,
    pub(super) seq: i64,
    pub(super) append_id: [u8; 16],
    pub(super) at: i64,
    pub(super) form: u32,
    pub(super) events: String,
    pub(super) checksum: i64,
    pub(super) standing: Standing,
    pub(super) standing_changed: bool,
    /// What it begins with, where the record begins a run.
    pub(super) begins: Option<Begins>,
    pub(super) trouble: TroubleChange,
    /// The version that the run has from now on, where the record changes it.
    pub(super) version: Option<u32>,
}

/// What is kept of a run from its start.
#[derive(Debug)]
pub(super) struct Begins {
    pub(super) saga: String,
    pub(super) version: u32,
    pub(super) labels: BTreeMap<String, String>,
}

impl NewRecord {
    /// Encodes an append. An error concerns this append only.
    pub(super) fn encode(append: Append) -> Result<Self, Box<dyn Error + Send + Sync>> {
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
                saga: started.saga.clone(),
                version: started.version,
                labels: started.labels.clone(),
            }),
            (1, _) => return Err("the first record of a run begins with its start".into()),
            _ => None,
        };
        let version = record.migrated().map(|migrated| migrated.version);
        let events = encode_events(&record.events, &steps)?;
        let form = form_of(&record.events);
        let seq = i64::try_from(record.seq)?;
        let append_id = record.append_id.to_bytes();
        let at = record.at.as_micros();
        let checksum =
            checksum::of_record(run.as_str(), seq, form, &append_id, at, events.as_bytes());
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
            version,
        })
    }
}

//! Rows as they lie in a store, put together to the journal that they have to be.

use crate::ids::{RunId, Timestamp};
use crate::journal::{AppendId, Interner, Journal, Record, decode_events};
use crate::store::record::Covered;
use crate::store::{Damage, LoadError};

/// One row, as it was found.
#[derive(Debug)]
pub(super) struct Stored<'a> {
    pub(super) seq: i64,
    pub(super) form: i64,
    pub(super) append_id: &'a [u8],
    pub(super) at: i64,
    pub(super) events: &'a [u8],
}

/// A journal of which rows come in, in their order.
#[derive(Debug)]
pub(super) struct Assembly {
    run: RunId,
    /// Whether it begins at its beginning.
    whole: bool,
    /// The place that the next row has to have.
    next: u64,
    names: Interner,
    records: Vec<Record>,
    damage: Option<Damage>,
}

impl Assembly {
    /// The journal of a run that is there, after the record `after`, which is 0 for all of it.
    pub(super) fn new(run: &RunId, after: u64) -> Self {
        Assembly {
            run: run.clone(),
            whole: after == 0,
            next: after.saturating_add(1),
            names: Interner::default(),
            records: Vec::new(),
            damage: None,
        }
    }

    /// Takes the next row; `sound` says whether its checksum is that of what it says. Says no where a row was
    /// damaged: what follows is not looked at.
    pub(super) fn push(
        &mut self,
        row: &Stored<'_>,
        sound: impl FnOnce(Covered<'_>) -> bool,
    ) -> bool {
        if self.damage.is_none() {
            match self.record(row, sound) {
                Ok(record) => {
                    self.records.push(record);
                    self.next += 1;
                }
                Err(damage) => self.damage = Some(damage),
            }
        }
        self.damage.is_none()
    }

    fn record(
        &mut self,
        row: &Stored<'_>,
        sound: impl FnOnce(Covered<'_>) -> bool,
    ) -> Result<Record, Damage> {
        if u64::try_from(row.seq) != Ok(self.next) {
            return Err(Damage::Missing);
        }
        let form = u32::try_from(row.form).map_err(|_| Damage::Checksum)?;
        let covered = Covered {
            run: self.run.as_str(),
            seq: row.seq,
            form,
            append_id: row.append_id,
            at: row.at,
            events: row.events,
        };
        let id = row.append_id.try_into().map_err(|_| Damage::Checksum)?;
        let text = std::str::from_utf8(row.events).map_err(|_| Damage::Checksum)?;
        if !sound(covered) {
            return Err(Damage::Checksum);
        }
        Ok(Record {
            seq: self.next,
            append_id: AppendId::from_bytes(id),
            at: Timestamp::from_micros(row.at),
            events: decode_events(form, text, &mut self.names)?,
        })
    }

    /// The journal, or what is wrong with it and what is before that.
    pub(super) fn finish(mut self) -> Result<Journal, LoadError> {
        if self.whole && self.records.is_empty() && self.damage.is_none() {
            // The list has the run, and a run is never without its first record.
            self.damage = Some(Damage::Missing);
        }
        let journal = Journal {
            run: self.run,
            steps: self.names.into_table(),
            records: self.records,
        };
        match self.damage {
            None => Ok(journal),
            Some(what) => Err(LoadError::Unreadable {
                run: journal.run.clone(),
                seq: self.next,
                what,
                before: Box::new(journal),
            }),
        }
    }
}

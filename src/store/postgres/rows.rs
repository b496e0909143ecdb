//! What one batch of appends is written by: one call of a function, which the migrations make.
//!
//! The server keeps the plans of a function's statements for as long as a session lasts, whoever's it is. A statement
//! that said the same by itself would be planned for each batch, which takes as long as fifty rows.

use tokio_postgres::types::Type;

use crate::journal::Standing;
use crate::store::TroubleChange;
use crate::store::record::NewRecord;

use super::connect::Param;

/// A record on its way, with the checksum that this store keeps.
pub(super) type Record = NewRecord<[u8; 8]>;

/// Where a run stood when an append to it was last acknowledged here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The number of the run.
    pub(super) number: i64,
    pub(super) seq: i64,
    pub(super) append_id: [u8; 16],
}

/// The records of one batch as columns, as they are sent. No two are of one run.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    /// Whether each place is looked at. Otherwise one that is taken is an error: see [`is_collision`].
    careful: bool,
    seqs: Vec<i64>,
    forms: Vec<i32>,
    append_ids: Vec<&'a [u8]>,
    ats: Vec<i64>,
    events: Vec<&'a str>,
    checksums: Vec<&'a [u8]>,
    begun: Vec<&'a str>,
    sagas: Vec<&'a str>,
    versions: Vec<i64>,
    /// Runs that go on and aren't known.
    ids: Vec<&'a str>,
    numbers: Vec<i64>,
    priors: Vec<&'a [u8]>,
    /// From here on places of records and of owners are counted from 1.
    owners: Vec<&'a str>,
    opens: Vec<i32>,
    open_kinds: Vec<Option<i32>>,
    open_owners: Vec<Option<i32>>,
    open_standings: Vec<&'static str>,
    open_wakes: Vec<Option<i64>>,
    stands: Vec<i32>,
    stand_kinds: Vec<Option<i32>>,
    stand_owners: Vec<Option<i32>>,
    standings: Vec<Option<&'static str>>,
    wakes: Vec<Option<i64>>,
    ends: Vec<i32>,
    end_standings: Vec<&'static str>,
    migrates: Vec<i32>,
    migrate_to: Vec<i64>,
    troubles: Vec<i32>,
    trouble_steps: Vec<Option<&'a str>>,
    trouble_modes: Vec<Option<&'a str>>,
    labels: Vec<i32>,
    label_keys: Vec<&'a str>,
    label_values: Vec<&'a str>,
}

/// The order in which the records of a batch are sent: that in which the function wants them, and within it that of
/// runs, so that two batches that want the same places don't wait for each other in a circle. Runs that begin stay in
/// the order in which they came, which is that of their numbers and of lists.
pub(super) fn order<'a>(record: &'a Record, known: Option<&Known>) -> (u8, i64, &'a str) {
    match (&record.begins, known) {
        (Some(_), _) => (0, 0, ""),
        (None, None) => (1, 0, record.run.as_str()),
        (None, Some(known)) => (2, known.number, ""),
    }
}

impl<'a> Columns<'a> {
    pub(super) fn new(careful: bool) -> Self {
        Columns {
            careful,
            ..Columns::default()
        }
    }

    /// Adds a record, in the [`order`] of records; `kind` is that of its saga and version where it begins a run or
    /// migrates it.
    pub(super) fn push(&mut self, record: &'a Record, kind: Option<i32>, known: Option<&'a Known>) {
        self.seqs.push(record.seq);
        self.forms.push(record.form.cast_signed());
        self.append_ids.push(&record.append_id);
        self.ats.push(record.at);
        self.events.push(&record.events);
        self.checksums.push(&record.checksum);
        let place = place(self.seqs.len());
        match (&record.begins, known) {
            (Some(begins), _) => {
                self.begun.push(record.run.as_str());
                self.sagas.push(&begins.saga);
                self.versions.push(begins.version.into());
                for (key, value) in &begins.labels {
                    self.labels.push(place);
                    self.label_keys.push(key);
                    self.label_values.push(value);
                }
            }
            (None, None) => self.ids.push(record.run.as_str()),
            (None, Some(known)) => {
                self.numbers.push(known.number);
                self.priors.push(&known.append_id);
            }
        }

        let owner = record.owner.as_deref().map(|owner| self.owner(owner));
        let wake = match record.standing {
            Standing::Waiting { until } => Some(until.as_micros()),
            _ => None,
        };
        let word = record.standing.as_str();
        if record.standing.is_end() {
            self.ends.push(place);
            self.end_standings.push(word);
        } else if record.begins.is_some() {
            self.opens.push(place);
            self.open_kinds.push(kind);
            self.open_owners.push(owner);
            self.open_standings.push(word);
            self.open_wakes.push(wake);
        } else if record.standing_changed || kind.is_some() || owner.is_some() {
            self.stands.push(place);
            self.stand_kinds.push(kind);
            self.stand_owners.push(owner);
            self.standings.push(record.standing_changed.then_some(word));
            self.wakes.push(wake);
        }
        if let (None, Some((_, version))) = (&record.begins, &record.migrated) {
            self.migrates.push(place);
            self.migrate_to.push(i64::from(*version));
        }
        let trouble = match &record.trouble {
            TroubleChange::Same => return,
            TroubleChange::Now(trouble) => (Some(&*trouble.step), Some(&*trouble.mode)),
            TroubleChange::Gone => (None, None),
        };
        self.troubles.push(place);
        self.trouble_steps.push(trouble.0);
        self.trouble_modes.push(trouble.1);
    }

    /// The place of a worker in the list of owners, which is nearly always the one that is there.
    fn owner(&mut self, id: &'a str) -> i32 {
        let found = self.owners.iter().position(|owner| *owner == id);
        place(found.map_or_else(
            || {
                self.owners.push(id);
                self.owners.len()
            },
            |at| at + 1,
        ))
    }

    pub(super) fn params(&self) -> [Param<'_>; 34] {
        [
            (&self.careful, Type::BOOL),
            (&self.seqs, Type::INT8_ARRAY),
            (&self.forms, Type::INT4_ARRAY),
            (&self.append_ids, Type::BYTEA_ARRAY),
            (&self.ats, Type::INT8_ARRAY),
            (&self.events, Type::TEXT_ARRAY),
            (&self.checksums, Type::BYTEA_ARRAY),
            (&self.begun, Type::TEXT_ARRAY),
            (&self.sagas, Type::TEXT_ARRAY),
            (&self.versions, Type::INT8_ARRAY),
            (&self.ids, Type::TEXT_ARRAY),
            (&self.numbers, Type::INT8_ARRAY),
            (&self.priors, Type::BYTEA_ARRAY),
            (&self.owners, Type::TEXT_ARRAY),
            (&self.opens, Type::INT4_ARRAY),
            (&self.open_kinds, Type::INT4_ARRAY),
            (&self.open_owners, Type::INT4_ARRAY),
            (&self.open_standings, Type::TEXT_ARRAY),
            (&self.open_wakes, Type::INT8_ARRAY),
            (&self.stands, Type::INT4_ARRAY),
            (&self.stand_kinds, Type::INT4_ARRAY),
            (&self.stand_owners, Type::INT4_ARRAY),
            (&self.standings, Type::TEXT_ARRAY),
            (&self.wakes, Type::INT8_ARRAY),
            (&self.ends, Type::INT4_ARRAY),
            (&self.end_standings, Type::TEXT_ARRAY),
            (&self.migrates, Type::INT4_ARRAY),
            (&self.migrate_to, Type::INT8_ARRAY),
            (&self.troubles, Type::INT4_ARRAY),
            (&self.trouble_steps, Type::TEXT_ARRAY),
            (&self.trouble_modes, Type::TEXT_ARRAY),
            (&self.labels, Type::INT4_ARRAY),
            (&self.label_keys, Type::TEXT_ARRAY),
            (&self.label_values, Type::TEXT_ARRAY),
        ]
    }
}

/// Batches have 100,000 records at most.
fn place(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Writes a batch. For each record, in their order, it gives the number of its run, or nothing where it was not written;
/// and whether the commit promises too little, because the server doesn't wait for its disk.
pub(super) const APPEND: &str = "SELECT written, careless FROM {schema}.append(\
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, \
    $26, $27, $28, $29, $30, $31, $32, $33, $34)";

/// Whether this is what becomes of a batch that was not careful, and has met others at its places: nothing of it was
/// written.
pub(super) fn is_collision(state: &str) -> bool {
    matches!(state, "23505" | "AM001")
}

/// What became of records that were not written: those whose places other appends have are left, and those that
/// were written before, by the same appends, are given, each with whether their commit promises too little.
///
/// The answer to these comes from a commit that writes something itself (rule W2): the row may be there because its own
/// commit was cut short while it waited for the synchronous standby, and then only a later commit that was
/// waited for says that it is safe.
pub(super) const CONFIRM: &str = "
WITH input AS (
    SELECT * FROM unnest($1, $2, $3) AS t (id, seq, append_id)
), found AS MATERIALIZED (
    SELECT i.append_id FROM input i JOIN {schema}.runs r ON r.id = i.id
    JOIN {schema}.journal j ON j.run = r.number AND j.seq = i.seq
    WHERE j.append_id = i.append_id
), confirmed AS (
    UPDATE {schema}.confirmations SET times = times + 1
    WHERE slot = $4 AND EXISTS (SELECT 1 FROM found) RETURNING slot
)
SELECT append_id, current_setting('synchronous_commit') = 'off' OR NOT EXISTS (SELECT 1 FROM confirmed) FROM found";

/// How many rows there are for [`CONFIRM`].
pub(super) const SLOTS: i32 = 16;

/// The number of a saga and version, made where there is none. It gives nothing where another transaction makes it at
/// the same moment.
pub(super) const KIND: &str = "
WITH made AS (
    INSERT INTO {schema}.kinds (saga, version)
    SELECT $1, $2 WHERE NOT EXISTS (SELECT 1 FROM {schema}.kinds WHERE saga = $1 AND version = $2)
    ON CONFLICT DO NOTHING RETURNING number
)
SELECT number FROM {schema}.kinds WHERE saga = $1 AND version = $2 UNION ALL SELECT number FROM made";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{AppendId, Event, Record as Appended, Timestamp};
    use crate::step::StepTable;
    use crate::store::Append;

    fn going_on(standing: Standing, changed: bool) -> Record {
        let record = Appended {
            seq: 2,
            append_id: AppendId::random(),
            at: Timestamp::from_micros(1),
            events: vec![Event::CancelTooLate],
        };
        let mut append = Append::new("run".into(), record, StepTable::new(Vec::new()), standing);
        append.standing_changed = changed;
        NewRecord::encode(append, super::super::checksum::of_record).unwrap()
    }

    #[test]
    fn a_batch_that_only_goes_on_touches_the_journal_alone() {
        let record = going_on(Standing::Running, false);
        let known = Known {
            number: 7,
            seq: 1,
            append_id: [1; 16],
        };
        let mut columns = Columns::new(false);
        columns.push(&record, None, Some(&known));
        assert_eq!((&*columns.numbers, columns.priors.len()), (&[7][..], 1));
        let elsewhere = [&columns.opens, &columns.stands, &columns.ends];
        assert!(elsewhere.iter().all(|places| places.is_empty()));
        let elsewhere = [&columns.migrates, &columns.troubles, &columns.labels];
        assert!(elsewhere.iter().all(|places| places.is_empty()));
        assert!(columns.begun.is_empty() && columns.ids.is_empty());
    }

    #[test]
    fn a_change_of_standing_is_written_with_it() {
        let [waits, ended] = [(Standing::Parked, true), (Standing::Completed, true)]
            .map(|(standing, changed)| going_on(standing, changed));
        let mut columns = Columns::new(false);
        columns.push(&waits, None, None);
        columns.push(&ended, None, None);
        assert_eq!(
            (&*columns.stands, &*columns.standings),
            (&[1][..], &[Some("parked")][..])
        );
        assert_eq!(
            (&*columns.ends, &*columns.end_standings),
            (&[2][..], &["completed"][..])
        );
    }

    #[test]
    fn the_function_takes_as_many_values_as_it_is_given() {
        let given = Columns::new(true).params().len();
        assert!(APPEND.ends_with(&format!(" ${given})")), "{APPEND}");
    }
}

//! What one batch of appends writes, in one statement.
//!
//! The statement is put together of the parts that its records need: the server plans it each time, and
//! most batches only go on with runs whose place in the lists stays as it is. Every part depends on what was in fact
//! written to the journal, so that a record whose place is taken changes nothing anywhere.

use tokio_postgres::types::Type;

use crate::journal::Standing;
use crate::store::TroubleChange;
use crate::store::record::NewRecord;

use super::connect::Param;

/// A record on its way, with the checksum that this store keeps.
pub(super) type Record = NewRecord<[u8; 8]>;

/// The records of one batch as columns, as they are sent. No two are of one run.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    ids: Vec<&'a str>,
    seqs: Vec<i64>,
    forms: Vec<i32>,
    append_ids: Vec<&'a [u8]>,
    ats: Vec<i64>,
    events: Vec<&'a str>,
    checksums: Vec<&'a [u8]>,
    /// How the run stands from now on, where that changes and is no end.
    standings: Vec<Option<&'static str>>,
    wakes: Vec<Option<i64>>,
    /// How it ends, where it does.
    ends: Vec<Option<&'static str>>,
    kinds: Vec<Option<i32>>,
    owners: Vec<Option<&'a str>>,
    sagas: Vec<Option<&'a str>>,
    versions: Vec<Option<i64>>,
    /// Whether it has a trouble from now on; nothing where that stays as it is.
    troubled: Vec<Option<bool>>,
    trouble_steps: Vec<Option<&'a str>>,
    trouble_modes: Vec<Option<&'a str>>,
    /// Labels, by the place of their record in the batch, from 1.
    label_of: Vec<i64>,
    label_keys: Vec<&'a str>,
    label_values: Vec<&'a str>,
    parts: Parts,
}

/// Which parts the statement has.
#[derive(Debug, Default)]
struct Parts {
    begins: bool,
    goes_on: bool,
    opens: bool,
    stands: bool,
    ends: bool,
    migrates: bool,
    troubled: bool,
    untroubled: bool,
}

impl<'a> Columns<'a> {
    /// Adds a record; `kind` is that of its saga and version where it begins a run or migrates it.
    pub(super) fn push(&mut self, record: &'a Record, kind: Option<i32>) {
        let begins = record.begins.as_ref();
        self.ids.push(record.run.as_str());
        self.seqs.push(record.seq);
        self.forms.push(record.form.cast_signed());
        self.append_ids.push(&record.append_id);
        self.ats.push(record.at);
        self.events.push(&record.events);
        self.checksums.push(&record.checksum);
        self.sagas.push(begins.map(|begins| &*begins.saga));
        let migrated = record.migrated.as_ref().map(|(_, version)| *version);
        let version = begins.map(|begins| begins.version).or(migrated);
        self.versions.push(version.map(i64::from));
        self.kinds.push(kind);
        self.owners.push(record.owner.as_deref());
        if let Some(begins) = begins {
            for (key, value) in &begins.labels {
                self.label_of.push(self.ids.len().cast_signed() as i64);
                self.label_keys.push(key);
                self.label_values.push(value);
            }
        }

        let ends = record.standing.is_end();
        let stands = !ends && (record.standing_changed || begins.is_some());
        let word = record.standing.as_str();
        self.standings.push(stands.then_some(word));
        self.wakes.push(match record.standing {
            Standing::Waiting { until } => Some(until.as_micros()),
            _ => None,
        });
        self.ends.push(ends.then_some(word));
        let trouble = match &record.trouble {
            TroubleChange::Same => (None, None, None),
            TroubleChange::Now(trouble) => {
                self.parts.troubled = true;
                (Some(true), Some(&*trouble.step), Some(&*trouble.mode))
            }
            TroubleChange::Gone => {
                self.parts.untroubled = true;
                (Some(false), None, None)
            }
        };
        self.troubled.push(trouble.0);
        self.trouble_steps.push(trouble.1);
        self.trouble_modes.push(trouble.2);

        let parts = &mut self.parts;
        parts.ends |= ends;
        if begins.is_some() {
            parts.begins = true;
            parts.opens |= !ends;
        } else {
            parts.goes_on = true;
            parts.migrates |= migrated.is_some();
            parts.stands |= !ends && (stands || kind.is_some() || record.owner.is_some());
        }
    }

    pub(super) fn params(&self) -> [Param<'_>; 20] {
        [
            (&self.ids, Type::TEXT_ARRAY),
            (&self.seqs, Type::INT8_ARRAY),
            (&self.forms, Type::INT4_ARRAY),
            (&self.append_ids, Type::BYTEA_ARRAY),
            (&self.ats, Type::INT8_ARRAY),
            (&self.events, Type::TEXT_ARRAY),
            (&self.checksums, Type::BYTEA_ARRAY),
            (&self.standings, Type::TEXT_ARRAY),
            (&self.wakes, Type::INT8_ARRAY),
            (&self.ends, Type::TEXT_ARRAY),
            (&self.kinds, Type::INT4_ARRAY),
            (&self.owners, Type::TEXT_ARRAY),
            (&self.sagas, Type::TEXT_ARRAY),
            (&self.versions, Type::INT8_ARRAY),
            (&self.troubled, Type::BOOL_ARRAY),
            (&self.trouble_steps, Type::TEXT_ARRAY),
            (&self.trouble_modes, Type::TEXT_ARRAY),
            (&self.label_of, Type::INT8_ARRAY),
            (&self.label_keys, Type::TEXT_ARRAY),
            (&self.label_values, Type::TEXT_ARRAY),
        ]
    }

    /// The statement. It gives the append ids of the records that it wrote, and with each whether its commit
    /// promises too little, because the server doesn't wait for its disk.
    pub(super) fn sql(&self) -> String {
        let Parts {
            begins,
            goes_on,
            opens,
            stands,
            ends,
            migrates,
            troubled,
            untroubled,
        } = self.parts;
        let parts = [
            (opens, OPENS),
            (stands, STANDS),
            (ends, ENDS),
            (migrates, MIGRATES),
            (troubled, TROUBLED),
            (untroubled, UNTROUBLED),
            (!self.label_of.is_empty(), LABELS),
        ];
        if !begins && parts.iter().all(|(needed, _)| !needed) {
            return GOES_ON.to_owned();
        }
        let mut sql = INPUT.to_owned();
        // A run's number is found by its id, and its record needs the one before it.
        if begins {
            sql += BEGUN;
        }
        sql += "place AS (";
        sql += match (begins, goes_on) {
            (true, true) => PLACES_BOTH,
            (true, false) => PLACES_BEGUN,
            (false, _) => PLACES_KNOWN,
        };
        sql += WRITTEN;
        for (_, part) in parts.iter().filter(|(needed, _)| *needed) {
            sql += part;
        }
        sql + " SELECT append_id, current_setting('synchronous_commit') = 'off' FROM done"
    }
}

/// Where nothing but the journal changes: about half as much for the server to parse and to plan.
const GOES_ON: &str = "
INSERT INTO {schema}.journal AS written (run, seq, form, append_id, at, events, checksum)
SELECT r.number, i.seq, i.form, i.append_id, i.at, i.events, i.checksum
FROM unnest($1, $2, $3, $4, $5, $6, $7) AS i (id, seq, form, append_id, at, events, checksum)
JOIN {schema}.runs r ON r.id = i.id
JOIN {schema}.journal p ON p.run = r.number AND p.seq = i.seq - 1
WHERE i.seq > 1 ORDER BY r.number
ON CONFLICT (run, seq) DO NOTHING RETURNING append_id, current_setting('synchronous_commit') = 'off'";

const INPUT: &str = "
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) WITH ORDINALITY
        AS t (id, seq, form, append_id, at, events, checksum, standing, wake_at, ends, kind, owner, saga, version,
              troubled, trouble_step, trouble_mode, ord)
), ";

const BEGUN: &str = "begun AS (
    INSERT INTO {schema}.runs (id, saga, version, started_at)
    SELECT id, saga, version, at FROM input WHERE seq = 1 ORDER BY ord
    ON CONFLICT (id) DO NOTHING RETURNING number, id
), ";

macro_rules! places {
    (begun) => {
        "SELECT b.number, i.ord FROM begun b JOIN input i ON i.id = b.id"
    };
    (known) => {
        "SELECT r.number, i.ord FROM input i JOIN {schema}.runs r ON r.id = i.id
    JOIN {schema}.journal p ON p.run = r.number AND p.seq = i.seq - 1 WHERE i.seq > 1"
    };
}

const PLACES_BEGUN: &str = places!(begun);
const PLACES_KNOWN: &str = places!(known);
const PLACES_BOTH: &str = concat!(places!(begun), " UNION ALL ", places!(known));

/// In the order of runs, so that two batches that want the same places don't wait for each other in a circle.
const WRITTEN: &str = "), written AS (
    INSERT INTO {schema}.journal AS written (run, seq, form, append_id, at, events, checksum)
    SELECT p.number, i.seq, i.form, i.append_id, i.at, i.events, i.checksum
    FROM place p JOIN input i ON i.ord = p.ord ORDER BY p.number
    ON CONFLICT (run, seq) DO NOTHING RETURNING run
), done AS MATERIALIZED (
    SELECT p.number, i.ord, i.seq, i.append_id, i.at, i.standing, i.wake_at, i.ends, i.kind, i.owner, i.version,
           i.troubled, i.trouble_step, i.trouble_mode
    FROM written w JOIN place p ON p.number = w.run JOIN input i ON i.ord = p.ord
)";

const OPENS: &str = ", opens AS (
    INSERT INTO {schema}.open_runs (run, kind, owner, standing, wake_at)
    SELECT d.number, d.kind, coalesce(w.number, 0), d.standing, d.wake_at
    FROM done d LEFT JOIN {schema}.workers w ON w.id = d.owner
    WHERE d.seq = 1 AND d.standing IS NOT NULL
)";

const STANDS: &str = ", stands AS (
    UPDATE {schema}.open_runs o SET
        standing = coalesce(d.standing, o.standing),
        wake_at = CASE WHEN d.standing IS NULL THEN o.wake_at ELSE d.wake_at END,
        owner = CASE WHEN d.owner IS NULL THEN o.owner ELSE coalesce(w.number, 0) END,
        kind = coalesce(d.kind, o.kind)
    FROM done d LEFT JOIN {schema}.workers w ON w.id = d.owner
    WHERE o.run = d.number AND d.seq > 1 AND d.ends IS NULL
      AND (d.standing IS NOT NULL OR d.owner IS NOT NULL OR d.kind IS NOT NULL)
)";

const ENDS: &str = ", closes AS (
    DELETE FROM {schema}.open_runs o USING done d WHERE o.run = d.number AND d.ends IS NOT NULL
), ends AS (
    INSERT INTO {schema}.ended_runs (run, standing, ended_at)
    SELECT number, ends, at FROM done WHERE ends IS NOT NULL
    ON CONFLICT (run) DO UPDATE SET standing = excluded.standing, ended_at = excluded.ended_at
)";

const MIGRATES: &str = ", migrates AS (
    UPDATE {schema}.runs r SET version = d.version FROM done d
    WHERE r.number = d.number AND d.seq > 1 AND d.version IS NOT NULL
)";

const TROUBLED: &str = ", troubled AS (
    INSERT INTO {schema}.troubles (run, step, mode)
    SELECT number, trouble_step, trouble_mode FROM done WHERE troubled
    ON CONFLICT (run) DO UPDATE SET step = excluded.step, mode = excluded.mode
)";

const UNTROUBLED: &str = ", untroubled AS (
    DELETE FROM {schema}.troubles t USING done d WHERE t.run = d.number AND NOT d.troubled
)";

const LABELS: &str = ", labelled AS (
    INSERT INTO {schema}.labels (run, key, value)
    SELECT d.number, l.key, l.value
    FROM unnest($18, $19, $20) AS l (ord, key, value) JOIN done d ON d.ord = l.ord
)";

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
        let mut columns = Columns::default();
        columns.push(&record, None);
        let sql = columns.sql();
        let written = ["INSERT", "UPDATE", "DELETE"].map(|verb| sql.matches(verb).count());
        // `ON CONFLICT DO NOTHING` updates nothing.
        assert_eq!(written, [1, 0, 0], "{sql}");
        assert!(!sql.contains("workers") && !sql.contains("WITH"), "{sql}");
    }

    #[test]
    fn a_change_of_standing_is_written_with_it() {
        let [waits, ended] = [(Standing::Parked, true), (Standing::Completed, true)]
            .map(|(standing, changed)| going_on(standing, changed));
        let mut columns = Columns::default();
        columns.push(&waits, None);
        columns.push(&ended, None);
        assert_eq!(columns.standings, [Some("parked"), None]);
        assert_eq!(columns.ends, [None, Some("completed")]);
        let sql = columns.sql();
        assert!(
            sql.contains("stands AS") && sql.contains("closes AS"),
            "{sql}"
        );
    }
}

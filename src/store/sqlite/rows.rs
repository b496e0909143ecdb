//! What one append writes: its row in the journal, and the run's place in the lists.
//!
//! The statements are prepared once; compiling them for each append would halve the rate.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Statement, params};

use crate::ids::RunId;
use crate::journal::Standing;
use crate::store::record::NewRecord;
use crate::store::{Trouble, TroubleChange};

use super::definitions;
use super::queue::{NewCommand, Write};

/// What became of one write, as far as the tables go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Rows were written.
    Written,
    /// They were there already, written by the same append.
    Known,
    /// The place is another append's.
    Conflict,
}

/// A run's number, and the place of its last record.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: i64,
    last: i64,
}

/// The prepared statements of the writer, and what it remembers about the runs it writes for.
#[derive(Debug)]
pub(super) struct Rows<'c> {
    conn: &'c Connection,
    insert_record: Statement<'c>,
    find_highest: Statement<'c>,
    insert_run: Statement<'c>,
    insert_open: Statement<'c>,
    set_open: Statement<'c>,
    delete_open: Statement<'c>,
    set_ended: Statement<'c>,
    insert_outline: Statement<'c>,
    find_number: Statement<'c>,
    find_last: Statement<'c>,
    find_append: Statement<'c>,
    insert_label: Statement<'c>,
    set_trouble: Statement<'c>,
    delete_trouble: Statement<'c>,
    insert_command: Statement<'c>,
    set_answer: Statement<'c>,
    /// Runs that are being driven, so that an append needs no look-up. A run that waits, is parked or has
    /// ended isn't here: there may be a million of them, and one look-up when they go on costs little.
    places: HashMap<RunId, Place>,
    /// The highest position that a record has or had; nothing where that has to be looked up.
    highest: Option<i64>,
}

impl<'c> Rows<'c> {
    pub(super) fn prepare(conn: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Rows {
            conn,
            insert_record: conn.prepare(
                "INSERT INTO journal (pos, run, seq, form, append_id, at, events, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )?,
            find_highest: conn.prepare("SELECT max(ifnull((SELECT max(pos) FROM journal), 0), given) FROM positions")?,
            insert_run: conn.prepare(
                "INSERT INTO runs (id, saga, version, started_at) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            )?,
            insert_open: conn.prepare("INSERT INTO open_runs (run, standing, wake_at) VALUES (?, ?, ?)")?,
            set_open: conn.prepare(
                "INSERT INTO open_runs (run, standing, wake_at) VALUES (?, ?, ?)
                 ON CONFLICT (run) DO UPDATE SET standing = excluded.standing, wake_at = excluded.wake_at",
            )?,
            delete_open: conn.prepare("DELETE FROM open_runs WHERE run = ?")?,
            // With OR REPLACE it would keep a copy of the pages it changes, to take back its one row by itself.
            set_ended: conn.prepare(
                "INSERT INTO ended_runs (run, standing, ended_at) VALUES (?, ?, ?)
                 ON CONFLICT (run) DO UPDATE SET standing = excluded.standing, ended_at = excluded.ended_at",
            )?,
            insert_outline: conn.prepare(
                "INSERT INTO definitions (saga, version, fingerprint, outline) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )?,
            find_number: conn.prepare("SELECT run FROM runs WHERE id = ?")?,
            find_last: conn.prepare("SELECT coalesce(max(seq), 0) FROM journal WHERE run = ?")?,
            find_append: conn.prepare("SELECT append_id FROM journal WHERE run = ? AND seq = ?")?,
            insert_label: conn.prepare("INSERT INTO labels (key, value, run) VALUES (?, ?, ?)")?,
            set_trouble: conn.prepare("INSERT OR REPLACE INTO troubles (run, step, mode) VALUES (?, ?, ?)")?,
            delete_trouble: conn.prepare("DELETE FROM troubles WHERE run = ?")?,
            insert_command: conn.prepare(
                "INSERT INTO commands (token, run, command) VALUES (?, ?, ?) ON CONFLICT (token) DO NOTHING",
            )?,
            set_answer: conn.prepare("UPDATE commands SET answer = ? WHERE token = ? AND answer IS NULL")?,
            places: HashMap::new(),
            highest: None,
        })
    }

    /// A transaction begins. Between two of them anybody else may have written to the journal.
    pub(super) fn begins(&mut self) {
        self.highest = None;
    }

    /// Forgets what it remembers: after a rollback it may not be true.
    pub(super) fn forget(&mut self) {
        self.places.clear();
        self.highest = None;
    }

    /// How many runs are being driven: each may have an append in flight.
    pub(super) fn driven(&self) -> usize {
        self.places.len()
    }

    /// The position of the next record. It is said, since SQLite would give that of a forgotten record again
    /// (rule W5), and looked up once in a transaction: a statement that reads the table it inserts into keeps
    /// what it reads in a table of its own, which made it take twice as long.
    fn next_position(&mut self) -> rusqlite::Result<i64> {
        let highest = match self.highest {
            Some(highest) => highest,
            None => self.find_highest.query_row([], |row| row.get(0))?,
        };
        let next = highest + 1;
        self.highest = Some(next);
        Ok(next)
    }

    pub(super) fn write(&mut self, write: &Write) -> rusqlite::Result<Verdict> {
        match write {
            Write::Record(record) if record.begins.is_some() => self.begin(record),
            Write::Record(record) => self.go_on(record),
            Write::Outline { of, json } => {
                let rows = self.insert_outline.execute(params![
                    of.saga,
                    of.version,
                    of.fingerprint,
                    json
                ])?;
                Ok(if rows == 0 {
                    Verdict::Known
                } else {
                    Verdict::Written
                })
            }
            Write::Definitions(all) => definitions::register(self.conn, all),
            Write::Command(command) => self.command(command),
            Write::Answer { token, json } => {
                let rows = self.set_answer.execute(params![json, token])?;
                Ok(if rows == 0 {
                    Verdict::Known
                } else {
                    Verdict::Written
                })
            }
            Write::Cursor { name, position } => {
                let mut advance = self.conn.prepare_cached(
                    "INSERT INTO cursors (name, position) VALUES (?, ?) ON CONFLICT (name)
                     DO UPDATE SET position = excluded.position WHERE position < excluded.position",
                )?;
                Ok(if advance.execute(params![name, position])? == 0 {
                    Verdict::Known
                } else {
                    Verdict::Written
                })
            }
            Write::Forget(runs) => {
                for run in runs {
                    self.forget_run(*run)?;
                }
                Ok(Verdict::Written)
            }
        }
    }

    /// A command that is there already counts as written; the caller compares what is there.
    fn command(&mut self, command: &NewCommand) -> rusqlite::Result<Verdict> {
        let number: Option<i64> = self
            .find_number
            .query_row([command.run.as_str()], |row| row.get(0))
            .optional()?;
        let Some(number) = number else {
            return Ok(Verdict::Conflict);
        };
        let rows = self
            .insert_command
            .execute(params![command.token, number, command.json])?;
        Ok(if rows == 0 {
            Verdict::Known
        } else {
            Verdict::Written
        })
    }

    /// Only what has ended is forgotten, whatever was believed when it was chosen; and never the newest run,
    /// since the next one would get its number.
    fn forget_run(&mut self, run: i64) -> rusqlite::Result<()> {
        let forgotten = self
            .conn
            .prepare_cached(
                "DELETE FROM ended_runs WHERE run = ?1 AND run < (SELECT max(run) FROM runs)",
            )?
            .execute([run])?;
        if forgotten == 0 {
            return Ok(());
        }
        let highest = "UPDATE positions SET given = max(given, (SELECT max(pos) FROM journal))";
        self.conn.prepare_cached(highest)?.execute([])?;
        for sql in [
            "DELETE FROM journal WHERE run = ?",
            "DELETE FROM labels WHERE run = ?",
            "DELETE FROM troubles WHERE run = ?",
            "DELETE FROM commands WHERE run = ?",
            "DELETE FROM runs WHERE run = ?",
        ] {
            self.conn.prepare_cached(sql)?.execute([run])?;
        }
        Ok(())
    }

    fn begin(&mut self, record: &NewRecord<i64>) -> rusqlite::Result<Verdict> {
        let Some(begins) = &record.begins else {
            return Ok(Verdict::Conflict);
        };
        if self.insert_run.execute(params![
            record.run.as_str(),
            begins.saga,
            begins.version,
            record.at
        ])? == 0
        {
            let number = self
                .find_number
                .query_row([record.run.as_str()], |row| row.get(0))?;
            return self.is_known(number, record);
        }
        let number = self.conn.last_insert_rowid();
        for (key, value) in &begins.labels {
            self.insert_label.execute(params![key, value, number])?;
        }
        self.insert(Place { number, last: 0 }, record)
    }

    fn go_on(&mut self, record: &NewRecord<i64>) -> rusqlite::Result<Verdict> {
        let Some(place) = self.place(&record.run)? else {
            return Ok(Verdict::Conflict);
        };
        if record.seq <= place.last {
            return self.is_known(place.number, record);
        }
        if record.seq != place.last + 1 {
            return Ok(Verdict::Conflict);
        }
        self.insert(place, record)
    }

    fn place(&mut self, run: &RunId) -> rusqlite::Result<Option<Place>> {
        if let Some(place) = self.places.get(run) {
            return Ok(Some(*place));
        }
        let number = self
            .find_number
            .query_row([run.as_str()], |row| row.get(0))
            .optional()?;
        let Some(number) = number else {
            return Ok(None);
        };
        let last = self.find_last.query_row([number], |row| row.get(0))?;
        Ok(Some(Place { number, last }))
    }

    /// Rule W2: an append that was sent again is acknowledged again, and any other is a conflict.
    fn is_known(&mut self, number: i64, record: &NewRecord<i64>) -> rusqlite::Result<Verdict> {
        let found: Option<Vec<u8>> = self
            .find_append
            .query_row([number, record.seq], |row| row.get(0))
            .optional()?;
        Ok(if found.is_some_and(|found| found == record.append_id) {
            Verdict::Known
        } else {
            Verdict::Conflict
        })
    }

    fn insert(&mut self, place: Place, record: &NewRecord<i64>) -> rusqlite::Result<Verdict> {
        let number = place.number;
        let position = self.next_position()?;
        self.insert_record.execute(params![
            position,
            number,
            record.seq,
            record.form,
            record.append_id,
            record.at,
            record.events,
            record.checksum,
        ])?;
        if let Some((_, version)) = &record.migrated {
            let mut set = self
                .conn
                .prepare_cached("UPDATE runs SET version = ? WHERE run = ?")?;
            set.execute(params![version, number])?;
        }
        match &record.trouble {
            TroubleChange::Same => {}
            TroubleChange::Now(Trouble { step, mode }) => {
                self.set_trouble.execute(params![number, step, mode])?;
            }
            TroubleChange::Gone => {
                self.delete_trouble.execute([number])?;
            }
        }
        let ends = record.standing.is_end();
        if ends {
            if record.begins.is_none() {
                self.delete_open.execute([number])?;
            }
            self.set_ended
                .execute(params![number, record.standing.as_str(), record.at])?;
        } else if record.standing_changed || record.begins.is_some() {
            let wake_at = match record.standing {
                Standing::Waiting { until } => Some(until.as_micros()),
                _ => None,
            };
            let list = if record.begins.is_some() {
                &mut self.insert_open
            } else {
                &mut self.set_open
            };
            list.execute(params![number, record.standing.as_str(), wake_at])?;
        }
        if record.standing == Standing::Running {
            let last = record.seq;
            if let Some(place) = self.places.get_mut(&record.run) {
                place.last = last;
            } else {
                let place = Place { number, last };
                self.places.insert(record.run.clone(), place);
            }
        } else {
            self.places.remove(&record.run);
        }
        Ok(Verdict::Written)
    }
}

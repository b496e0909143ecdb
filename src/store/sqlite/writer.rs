//! The one thread that writes. It commits together whatever arrived while the last commit ran: alone, an
//! append costs one sync of the disk; in company it costs a part of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Statement};

use crate::observe::BatchSize;
use crate::store::AppendError;

use super::Arrivals;
use super::harm::{self, Harm};
use super::lock::OwnerLock;
use super::options::SqliteOptions;
use super::queue::{Gathering, Job, Presence, Queue, Stopped};
use super::rows::{Rows, Verdict};
use super::wal::{self, Checkpoints};

/// What the writer counts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Transactions that were committed.
    pub(super) commits: AtomicU64,
    /// Records that were written in them.
    pub(super) appends: AtomicU64,
    batch: BatchSize,
}

/// How often the owner looks for what others have written: commands, and runs that they have started.
const LOOK: Duration = Duration::from_millis(250);

/// The longest that a batch is held back, however slow the disk is: it gathers jobs by itself while it writes.
const LONGEST_GATHERING: Duration = Duration::from_millis(1);

/// The body of the thread: writes until the queue is closed and empty, or until it can't go on.
pub(super) fn run(
    queue: Arc<Queue>,
    lock: Option<OwnerLock>,
    conn: Connection,
    options: &SqliteOptions,
    counts: &Counts,
    arrived: &Arrivals,
) {
    // Dropped last to first: the connection, the lock, and then whoever waits for the end is told.
    let presence = Presence(queue);
    let lock = lock;
    let owns = lock.is_some();
    let conn = conn;
    let prepare = || -> rusqlite::Result<_> {
        let (begin, commit) = (conn.prepare("BEGIN IMMEDIATE")?, conn.prepare("COMMIT")?);
        Ok((Rows::prepare(&conn)?, begin, commit))
    };
    let served = match prepare() {
        Ok((rows, begin, commit)) => Writer {
            conn: &conn,
            rows,
            begin,
            commit,
            options,
            counts,
            checkpoints: Checkpoints::at_bytes(options.wal_bytes),
            mailbox: owns.then(|| Mailbox::new(arrived)),
        }
        .serve(&presence.0),
        Err(error) => Err(stopped_by(error)),
    };
    let ended = served.and_then(|()| wal::passive(&conn).map_err(stopped_by));
    if let Err(why) = ended {
        presence.0.fail(&why);
        wal::leave(&conn);
        // While this connection is open, readers see what was acknowledged and no more. Without it the next
        // one would recover the log, and find there what the kernel has in memory and the disk may not have.
        presence.0.wait_closed();
    }
}

fn stopped_by(error: rusqlite::Error) -> Stopped {
    Stopped::Commit(Arc::new(error))
}

struct Writer<'c> {
    conn: &'c Connection,
    rows: Rows<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
    options: &'c SqliteOptions,
    counts: &'c Counts,
    checkpoints: Checkpoints,
    mailbox: Option<Mailbox<'c>>,
}

/// Where commands from other processes are found, and runs that they have started: the owner of the runs is told.
struct Mailbox<'c> {
    arrived: &'c Arrivals,
    seen: i64,
    /// Changes with each commit of another connection; nothing before the first look.
    version: Option<i64>,
    looked_at: Instant,
}

impl<'c> Mailbox<'c> {
    fn new(arrived: &'c Arrivals) -> Self {
        Mailbox {
            arrived,
            seen: 0,
            version: None,
            looked_at: Instant::now(),
        }
    }

    /// Looks whether there is what wasn't there at the last look, if that was some time ago.
    fn look(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if self.looked_at.elapsed() < LOOK {
            return Ok(());
        }
        self.looked_at = Instant::now();
        let newest: Option<i64> = conn
            .prepare_cached("SELECT max(pos) FROM commands WHERE answer IS NULL")?
            .query_row([], |row| row.get(0))?;
        if newest.is_some_and(|newest| newest > self.seen) {
            self.seen = newest.unwrap_or_default();
            self.arrived.commands.notify_one();
        }
        // The number is not what it was before this connection read anything, so the look above comes first.
        let version: i64 = conn
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        // What was committed before the first look may be newer than what the owner has listed.
        if self.version.replace(version) != Some(version) {
            self.arrived.runs.notify_one();
        }
        Ok(())
    }
}

/// A transaction that was not committed: how far the harm reaches, and the cause.
struct Undone(Harm, rusqlite::Error);

impl Writer<'_> {
    /// Writes what comes, and answers all that it has taken from the queue.
    fn serve(mut self, queue: &Queue) -> Result<(), Stopped> {
        let mut jobs = Vec::new();
        let mut gathering = Gathering::default();
        while queue.take(&mut jobs, gathering, LOOK) {
            if let Some(mailbox) = &mut self.mailbox {
                // A reader's trouble is no reason to stop: the next look may go well.
                let _ = mailbox.look(self.conn);
            }
            gathering = Gathering::default();
            // While there is nothing to do, others may have written.
            let mut frames = i64::MAX;
            if !jobs.is_empty() {
                let batch: Vec<Job> = jobs.drain(..self.fits(&jobs)).collect();
                let (began, written) = (Instant::now(), batch.len());
                let of_each = batch.iter().map(|job| wal::frames(job.write.bytes()));
                frames = of_each.fold(0, i64::saturating_add);
                if let Err(why) = self.settle(batch) {
                    refuse(jobs, &why);
                    return Err(why);
                }
                gathering = next_gathering(written, self.rows.driven(), began.elapsed());
            }
            // After the answers, so that nobody waits for it who needn't.
            if let Err(error) = self.checkpoints.keep_size(self.conn, frames)
                && harm::of_checkpoint(&error) == Harm::Store
            {
                return Err(stopped_by(error));
            }
        }
        Ok(())
    }

    /// How many of these make one batch: at least one.
    fn fits(&self, jobs: &[Job]) -> usize {
        let mut bytes = 0_usize;
        let most = jobs.iter().take(self.options.max_batch).take_while(|job| {
            let fits = bytes < self.options.max_batch_bytes;
            bytes = bytes.saturating_add(job.write.bytes());
            fits
        });
        most.count().max(1)
    }

    /// Writes a batch and answers it. An error stops the store; the batch is answered then too.
    fn settle(&mut self, batch: Vec<Job>) -> Result<(), Stopped> {
        match self.commit(&batch) {
            Ok(verdicts) => {
                for (job, verdict) in batch.into_iter().zip(verdicts) {
                    job.answer(match verdict {
                        Verdict::Written | Verdict::Known => Ok(()),
                        Verdict::Conflict => Err(AppendError::Conflict),
                    });
                }
                Ok(())
            }
            Err(Undone(Harm::Append, _)) if batch.len() > 1 => {
                let mut alone = batch.into_iter();
                while let Some(job) = alone.next() {
                    if let Err(why) = self.settle(vec![job]) {
                        refuse(alone, &why);
                        return Err(why);
                    }
                }
                Ok(())
            }
            Err(Undone(Harm::Append | Harm::Batch, error)) => {
                let error = Arc::new(error);
                for job in batch {
                    job.answer(Err(AppendError::NotWritten(Arc::clone(&error) as _)));
                }
                Ok(())
            }
            Err(Undone(Harm::Store, error)) => {
                let why = stopped_by(error);
                refuse(batch, &why);
                Err(why)
            }
        }
    }

    /// Writes a batch in one transaction: all of it is durable when this is good, and none of it is visible
    /// when it isn't.
    fn commit(&mut self, batch: &[Job]) -> Result<Vec<Verdict>, Undone> {
        if let Err(error) = self.begin.execute([]) {
            // Nothing of the batch was tried, so none of it is to blame.
            let harm = if harm::of_statement(&error) == Harm::Store {
                Harm::Store
            } else {
                Harm::Batch
            };
            return Err(self.roll_back(harm, error));
        }
        self.rows.begins();
        let mut verdicts = Vec::with_capacity(batch.len());
        for job in batch {
            match self.rows.write(&job.write) {
                Ok(verdict) => verdicts.push(verdict),
                Err(error) => return Err(self.roll_back(harm::of_statement(&error), error)),
            }
        }
        if let Err(error) = self.commit.execute([]) {
            return Err(self.roll_back(harm::of_commit(&error), error));
        }
        let written = verdicts
            .iter()
            .filter(|verdict| **verdict == Verdict::Written)
            .count();
        if written > 0 {
            self.counts.batch.committed(written);
            self.counts.commits.fetch_add(1, Ordering::Relaxed);
            self.counts
                .appends
                .fetch_add(written as u64, Ordering::Relaxed);
        }
        Ok(verdicts)
    }

    /// Takes back what was written since `BEGIN`. SQLite has done so already after some errors.
    fn roll_back(&mut self, harm: Harm, error: rusqlite::Error) -> Undone {
        self.rows.forget();
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            // A transaction that can't be ended would take in the next batch.
            return Undone(Harm::Store, error);
        }
        Undone(harm, error)
    }
}

/// For how many jobs, and how long, the next batch is held back, after one of so many jobs that took so long, where so many runs are driven.
///
/// A commit costs about the same for one row as for a hundred, so a writer that takes the first that comes back pays
/// for many small ones where the runs are slower than the disk. It waits for as many as last time, but for no more
/// than half of the runs that may have something to write: the other half is under way meanwhile. A run that is alone
/// is never held back, and nobody for longer than the commit that he might have met.
fn next_gathering(written: usize, driven: usize, took: Duration) -> Gathering {
    Gathering {
        jobs: written.min(driven / 2),
        at_most: took.min(LONGEST_GATHERING),
    }
}

/// Answers what was not acknowledged and never will be by this store.
fn refuse(jobs: impl IntoIterator<Item = Job>, why: &Stopped) {
    for job in jobs {
        job.answer(Err(why.clone().into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_held_back_for_as_many_as_last_time_and_at_most_half_of_the_runs() {
        let took = Duration::from_micros(200);
        let jobs = |written, driven| next_gathering(written, driven, took).jobs;
        assert_eq!(jobs(100, 256), 100);
        assert_eq!(jobs(200, 256), 128);
        // One is no reason to wait.
        assert_eq!(jobs(1, 256), 1);
        assert_eq!(jobs(3, 3), 1);
        assert_eq!(jobs(1, 0), 0);
        assert_eq!(next_gathering(9, 99, took).at_most, took);
        let slow = Duration::from_millis(90);
        assert_eq!(next_gathering(9, 99, slow).at_most, LONGEST_GATHERING);
    }
}

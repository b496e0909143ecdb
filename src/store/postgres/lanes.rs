//! Lanes: each sends one batch after the other, and commits together whatever arrived while its last one was on
//! its way. Of a run no two appends are on their way at once, so they stay in order.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::ids::RunId;
use crate::journal::Standing;
use crate::observe::BatchSize;
use crate::store::AppendError;

use super::Shared;
use super::connect::{Failed, Param};
use super::harm::{Harm, Tries};
use super::queue::{Job, Presence, Queue};
use super::rows::{self, CONFIRM, Columns, KIND, Known, Record, SLOTS};

/// What all lanes of a store count.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Statements that have committed something.
    pub(super) commits: AtomicU64,
    /// Records that were written in them.
    pub(super) appends: AtomicU64,
    batch: BatchSize,
    /// Where runs stand that lanes have written to and that go on: it spares the server a look at their ids. Any of it
    /// may be forgotten. What is out of date, as of a run that another worker has ended and pruned, is refused, and
    /// forgotten with that.
    known: Mutex<HashMap<RunId, Known>>,
}

/// The body of a lane: writes until its queue is closed and empty.
pub(super) async fn run(number: usize, queue: Arc<Queue>, shared: Arc<Shared>) {
    let presence = Presence(queue);
    let limits = shared.options.limits();
    let mut lane = Lane {
        queue: &presence.0,
        shared: &shared,
        kinds: HashMap::new(),
    };
    while let Some(batch) = lane.queue.take(number, limits).await {
        let mut settling = pin!(lane.settle(batch));
        if number == 0 && timeout(PATIENCE, &mut settling).await.is_ok() {
            continue;
        }
        if number == 0 {
            presence.0.first_is_away();
        }
        settling.await;
    }
}

struct Lane<'a> {
    queue: &'a Queue,
    shared: &'a Shared,
    /// Numbers of sagas and their versions; they are never given to others.
    kinds: HashMap<String, HashMap<u32, i32>>,
}

/// So long the others leave the first lane alone with what is not worth a commit of its own.
const PATIENCE: Duration = Duration::from_secs(1);

/// So many runs are known at most. Runs that others have taken over stay among them until all are forgotten.
const KNOWN: usize = 1 << 16;

/// An append that is ready to be sent.
struct Ready {
    job: Job,
    /// The number of the kind that its run has from now on, where that changes.
    kind: Option<i32>,
    /// Its run, where it stands as the append expects.
    known: Option<Known>,
}

impl Lane<'_> {
    /// Writes a batch, and answers all of it.
    async fn settle(&mut self, batch: Vec<Job>) {
        let mut batch = self.ready(batch).await;
        let order = |a: &Ready, b: &Ready| {
            let [a, b] = [a, b].map(|it| rows::order(&it.job.record, it.known.as_ref()));
            a.cmp(&b)
        };
        batch.sort_by(order);
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            let Err(failed) = self.commit(&mut part).await else {
                continue;
            };
            match failed.harm() {
                Harm::Append if part.len() > 1 => {
                    // None of it was written. The halves without the culprits will be.
                    let half = part.split_off(part.len() / 2);
                    parts.push(half);
                    parts.push(part);
                }
                harm => {
                    let cause = Arc::new(failed);
                    let why = if harm == Harm::Unknown {
                        AppendError::Unknown(cause)
                    } else {
                        AppendError::NotWritten(cause)
                    };
                    self.queue
                        .refuse(part.into_iter().map(|one| (one.job, why.clone())));
                }
            }
        }
    }

    /// Commits a batch, takes out of it what is settled, and answers that. What is left was not acknowledged.
    async fn commit(&mut self, part: &mut Vec<Ready>) -> Result<(), Failed> {
        if part.is_empty() {
            return Ok(());
        }
        let written = match self.write(part, false).await {
            // Nothing was written. Most batches meet nobody, and are spared a look at each place.
            Err(failed) if failed.is_collision() => self.write(part, true).await?,
            written => written?,
        };
        let mut done = Vec::with_capacity(part.len());
        for (one, number) in std::mem::take(part).into_iter().zip(written) {
            match number {
                Some(number) => done.push((one.job, number)),
                None => part.push(one),
            }
        }
        self.shared.written.batch.committed(done.len());
        self.count(done.len());
        self.note(&done, part);
        self.queue
            .release(done.iter().map(|(job, _)| &job.record.run));
        for (job, _) in done {
            job.acknowledge();
        }
        if part.is_empty() {
            return Ok(());
        }

        let ids: Vec<&str> = part.iter().map(|one| one.job.record.run.as_str()).collect();
        let seqs: Vec<i64> = part.iter().map(|one| one.job.record.seq).collect();
        let append_ids: Vec<&[u8]> = part
            .iter()
            .map(|one| &one.job.record.append_id[..])
            .collect();
        let slot = fastrand::i32(0..SLOTS);
        let params: [Param<'_>; 4] = [
            (&ids, Type::TEXT_ARRAY),
            (&seqs, Type::INT8_ARRAY),
            (&append_ids, Type::BYTEA_ARRAY),
            (&slot, Type::INT4),
        ];
        let confirmed = self.send(&self.shared.sql(CONFIRM), &params).await?;
        self.acknowledge(part, &confirmed)?;
        self.queue
            .refuse(part.drain(..).map(|one| (one.job, AppendError::Conflict)));
        Ok(())
    }

    /// Writes what it can of a batch, and says for each append to which run, where it was written.
    async fn write(&self, part: &[Ready], careful: bool) -> Result<Vec<Option<i64>>, Failed> {
        let rows = {
            let mut columns = Columns::new(careful);
            for one in part {
                columns.push(&one.job.record, one.kind, one.known.as_ref());
            }
            self.send(&self.shared.append, &columns.params()).await?
        };
        let answer = rows.first();
        self.refuse_careless(answer.is_some_and(|row| row.get(1)))?;
        let mut written = answer.map_or_else(Vec::new, |row| row.get(0));
        // Whatever it says nothing of is asked for.
        written.resize(part.len(), None);
        Ok(written)
    }

    /// Sends a statement, again where others were in its way.
    async fn send(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failed> {
        let mut tries = Tries::default();
        loop {
            let failed = match self.shared.connections.write(sql, params).await {
                Ok(rows) => return Ok(rows),
                Err(failed) => failed,
            };
            match (failed.harm() == Harm::Again)
                .then(|| tries.next())
                .flatten()
            {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(failed),
            }
        }
    }

    /// Takes out of a batch what these rows name by its append id, and answers it.
    fn acknowledge(&self, part: &mut Vec<Ready>, rows: &[Row]) -> Result<(), Failed> {
        self.refuse_careless(rows.iter().any(|row| row.get::<_, bool>(1)))?;
        let named: HashSet<&[u8]> = rows.iter().map(|row| row.get(0)).collect();
        let is_named = |one: &Ready| named.contains(&one.job.record.append_id[..]);
        let (found, left): (Vec<Ready>, Vec<Ready>) =
            std::mem::take(part).into_iter().partition(is_named);
        *part = left;
        self.queue
            .release(found.iter().map(|one| &one.job.record.run));
        for one in found {
            one.job.acknowledge();
        }
        Ok(())
    }

    fn refuse_careless(&self, careless: bool) -> Result<(), Failed> {
        if careless {
            // New connections have what is set by then.
            self.shared.connections.renew_lanes();
            return Err(Failed::Careless);
        }
        Ok(())
    }

    /// Remembers where runs stand that go on at once, and forgets those of which something was not written.
    fn note(&self, done: &[(Job, i64)], left: &[Ready]) {
        let mut known = self.known();
        for one in left {
            known.remove(&one.job.record.run);
        }
        if known.len() >= KNOWN {
            known.clear();
        }
        for (job, number) in done {
            let record = &job.record;
            if record.standing == Standing::Running {
                let stands = Known {
                    number: *number,
                    seq: record.seq,
                    append_id: record.append_id,
                };
                known.insert(record.run.clone(), stands);
            } else {
                known.remove(&record.run);
            }
        }
    }

    /// No change of it can panic half-way.
    fn known(&self) -> MutexGuard<'_, HashMap<RunId, Known>> {
        let known = &self.shared.written.known;
        known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, written: usize) {
        if written > 0 {
            let counts = &self.shared.written;
            counts.commits.fetch_add(1, Ordering::Relaxed);
            counts.appends.fetch_add(written as u64, Ordering::Relaxed);
        }
    }

    /// Finds what is known of the runs, and the numbers of kinds; appends for which there is none are answered.
    async fn ready(&mut self, batch: Vec<Job>) -> Vec<Ready> {
        let mut ready = Vec::with_capacity(batch.len());
        for job in batch {
            let kind = match kind_of(&job.record) {
                None => None,
                Some((saga, version)) => match self.kind(saga, version).await {
                    Ok(number) => Some(number),
                    // Of the append itself nothing was sent.
                    Err(failed) => {
                        let why = AppendError::NotWritten(Arc::new(failed));
                        self.queue.refuse([(job, why)]);
                        continue;
                    }
                },
            };
            ready.push(Ready {
                job,
                kind,
                known: None,
            });
        }
        let known = self.known();
        for Ready { job, known: is, .. } in &mut ready {
            let found = known.get(&job.record.run).copied();
            *is = found.filter(|known| known.seq + 1 == job.record.seq);
        }
        drop(known);
        ready
    }

    async fn kind(&mut self, saga: &str, version: u32) -> Result<i32, Failed> {
        let known = self.kinds.get(saga).and_then(|known| known.get(&version));
        if let Some(number) = known {
            return Ok(*number);
        }
        let number = i64::from(version);
        let params: [Param<'_>; 2] = [(&saga, Type::TEXT), (&number, Type::INT8)];
        loop {
            let rows = self.send(&self.shared.sql(KIND), &params).await?;
            // None where another process makes it at this moment: then the next look finds it.
            if let Some(row) = rows.first() {
                let number: i32 = row.get(0);
                let known = self.kinds.entry(saga.to_owned()).or_default();
                known.insert(version, number);
                return Ok(number);
            }
        }
    }
}

/// The saga and version that a run has from this record on, where that changes.
fn kind_of(record: &Record) -> Option<(&str, u32)> {
    let begins = record.begins.as_ref();
    let begins = begins.map(|begins| (&*begins.saga, begins.version));
    let migrated = record.migrated.as_ref();
    begins.or(migrated.map(|(saga, version)| (&**saga, *version)))
}

//! Lanes: each sends one batch after the other, and commits together whatever arrived while its last one was on
//! its way. A run has one lane, so its appends stay in order.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::observe::BatchSize;
use crate::store::AppendError;

use super::Shared;
use super::connect::{Failed, Param};
use super::harm::{Harm, Tries};
use super::queue::{Job, Limits, Presence, Queue};
use super::rows::{CONFIRM, Columns, KIND, Record, SLOTS};

/// What all lanes of a store count and remember.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Statements that have committed something.
    pub(super) commits: AtomicU64,
    /// Records that were written in them.
    pub(super) appends: AtomicU64,
    batch: BatchSize,
    /// Numbers of sagas and their versions; they are never given to others.
    kinds: Mutex<HashMap<(String, u32), i32>>,
}

/// The body of a lane: writes until its queue is closed and empty.
pub(super) async fn run(queue: Arc<Queue>, shared: Arc<Shared>) {
    let presence = Presence(queue);
    let limits = Limits {
        appends: shared.options.max_batch,
        bytes: shared.options.max_batch_bytes,
    };
    let lane = Lane {
        queue: &presence.0,
        shared: &shared,
    };
    while let Some(batch) = lane.queue.take(limits).await {
        lane.settle(batch).await;
    }
}

struct Lane<'a> {
    queue: &'a Queue,
    shared: &'a Shared,
}

/// An append with the number of the kind that its run has from now on, where that changes.
type Kinded = (Job, Option<i32>);

impl Lane<'_> {
    /// Writes a batch, and answers all of it.
    async fn settle(&self, batch: Vec<Job>) {
        let mut parts = vec![self.with_kinds(batch).await];
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
                        .refuse(part.into_iter().map(|(job, _)| (job, why.clone())));
                }
            }
        }
    }

    /// Commits a batch, takes out of it what is settled, and answers that. What is left was not acknowledged.
    async fn commit(&self, part: &mut Vec<Kinded>) -> Result<(), Failed> {
        let written = {
            let mut columns = Columns::default();
            for (job, kind) in part.iter() {
                columns.push(&job.record, *kind);
            }
            self.send(&columns.sql(), &columns.params()).await?
        };
        let count = written.len();
        self.acknowledge(part, &written)?;
        self.shared.written.batch.committed(count);
        self.count(count);
        if part.is_empty() {
            return Ok(());
        }

        let ids: Vec<&str> = part
            .iter()
            .map(|(job, _)| job.record.run.as_str())
            .collect();
        let seqs: Vec<i64> = part.iter().map(|(job, _)| job.record.seq).collect();
        let append_ids: Vec<&[u8]> = part
            .iter()
            .map(|(job, _)| &job.record.append_id[..])
            .collect();
        let slot = fastrand::i32(0..SLOTS);
        let params: [Param<'_>; 4] = [
            (&ids, Type::TEXT_ARRAY),
            (&seqs, Type::INT8_ARRAY),
            (&append_ids, Type::BYTEA_ARRAY),
            (&slot, Type::INT4),
        ];
        let confirmed = self.send(CONFIRM, &params).await?;
        self.acknowledge(part, &confirmed)?;
        self.queue
            .refuse(part.drain(..).map(|(job, _)| (job, AppendError::Conflict)));
        Ok(())
    }

    /// Sends a statement, again where others were in its way.
    async fn send(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failed> {
        let sql = self.shared.sql(sql);
        let mut tries = Tries::default();
        loop {
            let failed = match self.shared.connections.write(&sql, params).await {
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
    fn acknowledge(&self, part: &mut Vec<Kinded>, rows: &[Row]) -> Result<(), Failed> {
        if rows.iter().any(|row| row.get::<_, bool>(1)) {
            // New connections have what is set by then.
            self.shared.connections.renew_lanes();
            return Err(Failed::Careless);
        }
        let named: HashSet<&[u8]> = rows.iter().map(|row| row.get(0)).collect();
        let mut left = Vec::new();
        for one in std::mem::take(part) {
            if named.contains(&one.0.record.append_id[..]) {
                one.0.acknowledge();
            } else {
                left.push(one);
            }
        }
        *part = left;
        Ok(())
    }

    fn count(&self, written: usize) {
        if written > 0 {
            let counts = &self.shared.written;
            counts.commits.fetch_add(1, Ordering::Relaxed);
            counts.appends.fetch_add(written as u64, Ordering::Relaxed);
        }
    }

    /// Finds the numbers of kinds; appends for which there is none are answered.
    async fn with_kinds(&self, batch: Vec<Job>) -> Vec<Kinded> {
        let mut kinded = Vec::with_capacity(batch.len());
        for job in batch {
            match kind_of(&job.record) {
                None => kinded.push((job, None)),
                Some((saga, version)) => match self.kind(saga, version).await {
                    Ok(number) => kinded.push((job, Some(number))),
                    // Of the append itself nothing was sent.
                    Err(failed) => {
                        let why = AppendError::NotWritten(Arc::new(failed));
                        self.queue.refuse([(job, why)]);
                    }
                },
            }
        }
        kinded
    }

    async fn kind(&self, saga: &str, version: u32) -> Result<i32, Failed> {
        let kinds = &self.shared.written.kinds;
        let lock = || kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (saga.to_owned(), version);
        if let Some(number) = lock().get(&key) {
            return Ok(*number);
        }
        let number = i64::from(version);
        let params: [Param<'_>; 2] = [(&saga, Type::TEXT), (&number, Type::INT8)];
        loop {
            let rows = self.send(KIND, &params).await?;
            // None where another process makes it at this moment: then the next look finds it.
            if let Some(row) = rows.first() {
                let number: i32 = row.get(0);
                lock().insert(key, number);
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

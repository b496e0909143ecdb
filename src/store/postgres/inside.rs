//! The first record of a run, written inside somebody else's transaction, on their connection.
//!
//! What has to be there before, the definition and the number of its kind, is made on a connection of the store's
//! own: written inside the transaction, it would make all who start the same saga wait for its end.

use std::sync::Arc;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::journal::{Event, RunStarted};
use crate::saga::Outline;
use crate::store::assembly::Assembly;
use crate::store::record::NewRecord;
use crate::store::{Append, DefinitionKey, LoadError, PostgresStore, StoreError, key_of};

use super::connect::Param;
use super::rows::{Columns, KIND};
use super::{Shared, check, checksum, definitions, reader};

const DOING: &str = "starting a run inside a transaction";

/// Definitions that are known to be kept, with the numbers of their kinds.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<HashMap<DefinitionKey, i32>>);

impl Kept {
    async fn kind(&self, shared: &Shared, outline: &Outline) -> Result<i32, StoreError> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key_of(outline);
        if let Some(kind) = lock().get(&key) {
            return Ok(*kind);
        }
        definitions::remember(shared, outline).await?;
        let version = i64::from(outline.version);
        let params: [Param<'_>; 2] = [(&outline.saga, Type::TEXT), (&version, Type::INT8)];
        loop {
            let rows = shared.ask(DOING, KIND, &params).await?;
            // None where somebody else makes it at this moment.
            if let Some(row) = rows.first() {
                let kind = row.get(0);
                lock().insert(key, kind);
                return Ok(kind);
            }
        }
    }
}

impl PostgresStore {
    /// Writes a run's first record, and keeps its definition. Where there is a run with its id, nothing is written and
    /// that run's start is handed back.
    pub(crate) async fn begin_inside(
        &self,
        transaction: &Transaction<'_>,
        append: Append,
        outline: &Outline,
    ) -> Result<Option<Arc<RunStarted>>, LoadError> {
        let failed = |error: tokio_postgres::Error| StoreError::failed(DOING, error);
        let run = append.run.clone();
        let record = NewRecord::encode(append, checksum::of_record)
            .map_err(|error| StoreError::failed(DOING, error))?;
        check(&record, self.shared.options.max_record_bytes)
            .map_err(|what| StoreError::failed(DOING, what))?;
        let kind = self.kept.kind(&self.shared, outline).await?;
        let written = {
            // An error would spoil the transaction, which isn't ours.
            let mut columns = Columns::new(true);
            columns.push(&record, Some(kind), None);
            let sql = &self.shared.append;
            let written = transaction.query_typed_one(sql, &columns.params()).await;
            written.map_err(failed)?
        };
        let number: Vec<Option<i64>> = written.get(0);
        if number.into_iter().flatten().next().is_some() {
            if written.get(1) {
                let what = "`synchronous_commit` is off in this transaction, so a start that was reported could be lost \
                            with the server"
                    .to_owned();
                return Err(StoreError::Foreign { what }.into());
            }
            return Ok(None);
        }
        let (id, after) = (run.as_str(), 0_i64);
        let params: [Param<'_>; 2] = [(&id, Type::TEXT), (&after, Type::INT8)];
        let rows = transaction
            .query_typed(&self.shared.sql(reader::LOAD), &params)
            .await
            .map_err(failed)?;
        let mut journal = Assembly::new(&run, 0);
        for row in &rows {
            if !reader::push(&mut journal, row, 0) {
                break;
            }
        }
        if rows.is_empty() {
            let why = "the run with this id was committed after the transaction took its view of the database: roll \
                       back and try again";
            return Err(StoreError::failed(DOING, why).into());
        }
        let records = journal.finish()?.records;
        let mut events = records.into_iter().flat_map(|record| record.events);
        match events.next() {
            Some(Event::RunStarted(started)) => Ok(Some(started)),
            _ => Err(StoreError::failed(DOING, "the run with this id has no start").into()),
        }
    }
}

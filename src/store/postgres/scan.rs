//! The list of runs. Each kind of filter begins at the smallest table or index that holds all it can match;
//! which of them is best is left to the server, which knows how many there are.

use std::fmt::Write as _;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::ids::{RunId, Timestamp};
use crate::journal::Standing;
use crate::store::prefix::end_of_prefix;
use crate::store::{RunEntry, RunFilter, StoreError, Trouble};

use super::Shared;
use super::connect::Param;

const SELECT: &str = "SELECT r.number, r.id, r.saga, r.version, r.started_at, o.standing AS open, o.wake_at,
    e.standing AS ended, e.ended_at, t.step, t.mode,
    ARRAY(SELECT l.key FROM {schema}.labels l WHERE l.run = r.number ORDER BY l.key, l.value) AS label_keys,
    ARRAY(SELECT l.value FROM {schema}.labels l WHERE l.run = r.number ORDER BY l.key, l.value) AS label_values
FROM {schema}.runs r";

/// How many columns an entry has.
pub(super) const COLUMNS: usize = 13;

/// A query, and what is bound to its parameters.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) sql: String,
    values: Vec<(Value, Type)>,
}

type Value = Box<dyn ToSql + Sync + Send>;

impl Query {
    /// Adds a condition, in which `?` is this value.
    fn and(&mut self, condition: &str, value: impl ToSql + Sync + Send + 'static, ty: Type) {
        self.values.push((Box::new(value), ty));
        let number = format!("${}", self.values.len());
        let _ = write!(self.sql, " AND {}", condition.replace('?', &number));
    }

    fn and_text(&mut self, condition: &str, value: &str) {
        self.and(condition, value.to_owned(), Type::TEXT);
    }

    fn and_number(&mut self, condition: &str, value: i64) {
        self.and(condition, value, Type::INT8);
    }

    pub(super) fn params(&self) -> Vec<Param<'_>> {
        let values = self.values.iter();
        values
            .map(|(value, ty)| (&**value as &(dyn ToSql + Sync), ty.clone()))
            .collect()
    }
}

/// The next runs that match, in the order of their numbers, or in the other.
pub(super) async fn scan(
    shared: &Shared,
    filter: &RunFilter,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<RunEntry>, StoreError> {
    if has_nul(filter) {
        return Ok(Vec::new());
    }
    let query = query(filter, after, limit);
    let rows = shared
        .ask("listing runs", &query.sql, &query.params())
        .await?;
    Ok(rows.iter().map(entry).collect())
}

/// Whether a filter asks for a text that no database has, and that can't be sent.
pub(super) fn has_nul(filter: &RunFilter) -> bool {
    let texts = [&filter.saga, &filter.prefix, &filter.step, &filter.mode];
    let labels = filter.labels.iter().flat_map(|(key, value)| [key, value]);
    let mut texts = texts.into_iter().flatten().chain(labels);
    texts.any(|text| text.contains('\0'))
}

/// The entries of those of these runs that are there.
pub(super) async fn find(shared: &Shared, runs: &[RunId]) -> Result<Vec<RunEntry>, StoreError> {
    let ids: Vec<&str> = runs
        .iter()
        .map(RunId::as_str)
        .filter(|id| !id.contains('\0'))
        .collect();
    let sql = format!(
        "{SELECT} LEFT JOIN {{schema}}.open_runs o ON o.run = r.number
         LEFT JOIN {{schema}}.ended_runs e ON e.run = r.number
         LEFT JOIN {{schema}}.troubles t ON t.run = r.number WHERE r.id = ANY($1) ORDER BY r.number"
    );
    let rows = shared
        .ask("finding runs", &sql, &[(&ids, Type::TEXT_ARRAY)])
        .await?;
    Ok(rows.iter().map(entry).collect())
}

pub(super) fn query(filter: &RunFilter, after: Option<u64>, limit: usize) -> Query {
    let standing_open = filter.standing.is_some_and(|standing| !standing.is_end());
    let standing_ended = filter.standing.is_some_and(Standing::is_end);
    let inner = |only: bool| if only { "JOIN" } else { "LEFT JOIN" };
    let mut query = Query {
        sql: format!(
            "{SELECT} {} {{schema}}.open_runs o ON o.run = r.number {} {{schema}}.ended_runs e ON e.run = r.number
             {} {{schema}}.troubles t ON t.run = r.number WHERE true",
            inner(filter.open || standing_open),
            inner(standing_ended),
            inner(filter.step.is_some() || filter.mode.is_some()),
        ),
        values: Vec::new(),
    };
    let number = |after: u64| i64::try_from(after).unwrap_or(i64::MAX);
    let order = if filter.newest_first { "DESC" } else { "ASC" };
    match after {
        Some(after) if filter.newest_first => query.and_number("r.number < ?", number(after)),
        Some(after) => query.and_number("r.number > ?", number(after)),
        None => {}
    }
    for (key, value) in &filter.labels {
        query.and_text(
            "r.number IN (SELECT l.run FROM {schema}.labels l WHERE left(l.key, 250) = left(?, 250) AND l.key = ?",
            key,
        );
        query.and_text("left(l.value, 250) = left(?, 250) AND l.value = ?)", value);
    }
    if let Some(step) = &filter.step {
        query.and_text("left(t.step, 500) = left(?, 500) AND t.step = ?", step);
    }
    if let Some(mode) = &filter.mode {
        query.and_text("left(t.mode, 500) = left(?, 500) AND t.mode = ?", mode);
    }
    if let Some(saga) = &filter.saga {
        query.and_text("left(r.saga, 500) = left(?, 500) AND r.saga = ?", saga);
    }
    match filter.standing {
        None => {}
        // In so many words, so that the indices of parked runs and of those that ended otherwise serve.
        Some(Standing::Parked) => query.sql += " AND o.standing = 'parked'",
        Some(standing) if !standing.is_end() => query.and_text("o.standing = ?", standing.as_str()),
        Some(Standing::Completed) => query.sql += " AND e.standing = 'completed'",
        Some(standing) => {
            query.and_text(
                "e.standing <> 'completed' AND e.standing = ?",
                standing.as_str(),
            );
        }
    }
    if let Some(prefix) = &filter.prefix {
        query.and_text("r.id >= ?", prefix);
        if let Some(end) = end_of_prefix(prefix) {
            query.and_text("r.id < ?", &end);
        }
    }
    if let Some(from) = filter.started_from {
        query.and_number("r.started_at >= ?", from.as_micros());
    }
    if let Some(before) = filter.started_before {
        query.and_number("r.started_at < ?", before.as_micros());
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let _ = write!(query.sql, " ORDER BY r.number {order} LIMIT {limit}");
    query
}

/// The entry that a row begins with.
pub(super) fn entry(row: &Row) -> RunEntry {
    let mut entry = RunEntry::new(
        row.get::<_, i64>(0).unsigned_abs(),
        RunId::new(row.get::<_, &str>(1)),
        row.get::<_, &str>(2),
        u32::try_from(row.get::<_, i64>(3)).unwrap_or_default(),
        Timestamp::from_micros(row.get(4)),
    );
    let (open, ended): (Option<&str>, Option<&str>) = (row.get(5), row.get(7));
    let until = Timestamp::from_micros(row.get::<_, Option<i64>>(6).unwrap_or_default());
    if open.is_none() {
        entry.ended_at = row.get::<_, Option<i64>>(8).map(Timestamp::from_micros);
    }
    // The lists only say what the journal says too. A word that is damaged must not hide the run, and one
    // that is taken for running is looked at by a coordinator, which then reads the journal.
    entry.standing = open
        .or(ended)
        .and_then(|word| Standing::from_word(word, until))
        .unwrap_or(Standing::Running);
    if let (Some(step), Some(mode)) = (
        row.get::<_, Option<&str>>(9),
        row.get::<_, Option<&str>>(10),
    ) {
        entry.trouble = Some(Trouble::new(step, mode));
    }
    let (keys, values): (Vec<String>, Vec<String>) = (row.get(11), row.get(12));
    entry.labels = keys.into_iter().zip(values).collect();
    entry
}

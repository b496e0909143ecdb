//! The list of runs. Each kind of filter reads the smallest table or index that holds all it can match.

use std::fmt::Write as _;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use crate::ids::{RunId, Timestamp};
use crate::journal::Standing;
use crate::store::prefix::end_of_prefix;
use crate::store::{PruneFilter, RunEntry, RunFilter, StoreError, Trouble};

const COLUMNS: &str = "SELECT r.run, r.id, r.saga, r.version, r.started_at, o.standing, o.wake_at, e.standing, e.ended_at, \
     t.step, t.mode, \
     (SELECT json_group_array(json_array(key, value)) FROM labels WHERE run = r.run)";

/// The tables that are looked into for each run.
const OPEN: &str = "LEFT JOIN open_runs o ON o.run = r.run";
const ENDED: &str = "LEFT JOIN ended_runs e ON e.run = r.run";
const TROUBLE: &str = "LEFT JOIN troubles t ON t.run = r.run";

/// A query and what is bound to its parameters.
struct Query {
    sql: String,
    values: Vec<Value>,
}

impl Query {
    fn and(&mut self, condition: &str, value: impl Into<Value>) {
        let _ = write!(self.sql, " AND {condition} ?");
        self.values.push(value.into());
    }
}

/// The next runs that match, in the order of their numbers, or in the other.
pub(super) fn scan(
    conn: &Connection,
    filter: &RunFilter,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<RunEntry>, StoreError> {
    let read = || {
        let way = way(conn, filter, after)?;
        entries(conn, &query(filter, way, after, limit))
    };
    read().map_err(|error| StoreError::failed("listing runs", error))
}

/// How runs are looked for by their id's beginning or their start, which tell nothing about their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// One by one in the order of their numbers, from this one on at the earliest: many match, so the next
    /// ones are soon found.
    Walk(Option<i64>),
    /// By id: few begin so.
    Ids,
    /// By start: few were started then.
    Starts,
}

/// Up to so many matches are found by an index and sorted; more are met soon enough on a walk.
const FEW: i64 = 10_000;

/// Counts, up to a limit, what each way would have to look at.
fn way(conn: &Connection, filter: &RunFilter, after: Option<u64>) -> rusqlite::Result<Way> {
    let open = filter.open || filter.standing.is_some_and(|standing| !standing.is_end());
    if open || !filter.labels.is_empty() || filter.step.is_some() || filter.mode.is_some() {
        // Found by what is narrower.
        return Ok(Way::Walk(None));
    }
    if let Some(prefix) = &filter.prefix {
        let end = end_of_prefix(prefix).unwrap_or_else(|| "\u{10ffff}".repeat(128));
        let count: i64 = conn
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM runs WHERE id >= ? AND id < ? LIMIT ?)",
            )?
            .query_row((prefix, &end, FEW), |row| row.get(0))?;
        if count < FEW {
            return Ok(Way::Ids);
        }
    }
    if filter.started_from.is_none() && filter.started_before.is_none() {
        return Ok(Way::Walk(None));
    }
    let from = filter.started_from.map_or(i64::MIN, Timestamp::as_micros);
    let before = filter.started_before.map_or(i64::MAX, Timestamp::as_micros);
    let count: i64 = conn
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM runs WHERE started_at >= ? AND started_at < ? LIMIT ?)",
        )?
        .query_row((from, before, FEW), |row| row.get(0))?;
    if count < FEW {
        return Ok(Way::Starts);
    }
    if after.is_some() {
        // The page before has come to where they are.
        return Ok(Way::Walk(None));
    }
    // Numbers mostly grow with starts, but an import or a clock that was set back may have it otherwise. So
    // the first number is looked up, in an index that has no more than the two, and not guessed.
    let first = if filter.newest_first { "max" } else { "min" };
    let sql = format!("SELECT {first}(run) FROM runs WHERE started_at >= ? AND started_at < ?");
    let first = conn
        .prepare_cached(&sql)?
        .query_row((from, before), |row| row.get(0))?;
    Ok(Way::Walk(first))
}

/// The entry of one run.
pub(super) fn find(conn: &Connection, run: &RunId) -> Result<Option<RunEntry>, StoreError> {
    let query = Query {
        sql: format!("{COLUMNS} FROM runs r {OPEN} {ENDED} {TROUBLE} WHERE r.id = ?"),
        values: vec![Value::Text(run.as_str().to_owned())],
    };
    let found =
        entries(conn, &query).map_err(|error| StoreError::failed("finding a run", error))?;
    Ok(found.into_iter().next())
}

/// The next ended runs that may be forgotten, by number, and whether each matches.
pub(super) fn to_forget(
    conn: &Connection,
    filter: &PruneFilter,
    after: Option<u64>,
    limit: usize,
) -> Result<(Vec<i64>, Option<u64>), StoreError> {
    // So many entries are looked at in one go at most, however few of them match.
    const LOOKED_AT: i64 = 10_000;
    let read = || -> rusqlite::Result<_> {
        let mut select = conn.prepare_cached(
            "SELECT run, standing, ended_at FROM ended_runs
             WHERE run > ? AND run < (SELECT max(run) FROM runs) ORDER BY run LIMIT ?",
        )?;
        let mut rows = select.query((number(after), LOOKED_AT))?;
        let (mut found, mut next) = (Vec::new(), None);
        while let Some(row) = rows.next()? {
            let run: i64 = row.get(0)?;
            next = u64::try_from(run).ok();
            let word: String = row.get(1)?;
            let standing = Standing::from_word(&word, Timestamp::default());
            let so = filter.standings.is_empty()
                || standing.is_some_and(|standing| filter.standings.contains(&standing));
            let so = so && next.is_some_and(|number| filter.has_number(number));
            if so && row.get::<_, i64>(2)? < filter.ended_before.as_micros() {
                found.push(run);
                if found.len() >= limit {
                    break;
                }
            }
        }
        Ok((found, next))
    };
    read().map_err(|error| StoreError::failed("looking for runs to forget", error))
}

fn number(after: Option<u64>) -> i64 {
    after.map_or(-1, |after| i64::try_from(after).unwrap_or(i64::MAX))
}

/// The smallest table or index that holds all that a filter can match, and its column of run numbers.
fn smallest(filter: &RunFilter, way: Way) -> (String, &'static str) {
    let open = filter.open || filter.standing.is_some_and(|standing| !standing.is_end());
    let ended = !open && filter.standing.is_some();
    // CROSS JOIN keeps SQLite from choosing another order.
    if !filter.labels.is_empty() {
        let from = format!("labels l CROSS JOIN runs r ON r.run = l.run {OPEN} {ENDED} {TROUBLE}");
        (from, "l.run")
    } else if filter.step.is_some() || filter.mode.is_some() {
        let from = format!("troubles t CROSS JOIN runs r ON r.run = t.run {OPEN} {ENDED}");
        (from, "t.run")
    } else if open {
        let from = format!("open_runs o CROSS JOIN runs r ON r.run = o.run {ENDED} {TROUBLE}");
        (from, "o.run")
    } else if way == Way::Ids {
        // The plus sign keeps SQLite from walking the table by number instead of the index by id.
        (format!("runs r {OPEN} {ENDED} {TROUBLE}"), "+r.run")
    } else if way == Way::Starts {
        let from = format!("runs r INDEXED BY runs_by_start {OPEN} {ENDED} {TROUBLE}");
        (from, "+r.run")
    } else if ended {
        let from = format!("ended_runs e CROSS JOIN runs r ON r.run = e.run {OPEN} {TROUBLE}");
        (from, "e.run")
    } else {
        (format!("runs r {OPEN} {ENDED} {TROUBLE}"), "r.run")
    }
}

fn query(filter: &RunFilter, way: Way, after: Option<u64>, limit: usize) -> Query {
    let (from, cursor) = smallest(filter, way);
    let (beyond, order) = if filter.newest_first {
        ("<", " DESC")
    } else {
        (">", "")
    };
    let after = match after {
        None if filter.newest_first => i64::MAX,
        after => number(after),
    };
    let mut query = Query {
        sql: format!("{COLUMNS} FROM {from} WHERE {cursor} {beyond} ?"),
        values: vec![Value::Integer(after)],
    };
    let mut labels = filter.labels.iter();
    if let Some((key, value)) = labels.next() {
        query.and("l.key =", key.clone());
        query.and("l.value =", value.clone());
    }
    for (key, value) in labels {
        query.sql += " AND EXISTS (SELECT 1 FROM labels m WHERE m.key = ? AND m.value = ? AND m.run = r.run)";
        query.values.push(Value::Text(key.clone()));
        query.values.push(Value::Text(value.clone()));
    }
    if let Some(step) = &filter.step {
        query.and("t.step =", step.clone());
    }
    if let Some(mode) = &filter.mode {
        query.and("t.mode =", mode.clone());
    }
    if filter.open {
        query.sql += " AND o.run IS NOT NULL";
    }
    if let Some(saga) = &filter.saga {
        query.and("r.saga =", saga.clone());
    }
    match filter.standing {
        None => {}
        // In so many words, so that the indices of parked runs and of those that ended otherwise serve.
        Some(Standing::Parked) => query.sql += " AND o.standing = 'parked'",
        Some(standing) if !standing.is_end() => {
            query.and("o.standing =", standing.as_str().to_owned());
        }
        Some(Standing::Completed) => query.sql += " AND e.standing = 'completed'",
        Some(standing) => {
            query.sql += " AND e.standing <> 'completed'";
            query.and("e.standing =", standing.as_str().to_owned());
        }
    }
    // Here the plus sign keeps SQLite from an index by which it would find too many.
    let plus = |by: Way| if way == by { "" } else { "+" };
    if let Some(prefix) = &filter.prefix {
        let plus = plus(Way::Ids);
        query.and(&format!("{plus}r.id >="), prefix.clone());
        if let Some(end) = end_of_prefix(prefix) {
            query.and(&format!("{plus}r.id <"), end);
        }
    }
    let plus = plus(Way::Starts);
    if let Some(from) = filter.started_from {
        query.and(&format!("{plus}r.started_at >="), from.as_micros());
    }
    if let Some(before) = filter.started_before {
        query.and(&format!("{plus}r.started_at <"), before.as_micros());
    }
    if let Way::Walk(Some(first)) = way {
        let from_there = if filter.newest_first { "<=" } else { ">=" };
        query.and(&format!("{cursor} {from_there}"), first);
    }
    let _ = write!(query.sql, " ORDER BY {cursor}{order} LIMIT ?");
    query
        .values
        .push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    query
}

fn entries(conn: &Connection, query: &Query) -> rusqlite::Result<Vec<RunEntry>> {
    let mut select = conn.prepare_cached(&query.sql)?;
    select
        .query_map(params_from_iter(&query.values), entry)?
        .collect()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<RunEntry> {
    let number: i64 = row.get(0)?;
    let mut entry = RunEntry::new(
        number.unsigned_abs(),
        RunId::new(row.get::<_, String>(1)?),
        row.get::<_, String>(2)?,
        row.get(3)?,
        Timestamp::from_micros(row.get(4)?),
    );
    let open: Option<String> = row.get(5)?;
    let ended: Option<String> = row.get(7)?;
    let until = Timestamp::from_micros(row.get::<_, Option<i64>>(6)?.unwrap_or_default());
    if open.is_none() {
        entry.ended_at = row.get::<_, Option<i64>>(8)?.map(Timestamp::from_micros);
    }
    // The lists only say what the journal says too. A word that is damaged must not hide the run, and one
    // that is taken for running is looked at by a coordinator, which then reads the journal.
    let word = open.or(ended);
    entry.standing = word
        .and_then(|word| Standing::from_word(&word, until))
        .unwrap_or(Standing::Running);
    if let (Some(step), Some(mode)) = (
        row.get::<_, Option<String>>(9)?,
        row.get::<_, Option<String>>(10)?,
    ) {
        entry.trouble = Some(Trouble { step, mode });
    }
    let labels = row.get_ref(11)?.as_str()?;
    if labels != "[]" {
        let labels: Vec<(String, String)> = serde_json::from_str(labels).unwrap_or_default();
        entry.labels = labels.into_iter().collect();
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    fn plan(filter: &RunFilter) -> String {
        let conn = Connection::open_in_memory().unwrap();
        schema::migrate(&conn, schema::Found::Nothing).unwrap();
        let way = way(&conn, filter, None).unwrap();
        let query = query(filter, way, None, 10);
        let mut explain = conn
            .prepare(&format!("EXPLAIN QUERY PLAN {}", query.sql))
            .unwrap();
        let lines = explain
            .query_map(params_from_iter(&query.values), |row| {
                row.get::<_, String>(3)
            })
            .unwrap();
        lines.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn each_filter_reads_the_smallest_table() {
        assert!(plan(&RunFilter::all()).starts_with("SEARCH r USING INTEGER PRIMARY KEY"));
        assert!(plan(&RunFilter::open()).starts_with("SEARCH o USING INTEGER PRIMARY KEY"));
        assert!(
            plan(&RunFilter::open().prefix("x")).starts_with("SEARCH o USING INTEGER PRIMARY KEY")
        );
        let parked = plan(&RunFilter::all().standing(Standing::Parked));
        assert!(
            parked.starts_with("SEARCH o USING INDEX parked_runs"),
            "{parked}"
        );
        let by_label = plan(&RunFilter::all().label("customer", "42").newest_first());
        assert!(
            by_label.starts_with("SEARCH l USING PRIMARY KEY (key=? AND value=? AND run<?)"),
            "{by_label}"
        );
        let by_mode = plan(&RunFilter::all().mode("system_network"));
        assert!(
            by_mode.starts_with("SEARCH t USING INDEX troubles_by_mode (mode=? AND"),
            "{by_mode}"
        );
        let by_step = plan(&RunFilter::all().step("charge-card"));
        assert!(
            by_step.starts_with("SEARCH t USING INDEX troubles_by_step (step=? AND"),
            "{by_step}"
        );
        assert!(
            plan(&RunFilter::all().standing(Standing::Completed))
                .starts_with("SEARCH e USING INTEGER PRIMARY KEY")
        );
        let by_prefix = plan(&RunFilter::all().prefix("x"));
        assert!(
            by_prefix.starts_with("SEARCH r USING INDEX sqlite_autoindex_runs_1 (id>? AND id<?)"),
            "{by_prefix}"
        );
        for ordered in [
            RunFilter::all(),
            RunFilter::open(),
            RunFilter::all().label("a", "b").mode("c"),
        ] {
            for plan in [plan(&ordered), plan(&ordered.newest_first())] {
                assert!(!plan.contains("TEMP B-TREE"), "{plan}");
            }
        }
    }
}

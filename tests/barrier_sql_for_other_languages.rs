//! The SQL of `docs/barrier.md` is what the adapters send, and works without them (rule W4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(all(feature = "tokio-postgres", feature = "sqlite", feature = "mysql"))]

use std::collections::HashMap;
use std::fmt::Write;

use mysql_async::prelude::Queryable;

mod barrier;
mod snapshot;
use barrier::postgres::Line;
use barrier::run;

const PAGE: &str = "docs/barrier.md";

macro_rules! statements {
    ($folder:literal: $($file:literal $told:literal),* $(,)?) => {
        &[$((
            $told,
            include_str!(concat!("../src/barrier/sql/", $folder, "/", $file, ".sql")),
        )),*]
    };
}

/// What each statement is for, and its text.
type Statements = &'static [(&'static str, &'static str)];

const POSTGRES: Statements = statements!["postgres":
    "schema" "The tables.",
    "see" "1. The run's row, where it is missing: `$1` the run, `$2` the fence.",
    "raise" "1. A higher fence is kept: the same.",
    "hold" "1. The fence that is seen, held until the end: `$1` the run. No row: the run was forgotten just now; from the top.",
    "enter" "2. The key: `$1` the run, `$2` the key, `$3` to `$7` as above.",
    "record" "3. The record of an execute: `$1` the run, `$2` the key, `$3` the result, as JSON.",
    "record_undo" "3. The record of a compensate: the same.",
    "old" "Forgetting, in a transaction of its own: `$1` for how many seconds untouched, `$2` how many runs at most.",
    "forget_runs" "`$1` those runs, `$2` the seconds.",
    "forget_keys" "`$1` the runs that this gave. Then commit.",
];

const SQLITE: Statements = statements!["sqlite":
    "schema" "The tables.",
    "see" "1. The fence that is seen: `?1` the run, `?2` the fence. The transaction is one of `begin immediate`.",
    "enter" "2. The key: `?1` the run, `?2` the key, `?3` to `?7` as above.",
    "record" "3. The record of an execute: `?1` the run, `?2` the key, `?3` the result, as JSON.",
    "record_undo" "3. The record of a compensate: the same.",
    "old" "Forgetting, in a transaction of its own: `?1` for how many seconds untouched, `?2` how many runs at most.",
    "forget_keys" "For each of them: `?1` the run.",
    "forget_run" "The same. Then commit.",
];

const MYSQL: Statements = statements!["mysql":
    "schema" "The tables.",
    "announce" "1. The fence is known: the run, the fence.",
    "raise" "1. Only if that has inserted a row: the same.",
    "hold" "1. The fence that is seen, held until the end: the run.",
    "enter" "2. The key: the run, the key, and five values as above.",
    "entered" "2. What became of it: the run, the key.",
    "record" "3. The record of an execute: the result, as JSON, the run, the key.",
    "record_undo" "3. The record of a compensate: the same.",
    "old" "Forgetting: for how many seconds untouched, twice, and how many runs at most.",
    "forget_fences" "For each of them, in a transaction of its own at `READ COMMITTED`: the run.",
    "forget_run" "The run, the seconds, the seconds. No row changed: somebody was there meanwhile, roll back.",
    "forget_keys" "The run. Then commit.",
];

const DATABASES: [(&str, Statements); 3] = [
    ("PostgreSQL", POSTGRES),
    ("SQLite", SQLITE),
    ("MySQL and MariaDB", MYSQL),
];

#[test]
fn the_page_has_the_statements_that_the_adapters_send() {
    let mut told = String::new();
    for (database, statements) in DATABASES {
        writeln!(told, "\n### {database}").unwrap();
        for (what, sql) in statements {
            write!(told, "\n{what}\n\n```sql\n{sql}```\n").unwrap();
        }
    }
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (begin, end) = ("<!-- begin sql -->\n", "<!-- end sql -->");
    let from = page.find(begin).unwrap() + begin.len();
    let to = page.find(end).unwrap();
    snapshot::is(PAGE, &format!("{}{told}\n{}", &page[..from], &page[to..]));
    // Each file is told, so that no adapter sends what the page doesn't have.
    for (folder, (_, statements)) in ["postgres", "sqlite", "mysql"].iter().zip(DATABASES) {
        let files = std::fs::read_dir(format!("src/barrier/sql/{folder}")).unwrap();
        assert_eq!(files.count(), statements.len(), "{folder}");
    }
}

/// The statements of one database as the page has them, in order.
fn of_page(database: &str) -> Vec<String> {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let part = page.split("\n### ").find(|part| part.starts_with(database));
    let blocks = part.unwrap().split("```sql\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

/// A value of a statement.
#[derive(Clone, Debug)]
enum Value {
    Null,
    Text(String),
    Int(i64),
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// A database that knows nothing of the crate: statements, values, and rows.
enum Plain {
    Postgres(Box<Line>),
    Sqlite(rusqlite::Connection),
    MySql(mysql_async::Conn),
}

impl Plain {
    /// Gives the first row's columns as text, and how many rows there are or were changed.
    async fn send(&mut self, sql: &str, values: &[Value]) -> (Vec<Option<String>>, u64) {
        match self {
            // By the wire's text form and literals, so that no driver's types are in between.
            Plain::Postgres(line) => {
                let mut sql = sql.to_owned();
                for (place, value) in values.iter().enumerate().rev() {
                    let literal = match value {
                        Value::Null => "null".to_owned(),
                        Value::Text(text) => format!("'{text}'"),
                        Value::Int(int) => int.to_string(),
                    };
                    sql = sql.replace(&format!("${}", place + 1), &literal);
                }
                let mut first = Vec::new();
                let mut rows = 0;
                for message in line.client.simple_query(&sql).await.unwrap() {
                    match message {
                        tokio_postgres::SimpleQueryMessage::Row(row) if first.is_empty() => {
                            first = (0..row.len())
                                .map(|column| row.get(column).map(str::to_owned))
                                .collect();
                        }
                        tokio_postgres::SimpleQueryMessage::CommandComplete(count) => rows = count,
                        _ => {}
                    }
                }
                (first, rows)
            }
            Plain::Sqlite(connection) => {
                let mut statement = connection.prepare(sql).unwrap();
                let columns = statement.column_count();
                let values = values.iter().map(|value| match value {
                    Value::Null => rusqlite::types::Value::Null,
                    Value::Text(text) => text.clone().into(),
                    Value::Int(int) => (*int).into(),
                });
                let values = rusqlite::params_from_iter(values);
                if columns == 0 {
                    return (Vec::new(), statement.execute(values).unwrap() as u64);
                }
                let mut rows = statement.query(values).unwrap();
                let Some(row) = rows.next().unwrap() else {
                    return (Vec::new(), 0);
                };
                let cells = (0..columns).map(|column| match row.get(column).unwrap() {
                    rusqlite::types::Value::Null => None,
                    rusqlite::types::Value::Text(text) => Some(text),
                    rusqlite::types::Value::Integer(int) => Some(int.to_string()),
                    other => panic!("{other:?}"),
                });
                (cells.collect(), 1)
            }
            Plain::MySql(connection) => {
                let values: Vec<mysql_async::Value> = values
                    .iter()
                    .map(|value| match value {
                        Value::Null => mysql_async::Value::NULL,
                        Value::Text(text) => text.into(),
                        Value::Int(int) => (*int).into(),
                    })
                    .collect();
                let params = if values.is_empty() {
                    mysql_async::Params::Empty
                } else {
                    mysql_async::Params::Positional(values)
                };
                let row: Option<mysql_async::Row> =
                    connection.exec_first(sql, params).await.unwrap();
                let cells = row.map(|row| {
                    let cells = row.unwrap().into_iter().map(|cell| match cell {
                        mysql_async::Value::NULL => None,
                        mysql_async::Value::Bytes(bytes) => Some(String::from_utf8(bytes).unwrap()),
                        mysql_async::Value::Int(int) => Some(int.to_string()),
                        other => panic!("{other:?}"),
                    });
                    cells.collect()
                });
                (cells.unwrap_or_default(), connection.affected_rows())
            }
        }
    }

    async fn script(&mut self, sql: &str) {
        match self {
            Plain::Postgres(line) => line.client.batch_execute(sql).await.unwrap(),
            Plain::Sqlite(connection) => connection.execute_batch(sql).unwrap(),
            Plain::MySql(connection) => {
                for statement in sql.split_terminator(";\n") {
                    connection.query_drop(statement).await.unwrap();
                }
            }
        }
    }

    /// Steps 1 to 4 of the page, as a service in another language would do them.
    async fn ask(
        &mut self,
        sql: &[String],
        call: &str,
        key: &str,
        fence: i64,
        digest: &str,
    ) -> String {
        let begin = match self {
            Plain::Sqlite(_) => "begin immediate",
            _ => "begin",
        };
        self.script(begin).await;
        let answer = self.decide(sql, call, key, fence, digest).await;
        let refused = ["stale", "closed", "other-request", "unrecorded"].contains(&&*answer);
        self.script(if refused { "rollback" } else { "commit" })
            .await;
        answer
    }

    async fn decide(
        &mut self,
        sql: &[String],
        call: &str,
        key: &str,
        fence: i64,
        digest: &str,
    ) -> String {
        let run = key.split('/').next().unwrap();
        let both = [text(run), Value::Int(fence)];
        // 1.
        let (enter, seen) = match self {
            Plain::Postgres(_) => {
                self.send(&sql[1], &both).await;
                self.send(&sql[2], &both).await;
                (4, self.send(&sql[3], &both[..1]).await)
            }
            Plain::Sqlite(_) => (2, self.send(&sql[1], &both).await),
            Plain::MySql(_) => {
                if self.send(&sql[1], &both).await.1 > 0 {
                    self.send(&sql[2], &both).await;
                }
                (4, self.send(&sql[3], &both[..1]).await)
            }
        };
        let seen: i64 = seen.0[0].as_ref().unwrap().parse().unwrap();
        if seen > fence {
            return "stale".to_owned();
        }
        // 2.
        let of = |wanted: &str, value: Value| if call == wanted { value } else { Value::Null };
        let state = HashMap::from([
            ("execute", "open"),
            ("compensate", "void"),
            ("probe", "never"),
        ]);
        let values = [
            text(run),
            text(key),
            text(state[call]),
            of("execute", text(digest)),
            of("compensate", text(digest)),
            Value::Null,
            of("execute", Value::Int(1)),
        ];
        let (mut row, _) = self.send(&sql[enter], &values).await;
        let mut record = enter + 1;
        if let Plain::MySql(_) = self {
            row = self.send(&sql[record], &values[..2]).await.0;
            record += 1;
        }
        let [state, request, result, undo_request, undo_result] = &row[..] else {
            panic!("{row:?}")
        };
        // 3.
        let same = |known: &Option<String>| known.as_deref() == Some(digest);
        let stored = |result: &Option<String>| result.clone().unwrap();
        let (answer, then) = match (state.as_deref().unwrap(), call) {
            ("open", "execute") => ("fresh".to_owned(), Some(record)),
            ("done", "execute") if same(request) => {
                (format!("duplicate: {}", stored(result)), None)
            }
            ("undoing", "compensate") => (format!("undo: {}", stored(result)), Some(record + 1)),
            ("undone", "compensate") if same(undo_request) => {
                (format!("duplicate: {}", stored(undo_result)), None)
            }
            ("void", "compensate") if same(undo_request) => ("nothing".to_owned(), None),
            ("done", "probe") => (format!("done: {}", stored(result)), None),
            ("undone" | "void" | "never", "probe") => ("never".to_owned(), None),
            ("undone" | "void" | "never", "execute") => ("closed".to_owned(), None),
            ("done", "execute") | ("undone" | "void", "compensate") => {
                ("other-request".to_owned(), None)
            }
            _ => ("unrecorded".to_owned(), None),
        };
        // 4.
        if let Some(record) = then {
            let (run, key, result) = (text(run), text(key), text(&format!("\"{call}d\"")));
            let values = match self {
                Plain::MySql(_) => [result, run, key],
                _ => [run, key, result],
            };
            let (_, changed) = self.send(&sql[record], &values).await;
            assert_eq!(changed, 1);
        }
        answer
    }
}

/// The recipe on one database.
async fn recipe(mut plain: Plain, database: &str) {
    let sql = of_page(database);
    plain.script(&sql[0]).await;
    let (done, never, late) = (
        format!("{}/done/1", run()),
        format!("{}/never/1", run()),
        format!("{}/late/1", run()),
    );
    let calls = [
        ("execute", &done, 2, "digest", "fresh"),
        ("execute", &done, 2, "digest", "duplicate: \"executed\""),
        ("execute", &done, 2, "other", "other-request"),
        ("execute", &done, 1, "digest", "stale"),
        ("probe", &done, 3, "", "done: \"executed\""),
        ("compensate", &done, 2, "digest", "stale"),
        ("compensate", &done, 3, "undo", "undo: \"executed\""),
        ("compensate", &done, 3, "undo", "duplicate: \"compensated\""),
        ("compensate", &done, 3, "other", "other-request"),
        ("execute", &done, 3, "digest", "closed"),
        ("probe", &done, 3, "", "never"),
        ("probe", &never, 1, "", "never"),
        ("execute", &never, 1, "digest", "closed"),
        ("compensate", &never, 1, "undo", "nothing"),
        ("compensate", &late, 1, "undo", "nothing"),
        ("compensate", &late, 1, "other", "other-request"),
        ("execute", &late, 1, "digest", "closed"),
    ];
    for (call, key, fence, digest, expected) in calls {
        let answer = plain.ask(&sql, call, key, fence, digest).await;
        assert_eq!(
            answer, expected,
            "{database}: {call} {key} {fence} {digest}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_the_statements_of_the_page_make_a_barrier_without_this_crate() {
    let file = tempfile::tempdir().unwrap();
    let file = rusqlite::Connection::open(file.path().join("service.db")).unwrap();
    recipe(Plain::Sqlite(file), "SQLite").await;

    let server = barrier::postgres::server::Server::shared().await;
    server
        .with_database(async |config| {
            let line = Line::to(config).await;
            recipe(Plain::Postgres(Box::new(line)), "PostgreSQL").await;
        })
        .await;

    let service = barrier::mysql::MySql::new().await;
    recipe(Plain::MySql(service.open().await), "MySQL and MariaDB").await;
}

//! The tables of `docs/failures.md`, made from the rows that decide.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "made by tests, and fails by a panic as they do"
)]

use std::fmt::Write;

use super::{Row, barrier, http, io, isolation, mysql, postgres, reqwest, rusqlite, tonic};
use crate::failure::FailureMode;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/failures.md");

fn yes(answer: bool) -> &'static str {
    if answer { "yes" } else { "no" }
}

fn modes() -> String {
    let mut table = String::from(
        "| Mode | In Rust | Category | Retryable | Terminal | Partial results | Severity | Meaning |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for mode in FailureMode::BUILT_IN {
        writeln!(
            table,
            "| `{mode}` | `{mode:?}` | {} | {} | {} | {} | {} | {} |",
            mode.category(),
            yes(mode.is_retryable()),
            yes(mode.is_terminal()),
            yes(mode.has_partial_results()),
            mode.severity(),
            mode.meaning(),
        )
        .unwrap();
    }
    table
}

/// The lines of one adapter. `words` tells the keys of a row.
struct Table(String);

impl Table {
    fn new() -> Self {
        Table("| Error | Mode | Retryable | Effect | Why |\n|---|---|---|---|---|\n".to_owned())
    }

    fn rows<K>(mut self, rows: &[Row<K>], words: impl Fn(&Row<K>) -> String) -> Self {
        for row in rows {
            let known = row.classification();
            writeln!(
                self.0,
                "| {} | `{}` | {} | {} | {} |",
                words(row),
                known.mode,
                yes(known.retryable),
                known.effect,
                row.why,
            )
            .unwrap();
        }
        self
    }
}

fn said<K>(row: &Row<K>) -> String {
    row.error.to_owned()
}

fn list<K>(row: &Row<K>, one: impl Fn(&K) -> String) -> String {
    let words: Vec<_> = row.keys.iter().map(one).collect();
    words.join(", ")
}

fn tables() -> [(&'static str, String); 10] {
    let status = |number: &u16| {
        let name = ::http::StatusCode::from_u16(*number).unwrap();
        format!("{number} {}", name.canonical_reason().unwrap())
    };
    let code = |code: &::tonic::Code| format!("{} `{code:?}`", i32::from(*code));
    let state = |start: &&str| match start.len() {
        5 => format!("`{start}`"),
        _ => format!("`{start}*`"),
    };
    [
        ("modes", modes()),
        (
            "std",
            Table::new().rows(io::ROWS, said).rows(io::TOKIO, said).0,
        ),
        ("barrier", Table::new().rows(barrier::ROWS, said).0),
        ("isolation", Table::new().rows(isolation::ROWS, said).0),
        (
            "http",
            Table::new()
                .rows(http::ROWS, |row| list(row, status))
                .rows(http::CLASSES, said)
                .0,
        ),
        (
            "reqwest",
            Table::new()
                .rows(reqwest::WHOLE, said)
                .rows(reqwest::PHASES, said)
                .0,
        ),
        (
            "tonic",
            Table::new()
                .rows(tonic::CONNECT, said)
                .rows(tonic::ROWS, |row| list(row, code))
                .0,
        ),
        (
            "rusqlite",
            Table::new()
                .rows(rusqlite::CODES, said)
                .rows(rusqlite::OWN, said)
                .0,
        ),
        (
            "tokio-postgres",
            Table::new()
                .rows(postgres::STATES, |row| {
                    format!("{}: {}", list(row, state), row.error)
                })
                .rows(postgres::CLOSED, said)
                .rows(postgres::NULL, said)
                .0,
        ),
        (
            "mysql",
            Table::new()
                .rows(mysql::CODES, |row| {
                    format!("{}: {}", list(row, u16::to_string), row.error)
                })
                .rows(mysql::CLOSED, said)
                .0,
        ),
    ]
}

/// The page with the tables between its marks made anew.
fn renewed(page: &str) -> String {
    let mut page = page.to_owned();
    for (name, table) in tables() {
        let (begin, end) = (
            format!("<!-- begin {name} -->\n"),
            format!("<!-- end {name} -->"),
        );
        let from = page.find(&begin).expect(&begin) + begin.len();
        let to = from + page[from..].find(&end).expect(&end);
        page.replace_range(from..to, &format!("\n{table}\n"));
    }
    page
}

#[test]
fn the_tables_of_the_page_are_those_of_the_code() {
    let page = std::fs::read_to_string(PATH).unwrap();
    let renewed = renewed(&page);
    if std::env::var_os("AMENDS_UPDATE").is_some() {
        std::fs::write(PATH, renewed).unwrap();
        return;
    }
    assert!(
        page == renewed,
        "docs/failures.md is not what the code says; run the tests with AMENDS_UPDATE=1 and look at the difference"
    );
}

#[test]
fn every_grpc_code_has_exactly_one_row() {
    let mut codes: Vec<i32> = tonic::ROWS
        .iter()
        .flat_map(|row| row.keys.iter().map(|code| i32::from(*code)))
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, (0..=16).collect::<Vec<_>>());
}

#[test]
fn every_status_that_has_a_name_is_met_once() {
    let mut listed: Vec<u16> = http::ROWS
        .iter()
        .flat_map(|row| row.keys)
        .copied()
        .collect();
    listed.sort_unstable();
    let before = listed.len();
    listed.dedup();
    assert_eq!(listed.len(), before);
    for number in 100..=999 {
        let status = ::http::StatusCode::from_u16(number).unwrap();
        assert!(http::status(status).is_some(), "{number}");
    }
}

#[test]
fn no_sqlstate_is_hidden_by_a_shorter_one_before_it() {
    let keys: Vec<&str> = postgres::STATES
        .iter()
        .flat_map(|row| row.keys)
        .copied()
        .collect();
    for (place, key) in keys.iter().enumerate() {
        for earlier in &keys[..place] {
            assert!(!key.starts_with(earlier), "{earlier} hides {key}");
        }
    }
}

#[test]
fn every_number_of_mysql_is_met_once() {
    let mut listed: Vec<u16> = mysql::CODES
        .iter()
        .flat_map(|row| row.keys)
        .copied()
        .collect();
    listed.sort_unstable();
    let before = listed.len();
    listed.dedup();
    assert_eq!(listed.len(), before);
}

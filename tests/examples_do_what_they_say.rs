//! Each example runs to its end, checks by itself what it shows, and tells what it is there to show.
#![cfg(feature = "sqlite")]
// A fault here is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What an example prints. Cargo builds the examples with the tests, into the folder beside theirs.
fn told_by(example: &str, arguments: &[&Path]) -> String {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().unwrap().parent().unwrap();
    let program = built.join("examples").join(example);
    let ran = Command::new(&program).args(arguments).output();
    let ran = ran.unwrap_or_else(|error| {
        panic!(
            "{}: {error}: `cargo build --examples` makes it",
            program.display()
        )
    });
    let (out, errors) = (text(&ran.stdout), text(&ran.stderr));
    assert!(
        ran.status.success(),
        "{example}: {}\n{out}\n{errors}",
        ran.status
    );
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The lines about one run: from the line with its name to the next empty one.
fn about(run: &str, told: &str) -> Vec<String> {
    let lines = told.lines().skip_while(|line| !line.starts_with(run));
    let lines = lines.take_while(|line| !line.is_empty());
    let words = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    words.collect()
}

#[test]
fn the_trip_takes_the_other_airline_only_where_the_first_is_silent() {
    let told = told_by("trip", &[]);
    let lisbon = about("Lisbon:", &told);
    assert_eq!(lisbon[2], r#"✓ primary "North Air to Lisbon""#);
    assert_eq!(lisbon[4], "– insurance passed over");
    let oslo = about("Oslo:", &told);
    assert_eq!(oslo[2], "✗ primary no answer within 300ms: undone");
    assert_eq!(oslo[3], r#"✓ south-air "South Air to Oslo""#);
    let timbuktu = about("Timbuktu:", &told);
    assert_eq!(timbuktu[0], "Timbuktu: all that was done is undone");
    assert_eq!(timbuktu[4], "↶ insurance undone");
}

#[test]
fn an_order_is_reserved_whole_or_in_part_line_by_line() {
    let told = told_by("order_lines", &[]);
    let whole = about("whole-orders A-2", &told);
    assert_eq!(whole[2..4], ["↶ [0] undone", "↶ [1] undone"]);
    let half = about("half-orders A-2", &told);
    assert_eq!(half[1], "✓ reserve");
    assert_eq!(half[2], r#"✓ [0] "10 of TEA""#);
    let sums: Vec<&str> = told
        .lines()
        .filter(|line| line.ends_with("lines reserved"))
        .collect();
    let expected = [
        r#"whole-orders: {"given back": 2, "whole": 4}, 8 lines reserved"#,
        r#"half-orders: {"given back": 1, "in part": 1, "whole": 4}, 10 lines reserved"#,
    ];
    assert_eq!(sums, expected);
}

/// The data is not part of this project: where it is not there, the orders of our own have to do.
#[test]
fn real_orders_are_reserved_line_by_line_too() {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let (orders, stock) = (
        data.join("northwind-orders.jsonl"),
        data.join("northwind-stock.jsonl"),
    );
    if !orders.exists() {
        println!("skipped: {} is not there", orders.display());
        return;
    }
    let files = [Path::new("--orders"), &orders, Path::new("--stock"), &stock];
    let told = told_by("order_lines", &files);
    let sums = told.lines().filter(|line| line.ends_with("lines reserved"));
    assert_eq!(sums.count(), 2);
}

#[test]
fn a_parcel_that_failed_is_tried_again_and_no_other() {
    let told = told_by("fulfilment", &[]);
    let books = about("books:", &told);
    assert_eq!(books[5], r#"✓ pack "books-0 packed""#);
    assert_eq!(
        books[14],
        r#"✓ print "books-1 has a label", after: out of paper"#
    );
    let anvils = about("anvils:", &told);
    assert_eq!(anvils[0], "anvils: all that was done is undone");
    assert_eq!(anvils.last().unwrap(), "✗ load 60 kg are too heavy");
}

#[test]
fn an_approval_waits_over_a_kill() {
    let told = told_by("approval", &[]);
    assert_eq!(
        about("shoes: all", &told)[3],
        r#"✓ pay-out "5900 cents paid out""#
    );
    assert_eq!(
        about("yacht: all", &told)[2],
        "✗ boss denied by grace: it has been sailed"
    );
    assert_eq!(
        about("ticket: all", &told)[2],
        "✗ boss nobody approved within 1s"
    );
    assert!(told.contains("mallory was told: signal `boss`: `mallory` may not answer"));
}

#[cfg(feature = "postgres")]
#[test]
fn a_fleet_loses_no_order_whatever_befalls_it() {
    let day = "--store postgres --workers 3 --kills 3 --count 60 --seed 7";
    let day: Vec<&Path> = day.split(' ').map(Path::new).collect();
    let told = told_by("orders", &day);
    let line: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    let counted = |what: &str| line[what].as_u64().unwrap();
    assert_eq!(counted("violations"), 0);
    assert_eq!(counted("orders"), 60);
    assert_eq!(counted("parked"), 0);
    assert_eq!(counted("workers"), 3);
    assert_eq!(counted("kills"), 3);
    assert_eq!(counted("freezes"), 1);
    assert_eq!(counted("restarts"), 2);
    assert!(counted("take_overs") > 0, "{told}");
    assert!(counted("cut_commits") > 0, "{told}");
    assert!(counted("unknown_commits") > 0, "{told}");
}

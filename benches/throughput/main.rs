//! Whole runs: how many a second, how long one takes, what they cost the disk, and how far that is from the least
//! that the same machine can do with the same store.
//!
//! ```text
//! cargo bench --bench throughput [-- OPTIONS]
//!     --only WORDS      cells whose name has these words; may be said again
//!     --seconds 2       how long each cell and each limit is measured
//!     --repeats 3       how often; the table has the median, the least and the most
//!     --json            a line of JSON for each cell, instead of a Markdown table
//!     --folder FOLDER   where files are made: on the disk that is to be measured; `target/throughput` by default
//! ```
//!
//! Each repeat measures all cells, and each beside its limit, so that a machine that changes its mind does so to both:
//! compare what stands in one line. What the numbers mean and what they don't is told in `docs/performance.md`.
#![allow(clippy::expect_used, clippy::panic)] // A bench: what fails ends it.
// Some of what all stores share is for those on disks.
#![cfg_attr(not(feature = "sqlite"), allow(dead_code))]

mod cells;
mod load;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod report;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod syncs;
mod w3;

use std::time::Duration;

use cells::{Cell, Options, Store};
use report::Line;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test` runs benches too, with `--test`: behaviour is asserted in the test suite instead.
    if words.iter().any(|word| word == "--test") {
        return;
    }
    let options = options(words);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let chosen = |cell: &Cell| {
        let name = cell.name();
        options.only.is_empty() || options.only.iter().any(|only| name.contains(only.as_str()))
    };
    let mut all = memory::cells();
    #[cfg(feature = "sqlite")]
    all.extend(sqlite::cells());
    #[cfg(feature = "postgres")]
    all.extend(postgres::cells());
    all.retain(chosen);
    let mut lines: Vec<Line> = all
        .into_iter()
        .map(|cell| Line {
            cell,
            repeats: Vec::new(),
        })
        .collect();
    #[cfg(feature = "postgres")]
    let server = lines
        .iter()
        .any(|line| line.cell.store == Store::Postgres)
        .then(|| postgres::Place::find(&runtime, &options));
    for repeat in 0..options.repeats {
        for line in &mut lines {
            eprintln!("repeat {}: {}", repeat + 1, line.cell.name());
            cells::forget_peak();
            let (mut counted, limit) = match line.cell.store {
                Store::Memory => memory::measure(&runtime, &line.cell, &options),
                #[cfg(feature = "sqlite")]
                Store::Sqlite => sqlite::measure(&runtime, &line.cell, &options),
                #[cfg(feature = "postgres")]
                Store::Postgres => {
                    let server = server.as_ref().expect("a server");
                    postgres::measure(&runtime, &line.cell, &options, server)
                }
            };
            counted.peak = cells::peak();
            line.repeats.push((counted, limit));
        }
    }
    report::print(&lines, options.json);
}

fn options(words: Vec<String>) -> Options {
    let mut options = Options {
        lasts: Duration::from_secs(2),
        repeats: 3,
        only: Vec::new(),
        json: false,
        #[cfg(feature = "sqlite")]
        folder: std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/throughput"),
        #[cfg(feature = "postgres")]
        postgres: None,
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .unwrap_or_else(|| panic!("`{word}` wants a value"))
        };
        match word.as_str() {
            "--seconds" => {
                options.lasts = Duration::from_secs_f64(value().parse().expect("seconds"));
            }
            "--repeats" => options.repeats = value().parse().expect("a number of repeats"),
            "--only" => options.only.push(value()),
            "--json" => options.json = true,
            #[cfg(feature = "sqlite")]
            "--folder" => options.folder = value().into(),
            #[cfg(feature = "postgres")]
            "--postgres" => options.postgres = Some(value()),
            // Cargo says so.
            "--bench" => {}
            other => panic!("`{other}` is not known: see the top of benches/throughput/main.rs"),
        }
    }
    assert!(options.repeats > 0, "at least one repeat");
    options
}

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

mod cells;
mod load;
mod memory;
mod report;
mod w3;

use std::path::Path;
use std::time::Duration;

use cells::{Cell, Counted, Limit, Options, Store};
use report::Line;
use tokio::runtime::Runtime;

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
    let mut lines: Vec<Line> = memory::cells()
        .into_iter()
        .filter(chosen)
        .map(|cell| Line {
            cell,
            repeats: Vec::new(),
        })
        .collect();
    for repeat in 0..options.repeats {
        for line in &mut lines {
            eprintln!("repeat {}: {}", repeat + 1, line.cell.name());
            line.repeats
                .push(both(&runtime, &line.cell, &options, repeat));
        }
    }
    report::print(&lines, options.json);
}

/// A cell and its limit, which takes turns in being first.
fn both(runtime: &Runtime, cell: &Cell, options: &Options, repeat: usize) -> (Counted, Limit) {
    let limit = || match cell.store {
        Store::Memory => memory::limit(runtime, cell, options),
    };
    let ours = || {
        cells::forget_peak();
        let counted = match cell.store {
            Store::Memory => memory::measure(runtime, cell, options),
        };
        Counted {
            peak: cells::peak(),
            ..counted
        }
    };
    if repeat.is_multiple_of(2) {
        let counted = ours();
        (counted, limit())
    } else {
        let limit = limit();
        (ours(), limit)
    }
}

fn options(words: Vec<String>) -> Options {
    let mut options = Options {
        lasts: Duration::from_secs(2),
        repeats: 3,
        only: Vec::new(),
        json: false,
        folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("target/throughput"),
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
            "--folder" => options.folder = value().into(),
            "--postgres" => options.postgres = Some(value()),
            // Cargo says so.
            "--bench" => {}
            other => panic!("`{other}` is not known: see the top of benches/throughput/main.rs"),
        }
    }
    assert!(options.repeats > 0, "at least one repeat");
    options
}

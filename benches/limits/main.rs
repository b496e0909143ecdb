//! What runs cost where there are many of them, or large ones: a table for each question.
//!
//! ```text
//! cargo bench --bench limits -- recovery [--runs 100000]     interrupted runs, taken up by a new process on SQLite
//! cargo bench --bench limits -- memory   [--runs 100000]     bytes of a run that is running, waits, is parked, has ended
//! cargo bench --bench limits -- growth   [--runs 1000000]    time of a step in large sagas, and of a run in a full file
//! cargo bench --bench limits -- payloads                     outputs of 1 KiB to 1 MiB: bytes a second, and copies
//! ```
//!
//! `--repeats 3` and `--folder FOLDER`, `target/limits` unless it is said, are for all of them. Tables are Markdown. Steps
//! inside steps are measured by `fan_out`, waiting by the million by `waiting`, and looking at a large store by `million`.
#![allow(clippy::unwrap_used, clippy::panic)] // A bench: what fails ends it.
#![allow(clippy::cast_precision_loss, reason = "numbers far below 2^52")]

mod counting;
mod growth;
#[path = "../throughput/load.rs"]
#[allow(dead_code, clippy::expect_used)]
mod load;
mod memory;
mod payloads;
mod recovery;
#[path = "../throughput/w3.rs"]
#[allow(dead_code, clippy::expect_used)]
mod w3;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use amends::store::{SqliteStore, Store};
use amends::{Coordinator, Saga};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// What the command line says.
#[derive(Clone, Debug)]
struct Options {
    words: Vec<String>,
}

impl Options {
    fn number(&self, name: &str, default: usize) -> usize {
        self.word(name)
            .map_or(default, |value| value.parse().unwrap())
    }

    fn word(&self, name: &str) -> Option<&str> {
        let at = self.words.iter().position(|word| word == name)?;
        self.words.get(at + 1).map(String::as_str)
    }

    fn repeats(&self) -> usize {
        self.number("--repeats", 3).max(1)
    }

    /// A folder of its own, on the disk that is measured.
    fn folder(&self) -> TempDir {
        let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/limits");
        let folder = self.word("--folder").map_or_else(default, PathBuf::from);
        std::fs::create_dir_all(&folder).unwrap();
        tempfile::tempdir_in(folder).unwrap()
    }
}

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test` runs benches too, with `--test`: behaviour is asserted in the test suite instead.
    if words.iter().any(|word| word == "--test") {
        return;
    }
    words.retain(|word| word != "--bench");
    let options = Options { words };
    match options.words.first().map(String::as_str) {
        Some("recovery") => recovery::table(&options),
        Some("memory") => memory::table(&options),
        Some("growth") => growth::table(&options),
        Some("payloads") => payloads::table(&options),
        Some("child") => match options.words[1].as_str() {
            "interrupt" => recovery::interrupt(&options),
            "recover" => recovery::recover(&options),
            "memory" => memory::measure(&options),
            other => panic!("{other}"),
        },
        _ => panic!("which table? `recovery`, `memory`, `growth` or `payloads`"),
    }
}

/// This program in another process, whose memory nobody has used before; gives what it prints.
fn child(words: &[&str]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("child")
        .args(words)
        .stderr(std::process::Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn sqlite(file: &Path) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(file).unwrap())
}

/// One that drives as many runs at once as there are; by default it would be 10,000.
async fn coordinator<I, O>(store: Arc<dyn Store>, saga: &Saga<I, O>) -> Coordinator {
    Coordinator::builder_shared(store)
        .max_runs(10_000_000)
        .register(saga)
        .build()
        .await
        .unwrap()
}

/// The middle, the least and the most.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let middle = values[values.len() / 2];
    (middle, values[0], values[values.len() - 1])
}

fn text((middle, least, most): (f64, f64, f64), decimals: usize) -> String {
    format!("{middle:.decimals$} ({least:.decimals$} to {most:.decimals$})")
}

/// From `/proc`, in bytes.
fn status(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(what));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1_024
}

//! Pictures of runs: real runs in virtual time, drawn to the same bytes each time and kept as snapshots.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "diagram/scripted.rs"]
mod scripted;

use std::path::PathBuf;
use std::{env, fs};

use amends::diagram;
use scripted::{Drawn, all};

fn folder(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), path].iter().collect()
}

fn is_kept(name: &str, drawn: &str) {
    let path = folder("tests/snapshots/diagram").join(name);
    if env::var_os("AMENDS_UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, drawn).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == drawn,
        "{name} is drawn otherwise than it is kept: AMENDS_UPDATE=1 rewrites it, then look at it",
    );
}

#[test]
fn each_run_is_drawn_as_it_is_kept() {
    for Drawn { name, graph, run } in all() {
        for (kind, drawn) in [
            ("run.svg", diagram::run_svg(&graph, &run)),
            ("run.txt", diagram::run_text(&graph, &run)),
            ("run.mmd", diagram::run_mermaid(&graph, &run)),
            ("run.dot", diagram::run_dot(&graph, &run)),
            ("timeline.svg", diagram::timeline_svg(&run)),
            ("timeline.txt", diagram::timeline_text(&run)),
        ] {
            is_kept(&format!("{name}.{kind}"), &drawn);
        }
    }
}

//! What a person and a program see of runs whose steps have steps inside.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod cli_store;

use cli_store::{Runs, SECRET, same_as_kept};

/// Each page, and what is asked for it.
const PAGES: [(&str, &str); 17] = [
    ("nested-list", "list"),
    ("nested-show-completed", "show shop-1"),
    ("nested-show-parked", "show shop-2"),
    ("nested-show-waiting", "show shop-3"),
    ("nested-show-many", "show crowd-1"),
    ("nested-show-many-all", "show crowd-1 --all"),
    ("nested-show-timeline", "show shop-2 --timeline"),
    ("nested-show-json", "show shop-2 --json"),
    ("nested-why-parked", "why shop-2"),
    ("nested-why-json", "why shop-2 --json"),
    ("nested-journal-parked", "journal shop-2"),
    ("nested-journal-waiting", "journal shop-3"),
    ("nested-graph-run", "graph shop-2"),
    ("nested-graph-saga", "graph --saga shop"),
    ("nested-graph-many", "graph crowd-1"),
    ("nested-stats", "stats --journals"),
    ("nested-verify", "verify"),
];

#[tokio::test]
async fn every_page_is_as_it_was() {
    let runs = Runs::nested().await;
    for (name, arguments) in PAGES {
        let said = runs.says(arguments);
        assert_eq!(said.code, 0, "{arguments}: {said:?}");
        same_as_kept(&format!("{name}.txt"), &said.whole(&runs));
        assert!(!said.out.contains(SECRET), "{arguments}");
    }
    assert!(runs.says("show shop-2 --payloads").out.contains(SECRET));
}

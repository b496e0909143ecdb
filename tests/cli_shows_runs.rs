//! What a person sees who looks at runs, in a terminal of 80 and of 120 columns, and what a program reads.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod cli_store;

use cli_store::{PAGES, Runs, SECRET, same_as_kept};

#[tokio::test]
async fn every_page_is_as_it_was() {
    let runs = Runs::of_each_kind().await;
    for (name, arguments) in PAGES {
        let said = runs.says(arguments);
        assert_eq!(said.code, 0, "{arguments}: {said:?}");
        same_as_kept(&format!("{name}.txt"), &said.whole(&runs));
        let wide = runs.amends(arguments).env("COLUMNS", "120").output();
        let wide = cli_store::Said::from(wide.unwrap()).whole(&runs);
        if wide != said.whole(&runs) {
            same_as_kept(&format!("{name}.120.txt"), &wide);
        }
    }
}

#[tokio::test]
async fn no_payload_is_shown_unless_it_is_asked_for() {
    let runs = Runs::of_each_kind().await;
    let mut shown = Vec::new();
    for (_, arguments) in PAGES {
        for json in ["", " --json"] {
            if json.is_empty() || !arguments.contains("--json") {
                let arguments = format!("{arguments}{json}");
                if runs.says(&arguments).out.contains(SECRET) {
                    shown.push(arguments);
                }
            }
        }
    }
    assert_eq!(
        shown,
        [
            "show order-4711 --payloads",
            "show order-4711 --payloads --json",
            "journal order-4710 --payloads",
            "journal order-4710 --payloads --json",
        ]
    );
}

#[tokio::test]
async fn colours_are_used_where_they_are_wanted_only() {
    let runs = Runs::of_each_kind().await;
    for arguments in [
        "list",
        "show order-4711",
        "why order-4711",
        "journal trip-8",
        "doctor",
    ] {
        let plain = runs.says(arguments).out;
        assert!(!plain.contains('\u{1b}'), "no terminal reads: {plain}");
        let coloured = runs.says(&format!("{arguments} --color always")).out;
        assert!(coloured.contains("\u{1b}["), "{coloured}");
        assert_eq!(uncoloured(&coloured), plain, "they change nothing else");
        let no = runs.says(&format!("{arguments} --color never")).out;
        assert_eq!(no, plain);
    }
}

/// The text without escape sequences, and without blanks at the ends of lines that stood before one.
fn uncoloured(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    let lines = plain.lines().map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}

#[tokio::test]
async fn no_line_is_wider_than_the_terminal_where_a_table_can_help_it() {
    let runs = Runs::of_each_kind().await;
    for (name, arguments) in PAGES {
        if name.starts_with("list") && !arguments.contains("json") {
            for line in runs.says(arguments).out.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }
}

#[tokio::test]
async fn a_list_that_is_cut_says_so_and_all_pages_hold_each_run_once() {
    let runs = Runs::of_each_kind().await;
    let said = runs.says("list --limit 2");
    assert_eq!(
        said.err,
        "These are the newest 2; `--all` lists all of them.\n"
    );
    let ids = |arguments: &str| -> Vec<String> {
        let lines = runs.says(arguments).well();
        let runs = lines.lines().map(|line| {
            let run: serde_json::Value = serde_json::from_str(line).unwrap();
            run["run"].as_str().unwrap().to_owned()
        });
        runs.collect()
    };
    let all = [
        "trip-10",
        "trip-9",
        "trip-8",
        "trip-7",
        "order-4711",
        "order-4710",
    ];
    assert_eq!(ids("list --all --json"), all);
    assert_eq!(
        ids("list --all --json --status completed,parked,completed"),
        ["trip-8", "order-4711", "order-4710"],
        "the newest first, also where several statuses are looked through"
    );
    assert_eq!(
        ids("list --open --json"),
        ["trip-10", "trip-9", "trip-8", "order-4711"]
    );
}

#[tokio::test]
async fn a_reader_that_has_enough_is_no_failure() {
    let runs = Runs::of_each_kind().await;
    let mut child = runs
        .amends("completions bash")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let said = cli_store::Said::from(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}

//! `amends watch` follows what a coordinator in another process does.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod cli_store;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use amends::journal::{Command, Verb};
use cli_store::{Runs, Said, coordinator, same_as_kept};

/// The lines of a program while it runs.
fn lines(runs: &Runs, arguments: &str) -> (std::process::Child, mpsc::Receiver<String>) {
    let mut child = runs
        .amends(arguments)
        .env_remove("COLUMNS")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in out.lines() {
            if send.send(line.unwrap()).is_err() {
                break;
            }
        }
    });
    (child, receive)
}

/// Lines up to the one that says this. It is waited for as long as the test may take.
fn up_to(lines: &mpsc::Receiver<String>, word: &str) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let line = lines
            .recv_timeout(std::time::Duration::from_secs(60))
            .unwrap_or_else(|_| panic!("no `{word}` after {seen:#?}"));
        let found = line.contains(word);
        seen.push(line);
        if found {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_followed_until_it_ends_while_another_process_drives_it() {
    let runs = Runs::of_each_kind().await;
    let owner = coordinator(&runs.path).await;
    let (mut watcher, told) = lines(&runs, "watch trip-8");
    let before = up_to(&told, "parked");
    assert_eq!(
        before.len(),
        10,
        "a line for the day and one for each event: {before:#?}"
    );
    assert!(
        watcher.try_wait().unwrap().is_none(),
        "parked is not an end"
    );

    let mark = Command::new(
        "trip-8",
        Verb::MarkCompensated {
            step: "book-flight".to_owned(),
        },
    )
    .by("ada")
    .reason("refunded by hand");
    owner.command(&mark).await.unwrap();
    let compensate = Command::new("trip-8", Verb::Compensate).by("ada");
    owner.command(&compensate).await.unwrap();
    let after = up_to(&told, "compensated");
    assert!(
        after.iter().any(|line| line
            .contains("book-flight marked as undone in round 1 by ada (refunded by hand)")),
        "{after:#?}"
    );
    assert_eq!(
        watcher.wait().unwrap().code(),
        Some(0),
        "it ends with the run"
    );
    owner.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_told_change_by_change_as_json_lines() {
    let runs = Runs::of_each_kind().await;
    let owner = coordinator(&runs.path).await;
    let (mut watcher, told) = lines(&runs, "watch --parked --json");
    let first = up_to(&told, "trip-8");
    let ids: Vec<String> = first.iter().map(|line| field(line, "run")).collect();
    assert_eq!(ids, ["order-4711", "trip-8"], "the oldest first");

    let give_up = Command::new("order-4711", Verb::Abandon).by("ada");
    owner.command(&give_up).await.unwrap();
    let change = up_to(&told, "order-4711");
    let change: Vec<String> = change.iter().map(|line| field(line, "status")).collect();
    assert_eq!(
        change,
        ["abandoned"],
        "one line, also though it matches no more"
    );
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    owner.shutdown().await;
}

fn field(line: &str, name: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line[name].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn watching_can_be_given_an_end() {
    let runs = Runs::of_each_kind().await;
    let said = runs.says("watch --open --for 0s");
    assert_eq!(said.code, 0, "{said:?}");
    same_as_kept("watch-open.txt", &said.out);
    let ended = runs.says("watch order-4710").well();
    let ended_json = runs.says("watch order-4710 --json").well();
    assert_eq!(ended, runs.says("journal order-4710").well());
    assert_eq!(ended_json, runs.says("journal order-4710 --json").well());
}

#[tokio::test]
async fn a_watcher_stops_when_nobody_reads_it() {
    let runs = Runs::of_each_kind().await;
    let mut watcher = runs
        .amends("watch order-4711 --for 60s")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(watcher.stdout.take());
    let said = Said::from(watcher.wait_with_output().unwrap());
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}

//! `docs/rules.md` lists every rule and promise, and every test that bears a number.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

/// How many rules each letter has.
const RULES: [(char, u32); 12] = [
    ('E', 7),
    ('K', 5),
    ('F', 5),
    ('D', 6),
    ('S', 5),
    ('U', 4),
    ('P', 2),
    ('C', 1),
    ('N', 2),
    ('O', 3),
    ('I', 5),
    ('W', 5),
];

const PROMISES: u32 = 10;

fn at(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), path].iter().collect()
}

/// `E1` to `W5` and `1` to `10`, in the order of the page.
fn all() -> Vec<String> {
    let rules = RULES
        .iter()
        .flat_map(|(letter, most)| (1..=*most).map(move |number| format!("{letter}{number}")));
    let promises = (1..=PROMISES).map(|number| number.to_string());
    rules.chain(promises).collect()
}

struct Row {
    rule: String,
    meaning: String,
    /// The last column as it stands.
    tests: String,
    /// The names in it that bear a number.
    names: Vec<String>,
}

/// The rows of the page's tables.
fn rows() -> Vec<Row> {
    let page = fs::read_to_string(at("docs/rules.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| **"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [rule, meaning, tests] = cells[..] else {
            panic!("three columns, not {line}")
        };
        let names = tests.split('`').skip(1).step_by(2);
        Row {
            rule: rule.trim_matches('*').to_owned(),
            meaning: meaning.to_owned(),
            tests: tests.to_owned(),
            names: names
                .filter(|name| rule_of(name).is_some())
                .map(str::to_owned)
                .collect(),
        }
    })
    .collect()
}

/// The rule or promise whose number a test's name bears.
fn rule_of(name: &str) -> Option<String> {
    let (first, rest) = name.split_once('_')?;
    if first == "promise" {
        let (number, _) = rest.split_once('_')?;
        return number.parse::<u32>().ok().map(|number| number.to_string());
    }
    let letter = first.chars().next()?.to_ascii_uppercase();
    let number: u32 = first.get(1..)?.parse().ok()?;
    let known = RULES.iter().any(|(known, _)| *known == letter);
    known.then(|| format!("{letter}{number}"))
}

/// The names of all test functions, by file.
fn tests() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in fs::read_dir(at("tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let names = test_functions(&fs::read_to_string(&path).unwrap());
        found.insert(file, names);
    }
    found
}

/// The functions of a source that have a `test` attribute, which stands on a line of its own.
fn test_functions(source: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if let Some(rest) = line
            .strip_prefix("async fn ")
            .or_else(|| line.strip_prefix("fn "))
        {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            if std::mem::take(&mut is_test) {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[test]
fn the_page_lists_every_rule_and_promise_once_and_in_order() {
    let listed: Vec<String> = rows().into_iter().map(|row| row.rule).collect();
    assert_eq!(listed, all());
}

#[test]
fn every_row_has_a_meaning_and_a_test_or_says_what_it_waits_for() {
    for row in rows() {
        let rule = &row.rule;
        assert!(row.meaning.ends_with('.'), "{rule} has no meaning");
        let waits = row.tests.contains("Not yet") || row.tests.contains("not yet");
        assert!(
            !row.names.is_empty() || waits,
            "{rule} has neither a test nor a reason"
        );
    }
}

#[test]
fn every_test_that_the_page_names_exists_and_stands_in_the_row_of_its_number() {
    let known: BTreeSet<String> = tests().into_values().flatten().collect();
    for row in rows() {
        for name in row.names {
            assert!(known.contains(&name), "no test is called {name}");
            assert_eq!(rule_of(&name), Some(row.rule.clone()), "{name}");
        }
    }
}

#[test]
fn every_test_that_bears_a_number_is_on_the_page() {
    let listed: BTreeSet<String> = rows().into_iter().flat_map(|row| row.names).collect();
    let mut seen = BTreeSet::new();
    for (file, names) in &tests() {
        for name in names.iter().filter(|name| rule_of(name).is_some()) {
            assert!(listed.contains(name), "{name} of {file} is not on the page");
            seen.insert(name.clone());
        }
    }
    assert_eq!(seen, listed);
}

#[test]
fn a_tests_name_tells_its_rule() {
    assert_eq!(rule_of("e3_a_doubt").as_deref(), Some("E3"));
    assert_eq!(rule_of("promise_10_nothing").as_deref(), Some("10"));
    for name in ["every_test", "e_3", "x1_other", "promise_one", "e3"] {
        assert_eq!(rule_of(name), None, "{name}");
    }
}

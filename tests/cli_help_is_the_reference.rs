//! `docs/cli.md` has the help of every subcommand as the program prints it, and each exit code.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

const BEGIN: &str = "<!-- What follows is printed by the program; AMENDS_UPDATE=1 renews it. -->\n";

fn help(path: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_amends"))
        .args(path)
        .arg("--help")
        .env_clear()
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{path:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names in the list of subcommands.
fn subcommands(help: &str) -> Vec<String> {
    let list = help.split_once("Commands:\n").map_or("", |(_, list)| list);
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect()
}

/// The help without what every subcommand says alike.
fn section(path: &[&str], help: &str) -> String {
    let own = help.split("\nGeneral:\n").next().unwrap();
    let after = help
        .split_once("\nGeneral:\n")
        .and_then(|(_, rest)| rest.split_once("\n\n"))
        .map_or(String::new(), |(_, after)| format!("\n{after}"));
    let own = brief(
        path,
        brief(path, own.to_owned(), "Which runs", "list"),
        "How",
        "retry",
    );
    let hashes = "#".repeat(path.len() + 2);
    let name = path.join(" ");
    format!(
        "{hashes} `amends {name}`\n\n```text\n{}\n{after}```\n\n",
        own.trim_end()
    )
}

/// The help with one group of flags told by the subcommand that has it, too, and comes first.
fn brief(path: &[&str], help: String, group: &str, first: &str) -> String {
    let heading = format!("\n{group}:\n");
    match help.split_once(&heading) {
        Some((before, rest)) if path != [first] => {
            let after = rest
                .split_once("\n\n")
                .map_or(String::new(), |(_, after)| format!("\n{after}"));
            format!("{before}\n{group}: as for `amends {first}`\n{after}")
        }
        _ => help,
    }
}

fn reference() -> String {
    let whole = help(&[]);
    let mut text = format!("\n```text\n{whole}```\n\n");
    for name in subcommands(&whole) {
        let page = help(&[&name]);
        text += &section(&[&name], &page);
        for inner in subcommands(&page) {
            let path = [name.as_str(), inner.as_str()];
            text += &section(&path, &help(&path));
        }
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

#[test]
fn the_reference_is_what_the_program_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let page = fs::read_to_string(&path).unwrap();
    let (written, kept) = page.split_once(BEGIN).unwrap();
    let reference = reference();
    if std::env::var_os("AMENDS_UPDATE").is_some() {
        let mut page = String::new();
        write!(page, "{written}{BEGIN}{reference}").unwrap();
        fs::write(&path, page).unwrap();
        return;
    }
    assert!(
        kept == reference,
        "the help is another than docs/cli.md has; AMENDS_UPDATE=1 renews it:\n{reference}"
    );
}

#[test]
fn the_page_and_the_help_know_the_same_exit_codes() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md")).unwrap();
    let (written, _) = page.split_once(BEGIN).unwrap();
    let help = help(&[]);
    for code in 0..8 {
        assert!(written.contains(&format!("| {code} |")), "{code}");
        assert!(help.contains(&format!("\n  {code}  ")), "{code}");
    }
    assert!(!written.contains("| 8 |") && !help.contains("\n  8  "));
}

#[test]
fn completions_are_there_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = Command::new(env!("CARGO_BIN_EXE_amends"))
            .args(["completions", shell])
            .output()
            .unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        for word in ["mark-compensated", "older-than"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
}

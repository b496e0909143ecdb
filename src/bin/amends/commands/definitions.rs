//! `amends definitions`.

use std::fs;

use amends::Outline;
use amends::operator::{DefinitionReport, DefinitionsReport, Fate};
use serde::{Deserialize, Serialize};

use crate::error::{CliError, Exit};
use crate::output::{Hue, readable};
use crate::session::Session;

/// Says which open runs can be finished, and by what the others are held up
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Compares the definitions of runs with those that the last coordinator over this store registered
and live workers have, or with those of a file, which `serde_json::to_string(&[saga.outline()])` in
your program writes: so it is known before a deploy what it could finish. Exits with 6 where a run
is held up.")]
pub(crate) struct Args {
    /// Compare with the outlines in this file: a JSON list of them, or one
    #[arg(long, value_name = "FILE")]
    outlines: Option<String>,
}

#[derive(Serialize)]
struct ReportForm<'a> {
    finishable: u64,
    held_up: u64,
    definitions: Vec<DefinitionForm<'a>>,
}

#[derive(Serialize)]
struct DefinitionForm<'a> {
    saga: &'a str,
    version: u32,
    fingerprint: &'a str,
    open: u64,
    parked: u64,
    /// Of the version, whatever their structure was.
    ended: u64,
    fate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    differences: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registered: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u32>,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let operator = session.operator().await?;
    let (report, against) = match &args.outlines {
        Some(file) => {
            let outlines = read(file)?;
            (operator.definitions_with(&outlines).await?, file.as_str())
        }
        None if operator.store().fleet().is_some() => (operator.definitions().await?, "the fleet"),
        None => (operator.definitions().await?, "the last coordinator"),
    };
    if session.out.is_json() {
        session.out.document(&form(&report))?;
    } else {
        people(&report, against, session)?;
        let known = operator.store().definitions().await?;
        if args.outlines.is_none() && known.iter().all(|known| known.handling.is_none()) {
            session
                .out
                .note("No coordinator has told this store yet what it has registered.");
        }
    }
    Ok(if report.all_finish() {
        Exit::Done
    } else {
        Exit::Problems
    })
}

/// The outlines in a file: a list, or a single one.
fn read(file: &str) -> Result<Vec<Outline>, CliError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Some {
        List(Vec<Outline>),
        One(Outline),
    }
    let text = fs::read_to_string(file)
        .map_err(|error| CliError::failed(&format!("reading `{file}`"), &error))?;
    match serde_json::from_str(&text) {
        Ok(Some::List(outlines)) => Ok(outlines),
        Ok(Some::One(outline)) => Ok(vec![outline]),
        Err(error) => Err(CliError::new(
            Exit::Failed,
            format!("`{file}` holds no outlines: {error}"),
        )
        .hint("your own program writes it: `serde_json::to_string(&[saga.outline()])`")),
    }
}

fn form(report: &DefinitionsReport) -> ReportForm<'_> {
    let definitions = report.versions.iter().flat_map(|version| {
        version.definitions.iter().map(|of| DefinitionForm {
            saga: &version.saga,
            version: version.version,
            fingerprint: &of.fingerprint,
            open: of.open,
            parked: of.parked,
            ended: version.ended,
            fate: word(&of.fate),
            differences: match &of.fate {
                Fate::Changed { differences } => Some(differences),
                _ => None,
            },
            registered: match &of.fate {
                Fate::NotRegistered { versions } => Some(versions),
                _ => None,
            },
            to: match of.fate {
                Fate::Migrates { to } => Some(to),
                _ => None,
            },
        })
    });
    ReportForm {
        finishable: report.finishable(),
        held_up: report.stuck(),
        definitions: definitions.collect(),
    }
}

fn word(fate: &Fate) -> &'static str {
    match fate {
        Fate::Finishes => "finishes",
        Fate::Migrates { .. } => "migrates",
        Fate::Changed { .. } => "changed",
        Fate::NotRegistered { .. } => "not_registered",
        _ => "unknown",
    }
}

fn people(report: &DefinitionsReport, against: &str, session: &Session) -> Result<(), CliError> {
    let out = &session.out;
    if report.versions.is_empty() {
        return out.line("no definitions");
    }
    let mut table = out.table(&[
        "saga",
        "version",
        "open",
        "parked",
        "ended",
        "its open runs",
    ]);
    let mut held_up = Vec::new();
    for version in &report.versions {
        for of in &version.definitions {
            let count = |runs: u64| out.cell(if runs == 0 { Hue::Dim } else { Hue::Plain }, runs);
            let ended = match version.definitions.len() {
                1 => count(version.ended),
                // They are not told apart by structure.
                _ => out.cell(Hue::Dim, "-"),
            };
            let (hue, fate) = in_short(of);
            let number = match version.definitions.len() {
                1 => version.version.to_string(),
                _ => format!("{} ({})", version.version, short(&of.fingerprint)),
            };
            table.add_row(vec![
                out.cell(Hue::Plain, &version.saga),
                out.cell(Hue::Plain, number),
                count(of.open),
                count(of.parked),
                ended,
                out.cell(hue, fate),
            ]);
            if of.open > 0 && !of.fate.finishes() {
                held_up.push((version, of));
            }
        }
    }
    crate::output::keep_whole(&mut table, &[0, 1, 5]);
    out.show(&table)?;
    for (version, of) in &held_up {
        let (saga, number) = (readable(&version.saga), version.version);
        out.line("")?;
        let runs = if of.open == 1 { "run" } else { "runs" };
        out.line(out.paint(
            Hue::Bold,
            format_args!("{} {runs} of {saga} version {number}", of.open),
        ))?;
        for line in at_length(&of.fate, against) {
            out.line(format_args!("  {}", readable(&line)))?;
        }
    }
    Ok(())
}

fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(8).collect()
}

fn in_short(of: &DefinitionReport) -> (Hue, &'static str) {
    match &of.fate {
        Fate::Finishes => (Hue::Green, "can be finished"),
        // Nothing is held up by what nobody waits for.
        _ if of.open == 0 => (Hue::Dim, "none"),
        Fate::Migrates { .. } => (Hue::Yellow, "wait for `migrate`"),
        Fate::Changed { .. } => (Hue::Red, "definition changed"),
        Fate::NotRegistered { .. } => (Hue::Red, "not registered"),
        _ => (Hue::Red, "structure unknown"),
    }
}

fn at_length(fate: &Fate, against: &str) -> Vec<String> {
    match fate {
        Fate::Migrates { to } => vec![
            format!("{against} has declared a migration to version {to}:"),
            "`amends migrate RUN` carries it out, and `amends retry RUN` lets the run go on"
                .to_owned(),
        ],
        Fate::Changed { differences } => {
            let head = format!("{against} has another structure under this version:");
            let lines = differences
                .iter()
                .map(|difference| format!("- {difference}"));
            let help = "register the old structure, give the new one another version, or declare a migration";
            [head]
                .into_iter()
                .chain(lines)
                .chain([help.to_owned()])
                .collect()
        }
        Fate::NotRegistered { versions } if versions.is_empty() => {
            vec![format!("{against} has no version of it")]
        }
        Fate::NotRegistered { versions } => {
            let versions: Vec<String> = versions.iter().map(u32::to_string).collect();
            let has = versions.join(", ");
            vec![format!(
                "{against} has version {has} only: register this one beside it, or declare a migration"
            )]
        }
        _ => vec!["the store has not kept their structure, so nothing can be compared".to_owned()],
    }
}

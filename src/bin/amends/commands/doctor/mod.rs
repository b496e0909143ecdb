//! `amends doctor`.
//!
//! What is looked at beneath the runs is another for each kind of store: [`file`] and [`server`].

mod file;
#[cfg(feature = "postgres")]
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;

use amends::GetError;
use amends::journal::Standing;
use amends::operator::Operator;
use amends::operator::OperatorError;
use amends::store::{RunEntry, RunFilter, Store};
use serde::Serialize;

use crate::commands::tables;
use crate::error::{CliError, Exit};
use crate::instants::{coarse, now};
use crate::output::{Hue, Output, one_line};
use crate::paragraph::wrapped;
use crate::place::Place;
use crate::session::Session;

/// Examines a store, and says what to do about what it finds
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 6 where it finds a problem. Reads a sample of the open runs; `amends verify` reads all there are."
)]
pub(crate) struct Args {
    /// Bring the tables up to date first, as `amends migrate --apply`; needs a file for itself
    #[arg(long)]
    upgrade: bool,
}

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Good,
    /// Nothing is wrong, and somebody should know.
    Note,
    Problem,
}

#[derive(Debug, Serialize)]
struct Check {
    #[serde(rename = "check")]
    name: &'static str,
    verdict: Verdict,
    says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// The JSON form.
#[derive(Serialize)]
struct Form<'a> {
    store: String,
    problems: usize,
    checks: &'a [Check],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tables: Vec<TableForm>,
}

/// A table of a database.
#[derive(Serialize)]
struct TableForm {
    table: String,
    bytes: u64,
    rows: u64,
    dead_rows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    vacuumed_at: Option<String>,
}

/// What is known beneath the runs.
struct Ground {
    name: String,
    checks: Vec<Check>,
    tables: Vec<TableForm>,
    /// The store, where its runs can be read, and whether somebody drives them.
    store: Option<(Arc<dyn Store>, bool)>,
}

/// So many open runs are read.
const SAMPLE: usize = 200;

/// So many runs and commands are counted one by one.
const COUNTED: usize = 10_000;

const MIB: u64 = 1 << 20;

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let place = session.place()?;
    let mut checks = Vec::new();
    if args.upgrade {
        let upgraded = place.upgrade().await?;
        checks.push(good("upgrade", tables::in_words(&upgraded)));
    }
    let ground = match &place {
        Place::Sqlite(path) => file::ground(path).await?,
        #[cfg(feature = "postgres")]
        Place::Postgres(server) => server::ground(server).await?,
    };
    checks.extend(ground.checks);
    if let Some((store, driven)) = ground.store {
        of_runs(store, driven, &mut checks).await?;
    }
    let problems = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Problem)
        .count();
    let out = &session.out;
    if out.is_json() {
        out.document(&Form {
            store: ground.name,
            problems,
            checks: &checks,
            tables: ground.tables,
        })?;
    } else {
        out.line(out.paint(Hue::Bold, one_line(&ground.name)))?;
        for check in &checks {
            write(out, check)?;
        }
    }
    Ok(if problems == 0 {
        Exit::Done
    } else {
        Exit::Problems
    })
}

fn write(out: &Output, check: &Check) -> Result<(), CliError> {
    let (sign, hue) = match check.verdict {
        Verdict::Good => ('✓', Hue::Green),
        Verdict::Note => ('!', Hue::Yellow),
        Verdict::Problem => ('✗', Hue::Red),
    };
    let sign = out.paint(hue, sign);
    let name = format!("{:<12}", check.name);
    // Names on a server may hold anything.
    let says = wrapped(out, 15, &one_line(&check.says));
    out.line(format!(
        "{sign} {} {}",
        out.paint(Hue::Dim, name),
        says.trim_start()
    ))?;
    if let Some(advice) = &check.advice {
        let advice = wrapped(out, 17, &one_line(advice));
        out.line(format!("{:15}→ {}", "", advice.trim_start()))?;
    }
    Ok(())
}

fn good(check: &'static str, says: impl Into<String>) -> Check {
    Check {
        name: check,
        verdict: Verdict::Good,
        says: says.into(),
        advice: None,
    }
}

fn note(check: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Check {
    Check {
        name: check,
        verdict: Verdict::Note,
        says: says.into(),
        advice: Some(advice.into()),
    }
}

fn problem(check: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Check {
    Check {
        verdict: Verdict::Problem,
        ..note(check, says, advice)
    }
}

async fn of_runs(
    store: Arc<dyn Store>,
    driven: bool,
    checks: &mut Vec<Check>,
) -> Result<(), CliError> {
    let operator = Operator::new(store);
    let open = count(&operator, &RunFilter::open()).await?;
    checks.push(good("open runs", told(open)));

    let parked = count(&operator, &RunFilter::all().standing(Standing::Parked)).await?;
    checks.push(if parked == 0 {
        good("parked runs", "none")
    } else {
        note(
            "parked runs",
            told(parked),
            "they wait for you: `amends list --parked`, then `amends show RUN`",
        )
    });
    checks.push(commands(&operator, driven).await?);
    checks.extend(sample(&operator).await?);
    Ok(())
}

async fn commands(operator: &Operator, driven: bool) -> Result<Check, CliError> {
    let waiting = operator.store().open_commands(None, COUNTED).await?;
    let Some(first) = waiting.first() else {
        return Ok(good("commands", "none waits"));
    };
    let age = coarse(now().since(first.command.at));
    let says = format!(
        "{} without an answer, the oldest for {age}",
        told(waiting.len())
    );
    Ok(if !driven {
        note(
            "commands",
            says,
            "the coordinator carries them out when it is started",
        )
    } else if now().since(first.command.at) > std::time::Duration::from_secs(60) {
        note(
            "commands",
            says,
            "does the coordinator register the sagas of their runs?",
        )
    } else {
        good("commands", says)
    })
}

/// Reads the newest open runs, as an operator would.
async fn sample(operator: &Operator) -> Result<Vec<Check>, CliError> {
    let newest = RunFilter::open().newest_first();
    let runs = operator.list(&newest, None, SAMPLE).await?;
    let mut damaged: Vec<String> = Vec::new();
    let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
    for entry in &runs {
        match operator.view(&entry.run).await {
            Ok(Some(view)) if view.damage().is_some() => damaged.push(entry.run.to_string()),
            // One that was forgotten meanwhile is nobody's problem.
            Ok(_) => {}
            Err(OperatorError::Get(GetError::NoDefinition { .. })) => {
                *unknown.entry(saga(entry)).or_default() += 1;
            }
            Err(OperatorError::Store(error) | OperatorError::Get(GetError::Store(error))) => {
                return Err(error.into());
            }
            Err(_) => damaged.push(entry.run.to_string()),
        }
    }
    let looked = format!("of the newest {}", runs.len());
    Ok(vec![
        if unknown.is_empty() {
            good("definitions", format!("all known, {looked} open runs"))
        } else {
            let sagas: Vec<String> = unknown
                .iter()
                .map(|(saga, runs)| format!("{saga} ({runs})"))
                .collect();
            problem(
                "definitions",
                format!(
                    "open runs without a definition in the store: {}",
                    sagas.join(", ")
                ),
                "start a coordinator that registers these versions",
            )
        },
        if damaged.is_empty() {
            good("journals", format!("none is damaged {looked} open runs"))
        } else {
            problem(
                "journals",
                format!(
                    "{} damaged {looked} open runs: {}",
                    damaged.len(),
                    few(&damaged)
                ),
                "`amends verify` reads all; `amends show RUN` tells what is known of one. Restore the store from a backup",
            )
        },
    ])
}

fn saga(entry: &RunEntry) -> String {
    format!("{} v{}", entry.saga, entry.version)
}

fn few(names: &[String]) -> String {
    const FEW: usize = 3;
    let first = names
        .iter()
        .take(FEW)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > FEW {
        format!("{first} and others")
    } else {
        first
    }
}

async fn count(operator: &Operator, filter: &RunFilter) -> Result<usize, CliError> {
    Ok(operator.list(filter, None, COUNTED).await?.len())
}

/// A count that may have been given up.
fn told(count: usize) -> String {
    match count {
        0 => "none".to_owned(),
        COUNTED.. => format!("{COUNTED} and more"),
        count => count.to_string(),
    }
}

fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1_024 {
        return format!("{bytes} bytes");
    }
    let mut tenths = bytes * 10 / 1_024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_their_largest_unit() {
        assert_eq!(bytes(1_023), "1023 bytes");
        assert_eq!(bytes(1_024), "1.0 KiB");
        assert_eq!(bytes(4 * MIB + MIB / 2), "4.5 MiB");
        assert_eq!(bytes(3 * 1_024 * 1_024 * MIB), "3.0 TiB");
    }
}

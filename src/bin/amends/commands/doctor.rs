//! `amends doctor`.

use std::collections::BTreeMap;

use amends::GetError;
use amends::journal::Standing;
use amends::operator::Operator;
use amends::operator::OperatorError;
use amends::store::{RunEntry, RunFilter, SqliteOwner, SqliteReport, Store as _};
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::host;
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
    /// Bring a store of an older version up to date first; needs it for itself
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
}

/// So many open runs are read.
const SAMPLE: usize = 200;

/// So many runs and commands are counted one by one.
const COUNTED: usize = 10_000;

const MIB: u64 = 1 << 20;

/// A log this large is not checkpointed as it should be: its owner grows it to 4 MiB and keeps it there.
const LARGE_LOG: u64 = 256 * MIB;

/// With less than this left, a busy store fails soon.
const LITTLE_ROOM: u64 = 200 * MIB;

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let place = session.place()?;
    place.must_exist()?;
    let mut checks = Vec::new();
    if args.upgrade {
        checks.push(upgrade(&place).await?);
    }
    let report = place.examine()?;
    checks.extend(of_file(&report));
    if report.schema == Some(report.newest_schema) {
        of_runs(&place, report.owner, &mut checks).await?;
    }
    let problems = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Problem)
        .count();
    let out = &session.out;
    if out.is_json() {
        out.document(&Form {
            store: report.path.display().to_string(),
            problems,
            checks: &checks,
        })?;
    } else {
        out.line(out.paint(Hue::Bold, one_line(&report.path.display().to_string())))?;
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
    let says = wrapped(out, 15, &check.says);
    out.line(format!(
        "{sign} {} {}",
        out.paint(Hue::Dim, name),
        says.trim_start()
    ))?;
    if let Some(advice) = &check.advice {
        let advice = wrapped(out, 17, advice);
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

/// Opening a file as its owner brings its tables up to date.
async fn upgrade(place: &Place) -> Result<Check, CliError> {
    let before = place.examine()?;
    let Some(from) = before.schema else {
        return Err(CliError::new(
            Exit::Store,
            format!(
                "`{}` is empty: it holds no journals",
                place.path().display()
            ),
        ));
    };
    if from == before.newest_schema {
        return Ok(good("upgrade", "there was nothing to do"));
    }
    place.open_owner()?.close().await;
    let to = before.newest_schema;
    Ok(good(
        "upgrade",
        format!("brought from schema version {from} to {to}"),
    ))
}

fn of_file(report: &SqliteReport) -> Vec<Check> {
    let mut checks = vec![good("sqlite", format!("version {}", report.sqlite))];
    checks.push(match report.schema {
        None => problem("schema", "the file is empty: it holds no journals", "a coordinator that opens it makes the tables"),
        Some(found) if found < report.newest_schema => problem(
            "schema",
            format!("version {found}, and this build reads version {}", report.newest_schema),
            "`amends doctor --upgrade` brings it up to date, and so does a coordinator of this version that opens it",
        ),
        Some(found) => good("schema", format!("version {found}, the newest")),
    });
    checks.push(match report.owner {
        SqliteOwner::Process(pid) => good("owner", format!("process {pid} drives the runs")),
        SqliteOwner::Nobody => note(
            "owner",
            "nobody: no run goes on, and commands wait",
            "start the coordinator",
        ),
        _ => good("owner", "a process drives the runs"),
    });
    let sizes = format!(
        "{}, log {}",
        bytes(report.database_bytes),
        bytes(report.wal_bytes)
    );
    checks.push(if report.wal_bytes > LARGE_LOG {
        problem(
            "size",
            sizes,
            "the log can't be copied into the database: look for a process that has been reading for long",
        )
    } else {
        good("size", sizes)
    });
    if let Some(free) = host::free_bytes(&report.path) {
        let says = format!("{} free", bytes(free));
        checks.push(if free < LITTLE_ROOM.max(report.wal_bytes) {
            problem(
                "disk",
                says,
                "make room: a full disk stops all runs. `amends prune` forgets old ones",
            )
        } else {
            good("disk", says)
        });
    }
    checks
}

async fn of_runs(
    place: &Place,
    owner: SqliteOwner,
    checks: &mut Vec<Check>,
) -> Result<(), CliError> {
    let store = place.open_reader()?;
    let operator = Operator::new(std::sync::Arc::new(store));
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
    checks.push(commands(&operator, owner).await?);
    checks.extend(sample(&operator).await?);
    Ok(())
}

async fn commands(operator: &Operator, owner: SqliteOwner) -> Result<Check, CliError> {
    let waiting = operator.store().open_commands(None, COUNTED).await?;
    let Some(first) = waiting.first() else {
        return Ok(good("commands", "none waits"));
    };
    let age = coarse(now().since(first.command.at));
    let says = format!(
        "{} without an answer, the oldest for {age}",
        told(waiting.len())
    );
    Ok(if owner == SqliteOwner::Nobody {
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
                "`amends verify` reads all; `amends show RUN` tells what is known of one. Restore the file from a backup",
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

//! `amends workers`.

use std::collections::BTreeMap;

use amends::store::WorkerEntry;
use serde::Serialize;

use crate::commands::list::WIDE;
use crate::error::{CliError, Exit};
use crate::instants::{age, now, time_of_day};
use crate::output::{Hue, keep_whole};
use crate::session::Session;

/// Lists the workers of a fleet, and whose lease lasts
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A worker is one coordinator over the store. One that is gone without having left stays in the list
for an hour; what it owned is taken over by the others. All instants are by the server's clock.")]
pub(crate) struct Args {
    /// Only workers whose lease lasts
    #[arg(long)]
    live: bool,
}

/// A worker, for programs.
#[derive(Serialize)]
struct WorkerForm<'a> {
    id: &'a str,
    name: &'a str,
    labels: &'a BTreeMap<String, String>,
    live: bool,
    joined_at: String,
    renewed_at: String,
    until: String,
    runs: u64,
    definitions: Vec<DefinitionForm<'a>>,
}

#[derive(Serialize)]
struct DefinitionForm<'a> {
    saga: &'a str,
    version: u32,
}

impl<'a> WorkerForm<'a> {
    fn of(entry: &'a WorkerEntry) -> Self {
        let definition = |(saga, version): &'a (String, u32)| DefinitionForm {
            saga,
            version: *version,
        };
        WorkerForm {
            id: &entry.worker.id,
            name: &entry.worker.name,
            labels: &entry.worker.labels,
            live: entry.live,
            joined_at: entry.joined_at.to_string(),
            renewed_at: entry.renewed_at.to_string(),
            until: entry.until.to_string(),
            runs: entry.runs,
            definitions: entry.worker.definitions.iter().map(definition).collect(),
        }
    }
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let store = session.store().await?;
    let Some(fleet) = store.fleet() else {
        return Err(CliError::usage(
            "this store has no workers: one coordinator has it for itself",
        )
        .hint("`amends doctor` says which process that is"));
    };
    let mut workers = fleet.workers().await?;
    workers.retain(|entry| entry.live || !args.live);
    let out = &session.out;
    if out.is_json() {
        workers
            .iter()
            .try_for_each(|entry| out.record(&WorkerForm::of(entry)))?;
        return Ok(Exit::Done);
    }
    if workers.is_empty() {
        out.note("No worker is there.");
        return Ok(Exit::Done);
    }
    let labels = workers.iter().any(|entry| !entry.worker.labels.is_empty())
        && out.width().is_none_or(|width| width >= WIDE);
    let mut headings = vec!["NAME", "ID", "STATUS", "LEASE UNTIL", "RUNS", "DEFINITIONS"];
    if labels {
        headings.push("LABELS");
    }
    let mut table = out.table(&headings);
    let now = now();
    for entry in &workers {
        let (hue, status) = if entry.live {
            (Hue::Green, "● live".to_owned())
        } else {
            (Hue::Red, format!("✗ gone {}", age(entry.until, now)))
        };
        let until = time_of_day(entry.until);
        let until = format!("{}Z", until.split('.').next().unwrap_or_default());
        let definitions: Vec<String> = entry
            .worker
            .definitions
            .iter()
            .map(|(saga, version)| format!("{saga} v{version}"))
            .collect();
        let mut cells = vec![
            out.cell(Hue::Plain, &entry.worker.name),
            out.cell(Hue::Dim, &entry.worker.id),
            out.cell(hue, status),
            // None of these is further away than some minutes, so the day goes without saying.
            out.cell(Hue::Plain, until),
            out.cell(Hue::Plain, entry.runs),
            out.cell(Hue::Plain, definitions.join(", ")),
        ];
        if labels {
            let labels: Vec<String> = entry
                .worker
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            cells.push(out.cell(Hue::Dim, labels.join(" ")));
        }
        out.row(&mut table, cells);
    }
    keep_whole(&mut table, &[0, 1, 2, 3, 4]);
    out.show(&table)?;
    Ok(Exit::Done)
}

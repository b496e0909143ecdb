//! `amends stats`.

use std::collections::BTreeMap;

use amends::Timestamp;
use amends::journal::Standing;
use amends::operator::{Durations, JournalStats, Stats};
use amends::store::{RunEntry, RunFilter};
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::forms::RunForm;
use crate::glyphs;
use crate::instants;
use crate::output::{Hue, keep_whole};
use crate::progress::bar;
use crate::session::Session;
use crate::span;

/// Counts runs by saga, status and trouble
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The counts come from the store's lists. With `--journals`, the journals of the newest runs are read, too.")]
pub(crate) struct Args {
    /// Read the journals of this many of the newest runs: attempts, retries and durations of each step
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10000")]
    pub(crate) journals: Option<u64>,
    /// Read the journals of runs of this saga only
    #[arg(long, value_name = "NAME", requires = "journals")]
    pub(crate) saga: Option<String>,
}

/// Which standings a table has, in order.
const COLUMNS: [Standing; 8] = [
    Standing::Running,
    Standing::Waiting {
        until: Timestamp::from_micros(0),
    },
    Standing::Paused,
    Standing::Parked,
    Standing::Completed,
    Standing::Compensated,
    Standing::Stopped,
    Standing::Abandoned,
];

#[derive(Serialize)]
struct StatsForm<'a> {
    runs: u64,
    status: BTreeMap<&'static str, u64>,
    sagas: &'a BTreeMap<String, BTreeMap<&'static str, u64>>,
    parked: Vec<ParkedForm<'a>>,
    open_commands: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_open: Option<RunForm<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_parked: Option<RunForm<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    journals: Option<JournalsForm<'a>>,
}

#[derive(Serialize)]
struct ParkedForm<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'a str>,
    runs: u64,
}

#[derive(Serialize)]
struct JournalsForm<'a> {
    runs: u64,
    unreadable: u64,
    records: u64,
    recoveries: u64,
    runs_took: TookForm,
    steps: Vec<StepForm<'a>>,
}

#[derive(Serialize)]
struct StepForm<'a> {
    saga: &'a str,
    step: &'a str,
    attempts: u64,
    retries: u64,
    failures: u64,
    undos: u64,
    took: TookForm,
}

/// Quantiles, in microseconds.
#[derive(Serialize)]
struct TookForm {
    count: u64,
    p50_us: Option<u64>,
    p95_us: Option<u64>,
    p99_us: Option<u64>,
    max_us: Option<u64>,
}

impl TookForm {
    fn of(took: &Durations) -> Self {
        let micros =
            |span: std::time::Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let at = |percent| took.percentile(percent).map(micros);
        TookForm {
            count: took.count(),
            p50_us: at(50),
            p95_us: at(95),
            p99_us: at(99),
            max_us: took.longest().map(micros),
        }
    }
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let operator = session.operator().await?;
    let stats = operator.stats().await?;
    let journals = match args.journals {
        None => None,
        Some(sample) => {
            let mut filter = RunFilter::all();
            filter.saga.clone_from(&args.saga);
            let bar = bar(session, "reading", Some(sample.min(stats.counts.all())));
            let journals = operator
                .journal_stats(&filter, sample, |runs| bar.set_position(runs))
                .await?;
            bar.finish_and_clear();
            Some(journals)
        }
    };
    if session.out.is_json() {
        session.out.document(&form(&stats, journals.as_ref()))?;
    } else {
        people(&stats, session)?;
        if let Some(journals) = &journals {
            people_journals(journals, session)?;
        }
    }
    Ok(Exit::Done)
}

fn form<'a>(stats: &'a Stats, journals: Option<&'a JournalStats>) -> StatsForm<'a> {
    let counts = &stats.counts;
    let standings = COLUMNS.map(|standing| (standing.as_str(), counts.standing(standing)));
    let parked = counts.parked.iter().map(|(trouble, runs)| ParkedForm {
        step: trouble.as_ref().map(|trouble| trouble.step.as_str()),
        mode: trouble.as_ref().map(|trouble| trouble.mode.as_str()),
        runs: *runs,
    });
    StatsForm {
        runs: counts.all(),
        status: standings
            .into_iter()
            .filter(|(_, runs)| *runs > 0)
            .collect(),
        sagas: &counts.runs,
        parked: parked.collect(),
        open_commands: counts.open_commands,
        oldest_open: stats.oldest_open.as_ref().map(RunForm::of),
        oldest_parked: stats.oldest_parked.as_ref().map(RunForm::of),
        journals: journals.map(|journals| JournalsForm {
            runs: journals.runs,
            unreadable: journals.unreadable,
            records: journals.records,
            recoveries: journals.recoveries,
            runs_took: TookForm::of(&journals.runs_took),
            steps: journals
                .steps
                .iter()
                .map(|((saga, step), of)| StepForm {
                    saga,
                    step,
                    attempts: of.attempts,
                    retries: of.retries,
                    failures: of.failures,
                    undos: of.undos,
                    took: TookForm::of(&of.took),
                })
                .collect(),
        }),
    }
}

fn people(stats: &Stats, session: &Session) -> Result<(), CliError> {
    let (out, counts) = (&session.out, &stats.counts);
    if counts.all() == 0 {
        return out.line("no runs");
    }
    // Only the columns that say something.
    let used: Vec<Standing> = COLUMNS
        .into_iter()
        .filter(|standing| counts.standing(*standing) > 0)
        .collect();
    let mut headings = vec!["saga"];
    headings.extend(used.iter().map(|standing| standing.as_str()));
    headings.push("all");
    let mut table = out.table(&headings);
    for (saga, of) in &counts.runs {
        let mut row = vec![out.cell(Hue::Plain, saga)];
        for standing in &used {
            let runs = of.get(standing.as_str()).copied().unwrap_or_default();
            let hue = if runs == 0 {
                Hue::Dim
            } else {
                glyphs::of_run(*standing).hue
            };
            row.push(out.cell(hue, runs));
        }
        row.push(out.cell(Hue::Plain, of.values().sum::<u64>()));
        table.add_row(row);
    }
    if counts.runs.len() > 1 {
        let mut row = vec![out.cell(Hue::Bold, "all")];
        row.extend(
            used.iter()
                .map(|standing| out.cell(Hue::Bold, counts.standing(*standing))),
        );
        row.push(out.cell(Hue::Bold, counts.all()));
        table.add_row(row);
    }
    out.show(&table)?;
    if !counts.parked.is_empty() {
        out.line("")?;
        let mut table = out.table(&["parked", "step", "mode"]);
        let mut most: Vec<_> = counts.parked.iter().collect();
        most.sort_by_key(|(_, runs)| std::cmp::Reverse(**runs));
        for (trouble, runs) in most {
            let (step, mode) = trouble.as_ref().map_or(("-", "-"), |trouble| {
                (trouble.step.as_str(), trouble.mode.as_str())
            });
            table.add_row(vec![
                out.cell(Hue::Yellow, runs),
                out.cell(Hue::Plain, step),
                out.cell(Hue::Plain, mode),
            ]);
        }
        out.show(&table)?;
    }
    out.line("")?;
    oldest("open", stats.oldest_open.as_ref(), session)?;
    oldest("parked", stats.oldest_parked.as_ref(), session)?;
    out.line(format_args!(
        "commands without an answer: {}",
        counts.open_commands
    ))
}

fn oldest(what: &str, entry: Option<&RunEntry>, session: &Session) -> Result<(), CliError> {
    let Some(entry) = entry else { return Ok(()) };
    let ago = instants::from_now(entry.started_at, instants::now());
    let run = crate::output::readable(entry.run.as_str());
    session
        .out
        .line(format_args!("oldest {what}: {run}, started {ago}"))
}

fn people_journals(journals: &JournalStats, session: &Session) -> Result<(), CliError> {
    let out = &session.out;
    out.line("")?;
    out.line(format_args!(
        "the newest {} runs: {} records, {} recoveries{}",
        journals.runs,
        journals.records,
        journals.recoveries,
        match journals.unreadable {
            0 => String::new(),
            runs => format!(", and {runs} that can't be read"),
        }
    ))?;
    let headings = [
        "step", "calls", "again", "failed", "undos", "p50", "p95", "p99", "longest",
    ];
    let mut table = out.table(&headings);
    let times = |took: &Durations| {
        let spans = [
            took.percentile(50),
            took.percentile(95),
            took.percentile(99),
            took.longest(),
        ];
        spans.map(|took| out.cell(Hue::Plain, took.map_or("-".to_owned(), span::format)))
    };
    let mut last = None;
    for ((saga, step), of) in &journals.steps {
        if last != Some(saga) {
            out.row(&mut table, vec![out.cell(Hue::Bold, saga)]);
            last = Some(saga);
        }
        let mut row = vec![out.cell(Hue::Plain, format!("  {step}"))];
        for count in [of.attempts, of.retries, of.failures, of.undos] {
            row.push(out.cell(if count == 0 { Hue::Dim } else { Hue::Plain }, count));
        }
        row.extend(times(&of.took));
        out.row(&mut table, row);
    }
    let mut row = vec![out.cell(Hue::Bold, "runs that ended"); 1];
    row.extend((0..4).map(|_| out.cell(Hue::Plain, "")));
    row.extend(times(&journals.runs_took));
    out.row(&mut table, row);
    keep_whole(&mut table, &[1, 2, 3, 4, 5, 6, 7, 8]);
    out.show(&table)
}

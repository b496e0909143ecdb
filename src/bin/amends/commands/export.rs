//! `amends export`.

use std::fs::File;
use std::io::{BufWriter, Write as _};

use amends::RunId;
use amends::operator::{Exported, Operator};
use serde::Serialize;

use crate::commands::archive_error;
use crate::error::{CliError, Exit};
use crate::output::{one_line, readable};
use crate::progress::bar;
use crate::session::{Session, entry};

/// Writes runs as JSON lines, payloads included
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The lines can be read again by `amends import`. They hold the payloads of the runs.\n\
Without `--json`, what was written is told on the standard error.")]
pub(crate) struct Args {
    /// Only these runs
    #[arg(value_name = "RUN", conflicts_with = "Which")]
    pub(crate) runs: Vec<String>,
    /// The file to write, which must not exist; the standard output where it is left out
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub(crate) which: crate::select::Which,
}

#[derive(Serialize)]
struct DoneForm {
    runs: u64,
    failed: u64,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let operator = session.operator().await?;
    let done = match &args.output {
        None => write(args, &operator, std::io::stdout(), session).await?.1,
        Some(file) => {
            let new = File::create_new(file).map_err(|error| {
                CliError::failed(&format!("making `{}`", file.display()), &error)
            })?;
            let (file, done) = write(args, &operator, new, session).await?;
            file.sync_all()?;
            if session.out.is_json() {
                session.out.document(&DoneForm {
                    runs: done.runs,
                    failed: done.failed,
                })?;
            }
            done
        }
    };
    session.out.note(format_args!(
        "{} runs exported, {} failed",
        done.runs, done.failed
    ));
    Ok(if done.failed == 0 {
        Exit::Done
    } else {
        Exit::Problems
    })
}

async fn write<W: std::io::Write>(
    args: &Args,
    operator: &Operator,
    to: W,
    session: &Session,
) -> Result<(W, Exported), CliError> {
    let bar = bar(session, "exporting", None);
    let failed = |run: &RunId, what: &str| {
        let text = format!(
            "not exported: {}: {}",
            readable(run.as_str()),
            one_line(what)
        );
        bar.suspend(|| session.out.note(text));
    };
    let mut export = operator
        .export_to(BufWriter::new(to))
        .map_err(archive_error)?;
    for run in &args.runs {
        let entry = entry(operator, run).await?;
        if let Err(what) = export.run(&entry).await.map_err(archive_error)? {
            failed(&entry.run, &what);
        }
    }
    if args.runs.is_empty() {
        for filter in args.which.selection(false).filters() {
            let progress = |done: &Exported| bar.set_position(done.runs);
            export
                .matching(filter, failed, progress)
                .await
                .map_err(archive_error)?;
        }
    }
    let (mut out, done) = export.end().map_err(archive_error)?;
    bar.finish_and_clear();
    out.flush()?;
    let out = out
        .into_inner()
        .map_err(|error| CliError::from(error.into_error()))?;
    Ok((out, done))
}

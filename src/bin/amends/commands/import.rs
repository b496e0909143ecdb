//! `amends import`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::Arc;

use amends::RunId;
use amends::operator::{ImportOutcome, ImportTotals, Operator};
use serde::Serialize;

use crate::commands::archive_error;
use crate::error::{CliError, Exit};
use crate::output::{one_line, readable};
use crate::progress::bar;
use crate::session::Session;

/// Reads runs that `amends export` wrote into a store
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs a file for itself, and makes it where there is none; a database may be in use, and has to\n\
have its tables. Runs that are there already are left alone. Open runs go on where a coordinator has\n\
the store, now or next: see that they don't where they came from, too.")]
pub(crate) struct Args {
    /// The file to read; `-` is the standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: std::path::PathBuf,
    /// Say what would be read, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Serialize)]
struct DoneForm {
    imported: u64,
    skipped: u64,
    refused: u64,
    complete: bool,
}

/// A run that was not taken, for programs.
#[derive(Serialize)]
struct RefusedForm<'a> {
    run: &'a str,
    refused: &'a str,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let from: Box<dyn BufRead> = if args.file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let file = File::open(&args.file).map_err(|error| {
            CliError::failed(&format!("opening `{}`", args.file.display()), &error)
        })?;
        Box::new(BufReader::with_capacity(1 << 20, file))
    };
    let place = session.place()?;
    let totals = if args.dry_run {
        let operator = Operator::new(if place.is_missing() {
            Arc::new(amends::store::MemoryStore::new())
        } else {
            place.open_reader().await?
        });
        read(&operator, from, true, session).await?
    } else {
        let store = place.open_to_import().await?;
        let totals = read(&Operator::new(Arc::clone(&store)), from, false, session).await;
        store.close().await;
        totals?
    };
    let form = DoneForm {
        imported: totals.imported,
        skipped: totals.skipped,
        refused: totals.refused,
        complete: totals.complete,
    };
    if session.out.is_json() {
        session.out.record(&form)?;
    } else {
        let done = if args.dry_run {
            "would be imported"
        } else {
            "imported"
        };
        session.out.line(format_args!(
            "{} runs {done}, {} there already, {} refused",
            form.imported, form.skipped, form.refused
        ))?;
        if !form.complete {
            session
                .out
                .note("The export was cut short: its last line is missing.");
        }
    }
    Ok(if form.refused == 0 && form.complete {
        Exit::Done
    } else {
        Exit::Problems
    })
}

async fn read(
    operator: &Operator,
    from: Box<dyn BufRead>,
    dry_run: bool,
    session: &Session,
) -> Result<ImportTotals, CliError> {
    let bar = bar(session, "importing", None);
    let mut written = Ok(());
    let each = |run: &RunId, became: &ImportOutcome| {
        bar.inc(1);
        if let ImportOutcome::Refused(why) = became
            && written.is_ok()
        {
            written = bar.suspend(|| refused(run, why, session));
        }
    };
    let import = if dry_run {
        operator.import_dry_run(from, each).await
    } else {
        operator.import(from, each, |_| ()).await
    };
    bar.finish_and_clear();
    written?;
    import.map_err(archive_error)
}

fn refused(run: &RunId, why: &str, session: &Session) -> Result<(), CliError> {
    let run = run.as_str();
    if session.out.is_json() {
        return session.out.record(&RefusedForm { run, refused: why });
    }
    session.out.line(format_args!(
        "refused: {}: {}",
        readable(run),
        one_line(why)
    ))
}

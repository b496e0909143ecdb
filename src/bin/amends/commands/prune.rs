//! `amends prune`.

use amends::Timestamp;
use amends::operator::{PruneTotals, Retention};
use amends::store::PruneFilter;
use serde::Serialize;
use std::collections::BTreeMap;

use crate::commands::archive_error;
use crate::confirm::confirm;
use crate::error::{CliError, Exit};
use crate::output::{one_line, readable};
use crate::progress::bar;
use crate::session::Session;
use crate::span;

/// Forgets, for ever, runs that ended long ago
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Works in small pieces, so that a coordinator on the same store is not held up.\n\
Runs that are open are never forgotten, nor is the newest run.")]
pub(crate) struct Args {
    /// Runs that ended longer ago than this, such as `30d`
    #[arg(long, value_name = "AGE", value_parser = crate::span::parse)]
    pub(crate) older_than: std::time::Duration,
    /// Only runs that ended so; several words, with commas between
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub(crate) status: Vec<crate::select::Status>,
    /// Write the runs to this new file first, as `amends export` does
    #[arg(long, value_name = "FILE")]
    pub(crate) export_first: Option<std::path::PathBuf>,
    /// So many runs in one piece
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) batch: usize,
    /// How long other writers have to themselves between two pieces
    #[arg(long, value_name = "TIME", value_parser = crate::span::parse, default_value = "20ms")]
    pub(crate) pause: std::time::Duration,
    /// Say how many runs would be forgotten, and forget none
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Serialize)]
struct DoneForm<'a> {
    runs: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: &'a BTreeMap<&'static str, u64>,
    kept: Vec<KeptForm<'a>>,
    dry_run: bool,
}

/// A run that could not be exported, and so was kept.
#[derive(Serialize)]
struct KeptForm<'a> {
    run: &'a str,
    why: &'a str,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let operator = session.operator().await?;
    let age = i64::try_from(args.older_than.as_micros()).unwrap_or(i64::MAX);
    let before = Timestamp::from_micros(Timestamp::now().as_micros().saturating_sub(age));
    let mut filter = PruneFilter::ended_before(before);
    for status in &args.status {
        let standing = status.standing();
        if !standing.is_end() {
            let text = format!("a run that is {standing} has not ended, and is never forgotten");
            return Err(CliError::usage(text));
        }
        filter = filter.standing(standing);
    }
    if args.dry_run {
        let totals = operator.prune_dry_run(&filter).await?;
        tell(&totals, true, session)?;
        return Ok(Exit::Done);
    }
    let ago = span::format(args.older_than);
    confirm(
        &format!("forget, for ever, all runs that ended more than {ago} ago?"),
        args.yes,
    )?;
    let mut retention = Retention::new(filter).batch(args.batch).pause(args.pause);
    retention.export_first.clone_from(&args.export_first);
    let bar = bar(session, "forgetting", None);
    let pruned = operator
        .prune(&retention, |so_far| bar.set_position(so_far.runs))
        .await;
    bar.finish_and_clear();
    let totals = pruned.map_err(archive_error)?;
    tell(&totals, false, session)?;
    Ok(if totals.kept.is_empty() {
        Exit::Done
    } else {
        Exit::Problems
    })
}

fn tell(totals: &PruneTotals, dry_run: bool, session: &Session) -> Result<(), CliError> {
    let out = &session.out;
    if out.is_json() {
        let kept = totals.kept.iter().map(|(run, why)| KeptForm {
            run: run.as_str(),
            why,
        });
        return out.document(&DoneForm {
            runs: totals.runs,
            status: &totals.by_standing,
            kept: kept.collect(),
            dry_run,
        });
    }
    for (run, why) in &totals.kept {
        out.line(format_args!(
            "kept: {}: {}",
            readable(run.as_str()),
            one_line(why)
        ))?;
    }
    let done = if dry_run {
        "would be forgotten"
    } else {
        "forgotten"
    };
    let by: Vec<String> = totals
        .by_standing
        .iter()
        .map(|(word, runs)| format!("{runs} {word}"))
        .collect();
    let by = if by.is_empty() {
        String::new()
    } else {
        format!(" ({})", by.join(", "))
    };
    out.line(format_args!("{} runs {done}{by}", totals.runs))
}

//! `amends list`.

use amends::Timestamp;
use amends::journal::Standing;
use amends::store::RunEntry;
use comfy_table::Table;

use crate::error::{CliError, Exit};
use crate::forms::RunForm;
use crate::glyphs;
use crate::instants::{age, largest, now};
use crate::output::{Hue, Output, keep_whole};
use crate::select::Which;
use crate::session::Session;

/// Lists runs, the newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// So many at most
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        default_value_t = 50,
        conflicts_with = "all"
    )]
    pub(crate) limit: usize,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
    // Last: what follows a group of flags would stand under its heading.
    #[command(flatten)]
    pub(crate) which: Which,
}

/// So many are read, and stand in one table, at a time where all are listed.
const PAGE: usize = 1_000;

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let operator = session.operator().await?;
    let selection = args.which.selection(true);
    let out = &session.out;
    if args.all {
        let (mut after, mut any) = (None, false);
        loop {
            let page = selection.page(&operator, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.number);
            write(out, &page)?;
            any = true;
        }
        if !any {
            say_none(args, out);
        }
        return Ok(Exit::Done);
    }
    // One more than is shown tells whether there are more.
    let mut page = selection
        .page(&operator, None, args.limit.saturating_add(1))
        .await?;
    let more = page.len() > args.limit;
    page.truncate(args.limit);
    write(out, &page)?;
    if page.is_empty() && !more {
        say_none(args, out);
    } else if more {
        out.note(format!(
            "These are the newest {}; `--all` lists all of them.",
            args.limit
        ));
    }
    Ok(Exit::Done)
}

fn say_none(args: &Args, out: &Output) {
    out.note(if args.which.is_all() {
        "The store holds no runs."
    } else {
        "No run matches."
    });
}

fn write(out: &Output, page: &[RunEntry]) -> Result<(), CliError> {
    if out.is_json() {
        return page
            .iter()
            .try_for_each(|entry| out.record(&RunForm::of(entry)));
    }
    if page.is_empty() {
        return Ok(());
    }
    out.show(&table(out, page, now()))
}

/// The columns that a terminal needs to have before labels are shown in a list.
pub(crate) const WIDE: usize = 100;

/// A table of runs, in lines that are cut where the terminal ends.
pub(crate) fn table(out: &Output, page: &[RunEntry], now: Timestamp) -> Table {
    let troubles = page.iter().any(|entry| entry.trouble.is_some());
    let labels = page.iter().any(|entry| !entry.labels.is_empty())
        && out.width().is_none_or(|width| width >= WIDE);
    let mut headings = vec!["RUN", "SAGA", "STATUS", "AGE"];
    if troubles {
        headings.push("TROUBLE");
    }
    if labels {
        headings.push("LABELS");
    }
    let mut table = out.table(&headings);
    for entry in page {
        let look = glyphs::of_run(entry.standing);
        let mut status = format!("{} {}", look.sign, look.word);
        if let Standing::Waiting { until } = entry.standing
            && until != Timestamp::NEVER
        {
            status = format!("{status} {}", largest(until.since(now)));
        }
        let mut cells = vec![
            out.cell(Hue::Plain, &entry.run),
            out.cell(Hue::Plain, format!("{} v{}", entry.saga, entry.version)),
            out.cell(look.hue, status),
            out.cell(Hue::Dim, age(entry.started_at, now)),
        ];
        if troubles {
            cells.push(out.cell(Hue::Plain, trouble(entry)));
        }
        if labels {
            let labels: Vec<String> = entry
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            cells.push(out.cell(Hue::Dim, labels.join(" ")));
        }
        out.row(&mut table, cells);
    }
    keep_whole(&mut table, &[0, 2, 3]);
    table
}

fn trouble(entry: &RunEntry) -> String {
    match &entry.trouble {
        Some(trouble) if trouble.step.is_empty() => trouble.mode.clone(),
        Some(trouble) => format!("{}: {}", trouble.step, trouble.mode),
        None => String::new(),
    }
}

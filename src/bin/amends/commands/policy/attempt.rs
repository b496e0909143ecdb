//! `amends policy try`.

use amends::RecoveryStrategy;
use amends::machine::{Trial, Tried};
use amends::operator::{Operator, OperatorError, RunView};
use amends::store::RunEntry;
use serde::Serialize;

use super::read_good;
use crate::error::{CliError, Exit, with_causes};
use crate::output::{Hue, one_line, readable};
use crate::progress::bar;
use crate::session::{Session, entry};

/// So many runs are listed in one go.
const PAGE: usize = 256;

/// Says what a policy would have decided about runs of the store, and changes nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each decision that a policy made is put to this one, in the situation in which it was made.\n\
From the first that differs on, the run would have gone another way, and what follows is about what really happened.")]
pub(crate) struct Args {
    /// The file: TOML
    #[arg(value_name = "FILE")]
    pub(crate) file: std::path::PathBuf,
    /// Only these runs
    #[arg(value_name = "RUN", conflicts_with = "Which")]
    pub(crate) runs: Vec<String>,
    /// Tell of decisions that stay the same, too
    #[arg(long)]
    pub(crate) same: bool,
    #[command(flatten)]
    pub(crate) which: crate::select::Which,
    /// Say why
    #[arg(long)]
    pub(crate) why: bool,
}

/// A decision, as it was and as it would have been.
#[derive(Serialize)]
struct TriedForm<'a> {
    run: &'a str,
    seq: u64,
    at: String,
    failed: &'a [String],
    recorded: RecoveryStrategy,
    would: RecoveryStrategy,
    differs: bool,
    after_a_difference: bool,
    would_why: &'a [amends::policy::Explanation],
}

#[derive(Default)]
struct Count {
    runs: u64,
    decisions: u64,
    differ: u64,
    failed: u64,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let set = read_good(&args.file)?;
    let operator = session.operator().await?;
    let bar = bar(session, "trying", None);
    let mut count = Count::default();
    let mut one = async |entry: &RunEntry| -> Result<(), CliError> {
        bar.inc(1);
        let tried = match view(&operator, entry).await? {
            Ok(view) => Trial::with_graph(view.journal(), view.graph(), &set)
                .map_err(|error| with_causes(&error)),
            Err(why) => Err(why),
        };
        bar.suspend(|| match tried {
            Ok(trial) => tell(entry, &trial, args, &mut count, session),
            Err(why) => {
                count.failed += 1;
                session.out.note(format_args!(
                    "{}: {}",
                    readable(entry.run.as_str()),
                    one_line(&why)
                ));
                Ok(())
            }
        })
    };
    for run in &args.runs {
        one(&entry(&operator, run).await?).await?;
    }
    if args.runs.is_empty() {
        let selection = args.which.selection(false);
        let mut after = None;
        loop {
            let page = selection.page(&operator, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.number);
            for entry in &page {
                one(entry).await?;
            }
        }
    }
    bar.finish_and_clear();
    session.out.note(format_args!(
        "{} of {} decisions would have been others, in {} runs; {} runs could not be tried",
        count.differ, count.decisions, count.runs, count.failed
    ));
    Ok(if count.failed == 0 {
        Exit::Done
    } else {
        Exit::Problems
    })
}

/// The run, or why it can't be tried.
async fn view(operator: &Operator, entry: &RunEntry) -> Result<Result<RunView, String>, CliError> {
    match operator.view(&entry.run).await {
        Ok(Some(view)) => Ok(Ok(view)),
        Ok(None) => Ok(Err("it was forgotten meanwhile".to_owned())),
        Err(error @ OperatorError::Store(_)) => Err(error.into()),
        Err(error) => Ok(Err(with_causes(&error))),
    }
}

fn tell(
    entry: &RunEntry,
    trial: &Trial,
    args: &Args,
    count: &mut Count,
    session: &Session,
) -> Result<(), CliError> {
    count.runs += 1;
    for tried in &trial.decisions {
        count.decisions += 1;
        count.differ += u64::from(tried.differs());
        if tried.differs() || args.same {
            tell_one(entry, tried, args.why, session)?;
        }
    }
    Ok(())
}

fn tell_one(entry: &RunEntry, tried: &Tried, why: bool, session: &Session) -> Result<(), CliError> {
    let out = &session.out;
    let run = entry.run.as_str();
    if out.is_json() {
        return out.record(&TriedForm {
            run,
            seq: tried.seq,
            at: tried.at.to_string(),
            failed: &tried.failed,
            recorded: tried.recorded,
            would: tried.would,
            differs: tried.differs(),
            after_a_difference: tried.after_a_difference,
            would_why: &tried.would_why,
        });
    }
    let failed = if tried.failed.is_empty() {
        "its time was up".to_owned()
    } else {
        format!("{} failed", tried.failed.join(", "))
    };
    let (hue, would) = if tried.differs() {
        (
            Hue::Yellow,
            format!("{}, would have been {}", tried.recorded, tried.would),
        )
    } else {
        (Hue::Dim, format!("{}, as now", tried.recorded))
    };
    let after = if tried.after_a_difference {
        " (after another way was taken)"
    } else {
        ""
    };
    out.line(format_args!(
        "{}  record {}, {}: {}{after}",
        readable(run),
        tried.seq,
        readable(&failed),
        out.paint(hue, would)
    ))?;
    if why {
        for explanation in &tried.would_why {
            for line in explanation.to_text().lines() {
                out.line(format_args!("    {}", readable(line)))?;
            }
        }
    }
    Ok(())
}

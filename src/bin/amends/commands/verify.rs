//! `amends verify`.

use amends::RunId;
use amends::operator::{Finding, Operator, Verified};
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::output::{Hue, one_line, readable};
use crate::progress::bar;
use crate::session::{Session, no_such_run};

/// Checks every journal of the store
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads each record, its checksum and its meaning, and compares the lists with the journals. Nothing is changed.")]
pub(crate) struct Args {
    /// Only these runs
    #[arg(value_name = "RUN", conflicts_with = "Which")]
    pub(crate) runs: Vec<String>,
    #[command(flatten)]
    pub(crate) which: crate::select::Which,
}

/// One thing that is wrong, for programs.
#[derive(Serialize)]
struct FindingForm<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    kind: &'static str,
    what: &'a str,
}

#[derive(Serialize)]
struct TotalsForm {
    runs: u64,
    open: u64,
    records: u64,
    bad_runs: u64,
    findings: u64,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let operator = session.operator().await?;
    if !args.runs.is_empty() {
        return some(args, &operator, session).await;
    }
    let selection = args.which.selection(false);
    let total = if args.which.is_all() {
        Some(operator.store().counts().await?.all())
    } else {
        None
    };
    let bar = bar(session, "checking", total);
    let out = &session.out;
    let (mut done, mut written) = ([0; 5], Ok(()));
    for filter in selection.filters() {
        let before = done[0];
        let found = |finding: &Finding| {
            if written.is_ok() {
                written = bar.suspend(|| tell(session, finding));
            }
        };
        let verified = operator
            .verify(filter, found, |so_far| {
                bar.set_position(before + so_far.runs);
            })
            .await?;
        let Verified {
            runs,
            open,
            records,
            bad_runs,
            findings,
            ..
        } = verified;
        for (sum, more) in done
            .iter_mut()
            .zip([runs, open, records, bad_runs, findings])
        {
            *sum += more;
        }
    }
    bar.finish_and_clear();
    written?;
    let [runs, open, records, bad_runs, findings] = done;
    if out.is_json() {
        out.record(&TotalsForm {
            runs,
            open,
            records,
            bad_runs,
            findings,
        })?;
    } else {
        let counted = format!("{runs} runs ({open} open), {records} records");
        let (hue, verdict) = match findings {
            0 => (Hue::Green, "nothing is wrong".to_owned()),
            1 => (Hue::Red, "one thing is wrong".to_owned()),
            more => (
                Hue::Red,
                format!("{more} things are wrong, with {bad_runs} runs"),
            ),
        };
        out.line(format_args!("{counted}: {}", out.paint(hue, verdict)))?;
    }
    Ok(if findings == 0 {
        Exit::Done
    } else {
        Exit::Problems
    })
}

/// The runs that were named.
async fn some(args: &Args, operator: &Operator, session: &Session) -> Result<Exit, CliError> {
    let mut exit = Exit::Done;
    for run in &args.runs {
        let Some(findings) = operator.verify_run(&RunId::new(run.as_str())).await? else {
            return Err(no_such_run(operator, run).await);
        };
        for finding in &findings {
            exit = Exit::Problems;
            tell(session, finding)?;
        }
        if findings.is_empty() && !session.out.is_json() {
            let good = session.out.paint(Hue::Green, "nothing is wrong");
            session
                .out
                .line(format_args!("run {}: {good}", readable(run)))?;
        }
    }
    Ok(exit)
}

fn tell(session: &Session, finding: &Finding) -> Result<(), CliError> {
    let run = finding.run.as_ref().map(RunId::as_str);
    if session.out.is_json() {
        return session.out.record(&FindingForm {
            run,
            kind: finding.kind.as_str(),
            what: &finding.what,
        });
    }
    let kind = session.out.paint(Hue::Red, finding.kind);
    let whose = run.map_or_else(
        || "the store".to_owned(),
        |run| format!("run {}", readable(run)),
    );
    session
        .out
        .line(format_args!("{kind}  {whose}: {}", one_line(&finding.what)))
}

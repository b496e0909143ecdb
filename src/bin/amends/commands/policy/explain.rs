//! `amends policy explain`.

use amends::FailureMode;
use amends::failure::FailedEffect;
use amends::policy::{RecoveryPolicy, Situation};

use super::read_good;
use crate::error::{CliError, Exit};
use crate::session::Session;

/// Says what a policy would decide in a situation, and why
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file: TOML
    #[arg(value_name = "FILE")]
    pub(crate) file: std::path::PathBuf,
    /// The failure mode, such as `system_network`
    #[arg(long, value_name = "MODE", value_parser = built_in)]
    pub(crate) mode: FailureMode,
    /// The step that failed
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) step: String,
    /// How much was done, such as `3/4`
    #[arg(long, value_name = "DONE/ALL", default_value = "0/1", value_parser = completed)]
    pub(crate) completed: (u32, u32),
    /// The pivot is done or in doubt
    #[arg(long)]
    pub(crate) past_pivot: bool,
    /// The failed step is in doubt
    #[arg(long)]
    pub(crate) in_doubt: bool,
    /// The step is done, in part: no failure, so only rules that name it are about it
    #[arg(long, conflicts_with = "in_doubt")]
    pub(crate) in_part: bool,
    /// Recoveries that the run has had
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) recoveries: u32,
    /// How long ago the run was started
    #[arg(long, value_name = "TIME", value_parser = crate::span::parse, default_value = "0s")]
    pub(crate) elapsed: std::time::Duration,
}

/// A mode of one's own has properties that only its code knows.
fn built_in(text: &str) -> Result<FailureMode, String> {
    let wire = crate::select::mode(text)?;
    FailureMode::built_in(&wire)
        .ok_or_else(|| format!("what `{text}` means is not in a file: try a built-in mode"))
}

fn completed(text: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("how much was done is written as `3/4`, not `{text}`");
    let (done, all) = text.split_once('/').ok_or_else(wrong)?;
    match (done.trim().parse(), all.trim().parse()) {
        (Ok(done), Ok(all)) if done <= all && all > 0 => Ok((done, all)),
        _ => Err(wrong()),
    }
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let set = read_good(&args.file)?;
    let preset = RecoveryPolicy::saga();
    let policy = set.recovery_policy().unwrap_or(&preset);
    let (done, all) = args.completed;
    let mut saw = Situation::new(args.step.as_str(), args.mode.clone(), done, all);
    saw.past_pivot = args.past_pivot;
    if args.in_doubt {
        saw.effect = FailedEffect::InDoubt;
    }
    if args.in_part {
        saw.effect = FailedEffect::Done;
    }
    saw.recoveries = args.recoveries;
    saw.max_recoveries = policy.recoveries();
    saw.elapsed = args.elapsed;
    let why = policy.decide(&saw);
    if session.out.is_json() {
        session.out.document(&why)?;
    } else {
        session.out.text(&why.to_text())?;
    }
    Ok(Exit::Done)
}

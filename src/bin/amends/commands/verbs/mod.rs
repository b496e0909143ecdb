//! The verbs: commands to runs, handed in for the owner of the run to carry out.

pub(crate) mod abandon;
pub(crate) mod approve;
pub(crate) mod cancel;
pub(crate) mod compensate;
pub(crate) mod deny;
pub(crate) mod mark_compensated;
pub(crate) mod migrate;
pub(crate) mod pause;
pub(crate) mod resolve;
pub(crate) mod resume;
pub(crate) mod retry;
pub(crate) mod signal;
pub(crate) mod skip;

use std::num::NonZeroU32;
use std::time::Duration;

use amends::CancelTold;
use amends::journal::{Command, CommandAnswer, Verb, VerbName};
use amends::operator::{Bulk, BulkOutcome, BulkReport, Operator, OperatorError, Sent};
use amends::store::{RunEntry, SubmitError};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::confirm::confirm;
use crate::error::{CliError, Exit};
use crate::output::{Hue, one_line, readable};
use crate::progress::bar;
use crate::select::Which;
use crate::session::{Session, entry};
use crate::span;

/// To which runs, and how: what all verbs share.
#[derive(Debug, clap::Args)]
pub(crate) struct Asking {
    /// The runs; left out, all runs that match the flags below
    #[arg(
        value_name = "RUN",
        required_unless_present = "Which",
        conflicts_with = "Which"
    )]
    pub(crate) runs: Vec<String>,
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) how: How,
}

/// How commands are handed in.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "How")]
pub(crate) struct How {
    /// Who asks
    #[arg(
        long,
        value_name = "NAME",
        env = "USER",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) by: String,
    /// Why, for those who read the journal later
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) reason: String,
    /// A name for this command: repeated with the same one, it is carried out once
    #[arg(long, value_name = "TEXT")]
    pub(crate) token: Option<String>,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", value_parser = span::parse, default_value = "5s")]
    pub(crate) wait: Duration,
    /// So many runs per second at most
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<NonZeroU32>,
    /// Say which runs would take it, and hand nothing in
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Don't ask before steering runs by flags
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Hands a verb in to all runs that are meant.
pub(crate) async fn ask(verb: Verb, asking: &Asking, session: &Session) -> Result<Exit, CliError> {
    let operator = session.operator().await?;
    let name = verb.name();
    let token = asking.how.token.clone().unwrap_or_else(new_token);
    match asking.runs.as_slice() {
        [] => many(verb, &asking.which, &asking.how, &token, &operator, session).await,
        [run] => {
            let said = asking.how.token.is_some();
            let command = command(run, verb, &asking.how, &token);
            one(&operator, &command, &asking.how, said, session).await
        }
        runs => {
            let mut tally = Tally::new(name, session);
            for run in runs {
                // As a bulk has them, so that the same words again ask no run twice.
                let command = command(run, verb.clone(), &asking.how, &format!("{token}/{run}"));
                let entry = match entry(&operator, run).await {
                    Ok(entry) => entry,
                    Err(error) if error.exit() == Exit::NotFound => {
                        tally.missing(&error);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let became = send(&operator, &command, &asking.how).await?;
                tally.add(&entry, &became)?;
            }
            Ok(tally.end(asking.how.dry_run))
        }
    }
}

fn new_token() -> String {
    // As the library makes them.
    Command::new("", Verb::Cancel).token
}

fn command(run: &str, verb: Verb, how: &How, token: &str) -> Command {
    Command::new(run, verb)
        .by(&how.by)
        .reason(&how.reason)
        .token(token)
}

async fn send(operator: &Operator, command: &Command, how: &How) -> Result<BulkOutcome, CliError> {
    let known = operator.store().find_command(&command.token).await?;
    let sent = match known {
        Some(known) if !known.command.asks_the_same_as(command) => {
            let token = command.token.clone();
            return Err(SubmitError::TokenTaken { token }.into());
        }
        Some(_) => {
            return Ok(BulkOutcome::Before(
                operator.answer(&command.token, how.wait).await?,
            ));
        }
        None if how.dry_run => operator
            .check(command)
            .await
            .map(|()| BulkOutcome::WouldAsk),
        None => operator
            .send(command, how.wait)
            .await
            .map(BulkOutcome::Asked),
    };
    match sent {
        Err(OperatorError::Refused { why, legal, .. }) => Ok(BulkOutcome::Refused { why, legal }),
        sent => Ok(sent?),
    }
}

/// One run: what it became is the exit code, and a refusal is an error with what would be taken.
async fn one(
    operator: &Operator,
    command: &Command,
    how: &How,
    said_token: bool,
    session: &Session,
) -> Result<Exit, CliError> {
    let run = command.run.as_str();
    let entry = entry(operator, run).await?;
    let became = send(operator, command, how).await?;
    let (verb, token) = (command.verb.name(), command.token.as_str());
    if session.out.is_json() {
        session
            .out
            .document(&ReportForm::of(&entry, verb, Some(token), &became))?;
        return Ok(exit_of(&became));
    }
    let out = &session.out;
    let exit = exit_of(&became);
    match became {
        BulkOutcome::WouldAsk => out.line(format_args!("would {verb} {}", readable(run)))?,
        BulkOutcome::Refused { why, legal } => {
            return Err(OperatorError::Refused {
                run: command.run.clone(),
                why,
                legal,
            }
            .into());
        }
        BulkOutcome::Asked(Sent::Answered(CommandAnswer::Refused { why, legal }))
        | BulkOutcome::Before(Sent::Answered(CommandAnswer::Refused { why, legal })) => {
            return Err(refused(run, &why, &legal));
        }
        BulkOutcome::Asked(Sent::Answered(CommandAnswer::Late))
        | BulkOutcome::Before(Sent::Answered(CommandAnswer::Late)) => {
            out.line(format_args!(
                "{}: {verb} is late: {TOO_LATE}",
                readable(run)
            ))?;
        }
        BulkOutcome::Asked(Sent::Answered(_)) | BulkOutcome::Before(Sent::Answered(_)) => {
            out.line(format_args!(
                "{}: {verb} accepted{}",
                readable(run),
                told(&became)
            ))?;
        }
        BulkOutcome::Asked(_) | BulkOutcome::Before(_) => {
            out.line(format_args!(
                "{}: {verb} is handed in, and nobody has carried it out yet: the run's next coordinator will",
                readable(run)
            ))?;
            if !said_token {
                out.note(format_args!(
                    "Repeat it with `--token {token}` to see what became of it."
                ));
            }
        }
        became => out.line(format_args!("{}: {verb}: {}", readable(run), word(&became)))?,
    }
    Ok(exit)
}

fn refused(run: &str, why: &str, legal: &[VerbName]) -> CliError {
    let error = CliError::new(Exit::Refused, format!("run `{run}`: {why}"));
    if legal.is_empty() {
        return error;
    }
    error.hint(format!("it takes now: {}", words(legal)))
}

fn words(legal: &[VerbName]) -> String {
    let words: Vec<&str> = legal.iter().map(|verb| verb.as_str()).collect();
    words.join(", ")
}

/// All runs that match.
async fn many(
    verb: Verb,
    which: &Which,
    how: &How,
    token: &str,
    operator: &Operator,
    session: &Session,
) -> Result<Exit, CliError> {
    let name = verb.name();
    let mut tally = Tally::new(name, session);
    let selection = which.selection(false);
    if !how.dry_run {
        let few = selection.page(operator, None, 1).await?;
        if few.is_empty() {
            session.out.note("No run matches.");
            return Ok(tally.end(false));
        }
        confirm(&format!("{name} all runs that match?"), how.yes)?;
        session.out.note(format_args!(
            "Interrupted, it goes on under `--token {token}`."
        ));
    }
    for filter in selection.filters() {
        let mut bulk = Bulk::new(filter.clone(), verb.clone())
            .by(&how.by)
            .reason(&how.reason)
            .token(token)
            .patience(how.wait);
        if let Some(rate) = how.rate {
            bulk = bulk.per_second(rate);
        }
        let mut written = Ok(());
        let each = |report: &BulkReport| {
            if written.is_ok() {
                written = tally.add(&report.entry, &report.became);
            }
        };
        if how.dry_run {
            operator.bulk_dry_run(&bulk, each).await?;
        } else {
            operator.bulk(&bulk, each).await?;
        }
        written?;
    }
    Ok(tally.end(how.dry_run))
}

/// What became of several runs.
struct Tally<'s> {
    verb: VerbName,
    session: &'s Session,
    asked: u64,
    refused: u64,
    waiting: u64,
    failed: u64,
    missing: u64,
    bar: ProgressBar,
}

impl<'s> Tally<'s> {
    fn new(verb: VerbName, session: &'s Session) -> Self {
        Tally {
            verb,
            session,
            asked: 0,
            refused: 0,
            waiting: 0,
            failed: 0,
            missing: 0,
            bar: bar(session, verb.as_str(), None),
        }
    }

    fn missing(&mut self, error: &CliError) {
        self.missing += 1;
        self.bar.suspend(|| self.session.out.error(error));
    }

    fn add(&mut self, entry: &RunEntry, became: &BulkOutcome) -> Result<(), CliError> {
        let count = match exit_of(became) {
            Exit::Refused => &mut self.refused,
            Exit::Waiting => &mut self.waiting,
            Exit::Failed => &mut self.failed,
            _ => &mut self.asked,
        };
        *count += 1;
        self.bar.inc(1);
        let (out, verb) = (&self.session.out, self.verb);
        self.bar.suspend(|| {
            if out.is_json() {
                return out.record(&ReportForm::of(entry, verb, None, became));
            }
            let hue = match exit_of(became) {
                Exit::Refused | Exit::Failed => Hue::Red,
                Exit::Waiting => Hue::Yellow,
                _ => Hue::Green,
            };
            let run = readable(entry.run.as_str());
            out.line(format_args!(
                "{run}  {}{}",
                out.paint(hue, word(became)),
                told(became)
            ))
        })
    }

    fn end(self, dry_run: bool) -> Exit {
        self.bar.finish_and_clear();
        let done = if dry_run { "would be asked" } else { "taken" };
        self.session.out.note(format_args!(
            "{}: {} {done}, {} refused, {} waiting, {} failed",
            self.verb,
            self.asked,
            self.refused,
            self.waiting,
            self.failed + self.missing,
        ));
        // The worst that happened to any of them, since a script has one number to go by.
        match () {
            () if self.failed > 0 => Exit::Failed,
            () if self.missing > 0 => Exit::NotFound,
            () if self.refused > 0 => Exit::Refused,
            () if self.waiting > 0 => Exit::Waiting,
            () => Exit::Done,
        }
    }
}

const TOO_LATE: &str =
    "the wait was over when it came: it is kept in the journal, and nothing else becomes of it";

fn exit_of(became: &BulkOutcome) -> Exit {
    match became {
        BulkOutcome::WouldAsk => Exit::Done,
        BulkOutcome::Refused { .. } => Exit::Refused,
        BulkOutcome::Asked(sent) | BulkOutcome::Before(sent) => match sent {
            Sent::Answered(CommandAnswer::Accepted { .. }) => Exit::Done,
            Sent::Answered(_) => Exit::Refused,
            _ => Exit::Waiting,
        },
        _ => Exit::Failed,
    }
}

/// Whether it is a signal that is kept, and of no use.
fn is_late(became: &BulkOutcome) -> bool {
    matches!(
        became,
        BulkOutcome::Asked(Sent::Answered(CommandAnswer::Late))
            | BulkOutcome::Before(Sent::Answered(CommandAnswer::Late))
    )
}

fn word(became: &BulkOutcome) -> &'static str {
    match (became, exit_of(became)) {
        (BulkOutcome::WouldAsk, _) => "would be asked",
        _ if is_late(became) => "late",
        (BulkOutcome::Before(_), Exit::Done) => "taken before",
        (_, Exit::Done) => "taken",
        (_, Exit::Refused) => "refused",
        (_, Exit::Waiting) => "waiting",
        _ => "failed",
    }
}

/// The rest of the line, if there is more to say.
fn told(became: &BulkOutcome) -> String {
    match became {
        BulkOutcome::Refused { why, .. } => format!(": {}", one_line(&why.to_string())),
        BulkOutcome::Failed(why) => format!(": {}", one_line(why)),
        BulkOutcome::Asked(sent) | BulkOutcome::Before(sent) => match sent {
            Sent::Answered(CommandAnswer::Accepted { told: Some(told) }) => match told {
                CancelTold::Accepted => " (what is done will be undone)".to_owned(),
                CancelTold::Pending => {
                    " (its pivot is in doubt: what becomes of it decides)".to_owned()
                }
                CancelTold::TooLate => {
                    " (too late: it is past its pivot and goes forward)".to_owned()
                }
            },
            Sent::Answered(CommandAnswer::Refused { why, .. }) => format!(": {}", one_line(why)),
            Sent::Answered(CommandAnswer::Late) => format!(": {TOO_LATE}"),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

/// What became of a command, for programs.
#[derive(Serialize)]
struct ReportForm<'a> {
    run: &'a str,
    verb: &'static str,
    /// `accepted`, `refused`, `late`, `waiting`, `failed`, or in a dry run `would_ask`.
    became: &'static str,
    /// Whether it was asked before, under the same token.
    before: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    told: Option<CancelTold>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    legal: Option<&'a [VerbName]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

impl<'a> ReportForm<'a> {
    fn of(
        entry: &'a RunEntry,
        verb: VerbName,
        token: Option<&'a str>,
        became: &'a BulkOutcome,
    ) -> Self {
        let mut form = ReportForm {
            run: entry.run.as_str(),
            verb: verb.as_str(),
            became: match exit_of(became) {
                Exit::Done if *became == BulkOutcome::WouldAsk => "would_ask",
                Exit::Done => "accepted",
                Exit::Refused if is_late(became) => "late",
                Exit::Refused => "refused",
                Exit::Waiting => "waiting",
                _ => "failed",
            },
            before: matches!(became, BulkOutcome::Before(_)),
            told: None,
            why: None,
            legal: None,
            token,
        };
        match became {
            BulkOutcome::Refused { why, legal } => {
                (form.why, form.legal) = (Some(why.to_string()), Some(legal.as_slice()));
            }
            BulkOutcome::Failed(why) => form.why = Some(why.clone()),
            BulkOutcome::Asked(Sent::Answered(answer))
            | BulkOutcome::Before(Sent::Answered(answer)) => match answer {
                CommandAnswer::Accepted { told } => form.told = *told,
                CommandAnswer::Late => form.why = Some(TOO_LATE.to_owned()),
                CommandAnswer::Refused { why, legal } => {
                    (form.why, form.legal) = (Some(why.clone()), Some(legal.as_slice()));
                }
                _ => {}
            },
            _ => {}
        }
        form
    }
}

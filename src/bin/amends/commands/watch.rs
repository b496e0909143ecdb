//! `amends watch`.

use std::collections::HashMap;
use std::time::Duration;

use amends::RunId;
use amends::journal::{Event, Standing};
use amends::operator::Operator;
use amends::store::RunEntry;
use tokio::time::{Instant, sleep};

use crate::commands::journal::Writer;
use crate::commands::list::table;
use crate::error::{CliError, Exit};
use crate::forms::RunForm;
use crate::glyphs;
use crate::instants::{now, time_of_day};
use crate::output::{lines, one_line};
use crate::select::{Selection, Which};
use crate::session::{self, Session};
use crate::span;

/// Follows a run until it ends, or a list of runs until it is interrupted
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run; left out, runs that match the flags below
    #[arg(value_name = "RUN", conflicts_with = "Which")]
    run: Option<String>,
    /// Stop after this long
    #[arg(long = "for", value_name = "TIME", value_parser = span::parse)]
    patience: Option<Duration>,
    /// Show payloads: inputs and outputs may hold what not everybody may see
    #[arg(long)]
    payloads: bool,
    #[command(flatten)]
    which: Which,
}

/// How long a store is left alone between two looks: short enough to seem live, and little work.
const EVENTS_EVERY: Duration = Duration::from_millis(200);
const LIST_EVERY: Duration = Duration::from_secs(1);

/// So many runs are followed in a list.
const SHOWN: usize = 200;

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let operator = session.operator().await?;
    let until = args.patience.map(|patience| Instant::now() + patience);
    let patient = || until.is_none_or(|until| Instant::now() < until);
    match &args.run {
        Some(run) => follow(run, &operator, args.payloads, session, patient).await,
        None => follow_list(&args.which, &operator, session, patient).await,
    }
}

async fn follow(
    run: &str,
    operator: &Operator,
    payloads: bool,
    session: &Session,
    patient: impl Fn() -> bool,
) -> Result<Exit, CliError> {
    // Says so where there is no such run.
    session::entry(operator, run).await?;
    let id = RunId::new(run);
    let mut writer = Writer::new(&session.out, payloads);
    let mut seen = 0;
    loop {
        let Some(journal) = operator.store().load_after(&id, seen).await? else {
            // Forgotten meanwhile.
            return Err(session::no_such_run(operator, run).await);
        };
        for record in &journal.records {
            seen = record.seq;
            writer.write(&journal, record)?;
            let ended = |event: &Event| matches!(event, Event::Ended(_));
            if record.events.iter().any(ended) {
                return Ok(Exit::Done);
            }
        }
        if !patient() {
            return Ok(Exit::Done);
        }
        sleep(EVENTS_EVERY).await;
    }
}

async fn follow_list(
    which: &Which,
    operator: &Operator,
    session: &Session,
    patient: impl Fn() -> bool,
) -> Result<Exit, CliError> {
    let mut changes = Changes::default();
    loop {
        // Ages in flags are as of now, each time.
        let selection = which.selection(true);
        if session.out.is_live() {
            draw(&selection, operator, session).await?;
        } else {
            let page = selection.page(operator, None, SHOWN).await?;
            changes.write(page, operator, session).await?;
        }
        if !patient() {
            return Ok(Exit::Done);
        }
        sleep(LIST_EVERY).await;
    }
}

/// Draws the list anew over the old one.
async fn draw(
    selection: &Selection,
    operator: &Operator,
    session: &Session,
) -> Result<(), CliError> {
    let out = &session.out;
    let page = selection.page(operator, None, out.height()).await?;
    let now = now();
    // To the corner, and what is below it away, after the new list is known: nothing flickers.
    let mut screen = String::from("\u{1b}[H\u{1b}[J");
    if page.is_empty() {
        screen.push_str("No run matches.\n");
    } else {
        screen.push_str(&lines(&table(out, &page, now)));
    }
    out.text(&screen)
}

/// Which runs were told how: a line for each change.
#[derive(Default)]
struct Changes {
    told: HashMap<u64, Standing>,
}

impl Changes {
    async fn write(
        &mut self,
        page: Vec<RunEntry>,
        operator: &Operator,
        session: &Session,
    ) -> Result<(), CliError> {
        let present: Vec<u64> = page.iter().map(|entry| entry.number).collect();
        // The oldest first, so that lines are in the order of time.
        let mut now: Vec<RunEntry> = page.into_iter().rev().collect();
        // A run that matches no more has changed, too: it is told once how it stands instead.
        let mut gone: Vec<RunEntry> = Vec::new();
        for number in self
            .told
            .keys()
            .copied()
            .filter(|number| !present.contains(number))
        {
            let filter = amends::store::RunFilter::all();
            let after = number.checked_sub(1);
            let found = operator.list(&filter, after, 1).await?;
            gone.extend(found.into_iter().filter(|entry| entry.number == number));
        }
        gone.sort_by_key(|entry| entry.number);
        now.splice(0..0, gone);
        for entry in now {
            if self.told.get(&entry.number) != Some(&entry.standing) {
                say(&entry, session)?;
            }
            if present.contains(&entry.number) {
                self.told.insert(entry.number, entry.standing);
            } else {
                self.told.remove(&entry.number);
            }
        }
        Ok(())
    }
}

fn say(entry: &RunEntry, session: &Session) -> Result<(), CliError> {
    let out = &session.out;
    if out.is_json() {
        return out.record(&RunForm::of(entry));
    }
    let look = glyphs::of_run(entry.standing);
    let status = out.paint(look.hue, format!("{} {}", look.sign, look.word));
    let time = time_of_day(now());
    out.line(format!(
        "{time}  {}  {} v{}  {status}",
        one_line(entry.run.as_str()),
        one_line(&entry.saga),
        entry.version
    ))
}

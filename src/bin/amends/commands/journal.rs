//! `amends journal`.

use amends::journal::{Event, Journal, Record};
use amends::operator::{Operator, hide_payloads};
use amends::store::LoadError;
use amends::{RunId, Timestamp};
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::happenings::told;
use crate::instants::time_of_day;
use crate::output::{Hue, Output};
use crate::paragraph::wrapped;
use crate::session::{self, Session};

/// Shows a run's journal, record by record
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run
    #[arg(value_name = "RUN")]
    run: String,
    /// Show payloads: inputs and outputs may hold what not everybody may see
    #[arg(long)]
    payloads: bool,
}

/// The JSON line of a record.
#[derive(Serialize)]
pub(crate) struct RecordForm {
    run: String,
    seq: u64,
    at: String,
    append: String,
    /// The events in the written form of journals, with steps by name.
    events: Vec<Event<String>>,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let operator = session.operator().await?;
    let (journal, damage) = load(&operator, &args.run).await?;
    let out = &session.out;
    let mut writer = Writer::new(out, args.payloads);
    for record in &journal.records {
        writer.write(&journal, record)?;
    }
    match damage {
        None => Ok(Exit::Done),
        Some(damage) => Err(CliError::from(damage)),
    }
}

/// A run's journal needs no definition, and is shown up to the damage where it is damaged.
async fn load(operator: &Operator, run: &str) -> Result<(Journal, Option<LoadError>), CliError> {
    match operator.store().load(&RunId::new(run)).await {
        Ok(Some(journal)) => Ok((journal, None)),
        Ok(None) => Err(session::no_such_run(operator, run).await),
        Err(LoadError::Unreadable {
            run,
            seq,
            what,
            before,
        }) => {
            let journal = (*before).clone();
            let damage = LoadError::Unreadable {
                run,
                seq,
                what,
                before,
            };
            Ok((journal, Some(damage)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes records as lines, with a line for each day.
pub(crate) struct Writer<'a> {
    out: &'a Output,
    payloads: bool,
    day: String,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(out: &'a Output, payloads: bool) -> Self {
        Writer {
            out,
            payloads,
            day: String::new(),
        }
    }

    pub(crate) fn write(&mut self, journal: &Journal, record: &Record) -> Result<(), CliError> {
        let named = record.events.iter().cloned().map(|event| {
            let event = event.map_step(|step| journal.steps.name(step).to_string());
            if self.payloads {
                event
            } else {
                hide_payloads(event)
            }
        });
        let events: Vec<Event<String>> = named.collect();
        if self.out.is_json() {
            return self.out.record(&RecordForm {
                run: journal.run.to_string(),
                seq: record.seq,
                at: record.at.to_string(),
                append: record.append_id.to_string(),
                events,
            });
        }
        self.head_of_day(record.at)?;
        let seq = self.out.paint(Hue::Dim, format!("{:>4}", record.seq));
        let time = self.out.paint(Hue::Dim, time_of_day(record.at));
        for (number, event) in events.iter().enumerate() {
            let (hue, text) = told(event, self.payloads);
            // The rest of a long text stands below its beginning.
            let text = wrapped(self.out, 22, &text);
            let text = self.out.paint(hue, text.trim_start());
            if number == 0 {
                self.out.line(format!("{seq}  {time}  {text}"))?;
            } else {
                // Events of one record happened in one append.
                self.out.line(format!("{:20}{text}", ""))?;
            }
        }
        Ok(())
    }

    fn head_of_day(&mut self, at: Timestamp) -> Result<(), CliError> {
        let day: String = at.to_string().chars().take(10).collect();
        if day != self.day {
            self.out
                .line(self.out.paint(Hue::Dim, format!("{day}, times in UTC")))?;
            self.day = day;
        }
        Ok(())
    }
}

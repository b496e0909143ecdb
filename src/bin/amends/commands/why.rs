//! `amends why`.

use std::sync::Arc;

use amends::Timestamp;
use amends::journal::{Decision, Event, Parking};
use serde::Serialize;

use crate::commands::show::heading;
use crate::error::{CliError, Exit};
use crate::forms::RunForm;
use crate::instants::to_the_second;
use crate::output::{Hue, Output, readable};
use crate::paragraph::{hanging, wrapped};
use crate::session::{self, Session};

/// Explains why a run went the way it did: each decision, its rule, and what it saw
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run
    #[arg(value_name = "RUN")]
    run: String,
}

/// The JSON form.
#[derive(Serialize)]
struct Form<'a> {
    #[serde(flatten)]
    run: RunForm<'a>,
    decisions: Vec<DecisionForm<'a>>,
    parked: Option<&'a Parking>,
    hint: String,
}

#[derive(Serialize)]
struct DecisionForm<'a> {
    /// The record's place in the journal.
    seq: u64,
    at: String,
    /// The decision as the journal has it, with the explanation of each failure.
    #[serde(flatten)]
    decision: &'a Decision<String>,
}

/// A decision with the place and time of its record.
type Taken = (u64, Timestamp, Decision<String>);

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let operator = session.operator().await?;
    let view = session::view(&operator, &args.run).await?;
    let journal = view.journal();
    let mut decisions: Vec<Taken> = Vec::new();
    for record in &journal.records {
        for event in &record.events {
            if !matches!(event, Event::Decided(_)) {
                continue;
            }
            let named = event
                .clone()
                .map_step(|step| journal.steps.name(step).to_string());
            if let Event::Decided(decision) = named {
                decisions.push((record.seq, record.at, Arc::unwrap_or_clone(decision)));
            }
        }
    }
    let partial = view.partial();
    let out = &session.out;
    if out.is_json() {
        let decisions = decisions.iter().map(|(seq, at, decision)| DecisionForm {
            seq: *seq,
            at: at.to_string(),
            decision,
        });
        out.document(&Form {
            run: RunForm::of(view.entry()),
            decisions: decisions.collect(),
            parked: partial.parked.as_ref(),
            hint: partial.hint(),
        })?;
        return Ok(Exit::Done);
    }
    heading(out, &view)?;
    if decisions.is_empty() {
        let text = "Nothing had to be decided so far: no step has failed for good, and nobody has steered it.";
        out.line(wrapped(out, 0, text))?;
    }
    for (number, (_, at, decision)) in decisions.iter().enumerate() {
        told(out, number + 1, *at, decision)?;
    }
    out.line("")?;
    out.line(wrapped(out, 0, &format!("Now: {}", partial.hint())))?;
    Ok(Exit::Done)
}

fn told(
    out: &Output,
    number: usize,
    at: Timestamp,
    decision: &Decision<String>,
) -> Result<(), CliError> {
    let when = out.paint(Hue::Dim, to_the_second(at));
    let text = readable(&decision.to_text(String::as_str));
    let mut lines = text.lines();
    let what = lines.next().unwrap_or_default();
    let what = out.paint(Hue::Bold, wrapped(out, 3, what).trim_start());
    out.line(format!("\n{number}. {what}\n   {when}"))?;
    for line in lines {
        // Lines of an explanation are set in, and what they tell begins in one column.
        let told_at = if line.starts_with(' ') { 16 } else { 0 };
        out.line(hanging(out, 3, told_at, line))?;
    }
    Ok(())
}

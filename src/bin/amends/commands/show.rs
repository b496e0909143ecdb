//! `amends show`.

use std::time::Duration;

use amends::diagram::{self, Row};
use amends::journal::{CancelTold, Standing};
use amends::machine::Stage;
use amends::operator::RunView;
use amends::{EffectReport, PartialResult, StepReport, StepStatus, Timestamp, Value};
use comfy_table::Cell;
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::forms::RunForm;
use crate::happenings::{asked, failed};
use crate::instants::{from_now, now, to_the_second};
use crate::output::{Hue, Output, keep_whole, one_line};
use crate::paragraph::wrapped;
use crate::session::{self, Session};
use crate::{glyphs, span};

/// Shows how a run stands: its steps, what was undone, what is outstanding, what it takes now
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run
    #[arg(value_name = "RUN")]
    run: String,
    /// Show when each attempt ran, too
    #[arg(long)]
    timeline: bool,
    /// Show payloads: inputs and outputs may hold what not everybody may see
    #[arg(long)]
    payloads: bool,
    /// List all there is: else, of more than 12 items of a fan-out, those that failed or are under way
    #[arg(long)]
    all: bool,
}

/// So many items of a fan-out are listed where not all are asked for.
const ITEMS: usize = 12;
/// So many lines of a list below the steps.
const LINES: usize = 40;

/// The JSON form: the run's entry in the list, and the library's own form of what it has achieved.
#[derive(Serialize)]
struct Form<'a> {
    #[serde(flatten)]
    run: RunForm<'a>,
    stage: &'static str,
    legal: Vec<&'static str>,
    /// What is wrong with its journal.
    damage: Option<&'a str>,
    hint: String,
    result: PartialResult,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let operator = session.operator().await?;
    let view = session::view(&operator, &args.run).await?;
    let mut partial = view.partial();
    if !args.payloads {
        partial = partial.without_payloads();
    }
    let out = &session.out;
    if out.is_json() {
        out.document(&Form {
            run: RunForm::of(view.entry()),
            stage: view.stage().as_str(),
            legal: view.legal().iter().map(|verb| verb.as_str()).collect(),
            damage: view.damage(),
            hint: partial.hint(),
            result: partial,
        })?;
        return Ok(Exit::Done);
    }
    heading(out, &view)?;
    about(out, &partial)?;
    steps(out, &partial, if args.all { usize::MAX } else { ITEMS })?;
    parts(out, &partial)?;
    payloads(out, "Outputs", &partial, |step| step.output.as_ref())?;
    payloads(out, "Progress", &partial, |step| step.progress.as_ref())?;
    let most = if args.all { usize::MAX } else { LINES };
    failures(out, &partial, most)?;
    compensations(out, &partial, most)?;
    outstanding(out, view.stage(), &partial, most)?;
    if args.timeline {
        timeline(out, &partial)?;
    }
    next(out, &partial)?;
    Ok(Exit::Done)
}

/// What a run is called, and how it stands: the first line of all that is about one run.
pub(crate) fn heading(out: &Output, view: &RunView) -> Result<(), CliError> {
    let entry = view.entry();
    // A damaged journal is told as parked, and the list doesn't know it yet.
    let standing = if view.damage().is_some() {
        Standing::Parked
    } else {
        entry.standing
    };
    let look = glyphs::of_run(standing);
    let (now, dot) = (now(), out.paint(Hue::Dim, "·"));
    let status = out.paint(look.hue, format!("{} {}", look.sign, look.word));
    let until = match standing {
        Standing::Waiting { until } if until == Timestamp::NEVER => " for a signal".to_owned(),
        Standing::Waiting { until } => format!(", goes on {}", from_now(until, now)),
        _ => String::new(),
    };
    let run = out.paint(Hue::Bold, one_line(entry.run.as_str()));
    let saga = one_line(&entry.saga);
    out.line(format!(
        "{run} {dot} {saga} v{} {dot} {status}{until}",
        entry.version
    ))?;
    if let Some(damage) = view.damage() {
        out.line(out.paint(Hue::Red, wrapped(out, 0, &format!("Damaged: {damage}"))))?;
    }
    Ok(())
}

/// Lines of `name value`, with the values under each other.
fn fact(out: &Output, name: &str, value: &str) -> Result<(), CliError> {
    let name = out.paint(Hue::Dim, format!("{name:<9}"));
    out.line(format!("{name} {}", one_line(value)))
}

fn about(out: &Output, partial: &PartialResult) -> Result<(), CliError> {
    let now = now();
    let (at, ago) = (partial.started_at, from_now(partial.started_at, now));
    fact(out, "started", &format!("{} ({ago})", to_the_second(at)))?;
    if let Some(at) = partial.ended_at {
        let took = span::format(at.since(partial.started_at));
        fact(
            out,
            "ended",
            &format!("{} (after {took})", to_the_second(at)),
        )?;
    }
    if !partial.labels.is_empty() {
        let labels = partial
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        fact(out, "labels", &labels.collect::<Vec<_>>().join(" "))?;
    }
    fact(out, "trace", &partial.trace_id)?;
    if partial.recoveries > 0 {
        fact(out, "recovered", &count(partial.recoveries, "time"))?;
    }
    if partial.deadline_passed {
        fact(out, "deadline", "passed")?;
    }
    if let Some(paused) = &partial.paused {
        let (ago, by) = (from_now(paused.at, now), asked(&paused.by, &paused.reason));
        fact(out, "paused", &format!("{ago}{by}"))?;
    }
    if let Some(cancel) = &partial.cancel {
        let told = match cancel.told {
            CancelTold::Accepted => "accepted",
            CancelTold::Pending => "waits for the pivot",
            CancelTold::TooLate => "too late",
        };
        fact(
            out,
            "cancel",
            &format!("{told}{}", asked(&cancel.by, &cancel.reason)),
        )?;
    }
    if let Some(parked) = &partial.parked {
        let indent = 10;
        let text = wrapped(
            out,
            indent,
            &format!("{} ({})", parked.message, parked.reason),
        );
        let name = out.paint(Hue::Dim, format!("{:<9}", "parked"));
        out.line(format!("{name} {}", text.trim_start()))?;
    }
    if let Some(stopped) = &partial.stopped {
        fact(out, "stopped", stopped)?;
    }
    Ok(())
}

pub(crate) fn title(out: &Output, text: &str) -> Result<(), CliError> {
    out.line(format!("\n{}", out.paint(Hue::Bold, text)))
}

fn steps(out: &Output, partial: &PartialResult, most_items: usize) -> Result<(), CliError> {
    let (done, total) = (partial.completed, partial.total);
    title(out, &format!("Steps: {done} of {total} done"))?;
    // What is the same for every step tells nothing.
    let rounds = partial.steps.iter().any(|step| told_round(step) > 1);
    let rows = diagram::rows(partial, most_items);
    let nested = rows.iter().any(|row| {
        matches!(
            row,
            Row::Step {
                inside: Some(_),
                ..
            }
        )
    });
    let mut headings = vec!["STEP", "STATUS", "EFFECT", "ATTEMPTS", "TOOK"];
    if rounds {
        headings.push("ROUND");
    }
    if nested {
        headings.push("INSIDE");
    }
    let mut table = out.table(&headings);
    for row in &rows {
        let mut cells = match row {
            Row::Step {
                depth,
                step,
                inside,
            } => step_cells(out, *depth, step, inside.is_some()),
            Row::More { depth, items } => {
                let name = format!("{:1$}{2} more", "", 2 * depth, items.total());
                let mut cells = vec![out.cell(Hue::Dim, name)];
                cells.resize_with(5, || out.cell(Hue::Plain, ""));
                cells
            }
            _ => continue,
        };
        let (round, inside) = match row {
            Row::Step { step, inside, .. } => (
                step.round.to_string(),
                match inside {
                    Some(counts) if counts.with(step.status) < counts.total() => counts.to_string(),
                    // Where all stand as it does there is nothing to tell.
                    _ => String::new(),
                },
            ),
            Row::More { items, .. } => (String::new(), items.each()),
            _ => continue,
        };
        if rounds {
            cells.push(out.cell(Hue::Plain, round));
        }
        if nested {
            cells.push(out.cell(Hue::Plain, inside));
        }
        out.row(&mut table, cells);
    }
    keep_whole(&mut table, &[1, 2, 3, 4]);
    let longest = rows.iter().filter_map(|row| match row {
        Row::Step { depth, step, .. } => Some(2 * depth + step.own_name().len()),
        _ => None,
    });
    // What has to be cut is how steps inside stand, which their own lines say, and not their names.
    if nested && longest.max().is_some_and(|longest| longest <= 30) {
        keep_whole(&mut table, &[0]);
    }
    out.show(&table)
}

/// The round that a step is in. What undoes it opens the next one, in which nothing has happened yet; that of
/// a sub-saga that undid itself is not told before it begins.
fn told_round(step: &StepReport) -> u32 {
    let begun = step
        .calls
        .last()
        .is_none_or(|call| call.round == step.round);
    match step.status {
        StepStatus::Undone => 1,
        StepStatus::Failed if !begun => 1,
        _ => step.round,
    }
}

/// What is told of each step. Of one with steps inside, these tell what is in doubt, and its attempt is theirs.
fn step_cells(out: &Output, depth: usize, step: &StepReport, has_inside: bool) -> Vec<Cell> {
    let look = glyphs::of_step(step.status);
    let (mut attempts, mut took) = (String::new(), String::new());
    if step.attempts > 0 {
        took = duration(step);
    }
    if step.attempts > 0 && !has_inside {
        attempts = step.attempts.to_string();
    }
    let name = match depth {
        0 => step.name.clone(),
        depth => format!("{:1$}{2}", "", 2 * depth, step.own_name()),
    };
    let effect = match (has_inside, step.effect) {
        (true, EffectReport::InDoubt) => out.cell(Hue::Plain, ""),
        (_, effect) => out.cell(glyphs::effect_hue(effect), glyphs::effect_word(effect)),
    };
    vec![
        out.cell(Hue::Plain, name),
        out.cell(look.hue, format!("{} {}", look.sign, look.word)),
        effect,
        out.cell(Hue::Plain, attempts),
        out.cell(Hue::Plain, took),
    ]
}

/// Of an attempt that has not ended there is no duration.
fn duration(step: &StepReport) -> String {
    if step.status == StepStatus::Running || step.took_us == 0 {
        String::new()
    } else {
        span::format(step.duration())
    }
}

fn parts(out: &Output, partial: &PartialResult) -> Result<(), CliError> {
    let in_part: Vec<String> = partial
        .steps
        .iter()
        .filter_map(|step| Some(format!("{}: {}", step.name, step.partial.as_ref()?)))
        .collect();
    if in_part.is_empty() {
        return Ok(());
    }
    title(out, "Done in part")?;
    for text in in_part {
        out.line(wrapped(out, 0, &text))?;
    }
    Ok(())
}

/// Only where payloads are shown is there any.
fn payloads(
    out: &Output,
    heading: &str,
    partial: &PartialResult,
    payload: fn(&StepReport) -> Option<&Value>,
) -> Result<(), CliError> {
    let payloads: Vec<(&str, String)> = partial
        .steps
        .iter()
        .filter_map(|step| {
            let json = payload(step)?.to_json();
            let text = json.map_or_else(|error| error.to_string(), |json| json.get().to_owned());
            Some((step.name.as_str(), text))
        })
        .collect();
    if payloads.is_empty() {
        return Ok(());
    }
    title(out, heading)?;
    for (step, text) in payloads {
        out.line(format!("{}  {}", one_line(step), one_line(&text)))?;
    }
    Ok(())
}

/// How many lines more a list has.
fn and_more(out: &Output, all: usize, most: usize) -> Result<(), CliError> {
    match all.saturating_sub(most) {
        0 => Ok(()),
        more => out.line(out.paint(Hue::Dim, format!("and {more} more: `--all` lists them"))),
    }
}

fn failures(out: &Output, partial: &PartialResult, most: usize) -> Result<(), CliError> {
    let failed_steps: Vec<&StepReport> = partial
        .steps
        .iter()
        .filter(|step| step.failure.is_some())
        .collect();
    if failed_steps.is_empty() {
        return Ok(());
    }
    title(out, "Last failures")?;
    for &step in failed_steps.iter().take(most) {
        let Some(failure) = &step.failure else {
            continue;
        };
        let what = if step.status == StepStatus::UndoFailed {
            format!("undo of {}", step.name)
        } else {
            step.name.clone()
        };
        out.line(wrapped(out, 0, &format!("{what}: {}", failed(failure))))?;
    }
    and_more(out, failed_steps.len(), most)
}

fn compensations(out: &Output, partial: &PartialResult, most: usize) -> Result<(), CliError> {
    if partial.compensations.is_empty() {
        return Ok(());
    }
    title(out, "Undos, in this order")?;
    for (number, done) in partial.compensations.iter().enumerate().take(most) {
        let look = match (&done.failure, &done.by_hand) {
            (Some(_), _) => glyphs::of_step(StepStatus::UndoFailed),
            (None, _) => glyphs::of_step(StepStatus::Undone),
        };
        let took = span::format(Duration::from_micros(done.took_us));
        let how = match (&done.by_hand, done.attempts) {
            (Some(by), _) => format!("by hand{}", asked(by, "")),
            (None, 1) => format!("took {took}"),
            (None, attempts) => format!("{attempts} attempts, the last took {took}"),
        };
        let round = if done.round > 1 {
            format!(", round {}", done.round)
        } else {
            String::new()
        };
        let (number, word) = (
            number + 1,
            out.paint(look.hue, format!("{} {}", look.sign, look.word)),
        );
        let step = one_line(&done.step);
        out.line(format!("{number}. {step}  {word}, {how}{round}"))?;
    }
    and_more(out, partial.compensations.len(), most)
}

fn outstanding(
    out: &Output,
    stage: Stage,
    partial: &PartialResult,
    most: usize,
) -> Result<(), CliError> {
    // While a run goes forward, what it has done so far is its work and no worry, unless in doubt.
    let at_work = matches!(stage, Stage::Forward | Stage::Paused)
        && partial
            .outstanding
            .iter()
            .all(|standing| standing.effect == EffectReport::Done);
    if partial.outstanding.is_empty() || at_work {
        return Ok(());
    }
    title(out, "Standing in the world")?;
    let mut table = out.table(&["STEP", "EFFECT", "KEY"]);
    for standing in partial.outstanding.iter().take(most) {
        let (hue, word) = (
            glyphs::effect_hue(standing.effect),
            glyphs::effect_word(standing.effect),
        );
        let cells = vec![
            out.cell(Hue::Plain, &standing.step),
            out.cell(hue, word),
            out.cell(Hue::Dim, standing.key.as_deref().unwrap_or_default()),
        ];
        out.row(&mut table, cells);
    }
    // A key that is cut can't be looked for.
    keep_whole(&mut table, &[1, 2]);
    out.show(&table)?;
    and_more(out, partial.outstanding.len(), most)
}

/// The picture without its first lines, which say what is said above already.
fn timeline(out: &Output, partial: &PartialResult) -> Result<(), CliError> {
    title(out, "Timeline")?;
    let picture = diagram::timeline_text_within(partial, out.width().unwrap_or(100).min(120));
    let rest = picture
        .split_once("\n\n")
        .map_or(&*picture, |(_, rest)| rest);
    out.text(rest)
}

/// What the reader can do.
fn next(out: &Output, partial: &PartialResult) -> Result<(), CliError> {
    if partial.ended_at.is_some() || partial.legal.is_empty() {
        return Ok(());
    }
    let verbs: Vec<&str> = partial.legal.iter().map(|verb| verb.as_str()).collect();
    let verbs = wrapped(out, 10, &verbs.join(", "));
    out.line("")?;
    out.line(format!(
        "{} {}",
        out.paint(Hue::Dim, "it takes "),
        verbs.trim_start()
    ))?;
    if partial.parked.is_some() && !partial.why.is_empty() {
        let run = one_line(partial.run.as_str());
        out.line(format!(
            "{} amends why {run}",
            out.paint(Hue::Dim, "why      ")
        ))?;
    }
    Ok(())
}

fn count(number: u32, thing: &str) -> String {
    if number == 1 {
        "once".to_owned()
    } else {
        format!("{number} {thing}s")
    }
}

//! A timeline in the terminal.

use std::fmt::Write;

use crate::diagram::page::{cut, wrapped};
use crate::diagram::timeline::scale::{Room, Scale};
use crate::diagram::timeline::{Row, Story};
use crate::diagram::{columns, look, readable};
use crate::partial::{CallEnd, CallKind, PartialResult};

/// Lines are no longer than this.
const WIDTH: usize = 100;
const NAME: usize = 24;

/// Draws what happened when for the terminal, in lines of at most 100 columns: a row per step, and under
/// it one for its undos.
///
/// `█` is a call that was done, `▒` one that wasn't, and what follows says how it ended: `✗` failed,
/// `‖` interrupted, `?` lost with its process, `■` asked to stop, `▶` under way. Dots are a wait
/// before another attempt, `━` reaches over the steps inside a step, `╱` stands where a stretch without any event is cut out. The numbers over the
/// rows are told below.
///
/// ```
/// use amends::store::MemoryStore;
/// use amends::{Coordinator, Saga, StepContext, diagram, read_only_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut saga = Saga::builder::<u64>("look");
/// let id = saga.input();
/// let seen = saga.add(read_only_fn("see", async |_: &StepContext, id: &u64| Ok(*id)), id);
/// let saga: Saga<u64, u64> = saga.returns(seen)?;
///
/// let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga).build().await?;
/// let outcome = coordinator.start(&saga, "look-1", 5).await?.outcome().await?;
///
/// let text = diagram::timeline_text(&outcome.partial());
/// assert!(text.starts_with("look, version 1: run look-1, ✓ completed\n"));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn timeline_text(partial: &PartialResult) -> String {
    timeline_text_within(partial, WIDTH)
}

/// The same as [`timeline_text`] in lines of at most so many columns; 70 at least.
///
/// ```
/// # use amends::{Coordinator, Saga, StepContext, diagram, read_only_fn, store::MemoryStore};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut saga = Saga::builder::<u64>("look");
/// # let id = saga.input();
/// # let seen = saga.add(read_only_fn("see", async |_: &StepContext, id: &u64| Ok(*id)), id);
/// # let saga: Saga<u64, u64> = saga.returns(seen)?;
/// # let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga).build().await?;
/// # let outcome = coordinator.start(&saga, "look-1", 5).await?.outcome().await?;
/// let text = diagram::timeline_text_within(&outcome.partial(), 80);
/// assert!(text.lines().all(|line| line.chars().count() <= 80));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn timeline_text_within(partial: &PartialResult, columns_at_most: usize) -> String {
    let width = columns_at_most.max(70);
    let story = Story::of(partial);
    let names: Vec<String> = story
        .rows
        .iter()
        .map(|row| cut(&format!("{:1$}{2}", "", 2 * row.depth, row.name), NAME))
        .collect();
    let name = names.iter().map(|name| columns(name)).max().unwrap_or(0);
    let status = story
        .rows
        .iter()
        .map(|row| columns(&row.stands()))
        .max()
        .unwrap_or(2);
    // Between name and chart, and between chart and status, are two columns.
    let chart = width.saturating_sub(name + status + 4).max(20);
    let scale = Scale::new(
        &story.instants(),
        &story.lengths(),
        &Room {
            // The last column holds what happens at the end.
            width: i64::try_from(chart).unwrap_or(40) - 1,
            cut: 1,
            bar: 1,
            tick: 9,
        },
    );
    let mut out = head_within(partial, width);
    out.push('\n');
    for line in flags(&story, &scale, chart) {
        let _ = writeln!(out, "{:name$}  {}", "", line.trim_end());
    }
    let _ = writeln!(out, "{:name$}  {}", "", axis(&scale, chart).trim_end());
    for (row, label) in story.rows.iter().zip(&names) {
        let pad = name - columns(label);
        if row.step.is_none() {
            let _ = writeln!(out, "{label}{:pad$}  {}", "", cut(&row.more, chart));
            continue;
        }
        let (bars, stands) = (line(row, CallKind::Execute, &scale, chart), row.stands());
        let _ = writeln!(out, "{label}{:pad$}  {bars}  {stands}", "");
        if row
            .bars
            .iter()
            .any(|bar| bar.call.call == CallKind::Compensate)
        {
            let bars = line(row, CallKind::Compensate, &scale, chart);
            let _ = writeln!(out, "{:>name$}  {}", "undo", bars.trim_end());
        }
    }
    if !story.marks.is_empty() {
        out.push('\n');
    }
    for line in story.list(width, usize::MAX) {
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// What stands over pictures of a run in the terminal.
pub(in super::super) fn head(partial: &PartialResult) -> String {
    head_within(partial, WIDTH)
}

fn head_within(partial: &PartialResult, width: usize) -> String {
    let mut story = look::story(partial).into_iter();
    let _ = story.next();
    let first = format!(
        "{}, version {}: run {}, {} {}",
        readable(&partial.saga),
        partial.version,
        readable(partial.run.as_str()),
        look::of_run(partial.standing).sign,
        partial.standing,
    );
    let mut out = String::new();
    for text in std::iter::once(first).chain(story) {
        for line in wrapped(&readable(&text), width) {
            out.push_str(&line);
            out.push('\n');
        }
    }
    out
}

fn place(scale: &Scale, at: i64, chart: usize) -> usize {
    usize::try_from(scale.x(at)).unwrap_or(0).min(chart - 1)
}

/// The numbers of marks over the places where they are, in as many lines as it takes, the rest left off.
fn flags(story: &Story, scale: &Scale, chart: usize) -> Vec<String> {
    let mut lines: Vec<Vec<char>> = Vec::new();
    for (index, mark) in story.marks.iter().enumerate() {
        let text: Vec<char> = format!("{}", index + 1).chars().collect();
        let from = place(scale, mark.at, chart).min(chart - text.len());
        let fits = |line: &[char]| {
            let around = from.saturating_sub(1)..(from + text.len() + 1).min(chart);
            line[around].iter().all(|&c| c == ' ')
        };
        let line = match lines.iter_mut().position(|line| fits(line)) {
            Some(index) => index,
            None if lines.len() < 6 => {
                lines.push(vec![' '; chart]);
                lines.len() - 1
            }
            None => continue,
        };
        lines[line][from..from + text.len()].copy_from_slice(&text);
    }
    lines.into_iter().map(String::from_iter).collect()
}

/// Ticks where their labels have room.
fn axis(scale: &Scale, chart: usize) -> String {
    let mut line = vec!['─'; chart];
    for cut in scale.cuts() {
        line[usize::try_from(cut.x).unwrap_or(0).min(chart - 1)] = '╱';
    }
    for first in [true, false] {
        for tick in scale.ticks().iter().filter(|tick| tick.first == first) {
            let label: Vec<char> = format!("{} ", tick.label).chars().collect();
            let from = usize::try_from(tick.x).unwrap_or(0);
            let Some(room) = line.get_mut(from..from + label.len() + 1) else {
                continue;
            };
            if room.iter().all(|&c| c == '─') {
                room[0] = '┬';
                room[1..].copy_from_slice(&label);
            }
        }
    }
    line.into_iter().collect()
}

/// The calls of one kind of a step.
fn line(row: &Row, kind: CallKind, scale: &Scale, chart: usize) -> String {
    let mut line = vec![' '; chart];
    for wait in &row.waits {
        if wait.undo == (kind == CallKind::Compensate) {
            line[place(scale, wait.from, chart)..=place(scale, wait.to, chart)].fill('·');
        }
    }
    let bars = || row.bars.iter().filter(|bar| bar.call.call == kind);
    for bar in bars() {
        let (from, to) = (place(scale, bar.from, chart), place(scale, bar.to, chart));
        let fill = match (bar.call.end, row.spans) {
            (_, true) => '━',
            (CallEnd::Done, false) => '█',
            (_, false) => '▒',
        };
        line[from..=to].fill(fill);
    }
    for cut in scale.cuts() {
        let x = usize::try_from(cut.x).unwrap_or(0).min(chart - 1);
        line[x] = '╱';
    }
    // How calls ended stands over all else, even where two are in one column.
    for bar in bars() {
        let sign = match bar.call.end {
            CallEnd::Done => continue,
            CallEnd::Failed => '✗',
            CallEnd::Interrupted => '‖',
            CallEnd::Lost => '?',
            CallEnd::Stopped => '■',
            CallEnd::UnderWay => '▶',
        };
        line[place(scale, bar.to, chart)] = sign;
    }
    line.into_iter().collect()
}

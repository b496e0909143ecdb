//! A definition, and a run of it, in the terminal.

use std::fmt::Write;

use crate::diagram::layers::Tie;
use crate::diagram::nest::{Level, Shown};
use crate::diagram::timeline::head;
use crate::diagram::{columns, look, readable};
use crate::partial::PartialResult;
use crate::saga::{Gathering, Graph, StepKind};

/// Lines are filled up to here; a single name may be longer.
const WIDTH: usize = 100;
/// Names are aligned up to here.
const NAMES: usize = 32;

/// Draws a definition for the terminal: a layer under the layers that it waits for, a step per line with
/// what its input is made of.
///
/// `●` can be undone, `○` changes nothing, `■` can't be undone. After `◂─` stands the wiring, after `◂┄`
/// what has to be done before without giving data.
///
/// ```
/// use amends::{Saga, StepContext, diagram, read_only_fn};
///
/// let mut saga = Saga::builder::<u64>("look");
/// let id = saga.input();
/// let seen = saga.add(read_only_fn("see", async |_: &StepContext, id: &u64| Ok(*id)), id);
/// let saga: Saga<u64, u64> = saga.returns(seen)?;
///
/// assert_eq!(
///     diagram::text(saga.graph()),
///     "look, version 1: 1 step\n\n1 ─── ○ see  ◂─ input  [read-only]\n",
/// );
/// # Ok::<(), amends::SagaError>(())
/// ```
#[must_use]
pub fn text(graph: &Graph) -> String {
    let level = Level::of(graph, None);
    let count = match graph.steps.len() {
        1 => "1 step".to_owned(),
        steps => format!("{steps} steps"),
    };
    let inside = match level.inside() {
        0 => String::new(),
        more => format!(", {more} inside"),
    };
    let mut out = format!(
        "{}, version {}: {count}{inside}\n",
        readable(&graph.saga),
        graph.version
    );
    if !level.steps.is_empty() {
        out.push('\n');
    }
    draw(&mut out, &level, "", &wiring);
    out
}

/// Draws a run for the terminal: the layers of its definition, and behind each step a sign and a word for
/// how it stands, with attempts, undos, and what strikes the eye in [`run_svg`](crate::diagram::run_svg).
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
/// let text = diagram::run_text(saga.graph(), &outcome.partial());
/// assert!(text.starts_with("look, version 1: run look-1, ✓ completed\n"));
/// assert!(text.ends_with("\n\n1 ─── ○ see  ✓ done  [read-only]\n"));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn run_text(graph: &Graph, partial: &PartialResult) -> String {
    let level = Level::of(graph, Some(partial));
    let mut out = head(partial);
    if !level.steps.is_empty() {
        out.push('\n');
    }
    draw(&mut out, &level, "", &|level, index| {
        let step = &level.steps[index];
        let sign = look::of_step(step.stands).sign;
        let mut words = vec![format!("{sign} {}", step.status_line())];
        let alarms = step.alarms(partial).into_iter();
        words.extend(alarms.map(|alarm| format!("! {}", readable(&alarm.text))));
        words.extend(bracketed(step).filter(|_| step.is_told()));
        words
    });
    out
}

/// What stands behind a step of a level, in pieces.
type Words<'w> = &'w dyn Fn(&Level, usize) -> Vec<String>;

/// One step a line, and below it what is inside it, set in by what stands `around` it.
fn draw(out: &mut String, level: &Level, around: &str, words: Words) {
    match level.gathers {
        Gathering::Saga | Gathering::Fallback => layered(out, level, around, words),
        Gathering::Each { .. } | Gathering::Race => listed(out, level, around, words),
    }
}

fn layered(out: &mut String, level: &Level, around: &str, words: Words) {
    let layer_of = level.layers();
    let mut layers: Vec<Vec<usize>> = Vec::new();
    for (step, &layer) in layer_of.iter().enumerate() {
        if layers.len() <= layer {
            layers.resize(layer + 1, Vec::new());
        }
        layers[layer].push(step);
    }
    let digits = layers.len().to_string().len();
    let names = name_columns(level);
    let no_return = level.pivot.map(|pivot| layer_of[pivot]);
    for (layer, steps) in layers.iter().enumerate() {
        if layer > 0 {
            let _ = writeln!(out, "{around}│");
        }
        for (place, &index) in steps.iter().enumerate() {
            let last = place + 1 == steps.len();
            let lead = match (place, last) {
                (0, true) => format!("{around}{:<digits$} ───", layer + 1),
                (0, false) => format!("{around}{:<digits$} ─┬─", layer + 1),
                (_, true) => format!("{around}{:<digits$}  └─", "│"),
                (_, false) => format!("{around}{:<digits$}  ├─", "│"),
            };
            let step = &level.steps[index];
            let goes_on = layer + 1 < layers.len() || no_return == Some(layer);
            let spine = if goes_on { "│" } else { "" };
            // Outside of all steps a line that goes on is told from a new one by the spine.
            let beside = if around.is_empty() { "│" } else { spine };
            line(
                out,
                &lead,
                &format!("{around}{beside}"),
                names,
                step,
                &words(level, index),
            );
            if let Some(inside) = &step.inside {
                let branch = if last { " " } else { "│" };
                let around = format!("{around}{spine:<digits$}  {branch}  ");
                draw(out, inside, &around, words);
            }
        }
        if no_return == Some(layer) {
            let _ = writeln!(out, "{around}╞{:═<digits$}═══ point of no return", "");
        }
    }
}

/// Items and ways that have no order among them.
fn listed(out: &mut String, level: &Level, around: &str, words: Words) {
    let names = name_columns(level);
    for (index, step) in level.steps.iter().enumerate() {
        let last = index + 1 == level.steps.len() && level.rest.is_none();
        let (lead, spine) = if last {
            ("└─", " ")
        } else {
            ("├─", "│")
        };
        line(
            out,
            &format!("{around}{lead}"),
            &format!("{around}{spine}"),
            names,
            step,
            &words(level, index),
        );
        if let Some(inside) = &step.inside {
            draw(out, inside, &format!("{around}{spine}  "), words);
        }
    }
    if let Some(rest) = &level.rest {
        let _ = writeln!(out, "{around}└─ {rest}");
    }
}

/// How wide names are that are aligned.
fn name_columns(level: &Level) -> usize {
    let names = level.steps.iter().map(|step| columns(&step.name));
    names.filter(|&wide| wide <= NAMES).max().unwrap_or(0)
}

fn line(out: &mut String, lead: &str, spine: &str, names: usize, step: &Shown, words: &[String]) {
    let bullet = match step.step.kind {
        _ if step.undoes => '↶',
        StepKind::Compensatable => '●',
        StepKind::ReadOnly => '○',
        StepKind::Irreversible => '■',
    };
    let _ = write!(out, "{lead} {bullet} {}", step.name);
    // Where the arrows stand, and with them the lines that go on.
    let begins = columns(lead) + 3;
    let arrows = begins + names + 2;
    let mut at = begins + columns(&step.name);
    for (index, word) in words.iter().enumerate() {
        let opens = index == 0;
        let gap = if opens {
            arrows.saturating_sub(at).max(2)
        } else {
            1
        };
        if !opens && at + gap + columns(word) > WIDTH {
            let _ = write!(out, "\n{spine:<width$}", width = arrows + 3);
            out.push_str(word);
            at = arrows + 3 + columns(word);
        } else {
            // Marks and a second arrow stand apart from a list.
            let gap = if !opens && word.starts_with(['[', '◂', '!']) {
                2
            } else {
                gap
            };
            let _ = write!(out, "{:gap$}{word}", "");
            at += gap + columns(word);
        }
    }
    out.push('\n');
}

/// What a step is made of, what comes before it, and its marks. The ways of a choice, and the items of a
/// fan-out, are all made of the same, which the step around them says.
fn wiring(level: &Level, index: usize) -> Vec<String> {
    let step = &level.steps[index];
    let before = |tie: Tie| {
        let edges = level.edges_to(index).iter();
        edges
            .filter(move |edge| edge.tie == tie)
            .map(|edge| readable(&level.steps[edge.from].step.name))
    };
    let mut words = match level.gathers {
        Gathering::Saga if !step.undoes => {
            let wired = step.step.wired.iter();
            arrow("◂─", wired.map(|part| readable(part)))
        }
        _ => Vec::new(),
    };
    words.extend(arrow("◂┄", before(Tie::Order)));
    words.extend(before(Tie::Otherwise).map(|way| format!("◂┄ if {way} fails")));
    words.extend(bracketed(step));
    words
}

fn bracketed(step: &Shown) -> Option<String> {
    let marks = step.marks.join(", ");
    (!marks.is_empty()).then(|| format!("[{marks}]"))
}

/// A list behind an arrow, in pieces between which a line can be broken.
fn arrow(arrow: &str, parts: impl Iterator<Item = String>) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for part in parts {
        match pieces.last_mut() {
            Some(last) => {
                last.push(',');
                pieces.push(part);
            }
            None => pieces.push(format!("{arrow} {part}")),
        }
    }
    pieces
}

//! A definition, and a run of it, in the terminal.

use std::collections::HashMap;
use std::fmt::Write;

use crate::diagram::layers::{Tie, edges, layer_of};
use crate::diagram::timeline::head;
use crate::diagram::{columns, look, marks, readable};
use crate::partial::{PartialResult, StepReport};
use crate::saga::{Graph, GraphStep, StepKind};

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
    let count = match graph.steps.len() {
        1 => "1 step".to_owned(),
        steps => format!("{steps} steps"),
    };
    let head = format!(
        "{}, version {}: {count}\n",
        readable(&graph.saga),
        graph.version
    );
    let mut only_order = vec![Vec::new(); graph.steps.len()];
    for edge in edges(graph).iter().filter(|edge| edge.tie == Tie::Order) {
        only_order[edge.to].push(readable(&graph.steps[edge.from].name));
    }
    draw(graph, head, |step| {
        wiring(&graph.steps[step], &only_order[step])
    })
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
    let reports: HashMap<&str, &StepReport> = partial
        .steps
        .iter()
        .map(|step| (step.name.as_str(), step))
        .collect();
    draw(graph, head(partial), |index| {
        let step = &graph.steps[index];
        let Some(report) = reports.get(step.name()) else {
            return vec!["· pending".to_owned()];
        };
        let sign = look::of_step(report.status).sign;
        let mut words = vec![format!("{sign} {}", look::status_line(report))];
        let alarms = look::alarms(partial, report).into_iter();
        words.extend(alarms.map(|alarm| format!("! {}", readable(&alarm.text))));
        words.extend(bracketed(step));
        words
    })
}

/// The layers, one step a line; `words` is what stands behind a step, in pieces.
fn draw(graph: &Graph, head: String, words: impl Fn(usize) -> Vec<String>) -> String {
    let mut out = head;
    let edges = edges(graph);
    let layer_of = layer_of(graph, &edges);
    let mut layers: Vec<Vec<usize>> = Vec::new();
    for (step, &layer) in layer_of.iter().enumerate() {
        if layers.len() <= layer {
            layers.resize(layer + 1, Vec::new());
        }
        layers[layer].push(step);
    }
    let digits = layers.len().to_string().len();
    let names = graph
        .steps
        .iter()
        .map(|step| columns(&readable(&step.name)))
        .filter(|&columns| columns <= NAMES)
        .max()
        .unwrap_or(0);
    for (layer, steps) in layers.iter().enumerate() {
        let spine = if layer == 0 { "" } else { "│" };
        let _ = writeln!(out, "{spine}");
        for (place, &step) in steps.iter().enumerate() {
            let lead = match (place, place + 1 == steps.len()) {
                (0, true) => format!("{:<digits$} ───", layer + 1),
                (0, false) => format!("{:<digits$} ─┬─", layer + 1),
                (_, true) => format!("{:<digits$}  └─", "│"),
                (_, false) => format!("{:<digits$}  ├─", "│"),
            };
            line(
                &mut out,
                &lead,
                digits,
                names,
                &graph.steps[step],
                &words(step),
            );
        }
        if graph
            .pivot
            .is_some_and(|pivot| layer_of[pivot.at()] == layer)
        {
            let _ = writeln!(out, "╞{:═<digits$}═══ point of no return", "");
        }
    }
    out
}

fn line(
    out: &mut String,
    lead: &str,
    digits: usize,
    names: usize,
    step: &GraphStep,
    words: &[String],
) {
    let bullet = match step.kind {
        StepKind::Compensatable => '●',
        StepKind::ReadOnly => '○',
        StepKind::Irreversible => '■',
    };
    let name = readable(&step.name);
    let _ = write!(out, "{lead} {bullet} {name}");
    // Where the arrows stand, and with them the lines that go on.
    let arrows = digits + 7 + names + 2;
    let mut at = digits + 7 + columns(&name);
    for (index, word) in words.iter().enumerate() {
        let opens = index == 0;
        let gap = if opens {
            arrows.saturating_sub(at).max(2)
        } else {
            1
        };
        if !opens && at + gap + columns(word) > WIDTH {
            let _ = write!(out, "\n{:<width$}", "│", width = arrows + 3);
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

/// What a step is made of, what comes before it, and its marks.
fn wiring(step: &GraphStep, only_order: &[String]) -> Vec<String> {
    let mut words = arrow("◂─", step.wired.iter().map(|part| readable(part)));
    words.extend(arrow("◂┄", only_order.iter().cloned()));
    words.extend(bracketed(step));
    words
}

fn bracketed(step: &GraphStep) -> Option<String> {
    let marks = marks(step).join(", ");
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

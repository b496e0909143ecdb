//! A definition in the terminal.

use std::fmt::Write;

use crate::diagram::layers::{Tie, edges, layer_of};
use crate::diagram::{columns, marks, readable};
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
#[must_use]
pub fn text(graph: &Graph) -> String {
    let edges = edges(graph);
    let layer_of = layer_of(graph, &edges);
    let mut layers: Vec<Vec<usize>> = Vec::new();
    for (step, &layer) in layer_of.iter().enumerate() {
        if layers.len() <= layer {
            layers.resize(layer + 1, Vec::new());
        }
        layers[layer].push(step);
    }
    let mut only_order = vec![Vec::new(); graph.steps.len()];
    for edge in edges.iter().filter(|edge| edge.tie == Tie::Order) {
        only_order[edge.to].push(readable(&graph.steps[edge.from].name));
    }
    let count = match graph.steps.len() {
        1 => "1 step".to_owned(),
        steps => format!("{steps} steps"),
    };
    let mut out = format!(
        "{}, version {}: {count}\n",
        readable(&graph.saga),
        graph.version
    );
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
                &only_order[step],
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
    only_order: &[String],
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
    let mut words: Vec<String> = Vec::new();
    words.extend(arrow("◂─", step.wired.iter().map(|part| readable(part))));
    words.extend(arrow("◂┄", only_order.iter().cloned()));
    let marks = marks(step).join(", ");
    if !marks.is_empty() {
        words.push(format!("[{marks}]"));
    }
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
            let gap = if !opens && word.starts_with(['[', '◂']) {
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

//! A definition as a Mermaid flowchart.

use std::fmt::Write;

use crate::diagram::layers::{Tie, edges};
use crate::diagram::{marks, readable};
use crate::saga::{Graph, StepKind};

/// Writes a definition as a Mermaid flowchart.
///
/// Rounded steps can be undone, slanted ones change nothing, angular ones can't be undone; the pivot is
/// a hexagon. Dotted arrows give no data.
#[must_use]
pub fn mermaid(graph: &Graph) -> String {
    let mut out = String::from("flowchart TD\n");
    for (index, step) in graph.steps.iter().enumerate() {
        let (open, close) = match step.kind {
            _ if step.pivot => ("{{", "}}"),
            StepKind::Compensatable => ("(", ")"),
            StepKind::ReadOnly => ("[/", "/]"),
            StepKind::Irreversible => ("[", "]"),
        };
        let mut label = escaped(&step.name);
        let marks = marks(step).join(", ");
        if !marks.is_empty() {
            let _ = write!(label, "<br/><i>{marks}</i>");
        }
        // Writing to a String can't fail.
        let _ = writeln!(out, "    s{index}{open}\"{label}\"{close}");
    }
    for edge in edges(graph) {
        let arrow = match edge.tie {
            Tie::Data => "-->",
            Tie::Order => "-.->",
        };
        let _ = writeln!(out, "    s{} {arrow} s{}", edge.from, edge.to);
    }
    out
}

/// Mermaid reads quotes, entities, HTML and Markdown in labels; each such character becomes its number.
fn escaped(name: &str) -> String {
    readable(name)
        .chars()
        .fold(String::with_capacity(name.len()), |mut out, c| {
            if c.is_ascii_punctuation() && !matches!(c, '-' | '.' | ',' | ':' | '(' | ')') {
                let _ = write!(out, "#{};", u32::from(c));
            } else {
                out.push(c);
            }
            out
        })
}

//! A definition as SVG.

use std::fmt::Write;

use crate::diagram::layers::{Edge, Tie, edges};
use crate::diagram::place::{Placed, place};
use crate::diagram::{columns, marks, readable};
use crate::saga::{Graph, GraphStep, StepKind};

const BOX: i64 = 48;
const BETWEEN: i64 = 56;
const MARGIN: i64 = 24;
const HEAD: i64 = 44;
/// Names are cut to this many columns; the whole name is in the box's title.
const NAME: usize = 32;

/// Draws a definition as an SVG document: layers from top to bottom, a box per step, an arrow per edge.
///
/// Round boxes can be undone, dashed ones change nothing, angular ones can't be undone; the pivot has a
/// thick frame and the point of no return under it; checkpoints carry a flag. Dashed arrows give no data.
/// The document needs no font, style or script from elsewhere.
#[must_use]
pub fn svg(graph: &Graph) -> String {
    let edges = edges(graph);
    let labels: Vec<Label> = graph.steps.iter().map(Label::of).collect();
    let widths: Vec<i64> = labels.iter().map(|label| label.width).collect();
    let placed = place(graph, &edges, &widths);
    let title = format!("{}, version {}", readable(&graph.saga), graph.version);
    let ordered = edges.iter().any(|edge| edge.tie == Tie::Order);

    let least = pixels(columns(&title), 9).max(if ordered { 220 } else { 0 });
    let inner = placed.width.max(least);
    let shift = MARGIN + (inner - placed.width) / 2;
    let rows = i64::try_from(placed.layers).unwrap_or(0);
    let foot = if ordered { 28 } else { 0 };
    let pivot = graph.pivot.map(|pivot| placed.layer[pivot.at()]);
    // Under the last layer there are no lines, but there may be the point of no return.
    let below = if pivot.is_some_and(|layer| layer + 1 == placed.layers) {
        BETWEEN - 12
    } else {
        12
    };
    let (width, height) = (
        inner + 2 * MARGIN,
        HEAD + MARGIN / 2 + (rows * (BOX + BETWEEN) - BETWEEN).max(0) + below + foot,
    );
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = write!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="14" role="img">
<title>{title}</title>
<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#55606e"/></marker></defs>
<rect width="{width}" height="{height}" fill="#ffffff"/>
<text x="{MARGIN}" y="30" font-size="16" font-weight="bold" fill="#1c2733">{title}</text>
"##,
        title = escaped(&title),
    );
    for (edge, passes) in edges.iter().zip(&placed.passes) {
        line(&mut out, edge, passes, &placed, shift);
    }
    for ((step, label), (&x, &layer)) in graph
        .steps
        .iter()
        .zip(&labels)
        .zip(placed.x.iter().zip(&placed.layer))
    {
        step_box(&mut out, step, label, x + shift, top(layer));
    }
    if let Some(layer) = pivot {
        no_return(&mut out, top(layer) + BOX + 20, width);
    }
    if ordered {
        let y = height - 16;
        let _ = writeln!(
            out,
            r##"<path d="M{MARGIN} {y}h32" stroke="#55606e" stroke-width="1.4" stroke-dasharray="5 4" marker-end="url(#arrow)"/><text x="{}" y="{}" font-size="12" fill="#55606e">order without data</text>"##,
            MARGIN + 42,
            y + 4,
        );
    }
    out.push_str("</svg>\n");
    out
}

/// What stands in a box, and how wide it has to be.
struct Label {
    name: String,
    marks: String,
    width: i64,
}

impl Label {
    fn of(step: &GraphStep) -> Self {
        let name = cut(&readable(&step.name));
        let marks = marks(step).join(" · ");
        let width = pixels(columns(&name), 9).max(pixels(columns(&marks), 7));
        Label {
            width: (width + 28).max(96),
            name,
            marks,
        }
    }
}

fn cut(name: &str) -> String {
    if columns(name) <= NAME {
        return name.to_owned();
    }
    let mut short = String::new();
    for c in name.chars() {
        short.push(c);
        if columns(&short) >= NAME {
            break;
        }
    }
    short.pop();
    short.push('…');
    short
}

fn pixels(columns: usize, each: i64) -> i64 {
    i64::try_from(columns)
        .unwrap_or(i64::MAX / 64)
        .saturating_mul(each)
}

fn top(layer: usize) -> i64 {
    HEAD + MARGIN / 2 + i64::try_from(layer).unwrap_or(0) * (BOX + BETWEEN)
}

fn no_return(out: &mut String, y: i64, width: i64) {
    let _ = writeln!(
        out,
        r##"<path d="M8 {y}H{}" stroke="#b3261e" stroke-width="1.5" stroke-dasharray="2 4"/><text x="{}" y="{}" font-size="11" text-anchor="end" fill="#b3261e" stroke="#ffffff" stroke-width="4" paint-order="stroke">point of no return</text>"##,
        width - 8,
        width - 10,
        y + 13,
    );
}

/// A line leaves and enters boxes from above and below, and runs straight down through the layers that it passes.
fn line(out: &mut String, edge: &Edge, passes: &[(usize, i64)], placed: &Placed, shift: i64) {
    let mut y = top(placed.layer[edge.from]) + BOX;
    let mut path = format!("M{} {y}", placed.x[edge.from] + shift);
    let mut from = placed.x[edge.from] + shift;
    let bend = |path: &mut String, from: i64, x: i64, y: i64, to: i64| {
        let half = i64::midpoint(y, to);
        let _ = write!(path, "C{from} {half} {x} {half} {x} {to}");
    };
    for &(layer, x) in passes {
        let x = x + shift;
        bend(&mut path, from, x, y, top(layer));
        y = top(layer) + BOX;
        let _ = write!(path, "V{y}");
        from = x;
    }
    bend(
        &mut path,
        from,
        placed.x[edge.to] + shift,
        y,
        top(placed.layer[edge.to]) - 1,
    );
    let dashes = match edge.tie {
        Tie::Data => "",
        Tie::Order => r#" stroke-dasharray="5 4""#,
    };
    let _ = writeln!(
        out,
        r##"<path d="{path}" fill="none" stroke="#55606e" stroke-width="1.4"{dashes} marker-end="url(#arrow)"/>"##
    );
}

fn step_box(out: &mut String, step: &GraphStep, label: &Label, middle: i64, top: i64) {
    let (fill, stroke, round, dashes) = match step.kind {
        StepKind::Compensatable => ("#e8f1fb", "#2f6fb0", 12, ""),
        StepKind::ReadOnly => ("#f4f5f7", "#6b7683", 12, r#" stroke-dasharray="4 3""#),
        StepKind::Irreversible => ("#fdeeea", "#b3261e", 0, ""),
    };
    let thick = if step.pivot { "3.5" } else { "1.5" };
    let left = middle - label.width / 2;
    let wired = if step.wired.is_empty() {
        "nothing".to_owned()
    } else {
        readable(&step.wired.join(", "))
    };
    let _ = writeln!(
        out,
        r#"<g><title>{}: {}, made of {}</title><rect x="{left}" y="{top}" width="{}" height="{BOX}" rx="{round}" fill="{fill}" stroke="{stroke}" stroke-width="{thick}"{dashes}/>"#,
        escaped(&readable(&step.name)),
        step.kind,
        escaped(&wired),
        label.width,
    );
    if step.checkpoint {
        let (x, y) = (left + label.width - 14, top - 9);
        let _ = writeln!(
            out,
            r##"<path d="M{x} {}V{y}h13l-4 4.5l4 4.5h-13" fill="#2e7d4f" stroke="#2e7d4f" stroke-width="1.5" stroke-linejoin="round"/>"##,
            top + 6,
        );
    }
    let baseline = if label.marks.is_empty() { 29 } else { 21 };
    let _ = writeln!(
        out,
        r##"<text x="{middle}" y="{}" text-anchor="middle" fill="#1c2733">{}</text>"##,
        top + baseline,
        escaped(&label.name),
    );
    if !label.marks.is_empty() {
        let _ = writeln!(
            out,
            r##"<text x="{middle}" y="{}" text-anchor="middle" font-size="11" fill="#55606e">{}</text>"##,
            top + 38,
            label.marks,
        );
    }
    out.push_str("</g>\n");
}

/// The name as XML text. What XML can't hold at all is replaced, not only control characters.
fn escaped(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, c| {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
                c => out.push(c),
            }
            out
        })
}

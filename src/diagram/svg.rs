//! A definition, and a run of it, as SVG.

use std::collections::HashMap;
use std::fmt::Write;

use crate::diagram::layers::{Edge, Tie, edges};
use crate::diagram::look::{self, Alarm, Look};
use crate::diagram::page::{
    GREY, INK, MARGIN, MONO, bold_width, cut, escaped, mono_width, open, pixels, word_width,
    wrapped,
};
use crate::diagram::place::{Placed, place};
use crate::diagram::{marks, readable};
use crate::partial::{PartialResult, StepReport};
use crate::saga::{Graph, GraphStep, StepKind};

/// A box that holds a name, and perhaps a line of marks.
const BOX: i64 = 48;
const BETWEEN: i64 = 56;
/// Names are cut to this many columns; the whole name is in the box's title.
const NAME: usize = 32;
/// A coloured strip at the foot of a box.
const STRIP: i64 = 19;
const ARROW: &str = r##"<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#55606e"/></marker>"##;

/// Draws a definition as an SVG document: layers from top to bottom, a box per step, an arrow per edge.
///
/// Round boxes can be undone, dashed ones change nothing, angular ones can't be undone; the pivot has a
/// thick frame and the point of no return under it; checkpoints carry a flag. Dashed arrows give no data.
/// The document needs no font, style or script from elsewhere.
///
/// ```
/// use amends::{Saga, StepContext, diagram, read_only_fn};
///
/// let mut saga = Saga::builder::<u64>("look");
/// let id = saga.input();
/// let seen = saga.add(read_only_fn("see", async |_: &StepContext, id: &u64| Ok(*id)), id);
/// let saga: Saga<u64, u64> = saga.returns(seen)?;
///
/// let svg = diagram::svg(saga.graph());
/// assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
/// assert!(svg.contains(">see</text>"));
/// # Ok::<(), amends::SagaError>(())
/// ```
#[must_use]
pub fn svg(graph: &Graph) -> String {
    draw(graph, None)
}

/// Draws a run as an SVG document: the picture of its definition, and in each box how the step stands.
///
/// The status is told by colour, symbol and word; the failing step, effects in doubt and failed undos
/// have a strip of their own; attempts, rounds and undos are counted where there was more than one. Over
/// the steps stands how the run stands and why: what it is parked for, a cancel, a stop, the decision.
/// Payloads are never shown, and of failures only the class; a reason for parking stands as it was given.
///
/// Steps are found by their names; one that the partial result doesn't have is drawn as pending.
///
/// ```
/// use amends::store::MemoryStore;
/// use amends::{Coordinator, Saga, StepContext, StepError, diagram, step_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut saga = Saga::builder::<u64>("sale");
/// let n = saga.input();
/// let pay = async |_: &StepContext, _: &u64| Err::<u64, _>(StepError::rejected("no credit"));
/// saga.add(step_fn("pay", pay, async |_, _, _| Ok(())), n);
/// let saga: Saga<u64, ()> = saga.returns(())?;
///
/// let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga).build().await?;
/// let outcome = coordinator.start(&saga, "sale-1", 5).await?.outcome().await?;
///
/// let svg = diagram::run_svg(saga.graph(), &outcome.partial());
/// assert!(svg.contains(">compensated</text>"));
/// assert!(svg.contains(">failing step: agent_validation</text>"));
/// assert!(!svg.contains("no credit"));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn run_svg(graph: &Graph, partial: &PartialResult) -> String {
    draw(graph, Some(partial))
}

fn draw(graph: &Graph, run: Option<&PartialResult>) -> String {
    let edges = edges(graph);
    let reports: HashMap<&str, &StepReport> = run
        .iter()
        .flat_map(|run| &run.steps)
        .map(|step| (step.name.as_str(), step))
        .collect();
    let labels: Vec<Label> = graph
        .steps
        .iter()
        .map(|step| {
            let report = reports.get(step.name()).copied();
            Label::of(step, run.map(|run| (run, report)))
        })
        .collect();
    let widths: Vec<i64> = labels.iter().map(|label| label.width).collect();
    let placed = place(graph, &edges, &widths);
    let title = format!("{}, version {}", readable(&graph.saga), graph.version);
    let ordered = edges.iter().any(|edge| edge.tie == Tie::Order);
    let legend = run.map_or_else(Vec::new, |_| legend(&labels));

    let least = bold_width(&title, 16).max(if ordered { 220 } else { 0 });
    let least = least.max(if run.is_some() { 480 } else { 0 });
    // A title that is a page wide is broken; the graph may be as wide as it is.
    let inner = placed.width.max(least.min(720));
    let head = Head::new(&title, run, inner);
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
    let sheet = Sheet {
        first: head.height + MARGIN / 2,
        high: labels.iter().map(Label::height).max().unwrap_or(BOX),
    };
    let legend = flow(&legend, inner);
    let legend_high = legend.last().map_or(0, |item| item.y + 30);
    let steps_end = sheet.first + (rows * (sheet.high + BETWEEN) - BETWEEN).max(0) + below;
    let (width, height) = (inner + 2 * MARGIN, steps_end + foot + legend_high);
    let mut out = String::new();
    let whole = match run {
        None => title.clone(),
        Some(run) => format!(
            "{title}: run {}, {}",
            readable(run.run.as_str()),
            run.standing
        ),
    };
    open(&mut out, width, height, &whole, ARROW);
    head.draw(&mut out);
    for (edge, passes) in edges.iter().zip(&placed.passes) {
        line(&mut out, edge, passes, &placed, shift, &sheet);
    }
    for ((step, label), (&x, &layer)) in graph
        .steps
        .iter()
        .zip(&labels)
        .zip(placed.x.iter().zip(&placed.layer))
    {
        step_box(&mut out, step, label, x + shift, &sheet, sheet.top(layer));
    }
    if let Some(layer) = pivot {
        no_return(&mut out, sheet.top(layer) + sheet.high + 20, width);
    }
    if ordered {
        let y = steps_end + foot - 16;
        let _ = writeln!(
            out,
            r##"<path d="M{MARGIN} {y}h32" stroke="#55606e" stroke-width="1.4" stroke-dasharray="5 4" marker-end="url(#arrow)"/><text x="{}" y="{}" font-size="12" fill="#55606e">order without data</text>"##,
            MARGIN + 42,
            y + 4,
        );
    }
    for item in &legend {
        let (x, y) = (MARGIN + item.x, steps_end + foot + item.y);
        icon(&mut out, item.look, x, y);
        let _ = writeln!(
            out,
            r#"<text x="{}" y="{}" font-size="12" fill="{GREY}">{}</text>"#,
            x + 20,
            y + 11,
            item.word,
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Where layers are.
struct Sheet {
    first: i64,
    /// The height of each box.
    high: i64,
}

impl Sheet {
    fn top(&self, layer: usize) -> i64 {
        self.first + i64::try_from(layer).unwrap_or(0) * (self.high + BETWEEN)
    }
}

/// What stands over a picture: the title, and the story of a run.
pub(super) struct Head {
    title: Vec<String>,
    standing: Option<(Look, &'static str)>,
    story: Vec<String>,
    pub(super) height: i64,
}

impl Head {
    pub(super) fn new(title: &str, run: Option<&PartialResult>, inner: i64) -> Self {
        let fit = |each: i64| usize::try_from(inner * 100 / each).unwrap_or(8).max(8);
        let title = wrapped(&cut(title, 400), fit(71 * 16));
        let story: Vec<String> = run
            .map(look::story)
            .unwrap_or_default()
            .iter()
            .flat_map(|text| wrapped(&cut(&readable(text), 600), fit(62 * 12)))
            .collect();
        let titles = 20 * pixels(title.len(), 1);
        Head {
            height: 24 + titles + if run.is_some() { 36 } else { 0 } + 17 * pixels(story.len(), 1),
            title,
            standing: run.map(|run| (look::of_run(run.standing), run.standing.as_str())),
            story,
        }
    }

    pub(super) fn draw(&self, out: &mut String) {
        let mut y = 30;
        for line in &self.title {
            let _ = writeln!(
                out,
                r#"<text x="{MARGIN}" y="{y}" font-size="16" font-weight="bold" fill="{INK}">{}</text>"#,
                escaped(line),
            );
            y += 20;
        }
        if let Some((look, word)) = self.standing {
            let width = bold_width(word, 14) + 44;
            let _ = writeln!(
                out,
                r#"<path d="M{} {}h{}a12 12 0 0 1 0 24h-{}a12 12 0 0 1 0 -24z" fill="{}" stroke="{}" stroke-width="1.2"/>"#,
                MARGIN + 12,
                y - 10,
                width - 24,
                width - 24,
                look.fill,
                look.line,
            );
            icon(out, look, MARGIN + 11, y - 5);
            let _ = writeln!(
                out,
                r#"<text x="{}" y="{}" font-weight="bold" fill="{}">{word}</text>"#,
                MARGIN + 31,
                y + 7,
                look.line,
            );
            y += 36;
        }
        for line in &self.story {
            let _ = writeln!(
                out,
                r#"<text x="{MARGIN}" y="{y}" font-size="12" font-family="{MONO}" fill="{GREY}">{}</text>"#,
                escaped(line),
            );
            y += 17;
        }
    }
}

/// A symbol of 14 by 14.
pub(super) fn icon(out: &mut String, look: Look, x: i64, y: i64) {
    let _ = writeln!(
        out,
        r#"<path transform="translate({x} {y})" d="{}" fill="{}" stroke="{}" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/>"#,
        look.shape,
        if look.shape.ends_with('z') {
            look.line
        } else {
            "none"
        },
        look.line,
    );
}

/// One explained symbol.
pub(super) struct Item {
    pub(super) look: Look,
    pub(super) word: &'static str,
    pub(super) x: i64,
    pub(super) y: i64,
}

/// The statuses that occur.
fn legend(labels: &[Label]) -> Vec<(Look, &'static str)> {
    let shown = |word: &str| {
        let mut all = labels.iter().filter_map(|label| label.status.as_ref());
        all.any(|status| status.word == word)
    };
    look::STATUSES
        .into_iter()
        .map(|status| (look::of_step(status), look::step_word(status)))
        .filter(|(_, word)| shown(word))
        .collect()
}

/// Symbols and words beside each other, in as many lines as it takes.
pub(super) fn flow(items: &[(Look, &'static str)], inner: i64) -> Vec<Item> {
    let (mut x, mut y) = (0, 8);
    let mut placed = Vec::new();
    for &(look, word) in items {
        let width = 20 + word_width(word, 12);
        if x > 0 && x + width > inner {
            (x, y) = (0, y + 22);
        }
        placed.push(Item { look, word, x, y });
        x += width + 20;
    }
    placed
}

/// What stands in a box, and how wide it has to be.
struct Label {
    name: String,
    marks: String,
    status: Option<StatusLine>,
    strips: Vec<Alarm>,
    width: i64,
}

struct StatusLine {
    look: Look,
    word: &'static str,
    line: String,
}

impl Label {
    fn of(step: &GraphStep, run: Option<(&PartialResult, Option<&StepReport>)>) -> Self {
        let name = cut(&readable(&step.name), NAME);
        let marks = marks(step).join(" · ");
        let mut width = mono_width(&name, 14).max(word_width(&marks, 11));
        let (mut status, mut strips) = (None, Vec::new());
        if let Some((partial, report)) = run {
            let pending = crate::partial::StepStatus::Pending;
            let line =
                report.map_or_else(|| look::step_word(pending).to_owned(), look::status_line);
            width = width.max(bold_width(&line, 12) + 14);
            let stands = report.map_or(pending, |report| report.status);
            status = Some(StatusLine {
                look: look::of_step(stands),
                word: look::step_word(stands),
                line,
            });
            strips = report.map_or_else(Vec::new, |report| look::alarms(partial, report));
            for strip in &mut strips {
                strip.text = cut(&readable(&strip.text), 44);
                width = width.max(bold_width(&strip.text, 11) - 10);
            }
        }
        Label {
            width: (width + 28).max(96),
            name,
            marks,
            status,
            strips,
        }
    }

    fn height(&self) -> i64 {
        let marks = if self.marks.is_empty() { 0 } else { 17 };
        let strips = pixels(self.strips.len(), STRIP);
        match self.status {
            None => BOX,
            Some(_) => 50 + marks + strips,
        }
    }
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
fn line(
    out: &mut String,
    edge: &Edge,
    passes: &[(usize, i64)],
    placed: &Placed,
    shift: i64,
    sheet: &Sheet,
) {
    let mut y = sheet.top(placed.layer[edge.from]) + sheet.high;
    let mut path = format!("M{} {y}", placed.x[edge.from] + shift);
    let mut from = placed.x[edge.from] + shift;
    let bend = |path: &mut String, from: i64, x: i64, y: i64, to: i64| {
        let half = i64::midpoint(y, to);
        let _ = write!(path, "C{from} {half} {x} {half} {x} {to}");
    };
    for &(layer, x) in passes {
        let x = x + shift;
        bend(&mut path, from, x, y, sheet.top(layer));
        y = sheet.top(layer) + sheet.high;
        let _ = write!(path, "V{y}");
        from = x;
    }
    bend(
        &mut path,
        from,
        placed.x[edge.to] + shift,
        y,
        sheet.top(placed.layer[edge.to]) - 1,
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

fn step_box(
    out: &mut String,
    step: &GraphStep,
    label: &Label,
    middle: i64,
    sheet: &Sheet,
    top: i64,
) {
    let (mut fill, mut stroke, round, dashes) = match step.kind {
        StepKind::Compensatable => ("#e8f1fb", "#2f6fb0", 12, ""),
        StepKind::ReadOnly => ("#f4f5f7", "#6b7683", 12, r#" stroke-dasharray="4 3""#),
        StepKind::Irreversible => ("#fdeeea", "#b3261e", 0, ""),
    };
    if let Some(status) = &label.status {
        (fill, stroke) = (status.look.fill, status.look.line);
    }
    let thick = if step.pivot { "3.5" } else { "1.5" };
    let left = middle - label.width / 2;
    let high = sheet.high;
    let wired = if step.wired.is_empty() {
        "nothing".to_owned()
    } else {
        readable(&step.wired.join(", "))
    };
    let told = label.status.as_ref().map_or_else(String::new, |status| {
        let strips = label.strips.iter().map(|strip| format!(", {}", strip.text));
        format!("; {}{}", status.line, strips.collect::<String>())
    });
    let _ = writeln!(
        out,
        r#"<g><title>{}: {}, made of {}{}</title><rect x="{left}" y="{top}" width="{}" height="{high}" rx="{round}" fill="{fill}" stroke="{stroke}" stroke-width="{thick}"{dashes}/>"#,
        escaped(&readable(&step.name)),
        step.kind,
        escaped(&wired),
        escaped(&told),
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
    // What a lower box would leave empty is shared out above and below.
    let mut y = top + (high - label.height()) / 2 + 21;
    if label.status.is_none() && label.marks.is_empty() {
        y += 8;
    }
    let _ = writeln!(
        out,
        r#"<text x="{middle}" y="{y}" text-anchor="middle" font-family="{MONO}" fill="{INK}">{}</text>"#,
        escaped(&label.name),
    );
    if let Some(status) = &label.status {
        y += 19;
        let text = bold_width(&status.line, 12) * 9 / 10;
        let from = middle - i64::midpoint(text, 18);
        icon(out, status.look, from, y - 11);
        let _ = writeln!(
            out,
            r#"<text x="{}" y="{y}" font-size="12" font-weight="bold" fill="{}">{}</text>"#,
            from + 19,
            status.look.line,
            escaped(&status.line),
        );
    }
    if !label.marks.is_empty() {
        y += 17;
        let _ = writeln!(
            out,
            r##"<text x="{middle}" y="{y}" text-anchor="middle" font-size="11" fill="#55606e">{}</text>"##,
            label.marks,
        );
    }
    y += 8;
    for strip in &label.strips {
        let (fill, ink) = strip.colours();
        let _ = writeln!(
            out,
            r#"<path d="M{} {y}h{}v16h-{}z" fill="{fill}"/><text x="{middle}" y="{}" text-anchor="middle" font-size="11" font-weight="bold" fill="{ink}">{}</text>"#,
            left + 5,
            label.width - 10,
            label.width - 10,
            y + 12,
            escaped(&strip.text),
        );
        y += STRIP;
    }
    out.push_str("</g>\n");
}

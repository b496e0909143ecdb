//! A definition, and a run of it, as SVG.

use std::fmt::Write;

use crate::diagram::layers::{Edge, Tie};
use crate::diagram::look::{self, Alarm, Look};
use crate::diagram::nest::{Level, Shown};
use crate::diagram::page::{
    GREY, INK, MARGIN, MONO, bold_width, cut, escaped, mono_width, open, pixels, word_width,
    wrapped,
};
use crate::diagram::place::{Placed, place};
use crate::diagram::readable;
use crate::partial::PartialResult;
use crate::saga::{Gathering, Graph, StepKind};

/// A box that holds a name, and perhaps a line of marks.
const BOX: i64 = 48;
const BETWEEN: i64 = 56;
/// The same where no lines run.
const CLOSE: i64 = 24;
/// Between a frame and what is in it.
const PADDING: i64 = 18;
/// Names are cut to this many columns; the whole name is in the box's title.
const NAME: usize = 32;
/// A coloured strip at the foot of a box.
const STRIP: i64 = 19;
const ARROW: &str = r##"<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#55606e"/></marker>"##;

/// Draws a definition as an SVG document: layers from top to bottom, a box per step, an arrow per edge.
///
/// Round boxes can be undone, dashed ones change nothing, angular ones can't be undone; the pivot has a
/// thick frame and the point of no return under it; checkpoints carry a flag. Dashed arrows give no data.
/// A step with steps inside is a frame around them; a fan-out whose items aren't known is a pile of boxes.
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
    let level = Level::of(graph, run);
    let board = Board::of(&level, run);
    let title = format!("{}, version {}", readable(&graph.saga), graph.version);
    let ordered = board.has(Tie::Order);
    let mut labels = Vec::new();
    board.labels(&mut labels);
    let legend = run.map_or_else(Vec::new, |_| legend(&labels));

    let least = bold_width(&title, 16).max(if ordered { 220 } else { 0 });
    let least = least.max(if run.is_some() { 480 } else { 0 });
    // A title that is a page wide is broken; the graph may be as wide as it is.
    let inner = board.placed.width.max(least.min(720));
    let head = Head::new(&title, run, inner);
    let shift = MARGIN + (inner - board.placed.width) / 2;
    let foot = if ordered { 28 } else { 0 };
    let first = head.height + MARGIN / 2;
    let legend = flow(&legend, inner);
    let legend_high = legend.last().map_or(0, |item| item.y + 30);
    let steps_end = first + board.high;
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
    board.draw(&mut out, shift, first, (8, width - 8));
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

/// A level with a place for all that is in it.
struct Board<'a> {
    cells: Vec<Cell<'a>>,
    edges: &'a [Edge],
    placed: Placed,
    /// The top of each layer, and its height.
    layers: Vec<(i64, i64)>,
    /// The layer of the point of no return.
    pivot: Option<usize>,
    /// The height of each box.
    boxes: i64,
    high: i64,
}

/// A box, or a frame around steps.
struct Cell<'a> {
    /// Nothing for what stands for items that aren't shown.
    step: Option<&'a Shown<'a>>,
    label: Label,
    inside: Option<Board<'a>>,
    width: i64,
    /// Nothing for a box, which is as high as those beside it.
    frame: Option<i64>,
}

impl<'a> Cell<'a> {
    fn of(step: &'a Shown<'a>, run: Option<&PartialResult>) -> Self {
        let label = Label::of(step, run);
        let inside = step.inside.as_ref().map(|inside| Board::of(inside, run));
        let around = inside
            .as_ref()
            .map_or(0, |inside| inside.placed.width + 2 * PADDING);
        Cell {
            step: Some(step),
            width: label.width.max(around),
            frame: inside
                .as_ref()
                .map(|inside| label.above_steps() + inside.high),
            label,
            inside,
        }
    }

    fn of_rest(rest: &str) -> Self {
        let label = Label::of_rest(rest);
        Cell {
            step: None,
            width: label.width,
            label,
            inside: None,
            frame: None,
        }
    }
}

impl Cell<'_> {
    /// Whether it stands for several: a fan-out of which no item is shown.
    fn is_stack(&self) -> bool {
        let several = self.step.and_then(|step| step.step.inside()).is_some();
        several && self.inside.is_none()
    }
}

/// The edges of more boxes behind one. Arrows come from above, so they peep out below.
fn stack(left: i64, top: i64, width: i64, high: i64, stroke: &str) -> String {
    let (right, bottom) = (left + width, top + high);
    let behind = |by: i64| {
        format!(
            "M{right} {}a12 12 0 0 1 {by} 12V{}a12 12 0 0 1 -12 12H{}a12 12 0 0 1 -12 -{by}",
            top + by,
            bottom + by - 12,
            left + by + 12,
        )
    };
    format!(
        r##"<path d="{}" fill="#ffffff" stroke="{stroke}"/><path d="{}" fill="#ffffff" stroke="{stroke}"/>"##,
        behind(8),
        behind(4),
    )
}

impl<'a> Board<'a> {
    fn of(level: &'a Level<'a>, run: Option<&PartialResult>) -> Self {
        let mut cells: Vec<Cell> = level.steps.iter().map(|step| Cell::of(step, run)).collect();
        cells.extend(level.rest.as_deref().map(Cell::of_rest));
        let in_order = matches!(level.gathers, Gathering::Saga | Gathering::Fallback);
        let layer = if in_order {
            level.layers()
        } else {
            grid(cells.len())
        };
        let widths: Vec<i64> = cells.iter().map(|cell| cell.width).collect();
        let placed = place(layer, &level.edges, &widths);
        let boxes = cells.iter().filter(|cell| cell.frame.is_none());
        let boxes = boxes.map(|cell| cell.label.height()).max().unwrap_or(BOX);
        let mut highs = vec![0; placed.layers];
        for (cell, &layer) in cells.iter_mut().zip(&placed.layer) {
            highs[layer] = cell.frame.unwrap_or(boxes).max(highs[layer]);
        }
        let between = if in_order { BETWEEN } else { CLOSE };
        let (mut layers, mut top) = (Vec::with_capacity(highs.len()), 0);
        for high in highs {
            layers.push((top, high));
            top += high + between;
        }
        let pivot = level.pivot.map(|pivot| placed.layer[pivot]);
        // Under the last layer there are no lines, but there may be the point of no return.
        let below = if pivot.is_some_and(|layer| layer + 1 == placed.layers) {
            BETWEEN - 12
        } else {
            12
        };
        Board {
            edges: &level.edges,
            pivot,
            high: (top - between).max(0) + below,
            layers,
            boxes,
            placed,
            cells,
        }
    }

    /// Top and height of a box or a frame, which stands in the middle of its layer.
    fn extent(&self, cell: usize) -> (i64, i64) {
        let (top, high) = self.layers[self.placed.layer[cell]];
        match self.cells[cell].frame {
            Some(frame) => (top + (high - frame) / 2, frame),
            None => (top + (high - self.boxes) / 2, self.boxes),
        }
    }

    fn has(&self, tie: Tie) -> bool {
        let mut insides = self.cells.iter().filter_map(|cell| cell.inside.as_ref());
        self.edges.iter().any(|edge| edge.tie == tie) || insides.any(|inside| inside.has(tie))
    }

    fn labels<'b>(&'b self, all: &mut Vec<&'b Label>) {
        for cell in &self.cells {
            all.push(&cell.label);
            if let Some(inside) = &cell.inside {
                inside.labels(all);
            }
        }
    }

    /// Draws it with its corner here; lines across it reach from `across.0` to `across.1`.
    fn draw(&self, out: &mut String, left: i64, top: i64, across: (i64, i64)) {
        for (edge, passes) in self.edges.iter().zip(&self.placed.passes) {
            self.line(out, edge, passes, left, top);
        }
        for (index, cell) in self.cells.iter().enumerate() {
            let middle = self.placed.x[index] + left;
            let (from, high) = self.extent(index);
            match cell.step {
                Some(step) => step_box(out, step, cell, middle, top + from, high),
                None => rest_box(out, cell, middle, top + from, high),
            }
            if let Some(inside) = &cell.inside {
                let edge = middle - cell.width / 2;
                let corner = middle - inside.placed.width / 2;
                let below = top + from + cell.label.above_steps();
                inside.draw(out, corner, below, (edge + 6, edge + cell.width - 6));
            }
        }
        if let Some(layer) = self.pivot {
            let (from, high) = self.layers[layer];
            no_return(out, top + from + high + 20, across);
        }
    }

    /// A line leaves and enters boxes from above and below, and runs straight down through the layers that
    /// it passes.
    fn line(&self, out: &mut String, edge: &Edge, passes: &[(usize, i64)], left: i64, top: i64) {
        let bounds = |layer: usize| {
            let (from, high) = self.layers[layer];
            (top + from, top + from + high)
        };
        let placed = &self.placed;
        let (mut from, end) = (placed.x[edge.from] + left, placed.x[edge.to] + left);
        let (own, high) = self.extent(edge.from);
        let mut y = top + own + high;
        let mut path = format!("M{from} {y}");
        // A box that is lower than its layer is left straight down, past what stands beside it.
        let below = bounds(placed.layer[edge.from]).1;
        if below > y {
            let _ = write!(path, "V{below}");
            y = below;
        }
        let bend = |path: &mut String, from: i64, x: i64, y: i64, to: i64| {
            let half = i64::midpoint(y, to);
            let _ = write!(path, "C{from} {half} {x} {half} {x} {to}");
        };
        for &(layer, x) in passes {
            let x = x + left;
            let (above, below) = bounds(layer);
            bend(&mut path, from, x, y, above);
            y = below;
            let _ = write!(path, "V{y}");
            from = x;
        }
        let above = bounds(placed.layer[edge.to]).0;
        let arrives = top + self.extent(edge.to).0 - 1;
        bend(&mut path, from, end, y, above.min(arrives));
        if arrives > above {
            let _ = write!(path, "V{arrives}");
        }
        let dashes = match edge.tie {
            Tie::Data => "",
            Tie::Order | Tie::Otherwise => r#" stroke-dasharray="5 4""#,
        };
        let _ = writeln!(
            out,
            r##"<path d="{path}" fill="none" stroke="#55606e" stroke-width="1.4"{dashes} marker-end="url(#arrow)"/>"##
        );
        if edge.tie == Tie::Otherwise {
            let _ = writeln!(
                out,
                r##"<text x="{}" y="{}" font-size="11" fill="#55606e">if it fails</text>"##,
                end + 8,
                i64::midpoint(y, above) + 4,
            );
        }
    }
}

/// Layers for boxes that have no order among them: rows of at most so many that they are no wider than high.
fn grid(cells: usize) -> Vec<usize> {
    let across = (cells.clamp(1, 4)..8)
        .find(|side| side * side >= cells)
        .unwrap_or(8);
    (0..cells).map(|cell| cell / across).collect()
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
fn legend(labels: &[&Label]) -> Vec<(Look, &'static str)> {
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
    fn of(step: &Shown, run: Option<&PartialResult>) -> Self {
        let name = cut(&step.name, NAME);
        let marks = step.marks.join(" · ");
        let mut width = mono_width(&name, 14).max(word_width(&marks, 11));
        let (mut status, mut strips) = (None, Vec::new());
        if let Some(partial) = run {
            let line = step.status_line();
            width = width.max(bold_width(&line, 12) + 14);
            let stands = step.stands;
            status = Some(StatusLine {
                look: look::of_step(stands),
                word: look::step_word(stands),
                line,
            });
            strips = step.alarms(partial);
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

    /// What stands for items that aren't shown.
    fn of_rest(rest: &str) -> Self {
        Label {
            width: word_width(rest, 12) + 28,
            name: rest.to_owned(),
            marks: String::new(),
            status: None,
            strips: Vec::new(),
        }
    }

    /// The room that it takes in a frame, over the steps inside.
    fn above_steps(&self) -> i64 {
        self.height() + if self.strips.is_empty() { 0 } else { 8 }
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

fn no_return(out: &mut String, y: i64, (left, right): (i64, i64)) {
    let _ = writeln!(
        out,
        r##"<path d="M{left} {y}H{right}" stroke="#b3261e" stroke-width="1.5" stroke-dasharray="2 4"/><text x="{}" y="{}" font-size="11" text-anchor="end" fill="#b3261e" stroke="#ffffff" stroke-width="4" paint-order="stroke">point of no return</text>"##,
        right - 2,
        y + 13,
    );
}

fn rest_box(out: &mut String, cell: &Cell, middle: i64, top: i64, high: i64) {
    let _ = writeln!(
        out,
        r#"<g><rect x="{}" y="{top}" width="{}" height="{high}" rx="12" fill="none" stroke="{GREY}" stroke-dasharray="1 4"/><text x="{middle}" y="{}" text-anchor="middle" font-size="12" fill="{GREY}">{}</text></g>"#,
        middle - cell.width / 2,
        cell.width,
        top + high / 2 + 4,
        escaped(&cell.label.name),
    );
}

fn step_box(out: &mut String, shown: &Shown, cell: &Cell, middle: i64, top: i64, high: i64) {
    let (step, label) = (shown.step, &cell.label);
    let (mut fill, mut stroke, round, dashes) = match step.kind {
        StepKind::Compensatable => ("#e8f1fb", "#2f6fb0", 12, ""),
        StepKind::ReadOnly => ("#f4f5f7", "#6b7683", 12, r#" stroke-dasharray="4 3""#),
        StepKind::Irreversible => ("#fdeeea", "#b3261e", 0, ""),
    };
    if let Some(status) = &label.status {
        (fill, stroke) = (status.look.fill, status.look.line);
    }
    let thick = if step.pivot && !shown.undoes {
        "3.5"
    } else {
        "1.5"
    };
    let left = middle - cell.width / 2;
    let wired = if step.wired.is_empty() || shown.undoes {
        "nothing".to_owned()
    } else {
        readable(&step.wired.join(", "))
    };
    // What stands inside a frame is seen better on a paler ground.
    let faint = match cell.inside {
        Some(_) => r#" fill-opacity="0.4""#,
        None => "",
    };
    let told = label.status.as_ref().map_or_else(String::new, |status| {
        let strips = label.strips.iter().map(|strip| format!(", {}", strip.text));
        format!("; {}{}", status.line, strips.collect::<String>())
    });
    let _ = writeln!(
        out,
        r#"<g><title>{}: {}, made of {}{}</title>{}<rect x="{left}" y="{top}" width="{}" height="{high}" rx="{round}" fill="{fill}" stroke="{stroke}" stroke-width="{thick}"{dashes}{faint}/>"#,
        escaped(&shown.name),
        step.kind,
        escaped(&wired),
        escaped(&told),
        if cell.is_stack() {
            stack(left, top, cell.width, high, stroke)
        } else {
            String::new()
        },
        cell.width,
    );
    if step.checkpoint && !shown.undoes {
        let (x, y) = (left + cell.width - 14, top - 9);
        let _ = writeln!(
            out,
            r##"<path d="M{x} {}V{y}h13l-4 4.5l4 4.5h-13" fill="#2e7d4f" stroke="#2e7d4f" stroke-width="1.5" stroke-linejoin="round"/>"##,
            top + 6,
        );
    }
    // What a lower box would leave empty is shared out above and below.
    let empty = match cell.inside {
        Some(_) => 0,
        None => high - label.height(),
    };
    let mut y = top + empty / 2 + 21;
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
            escaped(&label.marks),
        );
    }
    y += 8;
    for strip in &label.strips {
        let (fill, ink) = strip.colours();
        let _ = writeln!(
            out,
            r#"<path d="M{} {y}h{}v16h-{}z" fill="{fill}"/><text x="{middle}" y="{}" text-anchor="middle" font-size="11" font-weight="bold" fill="{ink}">{}</text>"#,
            left + 5,
            cell.width - 10,
            cell.width - 10,
            y + 12,
            escaped(&strip.text),
        );
        y += STRIP;
    }
    out.push_str("</g>\n");
}

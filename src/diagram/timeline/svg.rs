//! A timeline as SVG.

use std::fmt::Write;

use crate::diagram::look;
use crate::diagram::page::{
    GREY, INK, MARGIN, MONO, bold_width, cut, escaped, mono_width, open, pixels, word_width,
};
use crate::diagram::readable;
use crate::diagram::svg::{Head, icon};
use crate::diagram::timeline::scale::{Cut, Room, Scale};
use crate::diagram::timeline::{Bar, Mark, Row, Story, end_word};
use crate::partial::{CallEnd, CallKind, PartialResult, StepReport};

const CHART: i64 = 760;
const NAME: usize = 28;
/// The height of a bar.
const BAR: i64 = 12;
/// What the sign at the end of a bar takes.
const SIGN: i64 = 9;
/// The shortest bar.
const LEAST: i64 = 3;
/// A row of bars with its room.
const LINE: i64 = 18;
/// How far a row is set in by what it is inside of.
const INDENT: i64 = 14;
/// A row of flags.
const LANE: i64 = 20;
const LANES: usize = 8;
/// More flags than this have their number only.
const WORDS: usize = 24;
/// More marks than this aren't listed.
const LISTED: usize = 40;
const ROOM: Room = Room {
    width: CHART,
    cut: 40,
    bar: 10,
    tick: 70,
};

/// Draws what happened when as an SVG document: a row per step, a bar per call of its `execute`, and
/// under these one per call of its `compensate`.
///
/// A full bar was done, an empty one with a cross failed, a hatched one was interrupted, a dashed one with
/// a question mark was lost with its process; dots are a wait before the next attempt. Vertical lines are
/// what concerns the whole run: decisions, a takeover after a crash, a cancel, the deadline, probes, what
/// an operator said, parking, the end. They are numbered, and told below.
///
/// Time is true to scale. Where bars would be too short to be seen, long stretches in which nothing
/// begins or ends are cut out; a torn band shows where, and for how long. Payloads are never shown.
///
/// The bar of a step with steps inside is pale, and reaches over theirs. Of long fan-outs only those items
/// have a row that failed or are under way.
///
/// All of it is in the partial result, which keeps the latest 1,000 calls of each step; one that was
/// written before calls were kept gives a picture without bars.
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
/// let svg = diagram::timeline_svg(&outcome.partial());
/// assert!(svg.contains("<title>see: execute, attempt 1 of round 1: done"));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn timeline_svg(partial: &PartialResult) -> String {
    let story = Story::of(partial);
    let scale = Scale::new(&story.instants(), &story.lengths(), &ROOM);
    let names: Vec<String> = story.rows.iter().map(|row| cut(&row.name, NAME)).collect();
    let name_width = names
        .iter()
        .zip(&story.rows)
        .map(|(name, row)| mono_width(name, 13) + pixels(row.depth, INDENT))
        .max();
    let name_width = name_width.unwrap_or(0).max(60);
    let chart = MARGIN + name_width + 44;
    let status = story
        .rows
        .iter()
        .filter_map(|row| row.step)
        .map(|step| bold_width(&look::status_line(step), 12))
        .max()
        .unwrap_or(0);
    let inner = name_width + 44 + CHART + 36 + status;
    let title = format!(
        "{}, version {}: timeline",
        readable(&partial.saga),
        partial.version
    );
    let head = Head::new(&title, Some(partial), inner);
    let flags = flags(&story.marks, &scale, inner - name_width - 44);
    let lanes = flags.iter().map(|flag| flag.lane + 1).max().unwrap_or(0);
    let flags_top = head.height + 10;
    let axis = flags_top + pixels(lanes, LANE) + if scale.cuts().is_empty() { 18 } else { 44 };
    let rows_top = axis + 12;
    let rows_end = rows_top + story.rows.iter().map(row_height).sum::<i64>();
    let kinds = kinds(&story);
    let keys = place_keys(&kinds, inner);
    let keys_top = rows_end + 16;
    let list_top = keys_top + keys.last().map_or(0, |key| key.y + 30);
    let letters = usize::try_from(inner * 100 / (62 * 12)).unwrap_or(40);
    let list = story.list(letters, LISTED);
    let height = list_top + pixels(list.len(), 17) + 8;
    let width = inner + 2 * MARGIN;

    let mut out = String::new();
    let whole = format!("{title} of run {}", readable(partial.run.as_str()));
    open(&mut out, width, height, &whole, DEFS);
    head.draw(&mut out);
    zebra(&mut out, &story, rows_top, inner);
    grid(&mut out, &scale, chart, axis, rows_end);
    let mut y = rows_top;
    for (row, name) in story.rows.iter().zip(&names) {
        draw_row(&mut out, row, name, &scale, chart, y);
        y += row_height(row);
    }
    let cuts = scale.cuts();
    for cut in &cuts {
        draw_cut(&mut out, cut, chart, axis, rows_end);
    }
    for (flag, mark) in flags.iter().zip(&story.marks) {
        draw_line(&mut out, flag, mark, chart, flags_top, rows_end);
    }
    tick_labels(&mut out, &scale, chart, axis);
    cut_labels(&mut out, &cuts, chart, axis);
    for (flag, mark) in flags.iter().zip(&story.marks) {
        draw_flag(&mut out, flag, mark, chart, flags_top);
    }
    for key in &keys {
        draw_key(&mut out, key, MARGIN + key.x, keys_top + key.y);
    }
    let mut y = list_top + 10;
    for line in &list {
        let _ = writeln!(
            out,
            r#"<text x="{MARGIN}" y="{y}" font-size="12" font-family="{MONO}" fill="{INK}" xml:space="preserve">{}</text>"#,
            escaped(line),
        );
        y += 17;
    }
    out.push_str("</svg>\n");
    out
}

const DEFS: &str = r##"<pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path d="M0 0V5" stroke="#8a5a00" stroke-width="3"/></pattern>"##;

fn has_undos(row: &Row) -> bool {
    let mut bars = row.bars.iter();
    bars.any(|bar| bar.call.call == CallKind::Compensate)
}

fn row_height(row: &Row) -> i64 {
    if has_undos(row) {
        2 * LINE + 10
    } else {
        LINE + 10
    }
}

fn zebra(out: &mut String, story: &Story, top: i64, inner: i64) {
    let mut y = top;
    for (index, row) in story.rows.iter().enumerate() {
        let high = row_height(row);
        if index % 2 == 0 {
            let _ = writeln!(
                out,
                r##"<path d="M{} {y}h{}v{high}h-{}z" fill="#f3f5f8"/>"##,
                MARGIN - 8,
                inner + 16,
                inner + 16,
            );
        }
        y += high;
    }
}

fn grid(out: &mut String, scale: &Scale, chart: i64, axis: i64, bottom: i64) {
    for tick in scale.ticks() {
        let _ = writeln!(
            out,
            r#"<path d="M{} {}V{bottom}" stroke="{}"/>"#,
            chart + tick.x,
            axis + 4,
            if tick.first { "#a9b3bd" } else { "#dde2e7" },
        );
    }
}

/// Labels that begin a stretch first, the others where there is room.
fn tick_labels(out: &mut String, scale: &Scale, chart: i64, axis: i64) {
    let ticks = scale.ticks();
    let mut taken: Vec<(i64, i64)> = Vec::new();
    for first in [true, false] {
        for tick in ticks.iter().filter(|tick| tick.first == first) {
            let width = word_width(&tick.label, 11);
            let from = tick.x - width / 2;
            if !is_free(&taken, from, width) {
                continue;
            }
            taken.push((from, from + width));
            let weight = if first { " font-weight=\"bold\"" } else { "" };
            label(out, chart + tick.x, axis, weight, &tick.label);
        }
    }
}

fn is_free(taken: &[(i64, i64)], from: i64, width: i64) -> bool {
    taken
        .iter()
        .all(|&(left, right)| from > right + 4 || from + width + 4 < left)
}

/// How long cuts are, over the axis in two lines.
fn cut_labels(out: &mut String, cuts: &[Cut], chart: i64, axis: i64) {
    let mut lines = [Vec::new(), Vec::new()];
    for cut in cuts {
        let (middle, width) = (cut.x + cut.width / 2, word_width(&cut.label, 11));
        let from = middle - width / 2;
        for (line, y) in lines.iter_mut().zip([axis - 15, axis - 29]) {
            if is_free(line, from, width) {
                line.push((from, from + width));
                label(
                    out,
                    chart + middle,
                    y,
                    r#" font-style="italic""#,
                    &cut.label,
                );
                break;
            }
        }
    }
}

/// A label that hides the lines behind it.
fn label(out: &mut String, x: i64, y: i64, style: &str, text: &str) {
    let width = word_width(text, 11) - 2;
    let _ = writeln!(
        out,
        r##"<path d="M{} {}h{width}v13h-{width}z" fill="#ffffff"/><text x="{x}" y="{y}" text-anchor="middle" font-size="11"{style} fill="{GREY}">{text}</text>"##,
        x - width / 2,
        y - 10,
    );
}

fn draw_cut(out: &mut String, cut: &Cut, chart: i64, axis: i64, bottom: i64) {
    let (left, top) = (chart + cut.x + 3, axis + 6);
    let right = left + cut.width - 6;
    let mut edges = String::new();
    for x in [left, right] {
        let _ = write!(edges, "M{x} {top}");
        let mut y = top;
        let mut out_of_line = true;
        while y < bottom {
            y = (y + 6).min(bottom);
            let _ = write!(edges, "L{} {y}", if out_of_line { x + 4 } else { x });
            out_of_line = !out_of_line;
        }
    }
    let _ = writeln!(
        out,
        r##"<g><title>{} are left out</title><path d="M{left} {top}H{right}V{bottom}H{left}z" fill="#ffffff" fill-opacity="0.8"/><path d="{edges}" fill="none" stroke="#8a94a0"/></g>"##,
        cut.label,
    );
}

fn draw_row(out: &mut String, row: &Row, name: &str, scale: &Scale, chart: i64, top: i64) {
    let middle = top + 5 + LINE / 2;
    let _ = writeln!(
        out,
        r#"<g><title>{}</title><text x="{}" y="{}" font-size="13" font-family="{MONO}" fill="{INK}">{}</text></g>"#,
        escaped(
            &row.step
                .map_or_else(|| row.name.clone(), |step| readable(&step.name))
        ),
        MARGIN + pixels(row.depth, INDENT),
        middle + 4,
        escaped(name),
    );
    let Some(step) = row.step else {
        let _ = writeln!(
            out,
            r#"<text x="{chart}" y="{}" font-size="12" fill="{GREY}">{}</text>"#,
            middle + 4,
            row.more,
        );
        return;
    };
    if has_undos(row) {
        let _ = writeln!(
            out,
            r##"<text x="{}" y="{}" text-anchor="end" font-size="11" fill="#62479b">undo</text>"##,
            chart - 12,
            middle + LINE + 4,
        );
    }
    for wait in &row.waits {
        let y = if wait.undo { middle + LINE } else { middle };
        let _ = writeln!(
            out,
            r#"<path d="M{} {y}H{}" stroke="{GREY}" stroke-width="1.5" stroke-dasharray="1.5 3"/>"#,
            chart + scale.x(wait.from),
            chart + scale.x(wait.to),
        );
    }
    for (bar, more) in seen(row, scale) {
        let undo = bar.call.call == CallKind::Compensate;
        let y = if undo { middle + LINE } else { middle };
        let (from, width) = extent(bar, scale);
        let more = match more {
            0 => String::new(),
            more => format!("; and {more} more like it right after"),
        };
        let title = format!("{}{more}", told(step, bar));
        // What reaches over the calls inside is not a call of its own.
        let faint = if row.spans { r#" opacity="0.4""# } else { "" };
        let _ = writeln!(out, "<g{faint}><title>{}</title>", escaped(&title));
        draw_bar(out, bar.call.end, undo, chart + from, y, width);
        out.push_str("</g>\n");
    }
    let stands = look::of_step(step.status);
    icon(out, stands, chart + CHART + 16, middle - 7);
    let _ = writeln!(
        out,
        r#"<text x="{}" y="{}" font-size="12" font-weight="bold" fill="{}">{}</text>"#,
        chart + CHART + 36,
        middle + 4,
        stands.line,
        look::status_line(step),
    );
}

fn extent(bar: &Bar, scale: &Scale) -> (i64, i64) {
    let from = scale.x(bar.from).min(CHART - LEAST);
    (from, (scale.x(bar.to) - from).max(LEAST))
}

/// The bars that are drawn: one stands for all of its like that would lie on it, with their number.
fn seen<'a, 'b>(row: &'b Row<'a>, scale: &Scale) -> Vec<(&'b Bar<'a>, usize)> {
    let mut seen: Vec<(&Bar, usize)> = Vec::new();
    for bar in &row.bars {
        let (from, width) = extent(bar, scale);
        if let Some((last, more)) = seen.last_mut() {
            let (before, short) = extent(last, scale);
            let alike = last.call.end == bar.call.end && last.call.call == bar.call.call;
            if alike && width == LEAST && short == LEAST && from - before < SIGN {
                *more += 1;
                continue;
            }
        }
        seen.push((bar, 0));
    }
    seen
}

fn told(step: &StepReport, bar: &Bar) -> String {
    let call = bar.call;
    let kind = match call.call {
        CallKind::Execute => "execute",
        CallKind::Compensate => "compensate",
    };
    let mode = call
        .failure
        .as_ref()
        .map_or_else(String::new, |failure| format!(" ({})", failure.mode));
    format!(
        "{}: {kind}, attempt {} of round {}: {}{mode}, from {} for {}",
        readable(&step.name),
        call.attempt,
        call.round,
        end_word(call.end),
        look::span(bar.from),
        look::span(bar.to - bar.from),
    )
}

/// A bar from `x` on, its middle at `y`.
fn draw_bar(out: &mut String, end: CallEnd, undo: bool, x: i64, y: i64, width: i64) {
    let top = y - BAR / 2;
    let outline = format!("M{x} {top}h{width}v{BAR}h-{width}z");
    let done = if undo { "#62479b" } else { "#1f5f99" };
    let after = x + width;
    let _ = match end {
        CallEnd::Done => writeln!(out, r#"<path d="{outline}" fill="{done}"/>"#),
        CallEnd::Failed => writeln!(
            out,
            r##"<path d="{outline}" fill="#fde3d5" stroke="#b03a06" stroke-width="1.5"/><path d="M{} {}l8 8m0 -8l-8 8" stroke="#ffffff" stroke-width="4.5"/><path d="M{} {}l8 8m0 -8l-8 8" stroke="#b03a06" stroke-width="2.2"/>"##,
            after - 4,
            y - 4,
            after - 4,
            y - 4,
        ),
        CallEnd::Interrupted => writeln!(
            out,
            r##"<path d="{outline}" fill="#ffffff"/><path d="{outline}" fill="url(#hatch)" stroke="#8a5a00" stroke-width="1.5"/>"##
        ),
        CallEnd::Lost => writeln!(
            out,
            r##"<path d="{outline}" fill="#fff0c7" fill-opacity="0.7" stroke="#8a5a00" stroke-width="1.5" stroke-dasharray="4 3"/><text x="{}" y="{}" text-anchor="end" font-size="12" font-weight="bold" fill="#8a5a00" stroke="#ffffff" stroke-width="3" paint-order="stroke">?</text>"##,
            after - 3,
            y + 4,
        ),
        CallEnd::Stopped => writeln!(
            out,
            r##"<path d="{outline}" fill="#e6e9ed" stroke="#3d4854" stroke-width="1.5"/><path d="M{} {top}h6v{BAR}h-6z" fill="#3d4854"/>"##,
            after - 3,
        ),
        CallEnd::UnderWay => writeln!(
            out,
            r##"<path d="M{x} {top}h{width}l7 6l-7 6h-{width}z" fill="#d9f2ea" stroke="#00694f" stroke-width="1.5"/>"##
        ),
    };
}

/// Where a mark's flag stands.
struct Flag {
    /// Of its line.
    x: i64,
    lane: usize,
    text: String,
    width: i64,
    /// Whether it hangs to the left of its line, for want of room.
    left: bool,
}

/// `most` is where the page ends.
fn flags(marks: &[Mark], scale: &Scale, most: i64) -> Vec<Flag> {
    let mut ends: Vec<i64> = Vec::new();
    marks
        .iter()
        .enumerate()
        .map(|(index, mark)| {
            let x = scale.x(mark.at);
            let text = if marks.len() > WORDS {
                format!("{}", index + 1)
            } else {
                format!("{} {}", index + 1, mark.word)
            };
            let width = bold_width(&text, 11) + 8;
            let left = x + width > most;
            let from = if left { x - width } else { x };
            let free = ends.iter().position(|&end| end + 4 <= from);
            let lane = free.unwrap_or(ends.len()).min(LANES - 1);
            if lane == ends.len() {
                ends.push(0);
            }
            ends[lane] = ends[lane].max(from + width);
            Flag {
                x,
                lane,
                text,
                width,
                left,
            }
        })
        .collect()
}

fn mark_colours(word: &str) -> (&'static str, &'static str) {
    match word {
        "taken over" | "parked" | "paused" => ("#fff0c7", "#8a5a00"),
        "cancel" | "too late" | "deadline" | "compensate" | "given up" | "abandoned" => {
            ("#fde3d5", "#b03a06")
        }
        "compensated" => ("#ebe5f5", "#62479b"),
        "completed" => ("#dcebf8", "#1f5f99"),
        _ => ("#e6e9ed", "#3d4854"),
    }
}

fn draw_line(out: &mut String, flag: &Flag, mark: &Mark, chart: i64, top: i64, bottom: i64) {
    let (_, line) = mark_colours(mark.word);
    let _ = writeln!(
        out,
        r#"<path d="M{} {}V{bottom}" stroke="{line}" stroke-width="1.3" stroke-dasharray="6 3"/>"#,
        chart + flag.x,
        top + pixels(flag.lane, LANE),
    );
}

fn draw_flag(out: &mut String, flag: &Flag, mark: &Mark, chart: i64, top: i64) {
    let (fill, line) = mark_colours(mark.word);
    let y = top + pixels(flag.lane, LANE);
    let x = chart + flag.x - if flag.left { flag.width } else { 0 };
    let _ = writeln!(
        out,
        r#"<g><title>{}</title><path d="M{x} {y}h{}v16h-{}z" fill="{fill}" stroke="{line}"/><text x="{}" y="{}" font-size="11" font-weight="bold" fill="{line}">{}</text></g>"#,
        escaped(&readable(&format!("{} {}", mark.word, mark.detail))),
        flag.width,
        flag.width,
        x + 4,
        y + 12,
        escaped(&flag.text),
    );
}

/// One explained bar.
struct Key {
    kind: Kind,
    x: i64,
    y: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bar(CallEnd, bool),
    Wait,
    Cut,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Kind::Bar(CallEnd::Done, true) => "undone",
            Kind::Bar(end, _) => end_word(end),
            Kind::Wait => "waits to try again",
            Kind::Cut => "time left out",
        }
    }
}

/// What occurs.
fn kinds(story: &Story) -> Vec<Kind> {
    let bars = || story.rows.iter().flat_map(|row| &row.bars);
    let occurs = |end: CallEnd, undo: bool| {
        bars().any(|bar| {
            let undone = bar.call.call == CallKind::Compensate && end == CallEnd::Done;
            bar.call.end == end && undone == undo
        })
    };
    let all = [
        (CallEnd::Done, false),
        (CallEnd::Done, true),
        (CallEnd::Failed, false),
        (CallEnd::Stopped, false),
        (CallEnd::Interrupted, false),
        (CallEnd::Lost, false),
        (CallEnd::UnderWay, false),
    ];
    let mut kinds: Vec<Kind> = all
        .into_iter()
        .filter(|&(end, undo)| occurs(end, undo))
        .map(|(end, undo)| Kind::Bar(end, undo))
        .collect();
    if story.rows.iter().any(|row| !row.waits.is_empty()) {
        kinds.push(Kind::Wait);
    }
    let scale = Scale::new(&story.instants(), &story.lengths(), &ROOM);
    if !scale.cuts().is_empty() {
        kinds.push(Kind::Cut);
    }
    kinds
}

fn place_keys(kinds: &[Kind], inner: i64) -> Vec<Key> {
    let (mut x, mut y) = (0, 0);
    let mut keys = Vec::new();
    for &kind in kinds {
        let width = 40 + word_width(kind.words(), 12);
        if x > 0 && x + width > inner {
            (x, y) = (0, y + 22);
        }
        keys.push(Key { kind, x, y });
        x += width + 20;
    }
    keys
}

fn draw_key(out: &mut String, key: &Key, x: i64, y: i64) {
    let middle = y + 8;
    match key.kind {
        Kind::Bar(end, undo) => draw_bar(out, end, undo, x, middle, 24),
        Kind::Wait => {
            let _ = writeln!(
                out,
                r#"<path d="M{x} {middle}h28" stroke="{GREY}" stroke-width="1.5" stroke-dasharray="1.5 3"/>"#
            );
        }
        Kind::Cut => {
            let _ = writeln!(
                out,
                r##"<path d="M{} {y}l4 4l-4 4l4 4l-4 4m10 -16l4 4l-4 4l4 4l-4 4" fill="none" stroke="#8a94a0"/>"##,
                x + 6,
            );
        }
    }
    let _ = writeln!(
        out,
        r#"<text x="{}" y="{}" font-size="12" fill="{GREY}">{}</text>"#,
        x + 38,
        middle + 4,
        key.kind.words(),
    );
}

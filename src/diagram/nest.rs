//! What a picture shows: the steps of a definition or of a run, and in them the steps inside them.
//!
//! Of a definition all items of a fan-out are one step, since nobody knows how many there will be. Of a run
//! they are shown one by one where they are few, and else those that somebody would look for.

use std::collections::HashMap;

use crate::diagram::layers::{Edge, Tie, edges, layer_of};
use crate::diagram::rows::{Counts, chosen};
use crate::diagram::{look, readable};
use crate::partial::{PartialResult, StepReport, StepStatus};
use crate::saga::{Gathering, Graph, GraphStep, NodeIx, StepKind, Tolerance, undo_path};

/// So many items of a fan-out are shown.
pub(super) const MOST_ITEMS: usize = 12;

/// Steps that are drawn beside each other, and what ties them.
#[derive(Debug)]
pub(super) struct Level<'a> {
    pub(super) gathers: Gathering,
    pub(super) steps: Vec<Shown<'a>>,
    pub(super) edges: Vec<Edge>,
    pub(super) pivot: Option<usize>,
    /// The items that aren't shown, in words.
    pub(super) rest: Option<String>,
}

/// A step as it is drawn.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) step: &'a GraphStep,
    pub(super) name: String,
    /// How it stands, where the run says so.
    pub(super) report: Option<&'a StepReport>,
    pub(super) inside: Option<Level<'a>>,
    /// How its items stand.
    pub(super) counts: Option<String>,
    /// Whether it is what undoes `step` as a whole.
    pub(super) undoes: bool,
    pub(super) stands: StepStatus,
    /// What is said of it beside its name.
    pub(super) marks: Vec<String>,
}

type Reports<'a> = HashMap<&'a str, &'a StepReport>;

impl<'a> Level<'a> {
    /// All of a definition, as it stands in a run.
    pub(super) fn of(graph: &'a Graph, run: Option<&'a PartialResult>) -> Self {
        let steps = run.iter().flat_map(|run| &run.steps);
        let reports: Option<Reports<'a>> = run.is_some().then(|| {
            steps
                .map(|step| (step.name.as_str(), step))
                .collect::<Reports<'a>>()
        });
        Level::in_turn(graph, "", reports.as_ref())
    }

    /// The steps of a saga, or the ways of a choice.
    fn in_turn(graph: &'a Graph, around: &str, reports: Option<&Reports<'a>>) -> Self {
        let steps = graph.steps.iter().map(|step| {
            let path = match around {
                "" => step.name.to_string(),
                around => format!("{around}/{}", step.name),
            };
            Shown::of(step, &path, reports)
        });
        let edges = match graph.gathers {
            Gathering::Fallback => (1..graph.steps.len())
                .map(|to| Edge {
                    from: to - 1,
                    to,
                    tie: Tie::Otherwise,
                })
                .collect(),
            _ => edges(graph),
        };
        Level {
            gathers: graph.gathers,
            steps: steps.collect(),
            edges,
            pivot: graph.pivot.map(NodeIx::at),
            rest: None,
        }
    }

    /// The items of a fan-out that are worth looking at; nothing where none is.
    fn items(graph: &'a Graph, around: &str, reports: &Reports<'a>) -> (Counts, Option<Self>) {
        let paths = (0..).map(|item| format!("{around}[{item}]"));
        let all: Vec<(String, &StepReport)> = paths
            .map_while(|path| {
                let report = *reports.get(path.as_str())?;
                Some((path, report))
            })
            .collect();
        let shown = chosen(all.iter().map(|(_, item)| *item), MOST_ITEMS);
        let status = |(_, item): &(String, &StepReport)| item.status;
        let counts = Counts::of(all.iter().map(status));
        let hidden = all.iter().enumerate();
        let hidden = hidden.filter(|(index, _)| shown.binary_search(index).is_err());
        let hidden = Counts::of(hidden.map(|(_, item)| status(item)));
        let rest = match hidden.total() {
            0 => None,
            more => Some(format!("{more} more: {}", hidden.each())),
        };
        let Some(item) = graph.steps.first().filter(|_| !shown.is_empty()) else {
            return (counts, None);
        };
        let mut all: Vec<Option<(String, &StepReport)>> = all.into_iter().map(Some).collect();
        let steps = shown.iter().filter_map(|&index| {
            let (path, _) = all[index].take()?;
            let mut shown = Shown::of(item, &path, Some(reports));
            shown.name = format!("{}[{index}]", readable(&item.name));
            // What an item is, its fan-out says.
            shown.marks = form_words(item);
            Some(shown)
        });
        let level = Level {
            gathers: graph.gathers,
            steps: steps.collect(),
            edges: Vec::new(),
            pivot: None,
            rest,
        };
        (counts, Some(level))
    }

    /// What ties a step to those before it. Edges stand in the order of the steps that they lead to.
    pub(super) fn edges_to(&self, step: usize) -> &[Edge] {
        let from = self.edges.partition_point(|edge| edge.to < step);
        let to = self.edges.partition_point(|edge| edge.to <= step);
        &self.edges[from..to]
    }

    /// The layer of each step; what undoes all of them stands below all.
    pub(super) fn layers(&self) -> Vec<usize> {
        let mut layers = layer_of(self.steps.len(), &self.edges);
        let below = layers.iter().max().map_or(0, |last| last + 1);
        if let Some(last) = layers.last_mut()
            && self.ends_with_undo()
            && self.steps.len() > 1
        {
            *last = below;
        }
        layers
    }

    pub(super) fn ends_with_undo(&self) -> bool {
        self.steps.last().is_some_and(|step| step.undoes)
    }

    /// How many steps are drawn in the steps of this level.
    pub(super) fn inside(&self) -> usize {
        let inside = self.steps.iter().filter_map(|step| step.inside.as_ref());
        inside
            .map(|level| level.steps.len() - usize::from(level.ends_with_undo()) + level.inside())
            .sum()
    }
}

impl<'a> Shown<'a> {
    fn of(step: &'a GraphStep, path: &str, reports: Option<&Reports<'a>>) -> Self {
        let report = reports.and_then(|reports| reports.get(path).copied());
        let mut shown = Shown {
            step,
            name: readable(&step.name),
            report,
            inside: None,
            counts: None,
            undoes: false,
            stands: report.map_or(StepStatus::Pending, |report| report.status),
            marks: marks(step),
        };
        shown.look_inside(path, reports);
        shown.look_at_undo(path, reports);
        shown
    }

    fn look_inside(&mut self, path: &str, reports: Option<&Reports<'a>>) {
        let Some(inside) = self.step.inside() else {
            return;
        };
        let Gathering::Each { .. } = inside.gathers else {
            self.inside = Some(Level::in_turn(inside, path, reports));
            return;
        };
        let begun = self.report.filter(|report| report.attempts > 0);
        if let Some((report, reports)) = begun.zip(reports) {
            let (counts, level) = Level::items(inside, path, reports);
            self.name = format!("{} × {}", self.name, counts.total());
            self.inside = level;
            // Where all stand as it does there is nothing to tell.
            let alike = counts.with(report.status) == counts.total();
            self.counts = (!alike).then(|| counts.to_string());
            return;
        }
        self.name = format!("{} × n", self.name);
        if let Some(item) = inside.steps.first() {
            self.marks.extend(form_words(item));
            // Nothing can be told of items that aren't known yet.
            let item = item.inside().filter(|_| self.report.is_none());
            self.inside = item.map(|item| Level::in_turn(item, path, None));
        }
    }

    /// What undoes it as a whole stands below what is inside it; in a run, once it has begun.
    fn look_at_undo(&mut self, path: &str, reports: Option<&Reports<'a>>) {
        let Some(undo) = self.step.undone_by() else {
            return;
        };
        self.marks
            .push(format!("undone by {}", readable(undo.saga())));
        let path = undo_path(path);
        let first = undo
            .steps()
            .first()
            .map(|step| format!("{path}/{}", step.name()));
        let begun =
            |reports: &Reports<'_>| first.is_some_and(|first| reports.contains_key(first.as_str()));
        if !reports.is_none_or(begun) {
            return;
        }
        let undo = Shown {
            step: self.step,
            name: readable(undo.saga()),
            report: None,
            inside: Some(Level::in_turn(undo, &path, reports)),
            counts: None,
            undoes: true,
            marks: vec!["undoes it".to_owned()],
            stands: match self.stands {
                StepStatus::Undone => StepStatus::Done,
                StepStatus::Undoing => StepStatus::Running,
                StepStatus::UndoFailed => StepStatus::Failed,
                _ => StepStatus::Pending,
            },
        };
        match &mut self.inside {
            Some(inside) => inside.steps.push(undo),
            None => {
                self.inside = Some(Level {
                    gathers: Gathering::Saga,
                    steps: vec![undo],
                    edges: Vec::new(),
                    pivot: None,
                    rest: None,
                });
            }
        }
    }

    /// Whether the run says how it stands.
    pub(super) fn is_told(&self) -> bool {
        self.report.is_some() || self.undoes
    }

    /// Its status with what belongs to it, and how its items stand.
    pub(super) fn status_line(&self) -> String {
        let status = self.report.map_or_else(
            || look::step_word(self.stands).to_owned(),
            look::status_line,
        );
        match &self.counts {
            Some(counts) => format!("{status} · {counts}"),
            None => status,
        }
    }

    /// What has to strike the eye at it.
    pub(super) fn alarms(&self, run: &PartialResult) -> Vec<look::Alarm> {
        let Some(report) = self.report else {
            return Vec::new();
        };
        look::alarms(run, report, self.step.inside().is_some())
    }
}

/// What is said of a step beside its name.
fn marks(step: &GraphStep) -> Vec<String> {
    let mut marks = Vec::new();
    if step.is_pivot() {
        marks.push("pivot".to_owned());
    }
    match step.kind() {
        StepKind::Compensatable => {}
        // That it changes nothing goes without saying.
        StepKind::ReadOnly if step.waits() => marks.extend(wait_words(step)),
        StepKind::ReadOnly => marks.push("read-only".to_owned()),
        StepKind::Irreversible => marks.push("irreversible".to_owned()),
    }
    if step.is_checkpoint() {
        marks.push("checkpoint".to_owned());
    }
    if step.conditional {
        marks.push("on a condition".to_owned());
    }
    marks.extend(form_words(step));
    marks
}

/// What a step waits for that calls nothing, and how long.
fn wait_words(step: &GraphStep) -> Vec<String> {
    let limit = step
        .limit()
        .map(|limit| look::span(i64::try_from(limit.as_micros()).unwrap_or(i64::MAX)));
    if step.waits_for_signal() {
        let within = limit.map(|limit| format!("within {limit}"));
        return ["waits for a signal".to_owned()]
            .into_iter()
            .chain(within)
            .collect();
    }
    match limit {
        Some(limit) => vec![format!("waits {limit}")],
        None => vec!["waits for a time".to_owned()],
    }
}

/// What the steps inside a step are to each other.
fn form_words(step: &GraphStep) -> Vec<String> {
    let Some(inside) = step.inside() else {
        return Vec::new();
    };
    match inside.gathers {
        Gathering::Saga => vec!["sub-saga".to_owned()],
        Gathering::Fallback => vec!["fallback".to_owned()],
        Gathering::Race => vec!["first of".to_owned()],
        Gathering::Each { parallel, tolerate } => {
            let mut words = vec!["for each".to_owned()];
            words.extend(parallel.map(|most| format!("{most} at once")));
            words.extend(tolerate.map(|tolerance| match tolerance {
                Tolerance::Items(most) => format!("{most} may fail"),
                Tolerance::PerMille(share) if share % 10 == 0 => {
                    format!("{} % may fail", share / 10)
                }
                Tolerance::PerMille(share) => {
                    format!("{}.{} % may fail", share / 10, share % 10)
                }
            }));
            words
        }
    }
}

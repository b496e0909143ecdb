//! A definition, and a run of it, as a Mermaid flowchart.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::diagram::layers::Tie;
use crate::diagram::nest::{Level, Shown};
use crate::diagram::{look, readable};
use crate::partial::PartialResult;
use crate::saga::{Graph, GraphStep, StepKind};

/// Writes a definition as a Mermaid flowchart.
///
/// Rounded steps can be undone, slanted ones change nothing, angular ones can't be undone; the pivot is
/// a hexagon. Dotted arrows give no data. Steps with steps inside are subgraphs; a fan-out of which no
/// item is shown has two lines at its sides.
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
///     diagram::mermaid(saga.graph()),
///     "flowchart TD\n    s0[/\"see<br/><i>read-only</i>\"/]\n",
/// );
/// # Ok::<(), amends::SagaError>(())
/// ```
#[must_use]
pub fn mermaid(graph: &Graph) -> String {
    let mut chart = Chart {
        out: String::from("flowchart TD\n"),
        classes: BTreeMap::new(),
    };
    chart.level(&Level::of(graph, None), "s", "    ", None);
    chart.out
}

/// Writes a run as a Mermaid flowchart: the definition, and in each step how it stands, with a class for
/// the colour. What strikes the eye in [`run_svg`](crate::diagram::run_svg) is a line of text here.
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
/// let chart = diagram::run_mermaid(saga.graph(), &outcome.partial());
/// assert!(chart.contains("see<br/><i>read-only</i><br/><b>✓ done</b>"));
/// assert!(chart.contains("    class s0 done\n"));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn run_mermaid(graph: &Graph, partial: &PartialResult) -> String {
    let mut chart = Chart {
        out: format!(
            "%% {}, version {}: {}\nflowchart TD\n",
            // A comment ends with its line; braces after the signs would be read as a directive.
            comment(&graph.saga),
            graph.version,
            partial.standing,
        ),
        classes: BTreeMap::new(),
    };
    chart.level(&Level::of(graph, Some(partial)), "s", "    ", Some(partial));
    let Chart { mut out, classes } = chart;
    for (class, (look, members)) in classes {
        let _ = writeln!(
            out,
            "    classDef {class} fill:{},stroke:{},color:#1c2733",
            look.fill, look.line,
        );
        let _ = writeln!(out, "    class {} {class}", members.join(","));
    }
    out
}

struct Chart {
    out: String,
    /// The nodes of each class.
    classes: BTreeMap<&'static str, (look::Look, Vec<String>)>,
}

impl Chart {
    /// The nodes of a level, then its arrows. A node is called by the places of the steps around it.
    fn level(&mut self, level: &Level, ids: &str, indent: &str, run: Option<&PartialResult>) {
        for (index, step) in level.steps.iter().enumerate() {
            let id = format!("{ids}{index}");
            let label = label(step, run);
            match &step.inside {
                None => {
                    let (open, close) = shape(step.step);
                    // Writing to a String can't fail.
                    let _ = writeln!(self.out, "{indent}{id}{open}\"{label}\"{close}");
                }
                Some(inside) => {
                    let _ = writeln!(self.out, "{indent}subgraph {id}[\"{label}\"]");
                    self.level(inside, &format!("{id}_"), &format!("{indent}    "), run);
                    let _ = writeln!(self.out, "{indent}end");
                }
            }
            if run.is_some() && step.is_told() {
                let class = look::class(step.stands);
                let seen = look::of_step(step.stands);
                let (_, members) = self.classes.entry(class).or_insert((seen, Vec::new()));
                members.push(id);
            }
        }
        if let Some(rest) = &level.rest {
            let _ = writeln!(self.out, "{indent}{ids}rest[\"{}\"]", escaped(rest));
        }
        for edge in &level.edges {
            let arrow = match edge.tie {
                Tie::Data => "-->",
                Tie::Order => "-.->",
                Tie::Otherwise => "-. if it fails .->",
            };
            let (from, to) = (edge.from, edge.to);
            let _ = writeln!(self.out, "{indent}{ids}{from} {arrow} {ids}{to}");
        }
    }
}

fn shape(step: &GraphStep) -> (&'static str, &'static str) {
    match step.kind {
        _ if step.pivot => ("{{", "}}"),
        // Several of one: a fan-out of which no item is shown.
        _ if step.inside().is_some() => ("[[", "]]"),
        StepKind::Compensatable => ("(", ")"),
        StepKind::ReadOnly => ("[/", "/]"),
        StepKind::Irreversible => ("[", "]"),
    }
}

fn label(step: &Shown, run: Option<&PartialResult>) -> String {
    let mut label = escaped(&step.name);
    let marks = step.marks.join(", ");
    if !marks.is_empty() {
        let _ = write!(label, "<br/><i>{}</i>", escaped(&marks));
    }
    if let Some(run) = run.filter(|_| step.is_told()) {
        let sign = look::of_step(step.stands).sign;
        let alarms = step.alarms(run).into_iter().map(|alarm| alarm.text);
        for line in [format!("{sign} {}", step.status_line())]
            .into_iter()
            .chain(alarms)
        {
            let _ = write!(label, "<br/><b>{}</b>", escaped(&line));
        }
    }
    label
}

fn comment(name: &str) -> String {
    readable(name).replace(['{', '}'], "\u{fffd}")
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

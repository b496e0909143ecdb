//! A definition, and a run of it, as a Mermaid flowchart.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use crate::diagram::layers::{Tie, edges};
use crate::diagram::{look, marks, readable};
use crate::partial::{PartialResult, StepReport};
use crate::saga::{Graph, GraphStep, StepKind};

/// Writes a definition as a Mermaid flowchart.
///
/// Rounded steps can be undone, slanted ones change nothing, angular ones can't be undone; the pivot is
/// a hexagon. Dotted arrows give no data.
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
    let mut out = String::from("flowchart TD\n");
    for (index, step) in graph.steps.iter().enumerate() {
        node(&mut out, index, step, &[]);
    }
    arrows(&mut out, graph);
    out
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
    let reports: HashMap<&str, &StepReport> = partial
        .steps
        .iter()
        .map(|step| (step.name.as_str(), step))
        .collect();
    let mut out = format!(
        "%% {}, version {}: {}\nflowchart TD\n",
        // A comment ends with its line; braces after the signs would be read as a directive.
        comment(&graph.saga),
        graph.version,
        partial.standing,
    );
    let mut classes: BTreeMap<&str, (look::Look, Vec<usize>)> = BTreeMap::new();
    for (index, step) in graph.steps.iter().enumerate() {
        let Some(report) = reports.get(step.name()) else {
            node(&mut out, index, step, &[]);
            continue;
        };
        let seen = look::of_step(report.status);
        let mut lines = vec![format!("{} {}", seen.sign, look::status_line(report))];
        lines.extend(
            look::alarms(partial, report)
                .into_iter()
                .map(|alarm| alarm.text),
        );
        node(&mut out, index, step, &lines);
        let class = look::class(report.status);
        let (_, members) = classes.entry(class).or_insert((seen, Vec::new()));
        members.push(index);
    }
    arrows(&mut out, graph);
    for (class, (look, members)) in classes {
        let _ = writeln!(
            out,
            "    classDef {class} fill:{},stroke:{},color:#1c2733",
            look.fill, look.line,
        );
        let members: Vec<String> = members.iter().map(|index| format!("s{index}")).collect();
        let _ = writeln!(out, "    class {} {class}", members.join(","));
    }
    out
}

fn node(out: &mut String, index: usize, step: &GraphStep, lines: &[String]) {
    let (open, close) = match step.kind {
        _ if step.pivot => ("{{", "}}"),
        StepKind::Compensatable => ("(", ")"),
        StepKind::ReadOnly => ("[/", "/]"),
        StepKind::Irreversible => ("[", "]"),
    };
    let mut label = escaped(&step.name);
    let marks = marks(step).join(", ");
    // Writing to a String can't fail.
    if !marks.is_empty() {
        let _ = write!(label, "<br/><i>{marks}</i>");
    }
    for line in lines {
        let _ = write!(label, "<br/><b>{}</b>", escaped(line));
    }
    let _ = writeln!(out, "    s{index}{open}\"{label}\"{close}");
}

fn arrows(out: &mut String, graph: &Graph) {
    for edge in edges(graph) {
        let arrow = match edge.tie {
            Tie::Data => "-->",
            Tie::Order => "-.->",
        };
        let _ = writeln!(out, "    s{} {arrow} s{}", edge.from, edge.to);
    }
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

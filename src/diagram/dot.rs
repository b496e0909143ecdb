//! A definition, and a run of it, in the language of Graphviz.

use std::collections::HashMap;
use std::fmt::Write;

use crate::diagram::layers::{Tie, edges};
use crate::diagram::{look, marks, readable};
use crate::partial::{PartialResult, StepReport};
use crate::saga::{Graph, GraphStep, StepKind};

/// Writes a definition as DOT text, for Graphviz.
///
/// Rounded boxes can be undone, dashed ones change nothing, angular ones can't be undone; the pivot has a
/// thick frame. Dashed arrows give no data.
///
/// ```
/// use amends::{Saga, StepContext, diagram, read_only_fn};
///
/// let mut saga = Saga::builder::<u64>("look");
/// let id = saga.input();
/// let seen = saga.add(read_only_fn("see", async |_: &StepContext, id: &u64| Ok(*id)), id);
/// let saga: Saga<u64, u64> = saga.returns(seen)?;
///
/// let dot = diagram::dot(saga.graph());
/// assert!(dot.starts_with("digraph \"look\" {\n"));
/// assert!(dot.contains("s0 [label=\"see\\nread-only\""));
/// # Ok::<(), amends::SagaError>(())
/// ```
#[must_use]
pub fn dot(graph: &Graph) -> String {
    draw(graph, None)
}

/// Writes a run as DOT text, for Graphviz: the definition, and in each step how it stands.
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
/// let dot = diagram::run_dot(saga.graph(), &outcome.partial());
/// assert!(dot.contains("s0 [label=\"see\\nread-only\\n✓ done\""));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn run_dot(graph: &Graph, partial: &PartialResult) -> String {
    draw(graph, Some(partial))
}

fn draw(graph: &Graph, run: Option<&PartialResult>) -> String {
    let reports: HashMap<&str, &StepReport> = run
        .iter()
        .flat_map(|run| &run.steps)
        .map(|step| (step.name.as_str(), step))
        .collect();
    let mut title = format!("{}, version {}", quoted(&graph.saga), graph.version);
    if let Some(run) = run {
        // Writing to a String can't fail.
        let _ = write!(
            title,
            "\\nrun {}: {}",
            quoted(run.run.as_str()),
            run.standing
        );
    }
    let mut out = format!(
        "digraph \"{}\" {{\n    graph [label=\"{title}\", labelloc=t, fontname=\"sans-serif\", bgcolor=white]\n    \
         node [shape=box, fontname=\"monospace\", fontsize=12]\n    edge [color=\"#55606e\"]\n",
        quoted(&graph.saga),
    );
    for (index, step) in graph.steps.iter().enumerate() {
        let seen = run.and_then(|run| Some((run, *reports.get(step.name())?)));
        node(&mut out, index, step, seen);
    }
    for edge in edges(graph) {
        let style = match edge.tie {
            Tie::Data => "",
            Tie::Order => " [style=dashed]",
        };
        let _ = writeln!(out, "    s{} -> s{}{style}", edge.from, edge.to);
    }
    out.push_str("}\n");
    out
}

fn node(
    out: &mut String,
    index: usize,
    step: &GraphStep,
    seen: Option<(&PartialResult, &StepReport)>,
) {
    let mut label = quoted(&step.name);
    let mut line = |text: &str| {
        label.push_str("\\n");
        label.push_str(&quoted(text));
    };
    let marks = marks(step).join(", ");
    if !marks.is_empty() {
        line(&marks);
    }
    let (mut fill, mut frame) = match step.kind {
        StepKind::Compensatable => ("#e8f1fb", "#2f6fb0"),
        StepKind::ReadOnly => ("#f4f5f7", "#6b7683"),
        StepKind::Irreversible => ("#fdeeea", "#b3261e"),
    };
    if let Some((partial, report)) = seen {
        let look = look::of_step(report.status);
        line(&format!("{} {}", look.sign, look::status_line(report)));
        for alarm in look::alarms(partial, report) {
            line(&format!("! {}", alarm.text));
        }
        (fill, frame) = (look.fill, look.line);
    }
    let style = match step.kind {
        StepKind::Compensatable => "filled,rounded",
        StepKind::ReadOnly => "filled,rounded,dashed",
        StepKind::Irreversible => "filled",
    };
    let pen = if step.pivot { ", penwidth=3.5" } else { "" };
    let _ = writeln!(
        out,
        "    s{index} [label=\"{label}\", style=\"{style}\", fillcolor=\"{fill}\", color=\"{frame}\"{pen}]"
    );
}

/// Within quotes, a quote and a backslash have to be escaped; Graphviz reads entities, too.
fn quoted(name: &str) -> String {
    readable(name)
        .chars()
        .fold(String::with_capacity(name.len()), |mut out, c| {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '&' => out.push_str("&amp;"),
                c => out.push(c),
            }
            out
        })
}

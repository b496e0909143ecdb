//! A definition, and a run of it, in the language of Graphviz.

use std::fmt::Write;

use crate::diagram::layers::Tie;
use crate::diagram::nest::{Level, Shown};
use crate::diagram::{look, readable};
use crate::partial::PartialResult;
use crate::saga::{Graph, StepKind};

/// Writes a definition as DOT text, for Graphviz.
///
/// Rounded boxes can be undone, dashed ones change nothing, angular ones can't be undone; the pivot has a
/// thick frame. Dashed arrows give no data. Steps with steps inside are frames; a fan-out of which no item
/// is shown has two lines around it.
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
    let level = Level::of(graph, run);
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
    // Without it arrows would end at the steps inside, and not at the frames around them.
    let compound = if level.inside() > 0 {
        ", compound=true"
    } else {
        ""
    };
    let mut out = format!(
        "digraph \"{}\" {{\n    graph [label=\"{title}\", labelloc=t, fontname=\"sans-serif\", bgcolor=white{compound}]\n    \
         node [shape=box, fontname=\"monospace\", fontsize=12]\n    edge [color=\"#55606e\"]\n",
        quoted(&graph.saga),
    );
    draw_level(&mut out, &level, "s", "    ", run);
    out.push_str("}\n");
    out
}

/// The nodes of a level, then its arrows. A node is called by the places of the steps around it.
fn draw_level(
    out: &mut String,
    level: &Level,
    ids: &str,
    indent: &str,
    run: Option<&PartialResult>,
) {
    for (index, step) in level.steps.iter().enumerate() {
        let id = format!("{ids}{index}");
        match &step.inside {
            None => {
                let _ = writeln!(out, "{indent}{id} [{}]", looks(step, run));
            }
            Some(inside) => {
                let _ = writeln!(out, "{indent}subgraph cluster_{id} {{");
                let deeper = format!("{indent}    ");
                let _ = writeln!(out, "{deeper}graph [{}, labelloc=t]", looks(step, run));
                draw_level(out, inside, &format!("{id}_"), &deeper, run);
                let _ = writeln!(out, "{indent}}}");
            }
        }
    }
    if let Some(rest) = &level.rest {
        let _ = writeln!(
            out,
            "{indent}{ids}rest [label=\"{}\", style=dotted, color=\"#5c6773\"]",
            quoted(rest)
        );
    }
    for edge in &level.edges {
        let (from, leaves) = end_of(level, ids, edge.from, false);
        let (to, enters) = end_of(level, ids, edge.to, true);
        let mut style: Vec<String> = match edge.tie {
            Tie::Data => Vec::new(),
            Tie::Order => vec!["style=dashed".to_owned()],
            Tie::Otherwise => vec![
                "style=dashed".to_owned(),
                "label=\"if it fails\"".to_owned(),
                "fontname=\"sans-serif\"".to_owned(),
                "fontsize=10".to_owned(),
            ],
        };
        style.extend(leaves.map(|frame| format!("ltail={frame}")));
        style.extend(enters.map(|frame| format!("lhead={frame}")));
        let style = if style.is_empty() {
            String::new()
        } else {
            format!(" [{}]", style.join(", "))
        };
        let _ = writeln!(out, "{indent}{from} -> {to}{style}");
    }
}

/// The node at which an arrow to or from a step ends, and the frame that cuts it off before.
fn end_of(level: &Level, ids: &str, step: usize, first: bool) -> (String, Option<String>) {
    let id = format!("{ids}{step}");
    let Some(inside) = &level.steps[step].inside else {
        return (id, None);
    };
    let next = if first {
        0
    } else {
        inside.steps.len().saturating_sub(1)
    };
    let node = if inside.steps.is_empty() {
        // A frame without nodes: Graphviz makes one up.
        id.clone()
    } else {
        end_of(inside, &format!("{id}_"), next, first).0
    };
    (node, Some(format!("cluster_{id}")))
}

/// The attributes of a node, or of the frame around nodes.
fn looks(step: &Shown, run: Option<&PartialResult>) -> String {
    let mut label = quoted(&step.name);
    let mut line = |text: &str| {
        label.push_str("\\n");
        label.push_str(&quoted(text));
    };
    let marks = step.marks.join(", ");
    if !marks.is_empty() {
        line(&marks);
    }
    let kind = step.step.kind;
    let (mut fill, mut frame) = match kind {
        StepKind::Compensatable => ("#e8f1fb", "#2f6fb0"),
        StepKind::ReadOnly => ("#f4f5f7", "#6b7683"),
        StepKind::Irreversible => ("#fdeeea", "#b3261e"),
    };
    if let Some(run) = run.filter(|_| step.is_told()) {
        let look = look::of_step(step.stands);
        line(&format!("{} {}", look.sign, step.status_line()));
        for alarm in step.alarms(run) {
            line(&format!("! {}", alarm.text));
        }
        (fill, frame) = (look.fill, look.line);
    }
    // What stands inside a frame is seen better on a paler ground.
    let pale = if step.inside.is_some() { "66" } else { "" };
    let style = match kind {
        StepKind::Compensatable => "filled,rounded",
        StepKind::ReadOnly => "filled,rounded,dashed",
        StepKind::Irreversible => "filled",
    };
    let pen = if step.step.pivot && !step.undoes {
        ", penwidth=3.5"
    } else {
        ""
    };
    let several = match (step.step.inside(), &step.inside) {
        // Several of one: a fan-out of which no item is shown.
        (Some(_), None) => ", peripheries=2",
        _ => "",
    };
    format!(
        "label=\"{label}\", style=\"{style}\", fillcolor=\"{fill}{pale}\", color=\"{frame}\"{pen}{several}"
    )
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

//! Pictures of definitions, of runs, and of what happened when.
//!
//! | | a definition | a run | a timeline |
//! |---|---|---|---|
//! | for the terminal | [`text`] | [`run_text`] | [`timeline_text`] |
//! | for pages | [`svg`] | [`run_svg`] | [`timeline_svg`] |
//! | for documents that render [Mermaid](https://mermaid.js.org) | [`mermaid`] | [`run_mermaid`] | |
//! | for [Graphviz](https://graphviz.org) | [`dot`] | [`run_dot`] | |
//!
//! All show steps in layers, each below all that it waits for; which can be undone; checkpoints, and the
//! point of no return. Pictures of a definition show what each step is made of, those of a run how it
//! stands. Steps inside a step are drawn in it; of a long fan-out those items are that failed or are under
//! way, and the others are counted. Nothing is told by colour alone, payloads are never shown, and the same input always gives the
//! same picture, byte for byte, so that one can be kept in a repository and compared.
//!
//! ```
//! use amends::{Saga, StepContext, diagram, irreversible_fn, step_fn};
//!
//! let mut saga = Saga::builder::<u64>("sale");
//! let amount = saga.input();
//! let held = saga.add(
//!     step_fn("hold", async |_: &StepContext, n: &u64| Ok(*n), async |_, _, _| Ok(())),
//!     amount,
//! );
//! let sent = saga.add(
//!     irreversible_fn("send", async |_: &StepContext, n: &u64| Ok(*n)).pivot(),
//!     held,
//! );
//! let saga: Saga<u64, u64> = saga.returns(sent)?;
//!
//! assert_eq!(diagram::text(saga.graph()), "\
//! sale, version 1: 2 steps
//!
//! 1 ─── ● hold  ◂─ input
//! │
//! 2 ─── ■ send  ◂─ hold  [pivot, irreversible]
//! ╞════ point of no return
//! ");
//! # Ok::<(), amends::SagaError>(())
//! ```

mod dot;
mod layers;
mod look;
mod mermaid;
mod nest;
mod page;
mod place;
mod rows;
mod svg;
mod text;
mod timeline;

pub use dot::{dot, run_dot};
pub use mermaid::{mermaid, run_mermaid};
pub use rows::{Counts, Row, rows};
pub use svg::{run_svg, svg};
pub use text::{run_text, text};
pub use timeline::{timeline_svg, timeline_text, timeline_text_within};

/// A name for people: an outline read from a journal may hold anything, and control characters would
/// command the terminal or break the document.
fn readable(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// How many columns a text takes in a terminal, as near as it can be told without tables: East Asian
/// letters and most pictographs take two.
fn columns(text: &str) -> usize {
    text.chars()
        .map(|c| match u32::from(c) {
            0x0300..=0x036f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
            0x1100..=0x115f
            | 0x2e80..=0xa4cf
            | 0xac00..=0xd7a3
            | 0xf900..=0xfaff
            | 0xfe30..=0xfe6f
            | 0xff00..=0xff60
            | 0x1f300..=0x1faff
            | 0x20000..=0x3fffd => 2,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partial::PartialResult;
    use crate::saga::{Outline, OutlineStep, StepKind};

    #[test]
    fn a_foreign_outline_neither_commands_the_terminal_nor_runs_in_a_circle() {
        let step = |name: &str, after: &str| OutlineStep {
            name: name.to_owned(),
            kind: StepKind::Compensatable,
            wired: Vec::new(),
            dependencies: vec![after.to_owned()],
            pivot: false,
            checkpoint: false,
            conditional: false,
            inside: None,
            waits: None,
            undone_by: None,
        };
        let outline = Outline {
            gathers: crate::OutlineForm::default(),
            saga: "s\u{1b}[2J".to_owned(),
            version: 1,
            fingerprint: String::new(),
            steps: vec![step("a\u{7}", "b"), step("b", "a\u{7}"), step("c", "c")],
        };
        let graph = outline.to_graph();
        for picture in [text(&graph), svg(&graph), mermaid(&graph), dot(&graph)] {
            assert!(!picture.contains(['\u{1b}', '\u{7}']));
        }
        assert_eq!(
            text(&graph),
            "s\u{fffd}[2J, version 1: 3 steps\n\n\
             1 ─┬─ ● a\u{fffd}\n\
             │  └─ ● c\n\
             │\n\
             2 ─── ● b   ◂┄ a\u{fffd}\n"
        );
    }

    #[test]
    fn a_foreign_run_neither_commands_the_terminal_nor_breaks_a_document() {
        let bad = "\u{1b}]0;\u{7}\r\n\u{9b}<&\"%%{";
        let outline = Outline {
            gathers: crate::OutlineForm::default(),
            saga: bad.to_owned(),
            version: 1,
            fingerprint: String::new(),
            steps: vec![OutlineStep {
                name: bad.to_owned(),
                kind: StepKind::Compensatable,
                wired: vec![bad.to_owned()],
                dependencies: Vec::new(),
                pivot: false,
                checkpoint: false,
                conditional: false,
                inside: None,
                waits: None,
                undone_by: None,
            }],
        };
        let graph = outline.to_graph();
        let run = serde_json::json!({
            "schema": 1, "run": bad, "saga": bad, "version": 1, "trace_id": "", "standing": "parked",
            "steps": [{
                "name": bad, "status": "failed", "effect": "in_doubt", "round": 1, "attempts": 2,
                "took_us": 0,
                "calls": [
                    {"call": "execute", "round": 1, "attempt": 1, "started_at": i64::MIN, "took_us": 0, "end": "under_way"},
                    {"call": "execute", "round": 1, "attempt": 2, "started_at": 7, "ended_at": i64::MAX, "took_us": 0, "end": "lost"},
                    {"call": "compensate", "round": 1, "attempt": 1, "started_at": 9, "ended_at": 8, "took_us": 0, "end": "stopped"},
                ],
            }],
            "completed": 0, "total": 1, "remaining": 0, "failing_step": bad, "failure_mode": "agent_logic",
            "strategy": "manual", "cause": "failures", "why": [], "recoveries": 0, "compensations": [],
            "outstanding": [], "assumed_absent": [bad],
            "parked": {"reason": "manual", "message": bad}, "stopped": bad,
            "cancel": {"by": bad, "reason": bad, "told": "accepted"},
            "deadline_passed": true, "started_at": -5, "ended_at": null, "labels": {},
            "moments": [
                {"at": 3, "what": "claimed", "fence": 2},
                {"at": 4, "what": "resolved", "step": bad, "answer": bad, "by": bad, "reason": bad},
                {"at": i64::MAX, "what": "parked", "reason": bad, "message": bad},
            ],
        });
        let run: PartialResult = serde_json::from_value(run).unwrap();
        for picture in [
            run_text(&graph, &run),
            timeline_text(&run),
            run_mermaid(&graph, &run),
        ] {
            let commands = |c: char| c.is_control() && c != '\n';
            assert!(!picture.contains(commands), "{picture:?}");
        }
        for picture in [run_svg(&graph, &run), timeline_svg(&run)] {
            assert!(!picture.contains("<&") && !picture.contains('\u{7}'));
        }
        assert!(run_mermaid(&graph, &run).starts_with("%% \u{fffd}]0;"));
        assert!(!run_mermaid(&graph, &run).contains("%%{"));
        assert!(run_dot(&graph, &run).starts_with("digraph \"\u{fffd}]0;"));
    }
}

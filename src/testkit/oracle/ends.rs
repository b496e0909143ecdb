//! Whether the end that a run came to, or a step with steps inside, is true.

use crate::partial::{EffectReport, StepStatus};
use crate::saga::{Gathering, Graph, NodeIx, StepKind, UndoRule};
use crate::testkit::oracle::watched::{Watched, most_may_fail};

impl<'a> Watched<'a> {
    /// What is said to be done is done, and nothing else has left anything.
    pub(super) fn is_whole(&mut self, at: usize) -> Result<(), String> {
        let (place, seen) = (self.places.at(at), &self.steps[at]);
        if seen.passed_over || seen.skipped {
            return self.nothing_inside(at, "what was passed over or skipped was not called");
        }
        let (step, path) = (place.step(), &place.path);
        if !seen.done {
            return Err(format!("`{path}` is not done"));
        }
        if let Some(inside) = step.inside() {
            return self.is_graph_whole(Some(at), inside);
        }
        let count = seen.standing.values().filter(|times| **times > 0).count();
        let wanted = usize::from(step.kind != StepKind::ReadOnly);
        if count != wanted {
            return Err(format!("`{path}` stands {count} times, not {wanted}"));
        }
        Ok(())
    }

    pub(super) fn is_graph_whole(
        &mut self,
        scope: Option<usize>,
        graph: &'a Graph,
    ) -> Result<(), String> {
        let items = scope.map_or(0, |at| self.steps[at].items);
        let (steps, wanted) = match graph.gathers {
            Gathering::Saga => (graph.steps.len(), graph.steps.len()),
            Gathering::Each { .. } => {
                let most = most_may_fail(graph, Some(items));
                (items as usize, (items as usize).saturating_sub(most))
            }
            Gathering::Fallback | Gathering::Race => (graph.steps.len(), 1),
        };
        let (mut done, mut stand) = (0, 0);
        for step in (0..steps).map(NodeIx::new) {
            let at = self.number(scope, graph, step);
            if self.steps[at].done || graph.is_saga() {
                self.is_whole(at)?;
                done += 1;
                stand += usize::from(self.unsettled_in(at).is_some());
            } else {
                self.has_left_nothing(at)?;
            }
        }
        // A way that lost and changes nothing has nothing to be undone.
        let one = matches!(graph.gathers, Gathering::Fallback | Gathering::Race);
        if done < wanted || one && stand > wanted {
            let path = scope.map_or("", |at| self.places.path(at));
            return Err(format!(
                "{done} of {steps} inside `{path}` are done, and {wanted} should be"
            ));
        }
        Ok(())
    }

    /// What was gone on without is settled (rule E7).
    fn has_left_nothing(&self, at: usize) -> Result<(), String> {
        match self.unsettled_in(at) {
            Some(left) => Err(format!(
                "`{}` was gone on without, and `{left}` isn't settled",
                self.places.path(at)
            )),
            None => Ok(()),
        }
    }

    pub(super) fn at_the_end(&mut self) -> Result<(), String> {
        // What was written is there, whether or not anybody lived to hear of it.
        self.acknowledged(u64::MAX)?;
        let Some(graph) = self.places.graph(None) else {
            return Ok(());
        };
        let (word, partial) = (self.rest.word, &self.rest.partial);
        let total = usize::try_from(partial.total).unwrap_or(usize::MAX);
        let own = (0..self.places.len()).filter(|&at| self.places.at(at).scope().is_none());
        let passed_over = own.filter(|&at| self.steps[at].passed_over).count();
        let least = graph.steps.len() - passed_over;
        // What was passed over and is to begin anew is counted again, which no event says.
        let most = match word {
            "completed" => least,
            _ => graph.steps.len(),
        };
        if !(least..=most).contains(&total) {
            return Err(format!("the partial result counts {total} steps"));
        }
        match word {
            "completed" => {
                self.is_graph_whole(None, graph)
                    .map_err(|what| format!("`Completed` is true: {what}"))?;
                if partial.completed != partial.total {
                    return Err(format!(
                        "`Completed` is true: {} of {} steps are said to be done",
                        partial.completed, partial.total
                    ));
                }
                Ok(())
            }
            "stopped" => {
                self.no_doubt_is_left()?;
                self.all_is_listed()
            }
            _ => self.all_is_listed(),
        }
    }

    /// No run ends stopped with an unsettled doubt (rule E7).
    fn no_doubt_is_left(&self) -> Result<(), String> {
        let doubtful = (0..self.places.len()).find(|&at| {
            let (step, seen) = (self.places.at(at).step(), &self.steps[at]);
            let called = step.inside().is_none() && step.kind != StepKind::ReadOnly;
            called && !seen.done && seen.doubts > 0 && step.undo_rule != UndoRule::Never
        });
        match doubtful {
            None => Ok(()),
            Some(at) => Err(format!(
                "`Stopped` is settled: nobody knows what became of `{}`",
                self.places.path(at)
            )),
        }
    }

    /// Whatever the word is, what stands is listed with its key, and what is listed as done stands.
    fn all_is_listed(&self) -> Result<(), String> {
        let (word, partial) = (self.rest.word, &self.rest.partial);
        for (at, seen) in self.steps.iter().enumerate() {
            let path = self.places.path(at);
            for (key, _) in seen.standing.iter().filter(|(_, times)| **times > 0) {
                let listed = partial
                    .outstanding
                    .iter()
                    .any(|listed| listed.step == path && listed.key.as_deref() == Some(key));
                let never = self.places.at(at).step().undo_rule == UndoRule::Never;
                let assumed_absent =
                    never && partial.assumed_absent.iter().any(|step| step == path);
                if !listed && !assumed_absent {
                    return Err(format!(
                        "none is forgotten: `{path}` stands under {key}, and the {word} run doesn't list it"
                    ));
                }
            }
        }
        for listed in &partial.outstanding {
            if word == "compensated" {
                return Err(format!(
                    "`Compensated` is true: `{}` is said to stand",
                    listed.step
                ));
            }
            let undo_failed = partial
                .step(&listed.step)
                .is_some_and(|step| step.status == StepStatus::UndoFailed);
            let mut seen = (0..self.places.len()).filter(|&at| self.places.path(at) == listed.step);
            let seen = seen.next().map(|at| &self.steps[at]);
            let key = listed.key.as_ref();
            let stands = seen.is_some_and(|seen| {
                key.is_some_and(|key| seen.standing.get(key).is_some_and(|times| *times > 0))
            });
            // Its undo was called, and a crash in a run that was given up left nobody to call it again.
            let undo_cut_off = self.given_up && key.is_some_and(|key| self.gone.contains(key));
            // Somebody made it by hand, and says so.
            let by_hand = seen.is_some_and(|seen| seen.skipped);
            if listed.effect == EffectReport::Done
                && !stands
                && !undo_failed
                && !by_hand
                && !undo_cut_off
            {
                return Err(format!(
                    "exactly what stands is listed: `{}` is said to stand and doesn't",
                    listed.step
                ));
            }
        }
        Ok(())
    }
}

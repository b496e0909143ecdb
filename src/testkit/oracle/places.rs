//! The steps of a run by their paths, and which of them depend on which.

use std::collections::{HashMap, HashSet};

use crate::saga::{Gathering, Graph, GraphStep, NodeIx, UNDO, undo_path};

/// One part of a path: a graph, and the number of a step in it; of a fan-out, the number of an item.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level<'a> {
    pub(super) graph: &'a Graph,
    pub(super) step: NodeIx,
}

/// A step of a run, wherever it is.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    pub(super) path: String,
    /// From the saga's own step down to this one.
    pub(super) levels: Vec<Level<'a>>,
    /// The steps around it, from the outside in, by their numbers among all places.
    pub(super) around: Vec<usize>,
    /// The step that this is what undoes it as a whole, and no step.
    pub(super) undoes: Option<usize>,
}

impl<'a> Place<'a> {
    pub(super) fn last(&self) -> Level<'a> {
        self.levels[self.levels.len() - 1]
    }

    pub(super) fn step(&self) -> &'a GraphStep {
        let last = self.last();
        last.graph.step(last.step)
    }

    /// The step whose inside it is in; nothing where it is one of the saga's own.
    pub(super) fn scope(&self) -> Option<usize> {
        self.around.last().copied()
    }

    /// The same for each of its levels.
    pub(super) fn scopes(&self) -> impl Iterator<Item = Option<usize>> {
        let around = self.around.iter().copied().map(Some);
        std::iter::once(None).chain(around)
    }
}

/// All steps of a run that were spoken of so far, each with a number.
pub(super) struct Places<'a> {
    root: &'a Graph,
    known: Vec<Place<'a>>,
    numbers: HashMap<String, usize>,
    /// Of each graph, and each of its steps: what depends on it, however indirectly.
    below: HashMap<*const Graph, Vec<HashSet<NodeIx>>>,
}

impl<'a> Places<'a> {
    pub(super) fn of(root: &'a Graph) -> Self {
        let mut places = Places {
            root,
            known: Vec::new(),
            numbers: HashMap::new(),
            below: HashMap::new(),
        };
        places.learn(root);
        for index in 0..root.steps.len() {
            places.number(None, root, NodeIx::new(index));
        }
        places
    }

    fn learn(&mut self, graph: &Graph) {
        let mut below: Vec<HashSet<NodeIx>> = vec![HashSet::new(); graph.steps.len()];
        // Steps come after what they depend on, so from the back each set is complete when it is read.
        for index in (0..graph.steps.len()).rev() {
            let mut all: HashSet<NodeIx> = below[index].clone();
            all.insert(NodeIx::new(index));
            for dependency in &graph.steps[index].dependencies {
                below[dependency.at()].extend(&all);
            }
        }
        self.below.insert(std::ptr::from_ref(graph), below);
        for step in &graph.steps {
            let graphs = [step.inside(), step.undone_by()];
            graphs
                .into_iter()
                .flatten()
                .for_each(|graph| self.learn(graph));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn at(&self, number: usize) -> &Place<'a> {
        &self.known[number]
    }

    pub(super) fn path(&self, number: usize) -> &str {
        &self.known[number].path
    }

    /// The numbers of all that is known to be inside a step, or in the saga.
    pub(super) fn inside(&self, scope: Option<usize>) -> impl Iterator<Item = usize> {
        let wanted = move |number: &usize| scope.is_none_or(|at| self.is_inside(*number, at));
        (0..self.known.len()).filter(wanted)
    }

    /// Whether it is inside that step, however deep, or undoes it.
    fn is_inside(&self, number: usize, step: usize) -> bool {
        let place = &self.known[number];
        let mut around = place.around.iter();
        place.undoes == Some(step)
            || around.any(|&at| at == step || self.known[at].undoes == Some(step))
    }

    /// How many of the steps around it are not what the innermost undo around it is about.
    pub(super) fn outside_of_undo(&self, number: usize) -> usize {
        let mut around = self.known[number].around.iter();
        let undo = around.rposition(|&at| self.known[at].undoes.is_some());
        undo.map_or(0, |undo| undo + 1)
    }

    /// The number of what undoes a step as a whole, where there is something.
    pub(super) fn undo(&mut self, step: usize) -> Option<usize> {
        self.known[step].step().undone_by()?;
        let path = undo_path(self.path(step));
        if let Some(&number) = self.numbers.get(&path) {
            return Some(number);
        }
        let number = self.known.len();
        self.numbers.insert(path.clone(), number);
        self.known.push(Place {
            path,
            undoes: Some(step),
            ..self.known[step].clone()
        });
        Some(number)
    }

    /// The graph inside a step, or that of the saga.
    pub(super) fn graph(&self, scope: Option<usize>) -> Option<&'a Graph> {
        match scope {
            None => Some(self.root),
            Some(at) => {
                let (place, step) = (&self.known[at], self.known[at].step());
                match place.undoes {
                    Some(_) => step.undone_by(),
                    None => step.inside(),
                }
            }
        }
    }

    /// The number of a step beside or inside what is known.
    pub(super) fn number(&mut self, scope: Option<usize>, graph: &'a Graph, step: NodeIx) -> usize {
        let around = scope.map_or("", |scope| self.path(scope));
        let path = graph.path(around, step);
        if let Some(&number) = self.numbers.get(&path) {
            return number;
        }
        let (mut levels, mut places) = match scope {
            None => (Vec::new(), Vec::new()),
            Some(scope) => (
                self.known[scope].levels.clone(),
                self.known[scope].around.clone(),
            ),
        };
        levels.push(Level { graph, step });
        places.extend(scope);
        let number = self.known.len();
        self.numbers.insert(path.clone(), number);
        self.known.push(Place {
            path,
            levels,
            around: places,
            undoes: None,
        });
        number
    }

    /// The number of the step with this path, if the definition has such a step.
    pub(super) fn find(&mut self, path: &str) -> Option<usize> {
        if let Some(&number) = self.numbers.get(path) {
            return Some(number);
        }
        let mut found = None;
        for part in path.split('/') {
            let mut parts = part.split('[');
            let name = parts.next()?;
            let graph = self.graph(found)?;
            let step = graph.step_named(name)?;
            if let Gathering::Each { .. } = graph.gathers {
                // Items have numbers, and no names.
                return None;
            }
            found = Some(self.number(found, graph, step));
            for item in parts {
                if UNDO.strip_prefix('[') == Some(item) {
                    found = Some(self.undo(found?)?);
                    continue;
                }
                let item: u32 = item.strip_suffix(']')?.parse().ok()?;
                let graph = self.graph(found)?;
                let Gathering::Each { .. } = graph.gathers else {
                    return None;
                };
                found = Some(self.number(found, graph, NodeIx(item)));
            }
        }
        found
    }

    /// Whether the one could only begin once the other was done. A step inside another depends on what that
    /// depends on, and what depends on a step depends on all that is inside it; items of a list and ways
    /// of a race are independent, and a fallback's ways are tried in turn.
    pub(super) fn depends(&self, later: usize, earlier: usize) -> bool {
        let (later, earlier) = (&self.known[later].levels, &self.known[earlier].levels);
        let same = |one: &Graph, two: &Graph| std::ptr::eq(one, two);
        let mut both = later.iter().zip(earlier);
        let apart = both.find(|(l, e)| l.step != e.step || !same(l.graph, e.graph));
        // Where none differs one is inside the other; where the graphs do, one undoes what the other did.
        let Some((later, earlier)) = apart.filter(|(l, e)| same(l.graph, e.graph)) else {
            return false;
        };
        match later.graph.gathers {
            Gathering::Saga => {
                let below = self.below.get(&std::ptr::from_ref(later.graph));
                below.is_some_and(|below| below[earlier.step.at()].contains(&later.step))
            }
            Gathering::Fallback => later.step > earlier.step,
            Gathering::Each { .. } | Gathering::Race => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Saga;
    use crate::saga::step;
    use crate::testkit::World;

    #[test]
    fn a_step_depends_on_what_comes_before_the_steps_around_it() {
        let world = World::new();
        let mut inner = Saga::builder::<u64>("inner");
        let n = inner.input();
        let a = inner.add(world.step::<u64>("a"), n);
        inner.add(world.step::<u64>("b").after(a), n);
        let inner = inner.returns(n).expect("no faults");
        let mut outer = Saga::builder::<Vec<u64>>("outer");
        let all = outer.input();
        let first = outer.add(world.step::<Vec<u64>>("first"), all);
        let each = outer.add(step("each", &inner).for_each().after(first), all);
        let way = world.step::<Vec<u64>>("way").fallback(world.step("other"));
        outer.add(way.after(each), all);
        let outer = outer.returns(()).expect("no faults");

        let mut places = Places::of(outer.graph());
        let mut depends = |later: &str, earlier: &str| {
            let numbers = [later, earlier].map(|path| places.find(path).expect(path));
            places.depends(numbers[0], numbers[1])
        };
        assert!(depends("each[7]/a", "first"));
        assert!(depends("each[7]/b", "each[7]/a"));
        assert!(depends("way/primary", "each[7]/a"));
        assert!(depends("way/other", "way/primary"));
        assert!(!depends("way/primary", "way/other"));
        assert!(!depends("each[7]/b", "each[6]/a"), "items are independent");
        assert!(!depends("each[7]/b", "each"), "it is inside");
        assert!(!depends("each", "each[7]/b"), "it is around");
        assert!(!depends("first", "each[7]/a"));
        for path in [
            "each/0",
            "each/a",
            "each[x]",
            "first[0]",
            "each[0]/c",
            "nobody",
        ] {
            assert_eq!(places.find(path), None, "{path}");
        }
    }
}

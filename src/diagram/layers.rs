//! Who stands in which layer, and what ties the steps.

use crate::saga::{Graph, wired_name};

/// Why one step comes after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tie {
    /// Its output is part of the input.
    Data,
    /// Only `.after(..)`.
    Order,
    /// It is tried where the one before it failed.
    Otherwise,
}

/// A step that another one waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) tie: Tie,
}

/// The edges in the order of the steps that they lead to.
///
/// An edge always leads to a later step. An outline from a foreign journal could say otherwise; such an
/// edge is left out, so that no picture runs in a circle.
pub(super) fn edges(graph: &Graph) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (to, step) in graph.steps.iter().enumerate() {
        for dependency in step
            .dependencies
            .iter()
            .map(|ix| ix.at())
            .filter(|&from| from < to)
        {
            let name = wired_name(&graph.steps[dependency].name);
            let mapped = format!("map({name})");
            let data = step
                .wired
                .iter()
                .any(|part| *part == name || *part == mapped);
            let tie = if data { Tie::Data } else { Tie::Order };
            edges.push(Edge {
                from: dependency,
                to,
                tie,
            });
        }
    }
    edges
}

/// The layer of each step, from 0: one below the lowest of those that it waits for.
pub(super) fn layer_of(steps: usize, edges: &[Edge]) -> Vec<usize> {
    let mut layer = vec![0; steps];
    // Edges are sorted by the step that they lead to, and lead to later steps only.
    for edge in edges {
        layer[edge.to] = layer[edge.to].max(layer[edge.from] + 1);
    }
    layer
}

//! Where boxes and lines go: layers from top to bottom, few crossings, lines as straight as can be.
//!
//! A line that passes a layer holds a place of its own in it, so that it runs between the boxes. All
//! arithmetic is in whole numbers: the picture is the same on every machine.

use crate::diagram::layers::Edge;

/// Past this many places for passing lines they go straight: the picture couldn't be read anyway, and
/// each place costs time.
const MOST_PASSES: usize = 20_000;
/// Rounds of ordering and of straightening; more change nothing in graphs that people draw.
const ROUNDS: usize = 8;
/// What a passing line takes.
const PASS_WIDTH: i64 = 10;
const GAP: i64 = 28;

/// Something that has a place in a layer: the box of a step, or a line that passes.
#[derive(Clone, Debug)]
struct Item {
    layer: usize,
    width: i64,
    up: Vec<usize>,
    down: Vec<usize>,
    /// Its middle.
    x: i64,
}

/// The finished layout, in the order of steps and edges.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) layer: Vec<usize>,
    pub(super) layers: usize,
    /// The middle of each box.
    pub(super) x: Vec<i64>,
    /// For each edge, the layers that it passes and where.
    pub(super) passes: Vec<Vec<(usize, i64)>>,
    pub(super) width: i64,
}

/// Places boxes of these widths in these layers.
pub(super) fn place(layer: Vec<usize>, edges: &[Edge], widths: &[i64]) -> Placed {
    let layers = layer.iter().max().map_or(0, |last| last + 1);
    let mut items: Vec<Item> = layer
        .iter()
        .zip(widths)
        .map(|(&layer, &width)| Item {
            layer,
            width,
            up: Vec::new(),
            down: Vec::new(),
            x: 0,
        })
        .collect();
    let span = |edge: &Edge| layer[edge.to] - layer[edge.from] - 1;
    let straight = edges.iter().map(span).sum::<usize>() > MOST_PASSES;
    let mut chains = Vec::with_capacity(edges.len());
    for edge in edges {
        let mut chain = Vec::new();
        let mut last = edge.from;
        if !straight {
            for layer in layer[edge.from] + 1..layer[edge.to] {
                let next = items.len();
                items.push(Item {
                    layer,
                    width: PASS_WIDTH,
                    up: vec![last],
                    down: Vec::new(),
                    x: 0,
                });
                items[last].down.push(next);
                chain.push(next);
                last = next;
            }
        }
        items[last].down.push(edge.to);
        items[edge.to].up.push(last);
        chains.push(chain);
    }
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); layers];
    for (index, item) in items.iter().enumerate() {
        rows[item.layer].push(index);
    }
    order(&items, &mut rows);
    straighten(&mut items, &rows);
    let left = items
        .iter()
        .map(|item| item.x - item.width / 2)
        .min()
        .unwrap_or(0);
    for item in &mut items {
        item.x -= left;
    }
    Placed {
        layers,
        x: items[..layer.len()].iter().map(|item| item.x).collect(),
        passes: chains
            .into_iter()
            .map(|chain| {
                chain
                    .into_iter()
                    .map(|pass| (items[pass].layer, items[pass].x))
                    .collect()
            })
            .collect(),
        width: items
            .iter()
            .map(|item| item.x + item.width / 2)
            .max()
            .unwrap_or(0),
        layer,
    }
}

/// Puts each layer in the order of the middles of what it is tied to, down and up in turn, and keeps the
/// order with the fewest crossings.
fn order(items: &[Item], rows: &mut Vec<Vec<usize>>) {
    let mut place = vec![0; items.len()];
    let number = |rows: &[Vec<usize>], place: &mut [usize]| {
        for row in rows {
            for (at, &item) in row.iter().enumerate() {
                place[item] = at;
            }
        }
    };
    number(rows, &mut place);
    let mut best = rows.clone();
    let mut fewest = crossings(items, rows, &place);
    for round in 0..ROUNDS {
        let down = round % 2 == 0;
        let sequence: Vec<usize> = if down {
            (0..rows.len()).collect()
        } else {
            (0..rows.len()).rev().collect()
        };
        for layer in sequence {
            let middle = |&item: &usize| {
                let ties = if down {
                    &items[item].up
                } else {
                    &items[item].down
                };
                if ties.is_empty() {
                    return place[item] * 1000;
                }
                ties.iter().map(|&tie| place[tie] * 1000).sum::<usize>() / ties.len()
            };
            // Stable: what is equal stays in the order in which the steps were added.
            rows[layer].sort_by_cached_key(middle);
            for (at, &item) in rows[layer].iter().enumerate() {
                place[item] = at;
            }
        }
        let now = crossings(items, rows, &place);
        if now < fewest {
            fewest = now;
            best.clone_from(rows);
        }
    }
    *rows = best;
}

/// How many pairs of lines cross, counted as inversions.
fn crossings(items: &[Item], rows: &[Vec<usize>], place: &[usize]) -> usize {
    let mut total = 0;
    for row in rows {
        let mut ends: Vec<usize> = Vec::new();
        for &item in row {
            let mut targets: Vec<usize> = items[item].down.iter().map(|&to| place[to]).collect();
            targets.sort_unstable();
            ends.extend(targets);
        }
        total += inversions(&mut ends);
    }
    total
}

/// Sorts, and counts how many pairs stood the wrong way round.
fn inversions(ends: &mut [usize]) -> usize {
    if ends.len() < 2 {
        return 0;
    }
    let (left, right) = ends.split_at_mut(ends.len() / 2);
    let mut count = inversions(left) + inversions(right);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if r == right.len() || (l < left.len() && left[l] <= right[r]) {
            merged.push(left[l]);
            l += 1;
        } else {
            count += left.len() - l;
            merged.push(right[r]);
            r += 1;
        }
    }
    ends.copy_from_slice(&merged);
    count
}

/// Moves each layer as near as it can come to what it is tied to above, then below, and so on.
fn straighten(items: &mut [Item], rows: &[Vec<usize>]) {
    for row in rows {
        let mut at = 0;
        for &item in row {
            items[item].x = at + items[item].width / 2;
            at += items[item].width + GAP;
        }
        let half = (at - GAP) / 2;
        for &item in row {
            items[item].x -= half;
        }
    }
    for round in 0..=ROUNDS {
        let down = round % 2 == 0;
        let sequence: Vec<&Vec<usize>> = if down {
            rows.iter().collect()
        } else {
            rows.iter().rev().collect()
        };
        for row in sequence {
            let wanted: Vec<i64> = row
                .iter()
                .map(|&item| {
                    let ties = if down {
                        &items[item].up
                    } else {
                        &items[item].down
                    };
                    mean(ties.iter().map(|&tie| items[tie].x)).unwrap_or(items[item].x)
                })
                .collect();
            settle(items, row, &wanted);
        }
    }
}

fn mean(values: impl ExactSizeIterator<Item = i64>) -> Option<i64> {
    let count = i64::try_from(values.len())
        .ok()
        .filter(|&count| count > 0)?;
    Some(values.sum::<i64>().div_euclid(count))
}

/// The places nearest to those wanted, by least squares, that keep the order and the gaps: neighbours
/// that want to overlap form a block, which takes the mean of their wishes.
fn settle(items: &mut [Item], row: &[usize], wanted: &[i64]) {
    // Without the gaps the question is one of putting numbers into ascending order.
    let mut offset = 0;
    let mut offsets = Vec::with_capacity(row.len());
    for (place, &item) in row.iter().enumerate() {
        if place > 0 {
            offset += i64::midpoint(items[row[place - 1]].width, items[item].width) + GAP;
        }
        offsets.push(offset);
    }
    let mut blocks: Vec<(i64, i64)> = Vec::new();
    for (want, offset) in wanted.iter().zip(&offsets) {
        let mut block = (want - offset, 1);
        while let Some(&(sum, count)) = blocks.last()
            && sum * block.1 > block.0 * count
        {
            block = (block.0 + sum, block.1 + count);
            blocks.pop();
        }
        blocks.push(block);
    }
    let settled = blocks
        .iter()
        .flat_map(|&(sum, count)| (0..count).map(move |_| sum.div_euclid(count)));
    for ((&item, offset), base) in row.iter().zip(&offsets).zip(settled) {
        items[item].x = base + offset;
    }
}

//! From times to places: true to scale, but for stretches that are cut out and marked.
//!
//! A run may wait for a day between two calls of 10 ms. Where bars would become too short to be seen,
//! the longest stretches in which nothing begins or ends are cut out, until the bars can be seen.

use crate::diagram::look::span;

/// No more stretches than this are cut out, so that what is left still reads as an axis.
const MOST_BREAKS: usize = 12;

/// What the axis has to hold.
pub(super) struct Room {
    /// How wide it is.
    pub(super) width: i64,
    /// How wide a cut is.
    pub(super) cut: i64,
    /// How wide a usual bar should be at least.
    pub(super) bar: i64,
    /// How far ticks are apart at least.
    pub(super) tick: i64,
}

/// A stretch of the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    from: i64,
    to: i64,
    x: i64,
    width: i64,
    cut: bool,
}

#[derive(Debug)]
pub(super) struct Scale {
    /// Without gaps, in order.
    pieces: Vec<Piece>,
    /// Between ticks; 0 where no time passes.
    step: i64,
}

/// A stretch that was cut out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) x: i64,
    pub(super) width: i64,
    /// How long it is.
    pub(super) label: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    pub(super) x: i64,
    pub(super) label: String,
    /// Whether it begins a stretch: it is then told since the start, others since their stretch's first.
    pub(super) first: bool,
}

impl Scale {
    /// `instants` ascend; `lengths` ascend, too, and are those of the bars.
    pub(super) fn new(instants: &[i64], lengths: &[i64], room: &Room) -> Self {
        let gaps: Vec<(i64, i64)> = instants.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let cut = cuts(&gaps, lengths, room);
        // Neighbours that aren't cut are one stretch; neighbours that are cut stay apart, since
        // something happened between them.
        let mut pieces: Vec<Piece> = Vec::new();
        for (&(from, to), &cut) in gaps.iter().zip(&cut) {
            match pieces.last_mut() {
                Some(last) if !last.cut && !cut => last.to = to,
                _ => pieces.push(Piece {
                    from,
                    to,
                    x: 0,
                    width: 0,
                    cut,
                }),
            }
        }
        let whole: i64 = pieces
            .iter()
            .filter(|piece| !piece.cut)
            .map(|piece| piece.to - piece.from)
            .sum();
        let cuts = i64::try_from(cut.iter().filter(|cut| **cut).count()).unwrap_or(0);
        let left = (room.width - cuts * room.cut).max(1);
        let (mut seen, mut x, mut behind) = (0, 0, 0);
        for piece in &mut pieces {
            // Rounded from the left end each time, so that errors don't add up.
            piece.x = x;
            if piece.cut {
                piece.width = room.cut;
                behind += room.cut;
            } else {
                seen += piece.to - piece.from;
                piece.width = scaled(seen, left, whole) + behind - x;
            }
            x += piece.width;
        }
        Scale {
            pieces,
            step: step(whole, left, room.tick),
        }
    }

    /// Where an instant is. What lies outside is at the nearer end.
    pub(super) fn x(&self, at: i64) -> i64 {
        let index = self.pieces.partition_point(|piece| piece.to < at);
        let Some(piece) = self.pieces.get(index) else {
            return self.pieces.last().map_or(0, |last| last.x + last.width);
        };
        let inside = (at - piece.from).max(0);
        piece.x + scaled(inside, piece.width, piece.to - piece.from)
    }

    pub(super) fn cuts(&self) -> Vec<Cut> {
        self.pieces
            .iter()
            .filter(|piece| piece.cut)
            .map(|piece| Cut {
                x: piece.x,
                width: piece.width,
                label: span(piece.to - piece.from),
            })
            .collect()
    }

    /// At most one tick a step, and one at the beginning of each stretch.
    pub(super) fn ticks(&self) -> Vec<Tick> {
        let mut ticks = vec![Tick {
            x: 0,
            label: "0".to_owned(),
            first: true,
        }];
        for piece in self.pieces.iter().filter(|piece| !piece.cut) {
            if piece.from > 0 {
                ticks.push(Tick {
                    x: piece.x,
                    label: span(piece.from),
                    first: true,
                });
            }
            let mut since = self.step;
            while self.step > 0 && since <= piece.to - piece.from && since < i64::MAX {
                ticks.push(Tick {
                    x: self.x(piece.from + since),
                    label: if piece.from == 0 {
                        span(since)
                    } else {
                        format!("+{}", span(since))
                    },
                    first: false,
                });
                since = since.saturating_add(self.step);
            }
        }
        ticks
    }
}

fn scaled(part: i64, width: i64, whole: i64) -> i64 {
    if whole == 0 {
        return 0;
    }
    // Spans of years times pixels don't fit into 64 bits.
    i64::try_from(i128::from(part) * i128::from(width) / i128::from(whole)).unwrap_or(0)
}

/// Which of the gaps are cut out.
fn cuts(gaps: &[(i64, i64)], lengths: &[i64], room: &Room) -> Vec<bool> {
    let length = |index: usize| {
        let (from, to): (i64, i64) = gaps[index];
        to - from
    };
    let mut by_length: Vec<usize> = (0..gaps.len()).collect();
    by_length.sort_by_key(|&index| (std::cmp::Reverse(length(index)), index));
    // Where no call took any time, the shorter gaps are what is to be seen.
    let usual = match lengths.get(lengths.len() / 2) {
        Some(&usual) => usual,
        None => by_length
            .get(gaps.len() * 3 / 4)
            .map_or(1, |&index| length(index)),
    };
    let mut whole: i64 = gaps.iter().map(|(from, to)| to - from).sum();
    let mut width = room.width;
    let mut best = 0;
    for (taken, &index) in by_length.iter().take(MOST_BREAKS + 1).enumerate() {
        // Of gaps that are alike either all are cut out or none: else the same wait would look
        // different from place to place.
        let before = taken.checked_sub(1).map(|last| length(by_length[last]));
        if before.is_none_or(|before| length(index) <= before / 2) {
            best = taken;
        }
        let seen = best == taken && scaled(usual, width, whole) >= room.bar;
        // Cutting what is hardly longer than a bar would win nothing.
        if seen || length(index) < usual.saturating_mul(8) || width <= 8 * room.cut {
            break;
        }
        whole -= length(index);
        width -= room.cut;
    }
    let mut cut = vec![false; gaps.len()];
    for &index in &by_length[..best] {
        cut[index] = true;
    }
    cut
}

/// The distance of ticks that reads best.
fn step(whole: i64, width: i64, apart: i64) -> i64 {
    const MS: i64 = 1_000;
    const SECOND: i64 = 1_000 * MS;
    const MINUTE: i64 = 60 * SECOND;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    if whole <= 0 {
        return 0;
    }
    // One more, since it was rounded down.
    let least = scaled(apart, whole, width).saturating_add(1);
    let mut steps: Vec<i64> = Vec::new();
    let mut decade = 1;
    while decade < SECOND {
        steps.extend([decade, 2 * decade, 5 * decade]);
        decade *= 10;
    }
    steps.extend([1, 2, 5, 10, 15, 30].map(|n| n * SECOND));
    steps.extend([1, 2, 5, 10, 15, 30].map(|n| n * MINUTE));
    steps.extend([1, 2, 3, 6, 12].map(|n| n * HOUR));
    let mut days = 1;
    while days < 1_000_000 {
        steps.extend([1, 2, 5].map(|n| n * days * DAY));
        days *= 10;
    }
    let fits = steps.into_iter().find(|&step| step >= least);
    fits.unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        width: 720,
        cut: 24,
        bar: 6,
        tick: 70,
    };
    const DAY: i64 = 86_400_000_000;

    fn labels(scale: &Scale) -> Vec<(i64, String)> {
        let ticks = scale.ticks().into_iter();
        ticks.map(|tick| (tick.x, tick.label)).collect()
    }

    #[test]
    fn what_can_be_seen_is_true_to_scale() {
        let scale = Scale::new(&[0, 10_000, 50_000, 60_000], &[10_000, 10_000], &ROOM);
        assert_eq!(scale.cuts(), []);
        assert_eq!(
            [0, 10_000, 30_000, 60_000, 90_000].map(|at| scale.x(at)),
            [0, 120, 360, 720, 720]
        );
        assert_eq!(
            labels(&scale)
                .iter()
                .map(|(_, label)| label.as_str())
                .collect::<Vec<_>>(),
            ["0", "10 ms", "20 ms", "30 ms", "40 ms", "50 ms", "60 ms"]
        );
    }

    #[test]
    fn a_day_between_two_short_calls_is_cut_out_and_told() {
        let scale = Scale::new(&[0, 10_000, DAY, DAY + 10_000], &[10_000, 10_000], &ROOM);
        let cut = Cut {
            x: 348,
            width: 24,
            label: "1 d".to_owned(),
        };
        assert_eq!(scale.cuts(), [cut]);
        assert_eq!(
            [0, 10_000, DAY, DAY + 10_000].map(|at| scale.x(at)),
            [0, 348, 372, 720]
        );
        assert_eq!(
            labels(&scale),
            [
                (0, "0"),
                (174, "5 ms"),
                (348, "10 ms"),
                (372, "1 d"),
                (546, "+5 ms"),
                (720, "+10 ms")
            ]
            .map(|(x, label)| (x, label.to_owned()))
        );
    }

    #[test]
    fn a_wait_that_leaves_bars_to_be_seen_is_not_cut_out() {
        let scale = Scale::new(&[0, 10_000, 810_000, 820_000], &[10_000, 10_000], &ROOM);
        assert_eq!(scale.cuts(), []);
    }

    #[test]
    fn of_waits_that_are_alike_all_are_cut_out_or_none() {
        let calls = |count: i64| -> Vec<i64> {
            let starts = (0..count).map(|index| index * 600_000_000);
            starts.flat_map(|start| [start, start + 5_000]).collect()
        };
        let cuts = |count| {
            let scale = Scale::new(&calls(count), &[5_000], &ROOM);
            scale.cuts().len()
        };
        assert_eq!([2, 5, 13].map(cuts), [1, 4, 12]);
        assert_eq!(cuts(14), 0, "thirteen are too many");
        // A day among them is cut out nevertheless.
        let mut day = calls(40);
        day.extend([DAY, DAY + 5_000]);
        let scale = Scale::new(&day, &[5_000], &ROOM);
        assert_eq!(scale.cuts().len(), 1);
    }

    #[test]
    fn where_no_time_passes_all_is_at_the_beginning() {
        let scale = Scale::new(&[0], &[], &ROOM);
        assert_eq!((scale.x(0), scale.x(7)), (0, 0));
        assert_eq!(labels(&scale), [(0, "0".to_owned())]);
    }

    #[test]
    fn ticks_stand_apart_in_every_order_of_magnitude() {
        for power in 0..16 {
            for factor in [1, 3, 7] {
                let whole = factor * 10_i64.pow(power);
                let scale = Scale::new(&[0, whole], &[whole], &ROOM);
                let ticks = scale.ticks();
                assert!(ticks.len() <= 11, "{whole}: {}", ticks.len());
                assert!(ticks.windows(2).all(|pair| pair[1].x - pair[0].x >= 69));
                assert!(ticks.len() >= 2 || whole < 2, "{whole} has no tick");
            }
        }
    }
}

//! The steps of a run as a list: each set in below the one that it is inside of, and of long fan-outs only
//! the items that somebody would look for.

use std::fmt;

use crate::diagram::look;
use crate::partial::{EffectReport, PartialResult, StepReport, StepStatus};
use crate::saga::UNDO;

/// One line of a list of steps: see [`rows`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Row<'a> {
    /// A step.
    Step {
        /// How many steps it is inside of.
        depth: usize,
        /// The step.
        step: &'a StepReport,
        /// How the steps right inside it stand, if there are any.
        inside: Option<Counts>,
    },
    /// Items of a fan-out that aren't listed.
    More {
        /// How many steps they are inside of.
        depth: usize,
        /// How they stand.
        items: Counts,
    },
}

/// How many steps stand how. Displayed as `3 of 10 done, 1 failed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts([usize; look::STATUSES.len()]);

impl Counts {
    pub(super) fn of(statuses: impl Iterator<Item = StepStatus>) -> Self {
        let mut counts = Counts::default();
        for status in statuses {
            counts.0[place(status)] += 1;
        }
        counts
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// How many of them stand like this.
    #[must_use]
    pub fn with(&self, status: StepStatus) -> usize {
        self.0[place(status)]
    }

    /// All of them, as `3 done, 1 failed, 6 pending`.
    #[must_use]
    pub fn each(&self) -> String {
        self.words(|_| true).join(", ")
    }

    fn words(&self, wanted: impl Fn(StepStatus) -> bool) -> Vec<String> {
        let all = look::STATUSES.into_iter().zip(self.0);
        all.filter(|&(status, count)| count > 0 && wanted(status))
            .map(|(status, count)| format!("{count} {}", look::step_word(status)))
            .collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.with(StepStatus::Done);
        write!(f, "{done} of {} done", self.total())?;
        let others = self.words(|status| !matches!(status, StepStatus::Done | StepStatus::Pending));
        others.iter().try_for_each(|words| write!(f, ", {words}"))
    }
}

/// A status's place in the order of the legend.
fn place(status: StepStatus) -> usize {
    let place = look::STATUSES.iter().position(|&other| other == status);
    place.unwrap_or(0)
}

/// The steps of a run in their order, each after the one that it is inside of. Of a fan-out with more than
/// `most` items, so many are listed that have failed or are under way, and the others are counted.
///
/// ```
/// use amends::store::MemoryStore;
/// use amends::{Coordinator, Saga, StepContext, diagram, step_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut order = Saga::builder::<Vec<u64>>("order");
/// let lines = order.input();
/// let reserve = async |_: &StepContext, line: &u64| Ok(*line);
/// order.add(step_fn("reserve", reserve, async |_, _, _| Ok(())).for_each(), lines);
/// let order: Saga<Vec<u64>, ()> = order.returns(())?;
///
/// let coordinator = Coordinator::builder(MemoryStore::new()).register(&order).build().await?;
/// let partial = coordinator.start(&order, "order-1", vec![7; 500]).await?.outcome().await?.partial();
///
/// let rows = diagram::rows(&partial, 12);
/// assert_eq!(rows.len(), 2);
/// let diagram::Row::Step { step, inside: Some(counts), .. } = &rows[0] else { panic!() };
/// assert_eq!((step.name.as_str(), counts.to_string().as_str()), ("reserve", "500 of 500 done"));
/// let diagram::Row::More { depth: 1, items } = &rows[1] else { panic!() };
/// assert_eq!(items.each(), "500 done");
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn rows(partial: &PartialResult, most: usize) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    add(&mut rows, &partial.steps, 0, most);
    rows
}

/// Steps that are beside each other, with all that is inside them behind each.
fn add<'a>(rows: &mut Vec<Row<'a>>, steps: &'a [StepReport], depth: usize, most: usize) {
    let mut beside: Vec<(&'a StepReport, &'a [StepReport])> = Vec::new();
    let mut rest = steps;
    while let Some((step, after)) = rest.split_first() {
        let inside = after.iter().take_while(|other| is_inside(other, step));
        let (inside, next) = after.split_at(inside.count());
        beside.push((step, inside));
        rest = next;
    }
    let (items, mut shown): (Vec<usize>, Vec<usize>) =
        (0..beside.len()).partition(|&index| beside[index].0.is_item());
    let of_items = chosen(items.iter().map(|&index| beside[index].0), most);
    shown.extend(of_items.into_iter().map(|index| items[index]));
    shown.sort_unstable();
    for &index in &shown {
        let (step, inside) = beside[index];
        let direct = inside.iter().filter(|other| {
            // What undoes it as a whole isn't a part of what it did.
            other.around() == Some(step.name.as_str()) && !other.own_name().starts_with(UNDO)
        });
        rows.push(Row::Step {
            depth,
            step,
            inside: (!inside.is_empty()).then(|| Counts::of(direct.map(|step| step.status))),
        });
        add(rows, inside, depth + 1, most);
    }
    let hidden = beside
        .iter()
        .enumerate()
        .filter(|(index, _)| shown.binary_search(index).is_err());
    let items = Counts::of(hidden.map(|(_, (step, _))| step.status));
    if items.total() > 0 {
        rows.push(Row::More { depth, items });
    }
}

fn is_inside(step: &StepReport, around: &StepReport) -> bool {
    let rest = step.name.strip_prefix(around.name.as_str());
    rest.is_some_and(|rest| rest.starts_with(['/', '[']))
}

/// The items that are shown, in order: all if they are few, else those that went wrong, then those that
/// are under way.
pub(super) fn chosen<'a>(items: impl Iterator<Item = &'a StepReport>, most: usize) -> Vec<usize> {
    let ranks: Vec<Option<u8>> = items.map(rank).collect();
    if ranks.len() <= most {
        return (0..ranks.len()).collect();
    }
    let ranked = ranks.into_iter().enumerate();
    let mut ranked: Vec<(u8, usize)> = ranked
        .filter_map(|(index, rank)| Some((rank?, index)))
        .collect();
    ranked.sort_unstable();
    ranked.truncate(most);
    let mut chosen: Vec<usize> = ranked.into_iter().map(|(_, index)| index).collect();
    chosen.sort_unstable();
    chosen
}

fn rank(item: &StepReport) -> Option<u8> {
    match item.status {
        StepStatus::Failed | StepStatus::UndoFailed | StepStatus::Stopped => Some(0),
        StepStatus::Running
        | StepStatus::Retrying
        | StepStatus::Interrupted
        | StepStatus::Undoing => Some(1),
        _ if item.effect == EffectReport::InDoubt => Some(1),
        StepStatus::Pending
        | StepStatus::Waiting
        | StepStatus::Done
        | StepStatus::Undone
        | StepStatus::Skipped
        | StepStatus::PassedOver => None,
    }
}

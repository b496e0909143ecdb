//! The table, or a line of JSON for each of its lines.

use serde_json::{Value, json};

use crate::cells::{Cell, Counted, Limit, micros};
use crate::w3::STEPS;

/// All repeats of a cell.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) cell: Cell,
    pub(crate) repeats: Vec<(Counted, Limit)>,
}

/// The middle of what the repeats gave, and how far they lie apart.
#[derive(Clone, Copy, Debug)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        Spread {
            median: if values.len() % 2 == 1 {
                values[middle]
            } else {
                f64::midpoint(values[middle - 1], values[middle])
            },
            min: values[0],
            max: values[values.len() - 1],
        }
    }

    fn text(self, decimals: usize) -> String {
        let Spread { median, min, max } = self;
        format!("{median:.decimals$} ({min:.decimals$} to {max:.decimals$})")
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
impl Line {
    fn spread(&self, of: impl Fn(&Counted) -> f64) -> Spread {
        Spread::of(self.repeats.iter().map(|(counted, _)| of(counted)))
    }

    fn counted(&self, of: impl Fn(&Counted) -> Option<u64>) -> Option<Spread> {
        let all: Option<Vec<f64>> = self
            .repeats
            .iter()
            .map(|(counted, _)| of(counted).map(|count| count as f64 / counted.load.runs as f64))
            .collect();
        all.map(|all| Spread::of(all.into_iter()))
    }

    fn ratio(&self) -> Spread {
        let ratios = self
            .repeats
            .iter()
            .map(|(counted, limit)| limit.ratio(&self.cell, counted));
        Spread::of(ratios)
    }

    fn limit(&self) -> Spread {
        Spread::of(self.repeats.iter().map(|(_, limit)| limit.value()))
    }

    fn peak(&self) -> Option<f64> {
        let peaks = self.repeats.iter().filter_map(|(counted, _)| counted.peak);
        peaks.max().map(|peak| peak as f64 / 1_048_576.0)
    }

    /// To the rate of another line, by pairs of the same repeat.
    fn beside(&self, other: &Line) -> Spread {
        let pairs = self.repeats.iter().zip(&other.repeats);
        Spread::of(pairs.map(|((ours, _), (others, _))| ours.load.rate() / others.load.rate()))
    }

    fn json(&self, lines: &[Line]) -> Value {
        let p = |of: fn(&Counted) -> f64| self.spread(of).json();
        json!({
            "store": self.cell.store.word(),
            "variant": self.cell.variant,
            "in_flight": self.cell.in_flight,
            "workers": self.cell.workers,
            "repeats": self.repeats.len(),
            "runs_per_second": p(|it| it.load.rate()),
            "steps_per_second": p(|it| it.load.rate() * STEPS as f64),
            "p50_us": p(|it| micros(it.load.quantile(500))),
            "p99_us": p(|it| micros(it.load.quantile(990))),
            "p999_us": p(|it| micros(it.load.quantile(999))),
            "appends_per_run": self.counted(|it| it.appends).map(Spread::json),
            "commits_per_run": self.counted(|it| it.commits).map(Spread::json),
            "syncs_per_run": self.counted(|it| it.syncs).map(Spread::json),
            "peak_mib": self.peak(),
            "limit": self.limit().json(),
            "limit_unit": self.repeats[0].1.unit(),
            "ratio": self.ratio().json(),
            "of_successful": successful(&self.cell, lines).map(|other| self.beside(other).json()),
        })
    }
}

/// The line that this one's rate is to be compared with: the first of its store with as many in flight.
fn successful<'l>(cell: &Cell, lines: &'l [Line]) -> Option<&'l Line> {
    let found = lines.iter().find(|line| {
        line.cell.store == cell.store
            && line.cell.in_flight == cell.in_flight
            && line.cell.failing == 0
    })?;
    (found.cell.name() != cell.name()).then_some(found)
}

pub(crate) fn print(lines: &[Line], json: bool) {
    if json {
        for line in lines {
            println!("{}", line.json(lines));
        }
        return;
    }
    println!(
        "| store | W3 | in flight | runs/s | steps/s | p50 µs | p99 µs | p99.9 µs | appends/run | commits/run | syncs/run | peak MiB | bare limit | to the limit | to successful |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for line in lines {
        let count = |of: fn(&Counted) -> Option<u64>| {
            let spread = line.counted(of);
            spread.map_or_else(|| "-".to_owned(), |it| format!("{:.4}", it.median))
        };
        let time = |of: fn(&Counted) -> f64| format!("{:.1}", line.spread(of).median);
        let workers = match line.cell.workers {
            1 => String::new(),
            many => format!(", {many} workers"),
        };
        #[allow(clippy::cast_precision_loss, reason = "three")]
        let steps = line.spread(|it| it.load.rate() * STEPS as f64).median;
        println!(
            "| {} | {}{workers} | {} | {} | {steps:.0} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            line.cell.store.word(),
            line.cell.variant,
            line.cell.in_flight,
            line.spread(|it| it.load.rate()).text(0),
            line.spread(|it| micros(it.load.quantile(500))).text(1),
            time(|it| micros(it.load.quantile(990))),
            time(|it| micros(it.load.quantile(999))),
            count(|it| it.appends),
            count(|it| it.commits),
            count(|it| it.syncs),
            line.peak()
                .map_or_else(|| "-".to_owned(), |peak| format!("{peak:.0}")),
            middle(&line.repeats).text(),
            line.ratio().text(2),
            successful(&line.cell, lines)
                .map_or_else(|| "-".to_owned(), |it| line.beside(it).text(2)),
        );
    }
}

/// The limit of the middle repeat.
fn middle(repeats: &[(Counted, Limit)]) -> Limit {
    let mut limits: Vec<Limit> = repeats.iter().map(|(_, limit)| *limit).collect();
    limits.sort_by(|one, other| one.value().total_cmp(&other.value()));
    limits[limits.len() / 2]
}

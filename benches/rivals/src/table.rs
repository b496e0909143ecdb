//! What came out, in Markdown for people and in JSON for programs.

use measure::{Failed, Measured};
use serde::Serialize;

use crate::options::Options;
use crate::play::{Cell, Played};

/// Middle, least and most of the repeats.
#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self {
            median: f64::midpoint(low, high),
            min,
            max,
        })
    }
}

impl Cell {
    fn good(&self) -> impl Iterator<Item = &Measured> {
        self.repeats.iter().flatten()
    }

    /// Those repeats in which a saga ended, which alone have a time per saga.
    fn with_sagas(&self) -> impl Iterator<Item = &Measured> {
        self.good().filter(|one| one.sagas > 0)
    }

    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn rate(&self) -> Option<Spread> {
        Spread::of(self.good().map(|one| one.sagas as f64 / one.seconds))
    }

    fn p50_us(&self) -> Option<Spread> {
        Spread::of(self.with_sagas().map(|one| one.p50_us))
    }

    fn p99_us(&self) -> Option<Spread> {
        Spread::of(self.with_sagas().map(|one| one.p99_us))
    }

    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn flushes(&self) -> Option<Spread> {
        let per = |one: &Measured| Some(one.flushes? as f64 / one.sagas as f64);
        Spread::of(self.with_sagas().filter_map(per))
    }

    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn peak_mib(&self) -> Option<Spread> {
        let mib = |one: &Measured| Some(one.peak_rss_kib? as f64 / 1_024.0);
        Spread::of(self.good().filter_map(mib))
    }

    /// What the numbers alone would hide.
    fn remarks(&self, options: &Options) -> Vec<String> {
        let mut remarks: Vec<String> = Vec::new();
        let mut remark = |remark: String| {
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        };
        for repeat in &self.repeats {
            match repeat {
                Err(error) => remark(format!("a repeat has no result: {error}")),
                Ok(one) => {
                    if let Some(error) = &one.error {
                        remark(format!("some sagas did not end as they should: {error}"));
                    }
                    if one.died > 0 {
                        remark("some callers panicked".to_owned());
                    }
                    if one.full {
                        remark(format!("ended early, at {} GiB", options.memory_gib));
                    }
                }
            }
        }
        remarks
    }
}

/// With commas, and as many digits after the point as leave about three that count.
fn number(value: f64) -> String {
    let digits = match value {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 => 2,
        _ => 4,
    };
    let plain = format!("{value:.digits$}");
    let (whole, rest) = plain.split_once('.').unwrap_or((&plain, ""));
    let mut shown = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    match rest {
        "" => shown,
        rest => format!("{shown}.{rest}"),
    }
}

fn time(micros: f64) -> String {
    match micros {
        us if us < 1_000.0 => format!("{} µs", number(us)),
        us if us < 1_000_000.0 => format!("{} ms", number(us / 1_000.0)),
        us => format!("{} s", number(us / 1_000_000.0)),
    }
}

pub(crate) fn print(options: &Options, played: &Played) {
    for line in &played.about {
        println!("{line}");
    }
    println!(
        "W3: three steps in a row; {} s a cell, median of {} (min to max); all took {:.0} s.",
        options.seconds,
        options.repeats,
        played.took.as_secs_f64(),
    );
    let mut notes: Vec<String> = Vec::new();
    for fails in [false, true] {
        for &in_flight in &options.in_flight {
            let what = match fails {
                false => "Successful",
                true => "Failing: step 3 fails for good, 2 and 1 are undone",
            };
            println!("\n**{what}; {in_flight} in flight**\n");
            println!(
                "| Engine | Store | Ended sagas outlive | W3/s | p50 | p99 | Flushes per saga | Peak RSS |"
            );
            println!("|---|---|---|--:|--:|--:|--:|--:|");
            let block = |cell: &&Cell| cell.fails == fails && cell.in_flight == in_flight;
            for cell in played.cells.iter().filter(block) {
                print_row(options, cell, &mut notes);
            }
        }
    }
    if !notes.is_empty() {
        println!();
    }
    for (at, note) in notes.iter().enumerate() {
        println!("({}) {note}.  ", at + 1);
    }
}

fn print_row(options: &Options, cell: &Cell, notes: &mut Vec<String>) {
    let mut marks = String::new();
    for remark in cell.remarks(options) {
        let at = notes.iter().position(|note| *note == remark);
        let at = at.unwrap_or_else(|| {
            notes.push(remark);
            notes.len() - 1
        });
        marks.push_str(&format!(" ({})", at + 1));
    }
    let rate = match cell.rate() {
        None => "no result".to_owned(),
        Some(rate) if rate.max == 0.0 => "none ended".to_owned(),
        Some(rate) if options.repeats == 1 => number(rate.median),
        Some(Spread { median, min, max }) => {
            format!("{} ({} to {})", number(median), number(min), number(max))
        }
    };
    let or_dash = |spread: Option<Spread>, shown: fn(f64) -> String| {
        spread.map_or("–".to_owned(), |spread| shown(spread.median))
    };
    let contestant = cell.contestant;
    let flushes = match cell.flushes() {
        _ if contestant.outlives == "nothing" => "–".to_owned(),
        None if cell.with_sagas().next().is_some() => "not counted".to_owned(),
        flushes => or_dash(flushes, number),
    };
    println!(
        "| {} | {} | {} | {rate}{marks} | {} | {} | {flushes} | {} |",
        contestant.engine,
        contestant.shown,
        contestant.outlives,
        or_dash(cell.p50_us(), time),
        or_dash(cell.p99_us(), time),
        or_dash(cell.peak_mib(), |mib| format!("{} MiB", number(mib))),
    );
}

/// A line about all, then one for each cell.
pub(crate) fn print_json(options: &Options, played: &Played) -> Result<(), Failed> {
    let about = serde_json::json!({
        "about": played.about, "seconds": options.seconds, "repeats": options.repeats,
    });
    println!("{about}");
    for cell in &played.cells {
        let contestant = cell.contestant;
        let errors: Vec<&String> = cell
            .repeats
            .iter()
            .filter_map(|one| one.as_ref().err())
            .collect();
        let line = serde_json::json!({
            "engine": contestant.engine, "store": contestant.store, "setting": contestant.setting,
            "outlives": contestant.outlives,
            "saga": if cell.fails { "failing" } else { "successful" },
            "in_flight": cell.in_flight,
            "w3_per_second": cell.rate(), "p50_us": cell.p50_us(), "p99_us": cell.p99_us(),
            "flushes_per_saga": cell.flushes(), "peak_rss_mib": cell.peak_mib(),
            "remarks": cell.remarks(options),
            "repeats": cell.good().collect::<Vec<_>>(), "failed_repeats": errors,
        });
        println!("{}", serde_json::to_string(&line)?);
    }
    Ok(())
}

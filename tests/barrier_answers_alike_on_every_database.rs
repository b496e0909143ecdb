//! All orders of execute, execute again, compensate, compensate again and late execute, with a crash before or after
//! each commit: the table of `docs/barrier.md` (rule W4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(all(feature = "tokio-postgres", feature = "sqlite", feature = "mysql"))]

use std::fmt::Write;
use std::sync::Arc;

use futures_util::future::join_all;

mod barrier;
mod snapshot;
use barrier::{Crash, Service, compensate, each, execute, run};

const PAGE: &str = "docs/barrier.md";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Execute,
    Compensate,
}

type Plan = [(Kind, Crash); 5];

/// Each way to set three executes and two compensates in a row.
fn orders() -> Vec<[Kind; 5]> {
    let mut orders = Vec::new();
    for bits in 0_u32..32 {
        if bits.count_ones() == 2 {
            let kind = |place: u32| match bits >> place & 1 {
                1 => Kind::Compensate,
                _ => Kind::Execute,
            };
            orders.push([kind(0), kind(1), kind(2), kind(3), kind(4)]);
        }
    }
    orders
}

/// Each order without a crash, and with one crash at each call.
fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for order in orders() {
        plans.push(order.map(|kind| (kind, Crash::Never)));
        for crash in [Crash::BeforeCommit, Crash::AfterCommit] {
            for place in 0..5 {
                let mut plan = order.map(|kind| (kind, Crash::Never));
                plan[place].1 = crash;
                plans.push(plan);
            }
        }
    }
    plans
}

/// Each order with every crash at every call.
fn all_plans() -> Vec<Plan> {
    let crashes = [Crash::Never, Crash::BeforeCommit, Crash::AfterCommit];
    let mut plans: Vec<Vec<Crash>> = vec![Vec::new()];
    for _ in 0..5 {
        let longer = plans
            .iter()
            .flat_map(|plan| crashes.map(|crash| plan.iter().copied().chain([crash]).collect()));
        plans = longer.collect();
    }
    let with = |order: [Kind; 5]| {
        plans.clone().into_iter().map(move |crashes| {
            let mut plan = order.map(|kind| (kind, Crash::Never));
            for (call, crash) in plan.iter_mut().zip(crashes) {
                call.1 = crash;
            }
            plan
        })
    };
    orders().into_iter().flat_map(with).collect()
}

/// What the rules say, and how often the effect stands in the end.
fn expected(plan: &Plan) -> (Vec<String>, i64) {
    /// Whose doing it is, by the place of the call.
    #[derive(Clone, Copy)]
    enum Known {
        Nothing,
        Done(usize),
        Undone(usize),
        Void,
    }
    let mut known = Known::Nothing;
    let mut answers = Vec::new();
    for (place, (kind, crash)) in (1..).zip(plan) {
        let (answer, then) = match (kind, known) {
            (Kind::Execute, Known::Nothing) => ("fresh".to_owned(), Known::Done(place)),
            (Kind::Execute, Known::Done(by)) | (Kind::Compensate, Known::Undone(by)) => {
                (format!("duplicate: {by}"), known)
            }
            (Kind::Execute, Known::Undone(_) | Known::Void) => ("closed".to_owned(), known),
            (Kind::Compensate, Known::Nothing | Known::Void) => ("nothing".to_owned(), Known::Void),
            (Kind::Compensate, Known::Done(by)) => (format!("undo: {by}"), Known::Undone(place)),
        };
        answers.push(answer);
        if *crash != Crash::BeforeCommit {
            known = then;
        }
    }
    (answers, i64::from(matches!(known, Known::Done(_))))
}

async fn played(service: &dyn Service, plan: &Plan) -> (Vec<String>, i64) {
    let key = format!("{}/pay/1", run());
    let mut answers = Vec::new();
    for (place, (kind, crash)) in (1..).zip(plan) {
        let asks = match kind {
            Kind::Execute => execute(&key, 1),
            Kind::Compensate => compensate(&key, 1),
        };
        let asks = asks.result(&format!("{place}")).crash(*crash);
        answers.push(service.ask(asks).await);
    }
    (answers, service.stands(&key).await)
}

async fn all_played(service: &Arc<dyn Service>, plans: &[Plan]) -> Vec<(Vec<String>, i64)> {
    let mut played_plans = Vec::new();
    // As many connections as a small server has.
    for some in plans.chunks(10) {
        played_plans.extend(join_all(some.iter().map(|plan| played(&**service, plan))).await);
    }
    played_plans
}

fn table(plans: &[Plan], played: &[(Vec<String>, i64)]) -> String {
    let mut table = String::from("| 1 | 2 | 3 | 4 | 5 | Stands |\n|---|---|---|---|---|---|\n");
    for (plan, (answers, stands)) in plans.iter().zip(played) {
        for ((kind, crash), answer) in plan.iter().zip(answers) {
            let kind = match kind {
                Kind::Execute => "E",
                Kind::Compensate => "C",
            };
            let crash = match crash {
                Crash::Never => "",
                Crash::BeforeCommit => " ✗",
                Crash::AfterCommit => " ✓✗",
            };
            write!(table, "| {kind} {answer}{crash} ").unwrap();
        }
        let stands = if *stands == 0 { "no" } else { "yes" };
        writeln!(table, "| {stands} |").unwrap();
    }
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_all_orders_of_calls_and_crashes_get_the_answers_of_the_page_on_every_database() {
    let plans = plans();
    assert_eq!(plans.len(), 110);
    let rules: Vec<_> = plans.iter().map(expected).collect();
    each(async |service| {
        let played = all_played(&service, &plans).await;
        for ((plan, played), expected) in plans.iter().zip(&played).zip(&rules) {
            assert_eq!(played, expected, "{}: {plan:?}", service.name());
        }
        let page = std::fs::read_to_string(PAGE).unwrap();
        let (begin, end) = ("<!-- begin orders -->\n", "<!-- end orders -->");
        let from = page.find(begin).unwrap() + begin.len();
        let to = page.find(end).unwrap();
        let table = table(&plans, &played);
        snapshot::is(
            PAGE,
            &format!("{}\n{table}\n{}", &page[..from], &page[to..]),
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_any_number_of_crashes_changes_nothing_but_what_was_not_committed() {
    let plans = all_plans();
    assert_eq!(plans.len(), 2430);
    let file: Arc<dyn Service> = Arc::new(barrier::sqlite::Sqlite::new());
    for plan in &plans {
        assert_eq!(played(&*file, plan).await, expected(plan), "{plan:?}");
    }
}

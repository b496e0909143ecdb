//! The parent: starts everyone, strikes when the plan says so, and asks for the audit.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::audit::{self, Books};
use crate::child::Process;
use crate::model::{self, Order, StockItem};
use crate::plan::{Plan, Progress};
use crate::report::{Hardships, Summary};
use crate::screen::Screen;
use crate::services::{Services, text};
use crate::words::{Ended, Word};
use crate::{Day, Error, StoreKind, generate};

/// A day on which nothing ends for so long is a day that does not end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How the orders were worked off.
#[derive(Debug, Default)]
pub(crate) struct Worked {
    pub(crate) ended: HashMap<String, Ended>,
    /// What was said once and taken back later, in sentences.
    pub(crate) contradictions: Vec<String>,
    pub(crate) kills: usize,
    /// Runs that a coordinator found open when it got up.
    pub(crate) resumed: u64,
    /// What else befell a fleet, if it was one.
    pub(crate) hardships: Option<Hardships>,
}

/// Runs the day, and tells how it went.
pub(crate) async fn run(day: Day) -> Result<ExitCode, Error> {
    match day.store {
        StoreKind::Postgres if cfg!(not(feature = "postgres")) => {
            return Err("`--store postgres` takes a build with `--features postgres`".into());
        }
        StoreKind::Sqlite | StoreKind::Memory if day.workers > 1 => {
            return Err("only `--store postgres` has room for several workers".into());
        }
        _ => {}
    }
    let began = Instant::now();
    let (orders, stock) = goods(&day)?;
    let work = tempfile::Builder::new()
        .prefix("amends-orders-")
        .tempdir()?;
    let orders_file = work.path().join("orders.jsonl");
    let stock_file = work.path().join("stock.jsonl");
    model::write_lines(&orders_file, &orders)?;
    model::write_lines(&stock_file, &stock)?;

    let mut services = Services::start(work.path(), &stock_file, &day).await?;
    let saga = services.saga()?;
    let mut screen = Screen::new(&amends::diagram::text(saga.graph()), &day, &orders);
    let mut worked = tokio::select! {
        biased;
        // Ending by an error, and not by the signal, removes the work directory.
        _ = tokio::signal::ctrl_c() => return Err("interrupted".into()),
        worked = work_off(&day, &orders, &orders_file, work.path(), &mut services, &mut screen) => match worked {
            Ok(worked) => worked,
            Err(error) => {
                let kept = work.keep();
                return Err(format!("{error}; the databases are kept in {}", kept.display()).into());
            }
        },
    };
    screen.finish();
    services.close().await?;

    let books = Books {
        stock: &services.stock.db,
        payments: &services.payments.db,
        parcels: &services.parcels.db,
    };
    if day.sabotage {
        audit::sabotage(&books)?;
    }
    let mut findings = audit::examine(&orders, &stock, &books, &worked.ended)?;
    findings.violations.append(&mut worked.contradictions);
    let clean = findings.violations.is_empty();
    Summary {
        orders: &orders,
        worked: &worked,
        took: began.elapsed(),
        findings: &findings,
    }
    .print(&books)?;
    if !clean {
        eprintln!("the databases are kept in {}", work.keep().display());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the orders worked off, by one coordinator or by a fleet.
async fn work_off(
    day: &Day,
    orders: &[Order],
    orders_file: &Path,
    work: &Path,
    services: &mut Services,
    screen: &mut Screen,
) -> Result<Worked, Error> {
    #[cfg(feature = "postgres")]
    if day.store == StoreKind::Postgres {
        return crate::fleet::work_off(day, orders, services, screen).await;
    }
    let kills = if day.store == StoreKind::Memory {
        0
    } else {
        day.kills
    };
    let mut shop = Shop {
        services,
        plan: Plan::new(orders.len(), kills, day.seed),
        orders: orders.len(),
        screen,
        worked: Worked::default(),
        ready_at: None,
    };
    let arguments = shop.coordinator_arguments(orders_file, work, day)?;
    shop.work_off(&arguments).await?;
    Ok(shop.worked)
}

/// The orders and the stock: out of files, or made up.
fn goods(day: &Day) -> Result<(Vec<Order>, Vec<StockItem>), Error> {
    let (Some(orders), Some(stock)) = (&day.orders, &day.stock) else {
        return Ok(generate::day(day.count.unwrap_or(500), day.seed));
    };
    let mut orders = model::read_orders(orders)?;
    orders.truncate(day.count.unwrap_or(orders.len()));
    Ok((orders, model::read_stock(stock)?))
}

/// Everything that changes while the orders are worked off.
struct Shop<'a> {
    services: &'a mut Services,
    plan: Plan,
    orders: usize,
    screen: &'a mut Screen,
    worked: Worked,
    /// Since when the coordinator has been at work, if it is.
    ready_at: Option<Instant>,
}

impl Shop<'_> {
    fn coordinator_arguments(
        &self,
        orders: &Path,
        work: &Path,
        day: &Day,
    ) -> Result<Vec<String>, Error> {
        let mut arguments = vec!["coordinator".to_owned()];
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        option("--orders", text(orders)?);
        if day.store == StoreKind::Sqlite {
            let journal: PathBuf = work.join("journal.db");
            option("--journal", text(&journal)?);
        }
        option("--stock", self.services.stock.port.to_string());
        option("--payments", self.services.payments.port.to_string());
        option("--parcels", self.services.parcels.port.to_string());
        Ok(arguments)
    }

    /// Keeps a coordinator running until it has brought every order to an end, and all that was
    /// planned against it has happened.
    async fn work_off(&mut self, arguments: &[String]) -> Result<(), Error> {
        let mut coordinator = self.start(arguments)?;
        let mut kill_at = None;
        let mut stalled_at = Instant::now() + PATIENCE;
        loop {
            let done = self.worked.ended.len();
            if kill_at.is_none() {
                let wait = self.plan.kill_due(Progress {
                    ended: done,
                    all_ended: done == self.orders,
                    lives: self.ready_at.map(|at| at.elapsed()),
                });
                kill_at = wait.map(|wait| Instant::now() + wait);
            }
            while let Some(outage) = self.plan.outage_due(done) {
                self.services.strike(outage).await?;
                self.screen.outage(outage);
            }
            let returns_at = self.services.next_return();
            tokio::select! {
                line = coordinator.line() => {
                    if let Some(line) = line? {
                        if self.hear(&line)? {
                            stalled_at = Instant::now() + PATIENCE;
                        }
                        continue;
                    }
                    let status = coordinator.wait().await?;
                    if !status.success() {
                        return Err(format!("the coordinator failed: {status}").into());
                    }
                    if self.worked.ended.len() < self.orders {
                        return Err("the coordinator left before every order had ended".into());
                    }
                    if !self.plan.has_kills() {
                        return Ok(());
                    }
                    // It was faster than the blow. It gets up once more to receive it.
                    coordinator = self.start(arguments)?;
                    kill_at = None;
                }
                () = at(kill_at) => {
                    coordinator.kill().await?;
                    // What it had said before is true.
                    while let Some(line) = coordinator.line().await? {
                        self.hear(&line)?;
                    }
                    self.worked.kills += 1;
                    self.plan.killed();
                    self.screen.killed(self.worked.kills, self.worked.ended.len());
                    kill_at = None;
                    coordinator = self.start(arguments)?;
                }
                () = at(returns_at) => {
                    for kind in self.services.bring_back(Instant::now()).await? {
                        self.screen.back(kind);
                    }
                }
                () = sleep_until(stalled_at) => {
                    return Err(format!("no order has ended for {PATIENCE:?}; {done} had before").into());
                }
            }
        }
    }

    fn start(&mut self, arguments: &[String]) -> Result<Process, Error> {
        self.ready_at = None;
        Process::start(arguments)
    }

    /// Takes in a line of the coordinator; says whether it was news.
    fn hear(&mut self, line: &str) -> Result<bool, Error> {
        match serde_json::from_str(line)? {
            Word::Ready { resumed } => {
                self.worked.resumed += resumed;
                self.ready_at = Some(Instant::now());
                self.screen.ready(resumed);
                Ok(true)
            }
            Word::Ended(word) => {
                let Some(before) = self.worked.ended.get(&word.order_id) else {
                    self.screen.ended(&word);
                    self.worked.ended.insert(word.order_id.clone(), word);
                    return Ok(true);
                };
                // A coordinator that was started again repeats what it said; it can't take it back.
                if *before != word {
                    self.worked
                        .contradictions
                        .push(format!("first {before:?}, later {word:?}"));
                }
                Ok(false)
            }
            word => Err(format!("a coordinator has no fleet, and says {word:?}").into()),
        }
    }
}

/// Waits for a moment that may never come.
pub(crate) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

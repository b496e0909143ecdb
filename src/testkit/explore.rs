//! Crash exploration: a scenario is run again and again, and killed at every place where that matters.

use std::fmt;
use std::sync::Arc;

use crate::step::Payload;
use crate::store::{MemoryStore, Store};
use crate::testkit::path::Path;
use crate::testkit::report::{Explored, Violation};
use crate::testkit::scenario::Scenario;
use crate::testkit::store::StoreFault;

/// Opens the same store again and again: once per process of a path.
pub type Reopen = Box<dyn FnMut() -> Arc<dyn Store>>;

/// Kills runs wherever it matters, and checks what becomes of them.
///
/// A scenario is run once undisturbed, and its appends are counted. Then it is run again for each append,
/// killed before and after it, and recovered by a new coordinator; and each recovery is killed in turn
/// before and after each of its appends, and recovered. Each append is also answered wrongly in the ways
/// of [`StoreFault`]. When all is at rest, the oracles are asked, and a last coordinator has to find
/// nothing to do.
///
/// # What is checked
///
/// * Each key takes effect at most once. No effect is undone under two keys, and none is forgotten. No
///   execute has a new key while its earlier effect stands, and no key is used again after its undo.
/// * Every call was announced by a durable record; what a step depends on has a durable result before it
///   is called; nothing is undone before what depended on it.
/// * Nothing starts after a failure for good, a cancel, or a decision to unwind.
/// * A run has one end, and it is true: completed with all effects standing, compensated with none, and
///   otherwise exactly what stands is listed.
/// * No start that was acknowledged is lost, every run comes to rest, and recovery is idempotent and,
///   with several runs, independent of their order.
///
/// ```
/// use amends::Saga;
/// use amends::testkit::{Explorer, Fault, Scenario, World};
///
/// let explored = Explorer::new("order").explore(|| {
///     let world = World::new().fail_calls("charge", .., Fault::Rejected);
///     let mut saga = Saga::builder::<u64>("order");
///     let order = saga.input();
///     let stock = saga.add(world.step::<u64>("reserve"), order);
///     let paid = saga.add(world.step::<String>("charge"), stock);
///     let saga = saga.returns(paid).expect("the definition has no faults");
///     Scenario::new(saga, 42, world).ends(&["compensated"])
/// })?;
/// assert!(explored.runs > 50, "{explored}");
/// # Ok::<(), amends::testkit::Violation>(())
/// ```
pub struct Explorer {
    name: String,
    stores: Box<dyn Fn() -> Reopen>,
    real_time: bool,
    once: bool,
}

impl fmt::Debug for Explorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explorer")
            .field("name", &self.name)
            .field("real_time", &self.real_time)
            .field("once", &self.once)
            .finish_non_exhaustive()
    }
}

impl Explorer {
    /// An exploration over memory stores, in virtual time. The name stands in its reports.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Explorer {
            name: name.into(),
            stores: Box::new(|| {
                let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
                Box::new(move || Arc::clone(&store))
            }),
            real_time: false,
            once: false,
        }
    }

    /// Explores over other stores: `stores` is called for each run, and what it gives is called for each
    /// process of that run, to open the same store again. The store of the process before is gone by then.
    ///
    /// Stores that answer from another thread need [`real_time`](Self::real_time).
    #[must_use]
    pub fn stores(mut self, stores: impl Fn() -> Reopen + 'static) -> Self {
        self.stores = Box::new(stores);
        self
    }

    /// Lets real time pass: keep retries and delays short.
    #[must_use]
    pub fn real_time(mut self) -> Self {
        self.real_time = true;
        self
    }

    /// Kills each run once, and no recovery.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Explores a scenario, which is made anew for every run.
    ///
    /// # Errors
    ///
    /// The first [`Violation`].
    ///
    /// # Panics
    ///
    /// Inside of a tokio runtime: every process of a run gets one of its own. Call it from a plain `#[test]`.
    pub fn explore<I: Payload, O: Payload>(
        &self,
        make: impl Fn() -> Scenario<I, O>,
    ) -> Result<Explored, Violation> {
        let mut explored = Explored {
            scenarios: 1,
            ..Explored::default()
        };
        let mut path = self.path(&make);
        let appends = path.undisturbed()?;
        path.finish(&mut explored)?;
        // Every single disturbance first: what a reader sees of a violation is its shortest way.
        let mut recoveries = Vec::new();
        for append in 1..=appends {
            for fault in [StoreFault::CrashBefore, StoreFault::CrashAfter] {
                let mut path = self.path(&make);
                path.disturbed((append, fault))?;
                let recovery = path.undisturbed()?;
                let words = path.finish(&mut explored)?;
                explored.runs += 1;
                explored.crash_points += 1;
                if words.len() > 1 {
                    let mut path = self.path(&make);
                    path.disturbed((append, fault))?;
                    path.reversed = true;
                    path.undisturbed()?;
                    explored.runs += 1;
                    if path.finish(&mut explored)? != words {
                        return Err(path.violation("recovery depends on the order of runs"));
                    }
                }
                recoveries.push(((append, fault), recovery));
            }
            for fault in [
                StoreFault::AnswerLost,
                StoreFault::RequestLost,
                StoreFault::NotWritten,
                StoreFault::Dies,
            ] {
                let mut path = self.path(&make);
                if !path.disturbed((append, fault))? {
                    path.undisturbed()?;
                }
                path.finish(&mut explored)?;
                explored.runs += 1;
            }
        }
        for (first, appends) in recoveries.into_iter().filter(|_| !self.once) {
            for second in 1..=appends {
                for fault in [StoreFault::CrashBefore, StoreFault::CrashAfter] {
                    let mut path = self.path(&make);
                    path.disturbed(first)?;
                    path.disturbed((second, fault))?;
                    path.undisturbed()?;
                    path.judge(&mut explored)?;
                    explored.runs += 1;
                    explored.crash_points += 1;
                }
            }
        }
        Ok(explored)
    }

    fn path<I: Payload, O: Payload>(&self, make: &impl Fn() -> Scenario<I, O>) -> Path<'_, I, O> {
        Path::new(self.real_time, &self.name, make(), (self.stores)())
    }
}

//! One cell of the table of rivals, measured in a process of its own: the order it comes with, the load, the clock
//! and the counts.
//!
//! All engines are driven by the same load: as many callers as sagas may be in flight, each a task that starts a
//! saga, waits for its end, looks whether it ended as it should, and starts the next.

mod disk;
mod load;

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

pub use disk::{Disk, memory};

pub type Failed = Box<dyn Error + Send + Sync>;

/// What the saga returns where it succeeds: 1 goes in, and each of the three steps adds one.
pub const OUTPUT: u64 = 4;

/// What a cell is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub engine: String,
    pub store: String,
    pub setting: String,
    /// Whether step 3 fails for good, so that 2 and 1 are undone.
    pub fails: bool,
    pub in_flight: usize,
    pub seconds: f64,
    /// An empty folder on the disk that is measured.
    pub folder: PathBuf,
    /// A server, where the store is one.
    pub postgres: Option<String>,
    /// A schema there that nobody else uses.
    pub schema: String,
    /// The cell ends early when the process has grown to so many bytes.
    pub memory: u64,
}

/// What came out of a cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    pub seconds: f64,
    /// Sagas that ended while the clock ran.
    pub sagas: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Flushes that the disk completed in that time, for whomever.
    pub flushes: Option<u64>,
    /// At most resident, in KiB.
    pub peak_rss_kib: Option<u64>,
    /// Sagas that didn't end as they should, and what the first of them said.
    pub errors: u64,
    pub error: Option<String>,
    /// Callers whose task ended in a panic.
    pub died: usize,
    /// Whether it ended because of its memory.
    pub full: bool,
}

/// An engine with its store, ready to run the saga.
pub trait Contender: Send + Sync + 'static {
    /// Runs one saga to its end; an error where it doesn't end as it should.
    fn saga(&self, number: u64) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// A call of a body of the saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Do(u8),
    Undo(u8),
}

static LISTENS: AtomicBool = AtomicBool::new(false);
static CALLS: Mutex<Vec<Call>> = Mutex::new(Vec::new());

/// Every body says that it is called. Nobody listens while the clock runs.
pub fn called(call: Call) {
    if LISTENS.load(Ordering::Relaxed) {
        calls().push(call);
    }
}

fn calls() -> std::sync::MutexGuard<'static, Vec<Call>> {
    CALLS.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// Runs one saga and refuses an engine that doesn't call the bodies that it should, in that order.
async fn check(order: &Order, contender: &impl Contender) -> Result<(), Failed> {
    LISTENS.store(true, Ordering::SeqCst);
    contender.saga(0).await?;
    LISTENS.store(false, Ordering::SeqCst);
    let forward = [Call::Do(1), Call::Do(2), Call::Do(3)];
    let wanted = match order.fails {
        true => [&forward[..], &[Call::Undo(2), Call::Undo(1)]].concat(),
        false => forward.to_vec(),
    };
    match std::mem::take(&mut *calls()) {
        calls if calls == wanted => Ok(()),
        calls => Err(format!("the saga made the calls {calls:?}").into()),
    }
}

/// What a cell's process does: opens the engine that its first argument orders, measures it, and prints what came out.
///
/// It then leaves at once, whatever the engine still does: nobody needs its files any more.
pub fn serve<C: Contender, F>(open: impl FnOnce(Order) -> F) -> Result<(), Failed>
where
    F: Future<Output = Result<C, Failed>>,
{
    let order = std::env::args().nth(2).ok_or("no order")?;
    let order: Order = serde_json::from_str(&order)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let contender = runtime.block_on(async {
        let contender = open(order.clone()).await?;
        check(&order, &contender).await?;
        Ok::<C, Failed>(contender)
    })?;
    let measured = load::measure(&order, contender, runtime.handle())?;
    println!("{}", serde_json::to_string(&measured)?);
    std::process::exit(0);
}

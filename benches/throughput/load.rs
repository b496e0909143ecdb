//! The load: so many loops, each of which begins a run when its last one has ended.

use std::cell::Cell;
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

/// What is done again and again. Cloned once for each loop.
pub(crate) trait Work: Clone + Send + Sync + 'static {
    /// Does it once, from its beginning to its end.
    fn once(&self, number: u64) -> impl Future<Output = ()> + Send;
}

/// Where the loops are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Each is a task on the runtime.
    Task,
    /// The only one is the body of `#[tokio::main]`, which no worker thread runs.
    Main,
}

/// What the loops did, up to the end of the last run.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) runs: u64,
    pub(crate) took: Duration,
    latencies: Latencies,
}

impl Load {
    /// With what was done in another slice of time.
    pub(crate) fn and(mut self, other: Load) -> Self {
        self.runs += other.runs;
        self.took += other.took;
        self.latencies.0.resize(BUCKETS, 0);
        for (sum, count) in self.latencies.0.iter_mut().zip(other.latencies.0) {
            *sum += count;
        }
        self
    }

    /// How long the run took that so many of a thousand were faster than.
    pub(crate) fn quantile(&self, thousandths: u64) -> Duration {
        let counts = &self.latencies.0;
        let mut left = counts.iter().sum::<u64>() * thousandths / 1_000;
        let found = counts.iter().position(|count| {
            let here = left < *count;
            left = left.saturating_sub(*count);
            here
        });
        found.map_or(Duration::ZERO, middle)
    }

    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn rate(&self) -> f64 {
        self.runs as f64 / self.took.as_secs_f64()
    }
}

/// Who does how much at once.
#[derive(Debug)]
pub(crate) struct Loops<'r> {
    pub(crate) runtime: &'r Runtime,
    pub(crate) place: Place,
    pub(crate) in_flight: usize,
    /// Shared, so that numbers ascend in time, whoever uses them.
    next: Arc<AtomicU64>,
}

impl<'r> Loops<'r> {
    pub(crate) fn new(runtime: &'r Runtime, place: Place, in_flight: usize) -> Self {
        Loops {
            runtime,
            place,
            in_flight,
            next: Arc::default(),
        }
    }

    /// Keeps the loops going for so long, and lets each end its last run. With several pieces of work, they take
    /// turns in getting a loop.
    pub(crate) fn drive(&self, lasts: Duration, work: &[impl Work]) -> Load {
        drive(self, lasts, work)
    }
}

fn drive(loops: &Loops<'_>, lasts: Duration, work: &[impl Work]) -> Load {
    take_latencies();
    let next = &loops.next;
    let began = Instant::now();
    let until = began + lasts;
    let runs = loops.runtime.block_on(async {
        if loops.place == Place::Main {
            assert_eq!(loops.in_flight, 1, "there is one body");
            return round(&work[0], next, began, until).await;
        }
        let tasks: Vec<_> = (0..loops.in_flight)
            .map(|at| {
                let (work, next) = (work[at % work.len()].clone(), next.clone());
                tokio::spawn(async move { round(&work, &next, Instant::now(), until).await })
            })
            .collect();
        let mut runs = 0;
        for task in tasks {
            runs += task.await.expect("a loop of the load");
        }
        runs
    });
    Load {
        runs,
        took: began.elapsed(),
        latencies: take_latencies(),
    }
}

/// After so many runs a loop lets the others have their turn: runs that never wait would else keep it for themselves.
const TURN: u64 = 64;

/// One loop. The end of a run is the beginning of the next, so that the clock is read once a run.
async fn round(work: &impl Work, next: &AtomicU64, mut last: Instant, until: Instant) -> u64 {
    let mut runs = 0;
    while last < until {
        work.once(next.fetch_add(1, Ordering::Relaxed)).await;
        let now = Instant::now();
        record(now - last);
        last = now;
        runs += 1;
        if runs % TURN == 0 {
            tokio::task::yield_now().await;
            last = Instant::now();
        }
    }
    runs
}

/// Latencies are counted in buckets that are 0.8 % wide at most, so that nothing is allocated for a sample.
const FINE: u64 = 128;
const BUCKETS: usize = 36 * 128;
const SLOTS: usize = 16;

/// One row of buckets a thread, so that threads don't wait for each other.
fn slots() -> &'static [Vec<AtomicU32>] {
    static SHARED: OnceLock<Vec<Vec<AtomicU32>>> = OnceLock::new();
    SHARED.get_or_init(|| {
        let row = || (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        (0..SLOTS).map(|_| row()).collect()
    })
}

fn record(took: Duration) {
    static THREADS: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static SLOT: Cell<Option<&'static [AtomicU32]>> = const { Cell::new(None) };
    }
    let slot = SLOT.get().unwrap_or_else(|| {
        let thread = THREADS.fetch_add(1, Ordering::Relaxed);
        let slot = &slots()[usize::try_from(thread).unwrap_or_default() % SLOTS];
        SLOT.set(Some(slot));
        slot
    });
    slot[bucket(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))]
        .fetch_add(1, Ordering::Relaxed);
}

fn bucket(nanos: u64) -> usize {
    if nanos < 2 * FINE {
        return usize::try_from(nanos).unwrap_or_default();
    }
    let shift = u64::from(nanos.ilog2()) - 7;
    let at = shift * FINE + (nanos >> shift);
    usize::try_from(at).map_or(BUCKETS - 1, |at| at.min(BUCKETS - 1))
}

/// The middle of a bucket.
fn middle(bucket: usize) -> Duration {
    let bucket = bucket as u64;
    if bucket < 2 * FINE {
        return Duration::from_nanos(bucket);
    }
    let shift = bucket / FINE - 1;
    let from = (bucket - shift * FINE) << shift;
    Duration::from_nanos(from + (1 << shift) / 2)
}

/// How many runs took about as long, by bucket.
#[derive(Debug, Default)]
struct Latencies(Vec<u64>);

fn take_latencies() -> Latencies {
    let mut all = vec![0_u64; BUCKETS];
    for row in slots() {
        for (sum, count) in all.iter_mut().zip(row) {
            *sum += u64::from(count.swap(0, Ordering::Relaxed));
        }
    }
    Latencies(all)
}

/// Does something that blocks again and again for so long, on the caller's thread.
#[cfg(feature = "sqlite")]
pub(crate) fn repeat(lasts: Duration, mut once: impl FnMut()) -> Load {
    take_latencies();
    let began = Instant::now();
    let (mut last, mut runs) = (began, 0);
    while last < began + lasts {
        once();
        let now = Instant::now();
        record(now - last);
        last = now;
        runs += 1;
    }
    Load {
        runs,
        took: began.elapsed(),
        latencies: take_latencies(),
    }
}

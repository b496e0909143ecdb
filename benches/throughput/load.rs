//! The load: so many loops, each of which begins a run when its last one has ended.

use std::cell::Cell;
use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) runs: u64,
    pub(crate) took: Duration,
    pub(crate) latency: Quantiles,
}

impl Load {
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn rate(&self) -> f64 {
        self.runs as f64 / self.took.as_secs_f64()
    }
}

/// Keeps so many loops going for so long, and lets each end its last run.
pub(crate) fn drive(
    runtime: &Runtime,
    place: Place,
    in_flight: usize,
    lasts: Duration,
    work: &impl Work,
) -> Load {
    take_latencies();
    // Shared, so that numbers ascend in time, whoever uses them.
    let next = std::sync::Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let until = began + lasts;
    let runs = runtime.block_on(async {
        if place == Place::Main {
            assert_eq!(in_flight, 1, "there is one body");
            return round(work, &next, began, until).await;
        }
        let tasks: Vec<_> = (0..in_flight)
            .map(|_| {
                let (work, next) = (work.clone(), next.clone());
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
        latency: take_latencies(),
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

/// How long runs took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quantiles {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
}

fn take_latencies() -> Quantiles {
    let mut all = vec![0_u64; BUCKETS];
    for row in slots() {
        for (sum, count) in all.iter_mut().zip(row) {
            *sum += u64::from(count.swap(0, Ordering::Relaxed));
        }
    }
    let total: u64 = all.iter().sum();
    let at = |thousandths: u64| {
        let mut left = total * thousandths / 1_000;
        let found = all.iter().position(|count| {
            let here = left < *count;
            left = left.saturating_sub(*count);
            here
        });
        found.map_or(Duration::ZERO, middle)
    };
    Quantiles {
        p50: at(500),
        p99: at(990),
        p999: at(999),
    }
}

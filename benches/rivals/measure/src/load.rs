use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hdrhistogram::{CreationError, Histogram};
use tokio::runtime::Handle;

use crate::{Contender, Disk, Failed, Measured, Order, memory};

/// Callers share clocks, so that many of them take little memory, but so few a clock that they seldom meet.
const CLOCKS: usize = 16;

struct Load<C> {
    contender: C,
    next: AtomicU64,
    counts: AtomicBool,
    stops: AtomicBool,
    /// Nanoseconds per saga.
    clocks: Vec<Mutex<Histogram<u64>>>,
    errors: AtomicU64,
    error: Mutex<Option<String>>,
}

/// From a nanosecond to ten minutes, to one in a hundred.
fn clock() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, 600_000_000_000, 2)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

impl<C: Contender> Load<C> {
    async fn call(self: Arc<Self>, caller: usize) {
        while !self.stops.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let began = Instant::now();
            let ended = self.contender.saga(number).await;
            if !self.counts.load(Ordering::Relaxed) {
                continue;
            }
            match ended {
                Ok(()) => {
                    let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    locked(&self.clocks[caller % CLOCKS]).saturating_record(took);
                }
                Err(error) => {
                    self.errors.fetch_add(1, Ordering::Relaxed);
                    locked(&self.error).get_or_insert_with(|| error.to_string());
                }
            }
        }
    }
}

/// Lets the load run for a fifth of the time, then counts for all of it.
///
/// It waits on a thread of its own, not on the runtime: an engine that blocks all the runtime's threads doesn't stop
/// the clock.
pub(crate) fn measure<C: Contender>(
    order: &Order,
    contender: C,
    runtime: &Handle,
) -> Result<Measured, Failed> {
    let clocks = (0..CLOCKS).map(|_| clock().map(Mutex::new));
    let load = Arc::new(Load {
        contender,
        next: AtomicU64::new(1),
        counts: AtomicBool::new(false),
        stops: AtomicBool::new(false),
        clocks: clocks.collect::<Result<_, _>>()?,
        errors: AtomicU64::new(0),
        error: Mutex::new(None),
    });
    let callers: Vec<_> = (0..order.in_flight)
        .map(|caller| runtime.spawn(Arc::clone(&load).call(caller)))
        .collect();
    let disk = Disk::of(&order.folder);
    let seconds = Duration::from_secs_f64(order.seconds);
    let mut full = wait(seconds / 5, order.memory);

    let flushes = disk.as_ref().and_then(Disk::flushes);
    let began = Instant::now();
    load.counts.store(true, Ordering::SeqCst);
    full = full || wait(seconds, order.memory);
    load.counts.store(false, Ordering::SeqCst);
    let took = began.elapsed();
    let flushes = disk
        .as_ref()
        .and_then(Disk::flushes)
        .zip(flushes)
        .map(|(after, before)| after - before);
    let peak_rss_kib = memory("VmHWM:");

    let died = callers.iter().filter(|caller| caller.is_finished()).count();
    load.stops.store(true, Ordering::SeqCst);
    let mut all = clock()?;
    for clock in &load.clocks {
        all.add(&*locked(clock))?;
    }
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52 nanoseconds")]
    let at = |quantile| all.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(Measured {
        seconds: took.as_secs_f64(),
        sagas: all.len(),
        p50_us: at(0.5),
        p99_us: at(0.99),
        flushes,
        peak_rss_kib,
        errors: load.errors.load(Ordering::SeqCst),
        error: locked(&load.error).clone(),
        died,
        full,
    })
}

/// Waits, and says whether it ended before because of the memory that the process has taken.
fn wait(time: Duration, memory_limit: u64) -> bool {
    let end = Instant::now() + time;
    loop {
        if memory("VmRSS:").is_some_and(|kib| kib * 1_024 >= memory_limit) {
            return true;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
}

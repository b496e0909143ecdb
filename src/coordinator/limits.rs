//! How many attempts may be in flight: of a step here, of a step in the whole fleet, of all steps here.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::coordinator::fleet::{Member, jittered};
use crate::store::Store;

/// The limits of a step.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepLimits {
    pub(crate) here: Option<Arc<Semaphore>>,
    pub(crate) fleet: Option<Arc<FleetLimit>>,
}

/// All that an attempt needs permits of.
pub(super) struct Limits {
    pub(super) step: StepLimits,
    pub(super) all: Option<Arc<Semaphore>>,
    /// As whom a permit of the fleet is taken.
    pub(super) member: Arc<Member>,
}

/// The permits of an attempt, given back when it is over.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "held for their drop")]
pub(super) struct Permits {
    here: Option<OwnedSemaphorePermit>,
    fleet: Option<FleetPermit>,
    all: Option<OwnedSemaphorePermit>,
}

impl Limits {
    /// The permits, if they are to be had at once.
    pub(super) fn try_acquire(&self) -> Option<Permits> {
        let now = |limit: &Option<Arc<Semaphore>>| match limit {
            Some(limit) => Arc::clone(limit).try_acquire_owned().ok().map(Some),
            None => Some(None),
        };
        let here = now(&self.step.here)?;
        let all = now(&self.all)?;
        let fleet = match &self.step.fleet {
            Some(limit) => Some(limit.spare(&self.member)?),
            None => None,
        };
        Some(Permits { here, fleet, all })
    }

    /// Waits for the permits. Nothing where a limit was closed, or the lease is over: then the coordinator
    /// starts nothing more.
    pub(super) async fn acquire(self) -> Option<Permits> {
        let here = match self.step.here {
            Some(limit) => Some(limit.acquire_owned().await.ok()?),
            None => None,
        };
        // Before that of the fleet, so that no other worker waits for one that lies idle here.
        let all = match self.all {
            Some(limit) => Some(limit.acquire_owned().await.ok()?),
            None => None,
        };
        let fleet = match self.step.fleet {
            Some(limit) => Some(limit.acquire(&self.member).await?),
            None => None,
        };
        Some(Permits { here, fleet, all })
    }
}

/// How long a permit is handed on among the attempts of one worker, before the others get their turn.
const TURN: Duration = Duration::from_secs(1);

/// How often the store is asked for a permit while none is free.
const LOOK: Duration = Duration::from_millis(50);

/// A limit that all workers of a fleet share.
pub(crate) struct FleetLimit {
    store: Arc<dyn Store>,
    /// What it is called in the store: the same for all versions of the saga.
    name: Arc<str>,
    most: u32,
    /// One attempt of this worker asks the store at a time, for all that wait.
    asking: Semaphore,
    waiting: AtomicU32,
    spare: Mutex<VecDeque<Held>>,
    freed: Notify,
}

/// A permit that this worker has.
#[derive(Clone, Debug)]
struct Held {
    number: u32,
    member: Arc<Member>,
    since: Instant,
}

impl FleetLimit {
    pub(super) fn new(store: Arc<dyn Store>, saga: &str, step: &str, most: u32) -> Self {
        FleetLimit {
            store,
            name: format!("{saga}/{step}").into(),
            most,
            asking: Semaphore::new(1),
            waiting: AtomicU32::new(0),
            spare: Mutex::default(),
            freed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Held>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit that lies here.
    fn spare(self: &Arc<Self>, member: &Arc<Member>) -> Option<FleetPermit> {
        let mut spare = self.lock();
        while let Some(held) = spare.pop_front() {
            // One that was taken under a lease that is over is somebody else's by now.
            if Arc::ptr_eq(&held.member, member) && !member.is_over() {
                let limit = Arc::clone(self);
                return Some(FleetPermit { limit, held });
            }
        }
        None
    }

    async fn acquire(self: &Arc<Self>, member: &Arc<Member>) -> Option<FleetPermit> {
        let _waits = Waits::new(self);
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(permit) = self.spare(member) {
                return Some(permit);
            }
            if member.is_over() {
                return None;
            }
            tokio::select! {
                () = freed => {}
                turn = self.asking.acquire() => {
                    let _turn = turn.ok()?;
                    if !self.ask(member).await {
                        sleep(jittered(LOOK)).await;
                    }
                }
            }
        }
    }

    /// Asks the store for as many as are waited for here. Says whether there were any.
    async fn ask(self: &Arc<Self>, member: &Arc<Member>) -> bool {
        let wanted = self.waiting.load(Ordering::Acquire).max(1);
        let Some(fleet) = self.store.fleet() else {
            return false;
        };
        let taken = fleet
            .take_permits(&member.worker, &self.name, self.most, wanted)
            .await;
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(limit = %self.name, %error, "permits can't be taken: trying again");
                return false;
            }
        };
        let any = !taken.is_empty();
        let since = Instant::now();
        let held = taken.into_iter().map(|number| Held {
            number,
            member: Arc::clone(member),
            since,
        });
        self.lock().extend(held);
        if any {
            self.freed.notify_waiters();
        }
        any
    }

    /// Hands a permit on to whoever waits here, or gives it back to the fleet.
    fn give_back(self: &Arc<Self>, held: Held) {
        if held.member.is_over() {
            return;
        }
        if held.since.elapsed() < TURN {
            self.lock().push_back(held);
            self.freed.notify_waiters();
            return self.give_back_surplus();
        }
        self.send_back(held);
    }

    /// What lies here and nobody waits for is of use to others.
    fn give_back_surplus(self: &Arc<Self>) {
        let mut spare = self.lock();
        let wanted = self.waiting.load(Ordering::Acquire) as usize;
        let surplus = spare.len().saturating_sub(wanted);
        let surplus: Vec<Held> = spare.drain(..surplus).collect();
        drop(spare);
        for held in surplus {
            self.send_back(held);
        }
    }

    fn send_back(self: &Arc<Self>, held: Held) {
        // Outside of a runtime the process is going away, and the permit is free when the lease is over.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let limit = Arc::clone(self);
        runtime.spawn(async move {
            let Some(fleet) = limit.store.fleet() else {
                return;
            };
            while !held.member.is_over() {
                let (worker, permit) = (&held.member.worker, [held.number]);
                match fleet.give_back(worker, &limit.name, &permit).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(limit = %limit.name, %error, "a permit can't be given back: trying again");
                        sleep(jittered(LOOK * 10)).await;
                    }
                }
            }
        });
    }
}

impl fmt::Debug for FleetLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FleetLimit({}, {} at most)", self.name, self.most)
    }
}

/// Counts an attempt that waits, for as long as it does.
struct Waits<'a>(&'a Arc<FleetLimit>);

impl<'a> Waits<'a> {
    fn new(limit: &'a Arc<FleetLimit>) -> Self {
        limit.waiting.fetch_add(1, Ordering::AcqRel);
        Waits(limit)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.give_back_surplus();
    }
}

/// One of the permits that the fleet shares.
#[derive(Debug)]
struct FleetPermit {
    limit: Arc<FleetLimit>,
    held: Held,
}

impl Drop for FleetPermit {
    fn drop(&mut self) {
        self.limit.give_back(self.held.clone());
    }
}

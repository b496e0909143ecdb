//! A run's place in the registry: where its driver, its waiters and its commands meet.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use crate::coordinator::commands::Answer;
use crate::ids::{RunId, Timestamp};
use crate::journal::{Verb, VerbName};
use crate::partial::Snapshot;

/// One run that somebody drives or waits for.
pub(crate) struct Slot {
    pub(crate) run: RunId,
    inner: Mutex<Inner>,
    /// Whether commands wait for the driver: looked at each turn, without a lock.
    asked: AtomicBool,
    /// Whether it was taken out of the registry: it never gets there again.
    pub(crate) forgotten: AtomicBool,
    /// Wakes the driver.
    pub(crate) waker: AtomicWaker,
    /// Wakes whoever waits for the run, or watches it.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct Inner {
    /// Whether a driver has the run, or is about to.
    active: bool,
    /// Whether the start is durable, or what came of it.
    started: Option<Started>,
    commands: VecDeque<Asking>,
    settled: Option<Settled>,
}

/// What became of a start.
#[derive(Clone, Debug)]
pub(crate) enum Started {
    Durable,
    /// The id is taken in the store.
    Taken,
    Failed(String),
}

/// What those who wait for a run are told.
#[derive(Clone, Debug)]
pub(crate) enum Settled {
    Ended(Arc<Snapshot>),
    Parked(Arc<Snapshot>),
    /// Another owner has it.
    Lost,
    /// Nobody here drives it any more.
    Closed(String),
}

/// A command on its way to the driver, with where the answer goes.
pub(crate) struct Asking {
    pub(crate) verb: Verb,
    pub(crate) by: String,
    pub(crate) reason: String,
    /// When it was accepted.
    pub(crate) at: Timestamp,
    /// Its name, where it has to be carried out once however often it is sent.
    pub(crate) token: Option<String>,
    pub(crate) answer: Answer,
}

impl Asking {
    /// The same once more, with another place for its answer.
    pub(crate) fn again(&self, answer: Answer) -> Self {
        Asking {
            verb: self.verb.clone(),
            by: self.by.clone(),
            reason: self.reason.clone(),
            at: self.at,
            token: self.token.clone(),
            answer,
        }
    }
}

impl Slot {
    pub(crate) fn new(run: RunId) -> Self {
        Slot {
            run,
            inner: Mutex::default(),
            asked: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            changed: Notify::new(),
        }
    }

    /// No code that can panic runs under this lock, and it is never held across an await.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the right to drive the run, if nobody has it.
    pub(crate) fn activate(&self) -> bool {
        let mut inner = self.lock();
        let free = !std::mem::replace(&mut inner.active, true);
        if free {
            inner.settled = None;
        }
        free
    }

    /// The same for a start: what came of an earlier one is forgotten.
    pub(crate) fn activate_for_start(&self) -> bool {
        let free = self.activate();
        if free {
            self.lock().started = None;
        }
        free
    }

    pub(crate) fn is_active(&self) -> bool {
        self.lock().active
    }

    /// Gives the right back, unless a command came meanwhile.
    pub(crate) fn deactivate_if_idle(&self, settled: Option<Settled>) -> bool {
        let mut inner = self.lock();
        if !inner.commands.is_empty() {
            return false;
        }
        inner.active = false;
        inner.settled = settled;
        drop(inner);
        self.changed.notify_waiters();
        true
    }

    /// Gives the right back for good: pending commands are handed back to be refused.
    pub(crate) fn retire(&self, settled: Settled) -> VecDeque<Asking> {
        let mut inner = self.lock();
        inner.active = false;
        inner.settled = Some(settled);
        let commands = self.all_commands(&mut inner);
        drop(inner);
        self.changed.notify_waiters();
        commands
    }

    /// Gives the right back without an answer to those who wait: they ask the store.
    pub(crate) fn retire_idle(&self) -> VecDeque<Asking> {
        let mut inner = self.lock();
        inner.active = false;
        let commands = self.all_commands(&mut inner);
        drop(inner);
        self.changed.notify_waiters();
        commands
    }

    /// Hands a command to the driver. Says whether somebody has to begin driving for it.
    pub(crate) fn send(&self, command: Asking) -> bool {
        let mut inner = self.lock();
        inner.commands.push_back(command);
        self.asked.store(true, Ordering::Release);
        let begins = !std::mem::replace(&mut inner.active, true);
        if begins {
            inner.settled = None;
        }
        drop(inner);
        self.waker.wake();
        begins
    }

    pub(crate) fn take_commands(&self) -> VecDeque<Asking> {
        if !self.has_commands() {
            return VecDeque::new();
        }
        self.all_commands(&mut self.lock())
    }

    fn all_commands(&self, inner: &mut Inner) -> VecDeque<Asking> {
        self.asked.store(false, Ordering::Release);
        std::mem::take(&mut inner.commands)
    }

    /// Puts commands back that were taken, before those that have come since.
    pub(crate) fn put_back(&self, mut commands: VecDeque<Asking>) {
        let mut inner = self.lock();
        commands.append(&mut inner.commands);
        self.asked.store(!commands.is_empty(), Ordering::Release);
        inner.commands = commands;
    }

    pub(crate) fn has_commands(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Whether one of these verbs waits to be looked at.
    pub(crate) fn has_verb(&self, verbs: &[VerbName]) -> bool {
        if !self.has_commands() {
            return false;
        }
        self.lock()
            .commands
            .iter()
            .any(|command| verbs.contains(&command.verb.name()))
    }

    pub(crate) fn settled(&self) -> Option<Settled> {
        self.lock().settled.clone()
    }

    pub(crate) fn set_started(&self, started: Started) {
        self.lock().started.get_or_insert(started);
        self.changed.notify_waiters();
    }

    pub(crate) fn started(&self) -> Option<Started> {
        self.lock().started.clone()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.run)
    }
}

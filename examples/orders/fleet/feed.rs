//! The feed: hands orders to the fleet, and hears what became of them.
//!
//! Each order is started on one worker and awaited on another. Who owes an answer too long, or is gone, is not
//! asked again: somebody else is. Starting an order again, under the same run id, gives the same run.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::crew::Crew;
use crate::model::Order;
use crate::words::Ended;

/// How many orders are under way at the same time.
const IN_FLIGHT: usize = 32;

/// What a worker of the fleet is told: one JSON object a line on its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub(crate) enum Told {
    /// Start the run of this order.
    Start { order: Order },
    /// Wait for the run of this order, wherever it is driven.
    Await { order_id: String },
}

/// How far an order has come, as far as the feed knows.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// It is to be started, as soon as there is room, or when so much time has passed.
    Kept(Instant),
    Starting(Asked),
    /// It is started, on this worker, and is to be awaited.
    Started(usize),
    Awaited(Asked),
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    worker: usize,
    at: Instant,
}

pub(crate) struct Feed {
    orders: Vec<Order>,
    places: HashMap<String, usize>,
    stages: Vec<Stage>,
    workers: usize,
    next: usize,
    patience: Duration,
    ended: HashMap<String, Ended>,
    contradictions: Vec<String>,
}

impl Feed {
    pub(crate) fn new(orders: &[Order], workers: usize, lease: Duration) -> Self {
        let places = orders.iter().enumerate();
        Self {
            places: places.map(|(at, order)| (order.id.clone(), at)).collect(),
            stages: vec![Stage::Kept(Instant::now()); orders.len()],
            orders: orders.to_vec(),
            workers,
            next: 0,
            patience: lease * 2,
            ended: HashMap::new(),
            contradictions: Vec::new(),
        }
    }

    /// How many orders have ended.
    pub(crate) fn ended(&self) -> usize {
        self.ended.len()
    }

    /// Whether all have.
    pub(crate) fn is_done(&self) -> bool {
        self.ended.len() == self.orders.len()
    }

    /// How many orders a worker owes an answer about.
    pub(crate) fn load(&self, worker: usize) -> usize {
        let owed = self.stages.iter().filter(|stage| match stage {
            Stage::Starting(asked) => asked.worker == worker,
            // Whoever started it drives it, as far as the feed knows.
            Stage::Awaited(asked) => (asked.worker + self.workers - 1) % self.workers == worker,
            _ => false,
        });
        owed.count()
    }

    /// The places of the orders that somebody was asked about and that have not ended.
    pub(crate) fn under_way(&self) -> Vec<usize> {
        let stages = self.stages.iter().enumerate();
        stages
            .filter(|(_, stage)| !matches!(stage, Stage::Ended | Stage::Kept(_)))
            .map(|(place, _)| place)
            .collect()
    }

    /// Whether the orders at these places have ended.
    pub(crate) fn have_ended(&self, places: &[usize]) -> bool {
        let mut places = places.iter();
        places.all(|place| matches!(self.stages[*place], Stage::Ended))
    }

    /// What the orders at these places are called.
    pub(crate) fn names(&self, places: &[usize]) -> String {
        let names: Vec<&str> = places
            .iter()
            .map(|place| self.orders[*place].id.as_str())
            .collect();
        names.join(", ")
    }

    /// Asks workers to start and await what is to be, among so many orders.
    pub(crate) async fn hand_out(&mut self, released: usize, crew: &mut Crew) {
        let now = Instant::now();
        let under_way = self.stages.iter().filter(|stage| {
            matches!(
                stage,
                Stage::Starting(_) | Stage::Started(_) | Stage::Awaited(_)
            )
        });
        let mut room = IN_FLIGHT.saturating_sub(under_way.count());
        for place in 0..released.min(self.orders.len()) {
            let (worker, told) = match self.stages[place] {
                Stage::Kept(from) if now >= from && room > 0 => {
                    room -= 1;
                    self.next += 1;
                    (self.next % self.workers, self.start(place))
                }
                Stage::Starting(asked) if now > asked.at + self.patience => {
                    (self.beside(asked.worker), self.start(place))
                }
                Stage::Started(on) => (self.beside(on), self.wait(place)),
                Stage::Awaited(asked) if now > asked.at + self.patience => {
                    (self.beside(asked.worker), self.wait(place))
                }
                _ => continue,
            };
            let asked = Asked { worker, at: now };
            self.stages[place] = match &told {
                Told::Start { .. } => Stage::Starting(asked),
                Told::Await { .. } => Stage::Awaited(asked),
            };
            crew.tell(worker, &told).await;
        }
    }

    fn beside(&self, worker: usize) -> usize {
        (worker + 1) % self.workers
    }

    fn start(&self, place: usize) -> Told {
        Told::Start {
            order: self.orders[place].clone(),
        }
    }

    fn wait(&self, place: usize) -> Told {
        Told::Await {
            order_id: self.orders[place].id.clone(),
        }
    }

    /// A worker says that the run of an order is started.
    pub(crate) fn started(&mut self, worker: usize, order_id: &str) {
        if let Some(stage) = self.stage(order_id)
            && matches!(stage, Stage::Starting(_))
        {
            *stage = Stage::Started(worker);
        }
    }

    /// A worker can't do what it was asked for.
    pub(crate) fn not_now(&mut self, worker: usize, order_id: &str) {
        let later = Instant::now() + Duration::from_millis(50);
        if let Some(stage) = self.stage(order_id) {
            match *stage {
                Stage::Starting(asked) if asked.worker == worker => *stage = Stage::Kept(later),
                Stage::Awaited(asked) if asked.worker == worker => *stage = Stage::Started(worker),
                _ => {}
            }
        }
    }

    /// A worker is gone, and all that it was asked for with it.
    pub(crate) fn gone(&mut self, worker: usize) {
        let now = Instant::now();
        for stage in &mut self.stages {
            match *stage {
                Stage::Starting(asked) if asked.worker == worker => *stage = Stage::Kept(now),
                Stage::Awaited(asked) if asked.worker == worker => *stage = Stage::Started(worker),
                _ => {}
            }
        }
    }

    /// A worker says that there is no run of an order whose start was acknowledged.
    pub(crate) fn missing(&mut self, order_id: &str) {
        self.contradictions
            .push(format!("order {order_id} was started, and is lost"));
    }

    /// A worker says how a run ended. Says whether that is news.
    pub(crate) fn ended_so(&mut self, word: &Ended) -> bool {
        if let Some(stage) = self.stage(&word.order_id) {
            *stage = Stage::Ended;
        }
        let Some(before) = self.ended.get(&word.order_id) else {
            self.ended.insert(word.order_id.clone(), word.clone());
            return true;
        };
        // Two workers may be asked; neither can take back what the other said.
        if before != word {
            self.contradictions
                .push(format!("first {before:?}, later {word:?}"));
        }
        false
    }

    /// How all orders ended, and what can't be true of it.
    pub(crate) fn told(self) -> (HashMap<String, Ended>, Vec<String>) {
        (self.ended, self.contradictions)
    }

    fn stage(&mut self, order_id: &str) -> Option<&mut Stage> {
        let place = *self.places.get(order_id)?;
        self.stages.get_mut(place)
    }
}

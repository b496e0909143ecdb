//! The day of a fleet: several coordinators over one PostgreSQL, and everything that goes wrong with them.
//!
//! The parent starts a private PostgreSQL server and the workers, each behind a proxy of its own. It hands the
//! orders out: each is started on one worker and awaited on another. Meanwhile workers are killed with
//! SIGKILL and replaced, or frozen with SIGSTOP until another worker has their runs, and woken again;
//! PostgreSQL is restarted, in order and as by a crash; and connections are cut where a commit waits for its
//! answer.

mod crew;
mod feed;
mod overheard;
mod plan;
pub(crate) mod worker;

use std::time::Duration;

use amends::RunId;
use amends::journal::Event;
use amends::store::{PostgresStore, Store as _};
use tokio::time::{Instant, sleep, sleep_until};

use crate::model::Order;
use crate::parent::{PATIENCE, Worked, at};
use crate::postgres::Server;
use crate::proxy::Planned;
use crate::report::Hardships;
use crate::screen::Screen;
use crate::services::Services;
use crate::words::Word;
use crate::{Day, Error};
use crew::Crew;
use feed::Feed;
use plan::{Blow, Plan};

/// The longest that a worker needs to find out that another one's lease has run out.
pub(crate) const LOOK: Duration = Duration::from_millis(300);

/// How long runs that were taken up are left in peace. Most of them have ended by then.
const REST: Duration = Duration::from_millis(600);

/// How long the answers of the database are held back before a worker is frozen, so that it is frozen with
/// appends that wait to be sent.
const HOLD: Duration = Duration::from_millis(80);

/// What only an append says on its way to the database.
const APPEND: &str = ".append(";

/// How often the feed looks whether somebody owes it an answer.
const TICK: Duration = Duration::from_millis(100);

/// Has the orders worked off.
pub(crate) async fn work_off(
    day: &Day,
    orders: &[Order],
    services: &mut Services,
    screen: &mut Screen,
) -> Result<Worked, Error> {
    let server = Server::own(&[]).await;
    let crew = Crew::start(&server, day, services).await?;
    let mut fleet = Fleet {
        plan: Plan::new(orders.len(), day),
        feed: Feed::new(orders, day.workers.into(), day.lease()),
        crew,
        server,
        lease: day.lease(),
        acts: Vec::new(),
        quiet_until: Instant::now(),
        struck: Vec::new(),
        cuts: Vec::new(),
        kills: 0,
        hardships: Hardships {
            workers: day.workers,
            ..Hardships::default()
        },
    };
    fleet.day(services, screen).await?;
    fleet.crew.dismiss().await?;
    fleet.hardships.cut_commits = fleet.cuts.iter().filter(|cut| cut.is_played()).count();
    fleet.hardships.take_overs = fleet.take_overs(orders).await?;
    let (ended, contradictions) = fleet.feed.told();
    Ok(Worked {
        ended,
        contradictions,
        kills: fleet.kills,
        resumed: 0,
        hardships: Some(fleet.hardships),
    })
}

/// Something that is done at its time.
#[derive(Clone, Copy, Debug)]
enum Act {
    Kill(usize),
    Hold(usize),
    Freeze(usize),
    Thaw(usize),
    Strike(Blow, usize),
}

struct Fleet {
    plan: Plan,
    feed: Feed,
    crew: Crew,
    server: Server,
    lease: Duration,
    /// What is to be done, and when.
    acts: Vec<(Instant, Act)>,
    /// When the next phase may begin.
    quiet_until: Instant,
    /// The orders that were under way when the last phase was struck.
    struck: Vec<usize>,
    cuts: Vec<Planned>,
    kills: usize,
    hardships: Hardships,
}

impl Fleet {
    /// Goes on until every order has ended, and all that was planned against them has happened.
    async fn day(&mut self, services: &mut Services, screen: &mut Screen) -> Result<(), Error> {
        let mut stalled_at = Instant::now() + PATIENCE;
        loop {
            let ended = self.feed.ended();
            let now = Instant::now();
            if self.acts.is_empty() && now >= self.quiet_until && self.has_recovered() {
                if let Some(blows) = self.plan.due(ended) {
                    self.begin(&blows);
                } else if self.feed.is_done() && self.plan.is_over() {
                    return Ok(());
                }
            }
            while let Some(outage) = self.plan.outage_due(ended) {
                services.strike(outage).await?;
                screen.outage(outage);
            }
            self.feed
                .hand_out(self.plan.released(), &mut self.crew)
                .await;
            let next_act = self.acts.iter().map(|(at, _)| *at).min();
            tokio::select! {
                (slot, line) = self.crew.line() => {
                    if self.hear(slot, line?.as_deref(), screen)? {
                        stalled_at = Instant::now() + PATIENCE;
                    }
                }
                () = at(next_act) => self.act(screen).await?,
                () = at(services.next_return()) => {
                    for kind in services.bring_back(Instant::now()).await? {
                        screen.back(kind);
                    }
                }
                () = sleep_until(stalled_at) => {
                    let stalled = self.feed.names(&self.feed.under_way());
                    return Err(format!(
                        "no order has ended for {PATIENCE:?}; {ended} had before; open: {stalled}"
                    ).into());
                }
                () = sleep(TICK) => {}
            }
        }
    }

    /// Whether the next phase may begin.
    ///
    /// A step that is interrupted three times in a row looks as if it brought its process down, and its run is
    /// parked for that. So all that was under way may be struck a second time, and then has to come to its end:
    /// however long that takes, because a slow machine is to have the same day.
    fn has_recovered(&self) -> bool {
        self.plan.has_struck_once() || self.feed.have_ended(&self.struck)
    }

    /// Takes in a line of a worker; says whether it was news.
    fn hear(
        &mut self,
        slot: usize,
        line: Option<&str>,
        screen: &mut Screen,
    ) -> Result<bool, Error> {
        let Some(line) = line else {
            return Err(format!("worker {slot} left by itself").into());
        };
        match serde_json::from_str(line)? {
            Word::Ready { .. } => Ok(false),
            Word::StaleAppend => {
                self.hardships.stale_appends += 1;
                Ok(false)
            }
            Word::UnknownCommit => {
                self.hardships.unknown_commits += 1;
                Ok(false)
            }
            Word::Started { order_id } => {
                self.feed.started(slot, &order_id);
                Ok(true)
            }
            Word::NotNow { order_id } => {
                self.feed.not_now(slot, &order_id);
                Ok(false)
            }
            Word::Missing { order_id } => {
                self.feed.missing(&order_id);
                Ok(false)
            }
            Word::Ended(word) => {
                let news = self.feed.ended_so(&word);
                if news {
                    screen.ended(&word);
                }
                Ok(news)
            }
        }
    }

    /// Spreads the blows of a phase over workers and moments.
    fn begin(&mut self, blows: &[Blow]) {
        let now = Instant::now();
        self.struck = self.feed.under_way();
        let mut spared = self.crew.slots();
        for &blow in blows {
            let later = Duration::from_millis(self.plan.rng.u64(0..120));
            // Freezing is for the one that has most to do; else chance decides.
            let slot = match blow {
                Blow::Freeze => spared
                    .iter()
                    .copied()
                    .max_by_key(|slot| self.feed.load(*slot)),
                _ => self.plan.rng.choice(&spared).copied(),
            };
            let slot = slot.unwrap_or_default();
            match blow {
                Blow::Kill => self.acts.push((now + later, Act::Kill(slot))),
                Blow::Freeze => {
                    self.acts.push((now, Act::Hold(slot)));
                    self.acts.push((now + HOLD, Act::Freeze(slot)));
                    let thaw = now + HOLD + self.lease + self.lease / 2 + LOOK;
                    self.acts.push((thaw, Act::Thaw(slot)));
                }
                _ => self.acts.push((now + later, Act::Strike(blow, slot))),
            }
            if matches!(blow, Blow::Kill | Blow::Freeze) && spared.len() > 1 {
                spared.retain(|other| *other != slot);
            }
        }
    }

    /// Does what is due.
    async fn act(&mut self, screen: &mut Screen) -> Result<(), Error> {
        let now = Instant::now();
        let mut due = Vec::new();
        self.acts.retain(|&(at, act)| {
            if at <= now {
                due.push((at, act));
            }
            at > now
        });
        due.sort_by_key(|(at, _)| *at);
        let ended = self.feed.ended();
        for (_, act) in due {
            let taken_up_by = Instant::now() + self.lease + LOOK + REST;
            match act {
                Act::Kill(slot) => {
                    self.kills += 1;
                    screen.say(&format!(
                        "{ended:>6}  SIGKILL {} to worker {slot}",
                        self.kills
                    ));
                    for line in self.crew.kill(slot).await? {
                        // What it had said before is true.
                        self.hear(slot, Some(&line), screen)?;
                    }
                    self.feed.gone(slot);
                    self.crew.replace(slot)?;
                    self.quiet_until = self.quiet_until.max(taken_up_by);
                }
                Act::Hold(slot) => self.crew.proxy(slot).hold(true),
                Act::Freeze(slot) => {
                    self.hardships.freezes += 1;
                    screen.say(&format!("{ended:>6}  SIGSTOP to worker {slot}"));
                    self.crew.freeze(slot).await?;
                    self.crew.proxy(slot).hold(false);
                    self.quiet_until = self.quiet_until.max(taken_up_by);
                }
                Act::Thaw(slot) => {
                    screen.say(&format!("        … worker {slot} wakes up"));
                    self.crew.thaw(slot).await?;
                }
                Act::Strike(Blow::Cut(trick), slot) => {
                    let proxy = self.crew.proxy(slot);
                    self.cuts.push(proxy.play(trick, APPEND, 1));
                }
                Act::Strike(Blow::Restart(how), _) => {
                    self.hardships.restarts += 1;
                    screen.say(&format!("{ended:>6}  PostgreSQL is restarted: {how:?}"));
                    self.server.restart(how).await;
                    let taken_up_by = Instant::now() + self.lease + LOOK + REST;
                    self.quiet_until = self.quiet_until.max(taken_up_by);
                }
                Act::Strike(Blow::Kill | Blow::Freeze, _) => {}
            }
        }
        Ok(())
    }

    /// How often an open run got another owner, as the journals have it.
    async fn take_overs(&self, orders: &[Order]) -> Result<usize, Error> {
        let store = PostgresStore::connect(&self.server.address_by(self.server.port())).await?;
        let mut take_overs = 0;
        for order in orders {
            let run = RunId::new(format!("order-{}", order.id));
            let Some(journal) = store.load(&run).await? else {
                continue;
            };
            let mut owner = None;
            for event in journal.records.into_iter().flat_map(|record| record.events) {
                let next = match event {
                    Event::RunStarted(started) => started.worker.to_string(),
                    Event::Claimed { worker, .. } => worker,
                    _ => continue,
                };
                take_overs += usize::from(owner.as_ref().is_some_and(|owner| *owner != next));
                owner = Some(next);
            }
        }
        store.close().await;
        Ok(take_overs)
    }
}

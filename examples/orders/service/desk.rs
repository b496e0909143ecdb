//! The desk of a service: one database, and the participant's barrier of `amends` before it.
//!
//! The barrier is what makes a service safe to be called by a saga: the same call again gets the stored
//! answer, a call that comes after its undo is refused, and so is one of a coordinator that has lost its
//! run. All of that is decided in the very transaction that makes the effect. What is left here is
//! the trade's: a refusal leaves no effect and is not stored, so that a later try may fare better.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use amends::Probed;
use amends::barrier::{BarrierError, Call, Compensate, Execute, Request, sqlite};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde_json::{Value, json};

use super::weather::Weather;
use crate::Error;
use crate::api::{Fate, Refusal};

/// What a trade answers to a request for an effect.
pub(crate) enum Verdict {
    /// It is done.
    Done(Value),
    /// It is not done.
    Refused(Refusal),
}

/// What a service does for a living, inside a transaction of its desk.
pub(crate) trait Trade: Send + Sync + 'static {
    /// The verbs that make an effect.
    const DOES: &'static [&'static str];
    /// The verb that takes an effect back.
    const UNDOES: &'static str;

    /// Makes the effect, or refuses to. A refusal is rolled back.
    fn perform(
        &self,
        tx: &Transaction<'_>,
        verb: &str,
        key: &str,
        body: &[u8],
    ) -> Result<Verdict, Error>;

    /// Takes back the effect that was made under this key.
    fn undo(&self, tx: &Transaction<'_>, key: &str) -> Result<(), Error>;
}

/// A status and a body.
pub(crate) type Answer = (u16, Value);

/// A trade with its database.
pub(crate) struct Desk<T> {
    db: Mutex<Connection>,
    trade: T,
    seed: u64,
}

impl<T: Trade> Desk<T> {
    /// Opens or creates the database. WAL with `synchronous=NORMAL` keeps every commit when the
    /// process is killed, which is what happens here; only a power cut could take the last ones.
    pub(crate) fn open(path: &Path, seed: u64, schema: &str, trade: T) -> Result<Self, Error> {
        let db = Connection::open(path)?;
        db.busy_timeout(Duration::from_secs(5))?;
        // With foreign keys the barrier refuses to commit a call whose result was not recorded.
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;",
        )?;
        sqlite::create(&db)?;
        db.execute_batch(include_str!("desk.sql"))?;
        db.execute_batch(schema)?;
        Ok(Self {
            db: Mutex::new(db),
            trade,
            seed,
        })
    }

    /// The database, for the trade's own preparations.
    pub(crate) fn db(&self) -> MutexGuard<'_, Connection> {
        // A poisoned lock only says that another request panicked; its transaction was rolled back.
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a request has come, and tells what weather it gets.
    pub(crate) fn arrive(
        &self,
        verb: &str,
        order_id: &str,
        key: &str,
    ) -> Result<(i64, Weather), Error> {
        let db = self.db();
        let arrival: u32 = db
            .prepare_cached("SELECT count(*) FROM visit WHERE order_id = ?1 AND verb = ?2")?
            .query_row(params![order_id, verb], |row| row.get(0))?;
        let weather = Weather::forecast(self.seed, verb, order_id, arrival);
        db.prepare_cached(
            "INSERT INTO visit (verb, order_id, key, weather) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![verb, order_id, key, weather.label()])?;
        Ok((db.last_insert_rowid(), weather))
    }

    /// Carries out a request in one transaction.
    pub(crate) fn answer(
        &self,
        visit: i64,
        verb: &str,
        call: &Call,
        body: &[u8],
    ) -> Result<Answer, Error> {
        let mut db = self.db();
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let answered = if T::DOES.contains(&verb) {
            self.perform(&tx, verb, call, body)
        } else if verb == T::UNDOES {
            self.undo(&tx, call, body)
        } else if verb == "look" {
            look(&tx, call)
        } else {
            Ok(Err(Refusal::NoSuchVerb))
        };
        let answer = match answered? {
            Ok(answer) => {
                note(&tx, visit, 200, None)?;
                tx.commit()?;
                (200, answer)
            }
            Err(refusal) => {
                tx.rollback()?;
                note(&db, visit, refusal.status(), refusal.barrier())?;
                refused(&refusal)
            }
        };
        Ok(answer)
    }

    fn perform(
        &self,
        tx: &Transaction<'_>,
        verb: &str,
        call: &Call,
        body: &[u8],
    ) -> Result<Result<Value, Refusal>, Error> {
        let fresh = match sqlite::execute(tx, call, &Request::of_bytes(body)) {
            Ok(Execute::Fresh(fresh)) => fresh,
            Ok(Execute::Duplicate(stored)) => return Ok(Ok(stored.read()?)),
            Err(error) => return turned_away(error).map(Err),
        };
        match self.trade.perform(tx, verb, call.effect_key(), body)? {
            Verdict::Refused(refusal) => Ok(Err(refusal)),
            Verdict::Done(answer) => {
                sqlite::record(tx, fresh, &answer)?;
                Ok(Ok(answer))
            }
        }
    }

    /// Whoever asks to undo may not know whether there is anything to undo; the barrier does.
    fn undo(
        &self,
        tx: &Transaction<'_>,
        call: &Call,
        body: &[u8],
    ) -> Result<Result<Value, Refusal>, Error> {
        match sqlite::compensate(tx, call, &Request::of_bytes(body)) {
            Ok(Compensate::Undo(undo)) => {
                self.trade.undo(tx, undo.effect_key())?;
                sqlite::record_undo(tx, undo, &json!({}))?;
            }
            Ok(Compensate::Nothing | Compensate::Duplicate(_)) => {}
            Err(error) => return turned_away(error).map(Err),
        }
        Ok(Ok(json!({})))
    }
}

fn look(tx: &Transaction<'_>, call: &Call) -> Result<Result<Value, Refusal>, Error> {
    let fate = match sqlite::probe(tx, call) {
        Ok(Probed::Done(stored)) => Fate::Standing {
            answer: stored.read()?,
        },
        Ok(_) => Fate::Never,
        Err(error) => return turned_away(error).map(Err),
    };
    Ok(Ok(serde_json::to_value(fate)?))
}

/// What the barrier says, in the words of the service.
fn turned_away(error: BarrierError) -> Result<Refusal, Error> {
    Ok(match error {
        BarrierError::Stale { fence, seen, .. } => Refusal::Stale { fence, seen },
        BarrierError::Closed { .. } => Refusal::Withdrawn,
        BarrierError::OtherRequest { .. } => Refusal::KeyReused,
        other => return Err(other.into()),
    })
}

/// Notes what became of a visit.
fn note(
    db: &Connection,
    visit: i64,
    status: u16,
    barrier: Option<&str>,
) -> Result<(), rusqlite::Error> {
    db.prepare_cached("UPDATE visit SET status = ?2, barrier = ?3 WHERE id = ?1")?
        .execute(params![visit, status, barrier])?;
    Ok(())
}

/// The answer that carries a refusal.
pub(crate) fn refused(refusal: &Refusal) -> Answer {
    let body = serde_json::to_value(refusal).unwrap_or_default();
    (refusal.status(), body)
}

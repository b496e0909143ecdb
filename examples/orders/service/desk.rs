//! The desk of a service: one database, and the rules of keys that all three services share.
//!
//! * The same key and the same request get the stored answer; the effect is made once.
//! * The same key with another request is an error.
//! * `void` of a key that was never seen leaves a tombstone: a request that was held up on its way
//!   is refused when it arrives at last. This is what lets a step answer `Ok` to
//!   `compensate(Effect::InDoubt)`.
//! * A refusal leaves no effect and is not stored, so a later try may fare better, unless the trade
//!   says that it is its last word.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::weather::Weather;
use crate::Error;
use crate::api::{ByKey, Fate, Refusal};

/// What a trade answers to a request for an effect.
pub(crate) enum Verdict {
    /// It is done.
    Done(Value),
    /// It is not done, and asking again may help.
    Refused(Refusal),
    /// It is not done, and never will be under this key.
    RefusedForGood(Refusal),
}

/// What a service does for a living, inside a transaction of its desk.
pub(crate) trait Trade: Send + Sync + 'static {
    /// The verbs that make an effect.
    const DOES: &'static [&'static str];
    /// The verb that takes an effect back.
    const UNDOES: &'static str;

    /// Makes the effect, or refuses to. A refusal must leave no trace.
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
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
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
        key: &str,
        body: &[u8],
    ) -> Result<Answer, Error> {
        let mut db = self.db();
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let answer = if T::DOES.contains(&verb) {
            self.perform(&tx, verb, key, body)?
        } else {
            match verb {
                "look" => look(&tx, &serde_json::from_slice(body)?)?,
                "void" => self.undo(&tx, &serde_json::from_slice(body)?, true)?,
                _ if verb == T::UNDOES => self.undo(&tx, &serde_json::from_slice(body)?, false)?,
                _ => (404, json!({ "error": "no such verb" })),
            }
        };
        tx.prepare_cached("UPDATE visit SET status = ?2 WHERE id = ?1")?
            .execute(params![visit, answer.0])?;
        tx.commit()?;
        Ok(answer)
    }

    fn perform(
        &self,
        tx: &Transaction<'_>,
        verb: &str,
        key: &str,
        body: &[u8],
    ) -> Result<Answer, Error> {
        let digest = Sha256::digest(body).to_vec();
        if let Some(known) = find(tx, key)? {
            return Ok(match known.state.as_str() {
                "undone" | "void" => refused(&Refusal::Withdrawn),
                _ if known.digest.as_ref() != Some(&digest) => refused(&Refusal::KeyReused),
                "refused" => (409, known.answer),
                _ => (200, known.answer),
            });
        }
        let (state, answer) = match self.trade.perform(tx, verb, key, body)? {
            Verdict::Refused(refusal) => return Ok(refused(&refusal)),
            Verdict::RefusedForGood(refusal) => ("refused", refused(&refusal)),
            Verdict::Done(answer) => ("standing", (200, answer)),
        };
        tx.prepare_cached(
            "INSERT INTO effect (key, verb, digest, state, answer) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![key, verb, digest, state, answer.1.to_string()])?;
        Ok(answer)
    }

    /// Undoing is idempotent by the key of the effect, whatever key the call itself carries.
    fn undo(&self, tx: &Transaction<'_>, what: &ByKey, or_void: bool) -> Result<Answer, Error> {
        let key = &what.effect_key;
        match find(tx, key)?.as_ref().map(|known| known.state.as_str()) {
            Some("standing") => {
                self.trade.undo(tx, key)?;
                tx.execute("UPDATE effect SET state = 'undone' WHERE key = ?1", [key])?;
            }
            Some("undone") => {}
            Some(_) if or_void => {}
            None if or_void => {
                tx.execute(
                    "INSERT INTO effect (key, verb, state) VALUES (?1, 'void', 'void')",
                    [key],
                )?;
            }
            _ => return Ok(refused(&Refusal::NoSuchEffect)),
        }
        Ok((200, json!({})))
    }
}

fn look(tx: &Transaction<'_>, what: &ByKey) -> Result<Answer, Error> {
    let fate = match find(tx, &what.effect_key)? {
        None => Fate::Unknown,
        Some(known) if known.state == "standing" => Fate::Standing {
            answer: known.answer,
        },
        Some(_) => Fate::Never,
    };
    Ok((200, serde_json::to_value(fate)?))
}

/// The answer that carries a refusal.
pub(crate) fn refused(refusal: &Refusal) -> Answer {
    let body = serde_json::to_value(refusal).unwrap_or_default();
    (refusal.status(), body)
}

struct Known {
    state: String,
    digest: Option<Vec<u8>>,
    answer: Value,
}

fn find(tx: &Transaction<'_>, key: &str) -> Result<Option<Known>, Error> {
    let row = tx
        .prepare_cached("SELECT state, digest, answer FROM effect WHERE key = ?1")?
        .query_row([key], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<String>>(2)?))
        })
        .optional()?;
    let Some((state, digest, answer)) = row else {
        return Ok(None);
    };
    let answer = answer.map_or(Ok(Value::Null), |text| serde_json::from_str(&text))?;
    Ok(Some(Known {
        state,
        digest,
        answer,
    }))
}

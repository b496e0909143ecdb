//! What was appended, in an order in which a reader that goes on from where it was misses nothing (rule W5).

use async_trait::async_trait;

use crate::ids::{RunId, Timestamp};
use crate::journal::Event;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::journal::{Interner, decode_events};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::store::record::Covered;
use crate::store::{Damage, StoreError};

/// The records of all runs, for readers with a cursor: to tell other systems what has happened.
///
/// # What it promises
///
/// * A record has one position for ever. Whoever has read all up to a position never misses one below it:
///   what becomes visible later has a higher one, also where its transaction began first.
/// * The records of one run come in their order; nothing is said of those of different runs.
/// * No position is given twice, also where what had it was [pruned](crate::store::Store::prune).
/// * Delivery is at least once: a reader that is killed before it has [moved its cursor](Self::advance) reads again what
///   it has read.
///
/// Runs that were forgotten are forgotten here, too: a reader has to keep up with the retention.
///
/// ```
/// use amends::store::{MemoryStore, Outbox as _, SqliteStore, Store as _};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let store = SqliteStore::open(dir.path().join("sagas.db"))?;
/// let outbox = store.outbox().expect("stores of files and servers have one");
/// let after = outbox.cursor("mailer").await?;
/// for record in outbox.published(after, 100).await? {
///     // .. send it on, under its run and `seq`, by which a receiver knows what it has ..
///     outbox.advance("mailer", record.position).await?;
/// }
/// assert!(MemoryStore::new().outbox().is_none());
/// # store.close().await;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Outbox: Send + Sync {
    /// The next `limit` records at most after the position `after`, in the order of their positions. 0 is before the
    /// first.
    async fn published(&self, after: u64, limit: usize) -> Result<Vec<Published>, StoreError>;

    /// How far the reader with this name has come: 0 where it was never heard of.
    async fn cursor(&self, name: &str) -> Result<u64, StoreError>;

    /// Keeps that the reader with this name has come so far. A cursor never goes back: of two calls the higher
    /// position counts.
    async fn advance(&self, name: &str, to: u64) -> Result<(), StoreError>;
}

/// A record of a run, at its position in the outbox.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Published {
    /// Its position.
    pub position: u64,
    /// The run.
    pub run: RunId,
    /// The run's saga.
    pub saga: String,
    /// The record's place in the run's journal, from 1.
    pub seq: u64,
    /// When it was made, by the writer's clock.
    pub at: Timestamp,
    /// What happened, with the names of steps; or what is wrong with the record, which holds up no other.
    pub events: Result<Vec<Event<String>>, Damage>,
}

/// The events of one row; `sound` says whether its checksum is that of what it says.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) fn events(
    covered: Covered<'_>,
    sound: impl FnOnce(Covered<'_>) -> bool,
) -> Result<Vec<Event<String>>, Damage> {
    if !sound(covered) {
        return Err(Damage::Checksum);
    }
    let text = std::str::from_utf8(covered.events).map_err(|_| Damage::Checksum)?;
    let mut names = Interner::default();
    let events = decode_events(covered.form, text, &mut names)?;
    let names = names.into_table();
    let by_name = |event: Event| event.map_step(|step| names.name(step).to_string());
    Ok(events.into_iter().map(by_name).collect())
}

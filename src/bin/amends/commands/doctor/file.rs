//! What is beneath the runs of a SQLite file: the file, its log, its disk and its owner.

use std::path::Path;

use amends::store::{SqliteOwner, SqliteReport};

use super::{Check, Ground, MIB, bytes, good, note, problem};
use crate::error::CliError;
use crate::host;
use crate::place::{Place, file};

/// A log this large is not checkpointed as it should be: its owner grows it to 4 MiB and keeps it there.
const LARGE_LOG: u64 = 256 * MIB;

/// With less than this left, a busy store fails soon.
const LITTLE_ROOM: u64 = 200 * MIB;

pub(super) async fn ground(path: &Path) -> Result<Ground, CliError> {
    let report = file::examine(path)?;
    let readable = report.schema == Some(report.newest_schema);
    let store = if readable {
        let store = Place::Sqlite(path.to_owned()).open_reader().await?;
        Some((store, report.owner != SqliteOwner::Nobody))
    } else {
        None
    };
    Ok(Ground {
        name: report.path.display().to_string(),
        checks: of_file(&report),
        tables: Vec::new(),
        store,
    })
}

fn of_file(report: &SqliteReport) -> Vec<Check> {
    let mut checks = vec![good("sqlite", format!("version {}", report.sqlite))];
    checks.push(match report.schema {
        None => problem("schema", "the file is empty: it holds no journals", "a coordinator that opens it makes the tables"),
        Some(found) if found < report.newest_schema => problem(
            "schema",
            format!("version {found}, and this build reads version {}", report.newest_schema),
            "`amends doctor --upgrade` brings it up to date, and so does a coordinator of this version that opens it",
        ),
        Some(found) => good("schema", format!("version {found}, the newest")),
    });
    checks.push(match report.owner {
        SqliteOwner::Process(pid) => good("owner", format!("process {pid} drives the runs")),
        SqliteOwner::Nobody => note(
            "owner",
            "nobody: no run goes on, and commands wait",
            "start the coordinator",
        ),
        _ => good("owner", "a process drives the runs"),
    });
    let sizes = format!(
        "{}, log {}",
        bytes(report.database_bytes),
        bytes(report.wal_bytes)
    );
    checks.push(if report.wal_bytes > LARGE_LOG {
        problem(
            "size",
            sizes,
            "the log can't be copied into the database: look for a process that has been reading for long",
        )
    } else {
        good("size", sizes)
    });
    if let Some(free) = host::free_bytes(&report.path) {
        let says = format!("{} free", bytes(free));
        checks.push(if free < LITTLE_ROOM.max(report.wal_bytes) {
            problem(
                "disk",
                says,
                "make room: a full disk stops all runs. `amends prune` forgets old ones",
            )
        } else {
            good("disk", says)
        });
    }
    checks
}

//! The tables of a store: bringing them up to date, for `migrate --apply` and `doctor --upgrade`, and printing what
//! makes them.

use serde::Serialize;

use crate::error::CliError;
use crate::place::Upgraded;
use crate::session::Session;

/// A migration that is printed.
#[cfg(feature = "postgres")]
#[derive(Serialize)]
struct MigrationForm<'a> {
    number: i32,
    name: &'a str,
    sql: &'a str,
}

/// What was done.
#[derive(Serialize)]
struct AppliedForm {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<i32>,
    to: i32,
    applied: Vec<StepForm>,
}

#[derive(Serialize)]
struct StepForm {
    number: i32,
    name: &'static str,
}

/// Prints the SQL that makes the tables in PostgreSQL, as one script.
#[cfg(feature = "postgres")]
pub(crate) fn print(session: &Session) -> Result<(), CliError> {
    let options = amends::store::PostgresStore::options().schema(session.schema());
    let migrations = options.migrations();
    for (place, migration) in migrations.iter().enumerate() {
        if session.out.is_json() {
            session.out.record(&MigrationForm {
                number: migration.number,
                name: migration.name,
                sql: &migration.sql,
            })?;
        } else {
            let gap = if place == 0 { "" } else { "\n" };
            session.out.text(&format!("{gap}{migration}"))?;
        }
    }
    Ok(())
}

#[cfg(not(feature = "postgres"))]
pub(crate) fn print(_: &Session) -> Result<(), CliError> {
    Err(crate::place::no_postgres())
}

/// Brings the tables of the store that was meant up to date.
pub(crate) async fn apply(session: &Session) -> Result<(), CliError> {
    let upgraded = session.place()?.upgrade().await?;
    if session.out.is_json() {
        let step = |&(number, name)| StepForm { number, name };
        return session.out.document(&AppliedForm {
            from: upgraded.from,
            to: upgraded.to,
            applied: upgraded.steps.iter().map(step).collect(),
        });
    }
    for (number, name) in &upgraded.steps {
        session
            .out
            .line(format_args!("migration {number}: {name}"))?;
    }
    session.out.line(in_words(&upgraded))
}

/// What was done, in a sentence.
pub(crate) fn in_words(upgraded: &Upgraded) -> String {
    let to = upgraded.to;
    match upgraded.from {
        Some(from) if from == to => {
            format!("there was nothing to do: the tables are of version {to}")
        }
        Some(from) => format!("brought from schema version {from} to {to}"),
        None => format!("made the tables, of schema version {to}"),
    }
}

//! The tables of a store, in numbered migrations, and how a database is told to have them.
//!
//! A migration is one transaction, under a lock that lasts as long as the transaction: of two processes that start
//! at once, one migrates and the other finds it done.

use std::fmt;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, GenericClient, Row};

use crate::store::StoreError;

/// Each migration's name and text, oldest first. What was released is never changed.
const ALL: [(&str, &str); 4] = [
    ("journals", include_str!("migrations/001_journals.sql")),
    ("start", include_str!("migrations/002_start.sql")),
    ("outbox", include_str!("migrations/003_outbox.sql")),
    ("append", include_str!("migrations/004_append.sql")),
];

/// The version of the tables that this build reads and writes.
pub(super) const VERSION: i32 = 4;

/// One step from one version of the tables to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migration {
    /// Its number: the version of the tables after it.
    pub number: i32,
    /// What it is about.
    pub name: &'static str,
    /// The statements, to be run in one transaction. They also write down that they were run.
    pub sql: String,
}

/// As a script that can be run as it is, by `psql` for example.
impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Migration { number, name, sql } = self;
        write!(f, "-- Migration {number}: {name}\nBEGIN;\n{sql}COMMIT;\n")
    }
}

pub(super) fn migrations(schema: &str) -> Vec<Migration> {
    let schema = quoted(schema);
    let migration = |(number, (name, sql)): (i32, (&'static str, &str))| Migration {
        number,
        name,
        sql: format!(
            "{}{}\nINSERT INTO {schema}.schema_version (version, name) VALUES ({number}, '{name}');\n",
            if number == 1 {
                first(&schema)
            } else {
                String::new()
            },
            sql.replace("{schema}", &schema),
        ),
    };
    (1..).zip(ALL).map(migration).collect()
}

/// What there is before all migrations.
fn first(schema: &str) -> String {
    format!(
        "CREATE SCHEMA IF NOT EXISTS {schema};\n\
         CREATE TABLE {schema}.schema_version (\n    \
             version    integer PRIMARY KEY,\n    \
             name       text NOT NULL,\n    \
             applied_at timestamptz NOT NULL DEFAULT now()\n\
         );\n\n"
    )
}

/// A name as SQL takes it, whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Refuses names that the server would cut, or can't take.
pub(super) fn check_name(schema: &str) -> Result<(), StoreError> {
    if schema.is_empty() || schema.len() > 63 || schema.contains('\0') || schema.contains('{') {
        let what = format!(
            "`{schema}` can't be the name of a schema: it has from 1 to 63 bytes, none of them NUL or `{{`"
        );
        return Err(StoreError::Foreign { what });
    }
    Ok(())
}

/// Refuses a server whose commits promise nothing, or that can't keep journals.
pub(super) async fn check_server(client: &Client) -> Result<(), StoreError> {
    match fault_of_server(client).await? {
        None => Ok(()),
        Some(what) => Err(StoreError::Foreign { what }),
    }
}

/// Why a server will not do; nothing where it will.
pub(super) async fn fault_of_server(client: &Client) -> Result<Option<String>, StoreError> {
    let row = one(
        client,
        "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
                current_setting('synchronous_commit'), pg_is_in_recovery()",
        None,
    )
    .await
    .map_err(|error| StoreError::failed("looking what the server is like", error))?;
    let (version, encoding): (i32, &str) = (row.get(0), row.get(1));
    let (commits, in_recovery): (&str, bool) = (row.get(2), row.get(3));
    Ok(if version < 130_000 {
        Some(format!(
            "the server is of version {}, and 13 is the first that will do",
            version / 10_000
        ))
    } else if encoding != "UTF8" {
        Some(format!(
            "the database has the encoding {encoding}: journals need one with UTF8"
        ))
    } else if commits == "off" {
        Some(
            "`synchronous_commit` is off, so a commit that was reported may be lost with the server: set it to `on` \
             for this role or database (ALTER ROLE .. SET synchronous_commit = on)"
                .to_owned(),
        )
    } else if in_recovery {
        Some(
            "the server is a standby, which takes no writes: connect to the primary \
             (with several hosts, add target_session_attrs=read-write)"
                .to_owned(),
        )
    } else {
        None
    })
}

/// Makes the tables that are missing where that is wanted, says by which migrations, and refuses those of a newer
/// build.
pub(super) async fn prepare(
    client: &mut Client,
    schema: &str,
    migrate: bool,
) -> Result<Vec<Migration>, StoreError> {
    let failed = |error: Error| StoreError::failed("bringing the tables up to date", error);
    let found = version(client, schema).await.map_err(failed)?;
    refuse_newer(schema, found)?;
    if found == Some(VERSION) {
        return Ok(Vec::new());
    }
    if !migrate {
        let has = found.map_or("no tables yet".to_owned(), |version| {
            format!("tables of version {version}")
        });
        return Err(StoreError::Foreign {
            what: format!(
                "schema `{schema}` has {has}, and this build needs version {VERSION}: run `amends migrate --apply`, or \
                 have what `amends migrate --print` prints run by whoever may make tables there"
            ),
        });
    }
    let moved = async {
        let transaction = client.transaction().await?;
        one(
            &transaction,
            "SELECT pg_advisory_xact_lock(hashtextextended('amends migrations of ' || $1, 0))::text",
            Some(schema),
        )
        .await?;
        // Somebody else may have done it while the lock was waited for.
        let found = version(&transaction, schema).await?;
        let there: bool = one(
            &transaction,
            "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)",
            Some(schema),
        )
        .await?
        .get(0);
        let mut run = Vec::new();
        for migration in migrations(schema) {
            if Some(migration.number) > found {
                let mut sql = migration.sql.as_str();
                if there {
                    // To ask for a schema that is there already needs the right to make one, too.
                    let line = format!("CREATE SCHEMA IF NOT EXISTS {};\n", quoted(schema));
                    sql = sql.strip_prefix(line.as_str()).unwrap_or(sql);
                }
                transaction.batch_execute(sql).await?;
                run.push(migration);
            }
        }
        transaction.commit().await?;
        Ok((found, run))
    };
    let (found, run) = moved.await.map_err(failed)?;
    refuse_newer(schema, found)?;
    Ok(run)
}

fn refuse_newer(schema: &str, found: Option<i32>) -> Result<(), StoreError> {
    match found {
        Some(found) if found > VERSION => Err(StoreError::Foreign {
            what: format!(
                "schema `{schema}` has tables of version {found}, and this build knows version {VERSION} at most: use \
                 the version of `amends` that made them, or a later one"
            ),
        }),
        _ => Ok(()),
    }
}

/// The version of the tables in a schema; nothing where there are none.
pub(super) async fn version(
    client: &impl GenericClient,
    schema: &str,
) -> Result<Option<i32>, Error> {
    let table = format!("{}.schema_version", quoted(schema));
    let there = "SELECT to_regclass($1) IS NOT NULL";
    if !one(client, there, Some(&table)).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let newest = format!("SELECT max(version) FROM {table}");
    Ok(one(client, &newest, None).await?.get(0))
}

/// The one row that a statement gives. It has no name, here too: see `connect`.
async fn one(client: &impl GenericClient, sql: &str, text: Option<&str>) -> Result<Row, Error> {
    match text {
        Some(text) => client.query_typed_one(sql, &[(&text, Type::TEXT)]).await,
        None => client.query_typed_one(sql, &[]).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_migration_is_a_whole_script_for_its_schema() {
        let all = migrations("Odd \"name");
        assert_eq!(i32::try_from(all.len()), Ok(VERSION));
        for (migration, number) in all.iter().zip(1..) {
            assert_eq!(migration.number, number);
            assert!(!migration.sql.contains("{schema}"));
            assert!(migration.to_string().ends_with("COMMIT;\n"));
        }
        assert!(
            all[0]
                .sql
                .starts_with("CREATE SCHEMA IF NOT EXISTS \"Odd \"\"name\";\n")
        );
    }

    #[test]
    fn names_that_the_server_would_change_are_refused() {
        assert!(check_name("").is_err());
        assert!(check_name(&"x".repeat(64)).is_err());
        assert!(check_name("a\0b").is_err());
        assert!(check_name("Sagas of 2026").is_ok());
    }
}

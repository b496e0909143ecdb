//! Which store is meant, and opening it.

pub(crate) mod file;
#[cfg(feature = "postgres")]
mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use amends::store::Store;

use crate::error::CliError;
#[cfg(feature = "postgres")]
pub(crate) use server::Server;

/// A store by its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A schema on a PostgreSQL server.
    #[cfg(feature = "postgres")]
    Postgres(Box<Server>),
}

#[cfg(feature = "postgres")]
const HOW: &str = "say which with `--store sqlite:PATH` or `--store postgres://USER@HOST/DB`, or once for all with \
                   AMENDS_STORE";
#[cfg(not(feature = "postgres"))]
const HOW: &str = "say which with `--store sqlite:PATH`, or once for all with AMENDS_STORE";

/// What was done to a store of an older version.
#[derive(Debug)]
pub(crate) struct Upgraded {
    /// The version that it had; nothing where there were no tables.
    pub(crate) from: Option<i32>,
    /// The version that it has now.
    pub(crate) to: i32,
    /// The steps that were taken, by number and name, where they are told apart.
    pub(crate) steps: Vec<(i32, &'static str)>,
}

// A file is opened at once: only a server is waited for.
#[cfg_attr(not(feature = "postgres"), allow(clippy::unused_async))]
impl Place {
    pub(crate) fn parse(url: Option<&str>, schema: &str) -> Result<Self, CliError> {
        let Some(url) = url.filter(|url| !url.is_empty()) else {
            return Err(CliError::usage("which store?").hint(HOW));
        };
        if let Some(path) = url.strip_prefix("sqlite:") {
            // `sqlite:///var/x.db` is how some write an absolute path.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(CliError::usage(format!("`{url}` names no file")).hint(HOW))
            } else {
                Ok(Place::Sqlite(path.into()))
            };
        }
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            return in_postgres(url, schema);
        }
        let path = Path::new(url);
        if path.extension().is_some_and(|extension| extension == "db") {
            return Ok(Place::Sqlite(path.to_owned()));
        }
        Err(CliError::usage(format!("`{url}` is not a store that `amends` knows")).hint(HOW))
    }

    /// Opens the store to read and to hand in commands. It makes nothing and changes no tables.
    pub(crate) async fn open_reader(&self) -> Result<Arc<dyn Store>, CliError> {
        match self {
            Place::Sqlite(path) => file::open_reader(path),
            #[cfg(feature = "postgres")]
            Place::Postgres(server) => server.open().await,
        }
    }

    /// Opens the store to put runs into it; a file is needed alone, and made where there is none.
    pub(crate) async fn open_to_import(&self) -> Result<Arc<dyn Store>, CliError> {
        match self {
            Place::Sqlite(path) => file::open_or_make(path),
            #[cfg(feature = "postgres")]
            Place::Postgres(server) => server.open().await,
        }
    }

    /// Whether it is known, without opening it, that there is nothing.
    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Place::Sqlite(path) => !path.exists(),
            #[cfg(feature = "postgres")]
            Place::Postgres(_) => false,
        }
    }

    /// Brings the tables up to date: those of a file, which has to be there, or those on a server, which are made
    /// where there are none.
    pub(crate) async fn upgrade(&self) -> Result<Upgraded, CliError> {
        match self {
            Place::Sqlite(path) => file::upgrade(path).await,
            #[cfg(feature = "postgres")]
            Place::Postgres(server) => server.upgrade().await,
        }
    }
}

#[cfg(feature = "postgres")]
fn in_postgres(url: &str, schema: &str) -> Result<Place, CliError> {
    Server::parse(url, schema).map(|server| Place::Postgres(Box::new(server)))
}

#[cfg(not(feature = "postgres"))]
fn in_postgres(_: &str, _: &str) -> Result<Place, CliError> {
    Err(no_postgres())
}

/// This build can't.
#[cfg(not(feature = "postgres"))]
pub(crate) fn no_postgres() -> CliError {
    use crate::error::Exit;

    CliError::new(Exit::Store, "PostgreSQL is not in this build of `amends`")
        .hint("this build opens SQLite files: `--store sqlite:PATH`")
        .hint("`cargo install amends --features cli,postgres` makes one that has both")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn a_store_is_named_by_a_url_or_by_a_file_that_ends_in_db() {
        for (url, path) in [
            ("sqlite:sagas", "sagas"),
            ("sqlite:/var/sagas.db", "/var/sagas.db"),
            ("sqlite:///var/sagas.db", "/var/sagas.db"),
            ("sagas.db", "sagas.db"),
        ] {
            assert_eq!(
                Place::parse(Some(url), "amends").unwrap(),
                Place::Sqlite(path.into()),
                "{url}"
            );
        }
    }

    #[test]
    fn what_is_no_store_is_told_how_to_name_one() {
        let postgres = if cfg!(feature = "postgres") {
            [
                (Some("postgres:"), Exit::Usage),
                (Some("postgresql://"), Exit::Usage),
            ]
        } else {
            [
                (Some("postgres://host/db"), Exit::Store),
                (Some("postgresql:host=db"), Exit::Store),
            ]
        };
        let others = [
            None,
            Some(""),
            Some("sqlite:"),
            Some("sagas.txt"),
            Some("mysql:x"),
        ];
        let others = others.map(|url| (url, Exit::Usage));
        for (url, exit) in postgres.into_iter().chain(others) {
            let error = Place::parse(url, "amends").unwrap_err();
            assert_eq!(error.exit(), exit, "{url:?}");
            assert!(error.hints()[0].contains("--store sqlite:PATH"), "{url:?}");
        }
    }
}

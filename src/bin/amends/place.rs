//! Which store is meant, and opening it.

use std::path::{Path, PathBuf};

use amends::store::{SqliteReport, SqliteStore, StoreError};

use crate::error::{CliError, Exit, with_causes};

/// A store by its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A SQLite file.
    Sqlite(PathBuf),
}

const HOW: &str = "say which with `--store sqlite:PATH`, or once for all with AMENDS_STORE";

impl Place {
    pub(crate) fn parse(url: Option<&str>) -> Result<Self, CliError> {
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
            return Err(
                CliError::new(Exit::Store, "PostgreSQL is not in this build of `amends`")
                    .hint("this build opens SQLite files: `--store sqlite:PATH`"),
            );
        }
        let path = Path::new(url);
        if path.extension().is_some_and(|extension| extension == "db") {
            return Ok(Place::Sqlite(path.to_owned()));
        }
        Err(CliError::usage(format!("`{url}` is not a store that `amends` knows")).hint(HOW))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Place::Sqlite(path) => path,
        }
    }

    pub(crate) fn open_reader(&self) -> Result<SqliteStore, CliError> {
        self.must_exist()?;
        SqliteStore::open_reader(self.path()).map_err(|error| self.cannot_open(&error))
    }

    pub(crate) fn open_owner(&self) -> Result<SqliteStore, CliError> {
        self.must_exist()?;
        SqliteStore::open(self.path()).map_err(|error| self.cannot_open(&error))
    }

    /// Opens as the owner, and makes the file where there is none: for `import`.
    pub(crate) fn open_or_make(&self) -> Result<SqliteStore, CliError> {
        SqliteStore::open(self.path()).map_err(|error| self.cannot_open(&error))
    }

    /// Looks at the store without opening it, whoever has it.
    pub(crate) fn examine(&self) -> Result<SqliteReport, CliError> {
        SqliteStore::examine(self.path()).map_err(|error| self.cannot_open(&error))
    }

    /// A mistyped path must not make a new, empty store.
    pub(crate) fn must_exist(&self) -> Result<(), CliError> {
        let path = self.path();
        if path.exists() {
            return Ok(());
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let what = match folder {
            Some(folder) if !folder.exists() => format!(
                "there is no store at `{}`, and no folder `{}`",
                path.display(),
                folder.display()
            ),
            _ => format!("there is no store at `{}`", path.display()),
        };
        Err(CliError::new(Exit::Store, what).hint(HOW))
    }

    fn cannot_open(&self, error: &StoreError) -> CliError {
        let path = self.path().display();
        match error {
            StoreError::InUse { .. } => CliError::new(
                Exit::Store,
                format!("`{path}` is in use: a coordinator owns it"),
            )
            .hint("this needs the store for itself: stop the coordinator first"),
            StoreError::Foreign { what } => CliError::new(Exit::Store, what.clone()),
            error => CliError::new(
                Exit::Store,
                format!("`{path}` can't be opened: {}", with_causes(error)),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_by_a_url_or_by_a_file_that_ends_in_db() {
        for (url, path) in [
            ("sqlite:sagas", "sagas"),
            ("sqlite:/var/sagas.db", "/var/sagas.db"),
            ("sqlite:///var/sagas.db", "/var/sagas.db"),
            ("sagas.db", "sagas.db"),
        ] {
            assert_eq!(
                Place::parse(Some(url)).unwrap(),
                Place::Sqlite(path.into()),
                "{url}"
            );
        }
    }

    #[test]
    fn what_is_no_store_is_told_how_to_name_one() {
        for (url, exit) in [
            (None, Exit::Usage),
            (Some(""), Exit::Usage),
            (Some("sqlite:"), Exit::Usage),
            (Some("sagas.txt"), Exit::Usage),
            (Some("mysql:x"), Exit::Usage),
            (Some("postgres://host/db"), Exit::Store),
            (Some("postgresql://host/db"), Exit::Store),
        ] {
            let error = Place::parse(url).unwrap_err();
            assert_eq!(error.exit(), exit, "{url:?}");
            assert!(error.hints()[0].contains("--store sqlite:PATH"), "{url:?}");
        }
    }
}

//! A store in a SQLite file.

use std::path::Path;
use std::sync::Arc;

use amends::store::{SqliteReport, SqliteStore, Store, StoreError};

use super::{HOW, Upgraded};
use crate::error::{CliError, Exit, with_causes};

pub(crate) fn open_reader(path: &Path) -> Result<Arc<dyn Store>, CliError> {
    must_exist(path)?;
    let store = SqliteStore::open_reader(path).map_err(|error| cannot_open(path, &error))?;
    Ok(Arc::new(store))
}

/// Opens as the owner, and makes the file where there is none.
pub(crate) fn open_or_make(path: &Path) -> Result<Arc<dyn Store>, CliError> {
    let store = SqliteStore::open(path).map_err(|error| cannot_open(path, &error))?;
    Ok(Arc::new(store))
}

/// Looks at the store without opening it, whoever has it.
pub(crate) fn examine(path: &Path) -> Result<SqliteReport, CliError> {
    must_exist(path)?;
    SqliteStore::examine(path).map_err(|error| cannot_open(path, &error))
}

/// Opening a file as its owner brings its tables up to date.
pub(crate) async fn upgrade(path: &Path) -> Result<Upgraded, CliError> {
    let before = examine(path)?;
    let Some(from) = before.schema else {
        return Err(CliError::new(
            Exit::Store,
            format!("`{}` is empty: it holds no journals", path.display()),
        ));
    };
    let to = before.newest_schema;
    if from != to {
        let owned = SqliteStore::open(path).map_err(|error| cannot_open(path, &error))?;
        owned.close().await;
    }
    Ok(Upgraded {
        from: Some(from),
        to,
        steps: Vec::new(),
    })
}

/// A mistyped path must not make a new, empty store.
fn must_exist(path: &Path) -> Result<(), CliError> {
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

fn cannot_open(path: &Path, error: &StoreError) -> CliError {
    let path = path.display();
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

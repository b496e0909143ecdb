//! What the errors of the standard library and of other crates mean.
//!
//! Each adapter looks at one error, by its type. The question is always what *any* call that can give
//! this error may have done before it: an answer that holds for most calls only is no answer. The
//! answers are tables, so that `docs/failures.md` is made from the very rows that decide.

mod barrier;
mod io;
mod isolation;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "tokio-postgres")]
mod postgres;
#[cfg(feature = "reqwest")]
mod reqwest;
#[cfg(feature = "sqlite")]
mod rusqlite;
#[cfg(feature = "tonic")]
mod tonic;

#[cfg(feature = "http-status")]
mod http;
#[cfg(all(
    test,
    feature = "mysql",
    feature = "reqwest",
    feature = "sqlite",
    feature = "tokio-postgres",
    feature = "tonic"
))]
mod page;

use std::error::Error;

use super::classify::Classification;
use super::failure::FailedEffect;
use super::mode::FailureMode;

/// What an adapter knows of one error.
pub(super) enum Known {
    /// All there is to know: its causes are not asked.
    Whole(Classification),
    /// How far the call had come, which only the library that made it can tell, so its effect stands.
    /// Why it failed, a cause further in may tell better.
    #[cfg_attr(
        not(any(feature = "reqwest", feature = "tonic")),
        expect(dead_code, reason = "only client libraries know it")
    )]
    Phase(Classification),
}

/// One line of an adapter's table: some errors, what they mean, and why.
pub(super) struct Row<K: 'static> {
    /// What the errors have in common, for `docs/failures.md`.
    #[allow(
        dead_code,
        reason = "the page is made by a test that needs every adapter"
    )]
    error: &'static str,
    keys: &'static [K],
    mode: FailureMode,
    effect: FailedEffect,
    /// Said where the mode says otherwise.
    retryable: Option<bool>,
    #[allow(
        dead_code,
        reason = "the page is made by a test that needs every adapter"
    )]
    why: &'static str,
}

impl<K> Row<K> {
    fn classification(&self) -> Classification {
        let known = Classification::new(self.mode.clone(), self.effect);
        match self.retryable {
            Some(said) => known.retryable(said),
            None => known,
        }
    }
}

/// A row that is retryable as its mode is.
const fn row<K>(
    error: &'static str,
    keys: &'static [K],
    mode: FailureMode,
    effect: FailedEffect,
    why: &'static str,
) -> Row<K> {
    Row {
        error,
        keys,
        mode,
        effect,
        retryable: None,
        why,
    }
}

/// A row of a mode that is not retryable in general, whose errors pass by themselves.
const fn passing<K>(
    error: &'static str,
    keys: &'static [K],
    mode: FailureMode,
    effect: FailedEffect,
    why: &'static str,
) -> Row<K> {
    Row {
        error,
        keys,
        mode,
        effect,
        retryable: Some(true),
        why,
    }
}

/// The first row that has the key.
fn find<K>(rows: &[Row<K>], mut is: impl FnMut(&K) -> bool) -> Option<&Row<K>> {
    rows.iter().find(|row| row.keys.iter().any(&mut is))
}

/// Asks every built-in adapter about one error.
pub(super) fn classify(error: &(dyn Error + 'static)) -> Option<Known> {
    let asked = io::classify(error)
        .or_else(|| isolation::classify(error))
        .or_else(|| barrier::classify(error));
    #[cfg(feature = "http-status")]
    let asked = asked.or_else(|| http::classify(error));
    #[cfg(feature = "reqwest")]
    let asked = asked.or_else(|| reqwest::classify(error));
    #[cfg(feature = "tonic")]
    let asked = asked.or_else(|| tonic::classify(error));
    #[cfg(feature = "sqlite")]
    let asked = asked.or_else(|| rusqlite::classify(error));
    #[cfg(feature = "tokio-postgres")]
    let asked = asked.or_else(|| postgres::classify(error));
    #[cfg(feature = "mysql")]
    let asked = asked.or_else(|| mysql::classify(error));
    asked
}

/// The causes of an error, without itself.
#[cfg(any(feature = "reqwest", feature = "tonic"))]
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    super::classify::chain(error).skip(1)
}

//! "Did you mean": what is spelt like what was asked for.

use amends::RunId;
use amends::operator::Operator;
use amends::store::{RunFilter, StoreError};

/// So many are suggested at most.
const FEW: usize = 3;

/// So many of the newest runs are compared with a misspelt id: reading them takes some milliseconds, in a
/// store of any size.
const COMPARED: usize = 2_000;

/// The candidates that are spelt like this, the nearest first.
pub(crate) fn near<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut scored: Vec<(f64, &str)> = candidates
        .map(|candidate| (strsim::jaro_winkler(wanted, candidate), candidate))
        .filter(|(score, _)| *score > 0.85)
        .collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let mut names: Vec<String> = scored
        .into_iter()
        .map(|(_, name)| name.to_owned())
        .collect();
    names.dedup();
    names.truncate(FEW);
    names
}

/// Runs whose id begins with what was asked for, or else is spelt like it.
pub(crate) async fn runs(operator: &Operator, wanted: &str) -> Result<Vec<String>, StoreError> {
    if !wanted.is_empty() {
        let begin_so = RunFilter::all().prefix(wanted).newest_first();
        let found = operator.list(&begin_so, None, FEW).await?;
        if !found.is_empty() {
            return Ok(found
                .into_iter()
                .map(|entry| entry.run.to_string())
                .collect());
        }
    }
    let newest = operator
        .list(&RunFilter::all().newest_first(), None, COMPARED)
        .await?;
    let ids: Vec<&RunId> = newest.iter().map(|entry| &entry.run).collect();
    Ok(near(wanted, ids.into_iter().map(RunId::as_str)))
}

/// The names as an enumeration: `a`, `b` or `c`.
pub(crate) fn either(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [some @ .., last] => format!("{} or {last}", some.join(", ")),
    }
}

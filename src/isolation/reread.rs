//! Whether what was read is still there: "reread value".

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::failure::isolation::Changed;
use crate::journal::digest_of;
use crate::step::PayloadError;

/// What was read, and which version of it that was: the output of a step that reads, for a later one
/// that writes.
///
/// The version is whatever your row counts or stamps: a number by default, or any type that can be
/// compared and shown. It is shown in failures, so it must not be a secret. A row without such a column
/// can go by its [`Fingerprint`].
///
/// ```
/// use amends::isolation::Versioned;
///
/// // The step that reads the account gives this to the next one ..
/// let seen = Versioned::new(120_u64, 7_i64);
/// // .. which finds the row as it was, or not, before it writes.
/// assert_eq!(seen.unchanged(&7)?, &120);
/// assert!(seen.unchanged(&8).is_err());
/// # Ok::<(), amends::isolation::Changed>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Versioned<T, V = i64> {
    /// What was read.
    pub value: T,
    /// The version that it had.
    pub version: V,
}

impl<T, V> Versioned<T, V> {
    /// This value was read at this version.
    pub fn new(value: T, version: V) -> Self {
        Versioned { value, version }
    }

    /// The value, if the row still has the version at which it was read. Give the version that the row
    /// has now, or `None` where the row is gone.
    ///
    /// # Errors
    ///
    /// [`Changed`], as [`expect_unchanged`] does.
    pub fn unchanged<'a>(&'a self, current: impl Into<Option<&'a V>>) -> Result<&'a T, Changed>
    where
        V: PartialEq + fmt::Display,
    {
        expect_unchanged(&self.version, current)?;
        Ok(&self.value)
    }
}

impl<T: Serialize> Versioned<T, Fingerprint> {
    /// This value was read from a row that has no version column: its content is its version.
    ///
    /// ```
    /// use amends::isolation::{Versioned, fingerprint_of};
    ///
    /// let seen = Versioned::by_content(("Ada", 120))?;
    /// assert!(seen.unchanged(&fingerprint_of(&("Ada", 120))?).is_ok());
    /// assert!(seen.unchanged(&fingerprint_of(&("Ada", 90))?).is_err());
    /// # Ok::<(), amends::step::PayloadError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`fingerprint_of`].
    pub fn by_content(value: T) -> Result<Self, PayloadError> {
        let version = fingerprint_of(&value)?;
        Ok(Versioned { value, version })
    }
}

/// Refuses to go on where the version that was read is not the one that is there now, or the row is
/// gone (`None`).
///
/// Ask in the transaction that writes, after it has locked the row or begun to write: between a check
/// and a write that are not one transaction anything may happen.
///
/// ```
/// use amends::isolation::{Changed, expect_unchanged};
///
/// fn write(read: i64, row: Option<i64>) -> Result<(), Changed> {
///     expect_unchanged(&read, &row)?;
///     Ok(()) // and here the row is written, with the version raised
/// }
/// assert!(write(7, Some(7)).is_ok());
/// assert!(write(7, Some(8)).is_err());
/// assert!(write(7, None).is_err());
/// ```
///
/// # Errors
///
/// [`Changed`], which tells both versions: not done, not retryable.
pub fn expect_unchanged<'a, V>(
    read: &'a V,
    current: impl Into<Option<&'a V>>,
) -> Result<(), Changed>
where
    V: PartialEq + fmt::Display + ?Sized,
{
    let current = current.into();
    if current == Some(read) {
        return Ok(());
    }
    Err(Changed {
        read: read.to_string(),
        current: current.map(V::to_string),
    })
}

/// What a value comes to, in 64 hex digits: the version of a row that has no version column.
///
/// It finds a difference in what was read, and no more: a value that was changed and changed back is
/// the same again, which a version column would not overlook. Take it of what the step relies on, not of
/// columns that it doesn't mind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The 64 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The fingerprint of a value: SHA-256 of its JSON with sorted keys, without white space.
///
/// The same value has the same fingerprint in every process and every version of this crate; the order
/// of a map's keys doesn't count. The order in which a `HashSet` gives its items does: sort them first.
/// It is no protection of a secret: who can guess the value can check the guess.
///
/// ```
/// use amends::isolation::fingerprint_of;
///
/// let one = fingerprint_of(&("Ada", 120))?;
/// assert_eq!(one, fingerprint_of(&("Ada", 120))?);
/// assert_ne!(one, fingerprint_of(&("Ada", 121))?);
/// assert_eq!(one.as_str().len(), 64);
/// # Ok::<(), amends::step::PayloadError>(())
/// ```
///
/// # Errors
///
/// [`PayloadError::Encode`] where the value can't be written as JSON: a map with keys that are not
/// strings, or a number beyond 64 bits.
pub fn fingerprint_of<T: Serialize + ?Sized>(value: &T) -> Result<Fingerprint, PayloadError> {
    let json = serde_json::to_value(value).map_err(|error| PayloadError::Encode {
        type_name: std::any::type_name::<T>(),
        message: error.to_string(),
    })?;
    Ok(Fingerprint(digest_of(&json)))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;

    #[test]
    fn a_fingerprint_is_the_same_in_every_process_and_whatever_the_order_of_keys() {
        // Kept for ever: what an older process read is compared with what a newer one finds.
        assert_eq!(
            fingerprint_of(&1_u8).unwrap().as_str(),
            "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
        );
        let pairs = (0..50).map(|n| (format!("key {n}"), n));
        let hashed: HashMap<_, _> = pairs.clone().collect();
        let sorted: BTreeMap<_, _> = pairs.collect();
        assert_eq!(
            fingerprint_of(&hashed).unwrap(),
            fingerprint_of(&sorted).unwrap()
        );
    }

    #[test]
    fn a_value_that_is_no_json_has_no_fingerprint() {
        let keyed = BTreeMap::from([((1, 2), 3)]);
        let error = fingerprint_of(&keyed).unwrap_err();
        assert!(matches!(error, PayloadError::Encode { .. }), "{error:?}");
        assert!(fingerprint_of(&u128::MAX).is_err());
    }

    #[test]
    fn a_versioned_value_survives_the_journal() {
        let seen = Versioned::by_content("x".to_owned()).unwrap();
        let json = serde_json::to_string(&seen).unwrap();
        let back: Versioned<String, Fingerprint> = serde_json::from_str(&json).unwrap();
        assert_eq!(back, seen);
        assert_eq!(back.unchanged(&seen.version).unwrap(), "x");
        let seen = Versioned::new(1, 7);
        let json = serde_json::to_string(&seen).unwrap();
        assert_eq!(json, r#"{"value":1,"version":7}"#);
    }

    #[test]
    fn versions_may_be_text_and_rows_may_vanish() {
        assert!(expect_unchanged("etag-1", "etag-1").is_ok());
        let changed = expect_unchanged("etag-1", "etag-2").unwrap_err();
        assert_eq!(
            (changed.read.as_str(), changed.current.as_deref()),
            ("etag-1", Some("etag-2"))
        );
        assert_eq!(expect_unchanged("etag-1", None).unwrap_err().current, None);
    }
}

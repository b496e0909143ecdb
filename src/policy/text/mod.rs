//! Policies as TOML: read with all faults at once, each with its place, and written.

mod place;
mod reach;
mod read;
mod write;

use std::error::Error;
use std::fmt;

use crate::policy::PolicySet;

/// One thing that is wrong with a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyFault {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// A policy file can't be used: all that is wrong with it, from the top to the bottom.
///
/// It prints as one line per fault.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyFileError {
    /// What is wrong; at least one.
    pub faults: Vec<PolicyFault>,
}

impl fmt::Display for PolicyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl Error for PolicyFileError {}

impl PolicySet {
    /// Reads a set from TOML. `docs/policies.md` describes the form.
    ///
    /// ```
    /// use amends::policy::PolicySet;
    ///
    /// let set = PolicySet::from_toml(r#"
    ///     name = "payments"
    ///     base = "saga"
    ///     max_recoveries = 5
    ///
    ///     [[rule]]
    ///     name = "fraud needs eyes"
    ///     when = { mode = "policy_security", step = "charge-*" }
    ///     then = "manual"
    /// "#)?;
    /// assert_eq!(set.recovery_policy().map(|policy| policy.recoveries()), Some(5));
    ///
    /// let error = PolicySet::from_toml("max_recoverys = 5").unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "1:1: unknown key `max_recoverys`: did you mean `max_recoveries`?",
    /// );
    /// # Ok::<(), amends::policy::PolicyFileError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PolicyFileError`] with every fault of the file, each with line and column.
    pub fn from_toml(text: &str) -> Result<PolicySet, PolicyFileError> {
        read::read(text)
    }

    /// Writes the set as TOML, from which [`from_toml`](Self::from_toml) reads the same set. The rules
    /// of a preset are written out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        write::write(self)
    }
}

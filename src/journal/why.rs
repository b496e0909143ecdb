//! A decision for people.

use std::fmt::{self, Write};

use crate::failure::FailedEffect;
use crate::journal::{Cause, Decision};
use crate::policy::Explanation;

impl<S> Decision<S> {
    /// What was decided and why, on several lines, the last one ended too. Decisions that no policy was
    /// asked for say who asked. `name` gives the name of a step.
    ///
    /// ```
    /// use amends::journal::Decision;
    ///
    /// let cancelled: Decision<String> = serde_json::from_str(
    ///     r#"{"cause":"cancel","strategy":"compensate","failed":[],"recovery":0}"#,
    /// )?;
    /// assert_eq!(
    ///     cancelled.to_text(String::as_str),
    ///     "Decided: compensate, because the run was cancelled; no policy is asked about that.\n",
    /// );
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn to_text<'a>(&'a self, name: impl Fn(&'a S) -> &'a str) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = self.write_text(&mut text, name);
        text
    }

    fn write_text<'a>(&'a self, out: &mut String, name: impl Fn(&'a S) -> &'a str) -> fmt::Result {
        let failed = || {
            let names: Vec<String> = self
                .failed
                .iter()
                .map(|step| format!("`{}`", name(step)))
                .collect();
            match names.as_slice() {
                [] => "the run's time was up".to_owned(),
                names => what_happened(names, &self.why, " and "),
            }
        };
        out.push_str("Decided");
        if let Some(scope) = &self.scope {
            write!(out, " inside `{}`", name(scope))?;
        }
        out.push_str(": ");
        match &self.cause {
            Cause::Failures => write!(out, "{}, because {}", self.strategy, failed())?,
            // Whoever lost a race has not failed.
            Cause::Absorbed if self.why.is_empty() && self.failed.is_empty() => out.push_str(
                "to go on with what is done; what isn't needed is undone, and no policy is asked about that",
            ),
            Cause::Absorbed => write!(
                out,
                "to go on without what failed, since {} and that is allowed for; what may be left of it is undone first, and no policy is asked about that",
                failed()
            )?,
            Cause::Cancel => write!(
                out,
                "{}, because the run was cancelled; no policy is asked about that",
                self.strategy
            )?,
            // Keeping what is done is journalled as `retry_failed`, which is not what happens.
            Cause::Stop { reason } => write!(
                out,
                "{}, because a step asked to end the run: {reason}; no policy is asked about that",
                if self.stop {
                    "to stop and keep what is done"
                } else {
                    self.strategy.as_str()
                },
            )?,
            Cause::Operator { by, reason } => write!(
                out,
                "{}, because {by} said so: {reason}; no policy is asked about that",
                self.strategy
            )?,
        }
        if self.recovery > 0 {
            write!(out, ". It is recovery {}", self.recovery)?;
            if let Some(resume_at) = self.resume_at {
                write!(out, ", and goes on at {resume_at}")?;
            }
        }
        out.push_str(".\n");
        if self.why.windows(2).any(|pair| pair[0].says != pair[1].says) {
            out.push_str("Of several answers the strictest is taken.\n");
        }
        for why in &self.why {
            out.push_str(&why.to_text());
        }
        Ok(())
    }
}

/// Which steps failed, and which are done in part, by what the policy saw of each.
pub(crate) fn what_happened(names: &[String], why: &[Explanation], and: &str) -> String {
    let (mut failed, mut in_part) = (Vec::new(), Vec::new());
    for (index, name) in names.iter().enumerate() {
        match why.get(index).map(|why| why.saw.effect) {
            Some(FailedEffect::Done) => in_part.push(name.as_str()),
            Some(FailedEffect::NotDone | FailedEffect::InDoubt) | None => {
                failed.push(name.as_str());
            }
        }
    }
    let mut told = Vec::new();
    if !failed.is_empty() {
        told.push(format!("{} failed", failed.join(and)));
    }
    match in_part.as_slice() {
        [] => {}
        [one] => told.push(format!("{one} is done in part")),
        several => told.push(format!("{} are done in part", several.join(and))),
    }
    told.join(" and ")
}

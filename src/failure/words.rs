//! Classification by the words of a message, for those who ask for it.

use std::error::Error;

use super::classify::{Classification, Classify};
use super::failure::FailedEffect;
use super::mode::FailureMode;

/// Modes by whole words in an error's message: a last resort, off unless you add it.
///
/// Words are poor evidence ("invalid time-out value" is no time-out), so use it only for errors
/// that carry nothing but text. It is asked after everything else found nothing in the whole chain of
/// causes, wherever it was [added](super::Classifier::with); the first rule that fits the outermost
/// message decides. The effect is always in doubt.
///
/// Only whole words fit, in any case of letters: `oom` is in "OOM, sorry" and not in "boom". Letters,
/// digits and `_` make a word. A rule of several words fits them in a row, whatever stands between.
///
/// ```
/// use amends::failure::{Classifier, FailedEffect, FailureMode, WordRules};
///
/// let words = WordRules::new()
///     .whole_word("oom", FailureMode::SystemOutOfMemory)
///     .whole_word("rate limit", FailureMode::RateLimited);
/// let classifier = Classifier::new().with(words);
///
/// let error = std::io::Error::other("Rate-limit reached");
/// assert_eq!(classifier.classify(&error).mode, FailureMode::RateLimited);
/// assert_eq!(classifier.classify(&error).effect, FailedEffect::InDoubt);
///
/// let boom = std::io::Error::other("boom");
/// assert_eq!(classifier.classify(&boom).mode, FailureMode::StepLogic);
/// ```
#[derive(Clone, Debug, Default)]
pub struct WordRules {
    rules: Vec<(Vec<String>, FailureMode)>,
}

impl WordRules {
    /// No rules: knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Errors whose message holds `words` are of `mode`. Earlier rules go first. Without a letter or
    /// a digit in it, a rule fits nothing.
    #[must_use]
    pub fn whole_word(mut self, words: &str, mode: FailureMode) -> Self {
        self.rules.push((split(words), mode));
        self
    }
}

impl Classify for WordRules {
    fn classify(&self, error: &(dyn Error + 'static)) -> Option<Classification> {
        let message = split(&error.to_string());
        let (_, mode) = self.rules.iter().find(|(words, _)| {
            !words.is_empty() && message.windows(words.len()).any(|window| window == words)
        })?;
        Some(Classification::new(mode.clone(), FailedEffect::InDoubt))
    }

    fn is_last_resort(&self) -> bool {
        true
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(|char: char| !char.is_alphanumeric() && char != '_')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(rules: &WordRules, message: &str) -> Option<FailureMode> {
        rules
            .classify(&std::io::Error::other(message.to_owned()))
            .map(|it| it.mode)
    }

    #[test]
    fn only_whole_words_fit() {
        let rules = WordRules::new().whole_word("OOM", FailureMode::SystemOutOfMemory);
        assert_eq!(mode(&rules, "boom"), None);
        assert_eq!(mode(&rules, "zoom_oom"), None);
        assert_eq!(
            mode(&rules, "killed: oom"),
            Some(FailureMode::SystemOutOfMemory)
        );
        assert_eq!(mode(&rules, "Oom!"), Some(FailureMode::SystemOutOfMemory));
    }

    #[test]
    fn several_words_fit_in_a_row_only() {
        let rules = WordRules::new().whole_word("rate limit", FailureMode::RateLimited);
        assert_eq!(
            mode(&rules, "Rate  limit hit"),
            Some(FailureMode::RateLimited)
        );
        assert_eq!(mode(&rules, "limit of the rate"), None);
        assert_eq!(mode(&rules, "rate"), None);
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = WordRules::new()
            .whole_word("quota", FailureMode::QuotaExceeded)
            .whole_word("exceeded", FailureMode::BudgetExceeded);
        assert_eq!(
            mode(&rules, "exceeded: quota"),
            Some(FailureMode::QuotaExceeded)
        );
    }

    #[test]
    fn a_rule_without_words_fits_nothing() {
        let rules = WordRules::new().whole_word(" - ", FailureMode::Cancelled);
        assert_eq!(mode(&rules, " - "), None);
        assert_eq!(mode(&rules, ""), None);
    }
}

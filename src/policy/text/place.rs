//! Where in a file something is, and which known word an unknown one may have meant.

use super::PolicyFault;

/// A fault at a byte of the text.
pub(super) struct Found {
    pub(super) at: usize,
    /// Something isn't there. Where the text is broken, it may have been.
    pub(super) missing: bool,
    pub(super) message: String,
}

impl Found {
    pub(super) fn placed(self, text: &str) -> PolicyFault {
        let (line, column) = line_and_column(text, self.at);
        PolicyFault {
            line,
            column,
            message: self.message,
        }
    }
}

/// Both from 1; columns count characters.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let begins = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[begins..].chars().count() + 1)
}

/// The known word that is most likely meant, if one is likely.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Rust's spelling of a word counts as the word: `SystemNetwork`, `retry-failed`.
    let plain = |word: &str| -> String {
        let letters = word.chars().filter(|char| char.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect()
    };
    let word = plain(word);
    let length = word.chars().count();
    let by_distance = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&word, &plain(known)), *known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= length.div_ceil(3));
    let by_part = || {
        let mut parts = known
            .iter()
            .filter(|known| length >= 4 && plain(known).contains(&word));
        // Only if there is no choice.
        parts.next().filter(|_| parts.next().is_none()).copied()
    };
    by_distance.map(|(_, known)| known).or_else(by_part)
}

/// What to say about an unknown word: the nearest known one, or all.
pub(super) fn instead(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("known are {}", listed(known)),
    }
}

/// `a`, `b` and `c`.
pub(super) fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_begin_with_one_and_count_characters() {
        let text = "a\né = 1\n";
        assert_eq!(line_and_column(text, 0), (1, 1));
        assert_eq!(line_and_column(text, 1), (1, 2));
        assert_eq!(line_and_column(text, 2), (2, 1));
        // Inside of the second character, and behind it.
        assert_eq!(line_and_column(text, 3), (2, 1));
        assert_eq!(line_and_column(text, 4), (2, 2));
        assert_eq!(line_and_column(text, 999), (3, 1));
    }

    #[test]
    fn the_nearest_word_is_near() {
        let known = ["retry_failed", "retry_all", "system_network", "system_oom"];
        assert_eq!(nearest("retryfailed", &known), Some("retry_failed"));
        assert_eq!(nearest("SystemNetwork", &known), Some("system_network"));
        assert_eq!(nearest("network", &known), Some("system_network"));
        assert_eq!(nearest("retry_al", &known), Some("retry_all"));
        // Two of them hold it.
        assert_eq!(nearest("system", &known), None);
        assert_eq!(nearest("abort", &known), None);
        assert_eq!(nearest("", &known), None);
    }
}

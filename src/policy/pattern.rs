//! Patterns for step names: `*` stands for any number of characters.

/// `*` matches any run of characters; all else itself. Linear in the product of the lengths at worst.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(found) => rest = &rest[found + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether it names one step and no other.
pub(super) fn is_exact(pattern: &str) -> bool {
    !pattern.contains('*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_number_of_characters() {
        for (pattern, fits, does_not) in [
            ("charge", &["charge"][..], &["charges", "recharge", ""][..]),
            (
                "charge-*",
                &["charge-", "charge-card"],
                &["charge", "a-charge-card"],
            ),
            (
                "*-card",
                &["-card", "charge-card"],
                &["card", "charge-card-2"],
            ),
            ("a*b*c", &["abc", "a-b-b-c", "abcc"], &["ac", "acb", "ab"]),
            ("*", &["", "anything"], &[]),
            ("ab*ba", &["abba", "ab-ba"], &["aba"]),
            ("f*/*", &["fulfil/pack"], &["fulfil"]),
        ] {
            for text in fits {
                assert!(matches(pattern, text), "`{pattern}` fits `{text}`");
            }
            for text in does_not {
                assert!(!matches(pattern, text), "`{pattern}` does not fit `{text}`");
            }
        }
    }
}

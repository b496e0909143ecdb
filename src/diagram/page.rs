//! What all SVG documents share: fonts, sizes, escaping, the frame of a document.

use std::fmt::Write;

use crate::diagram::columns;

/// Names and other people's words stand in letters of one width, so that their room can be told.
pub(super) const MONO: &str =
    "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace";
pub(super) const INK: &str = "#1c2733";
pub(super) const GREY: &str = "#55606e";
pub(super) const MARGIN: i64 = 24;

/// The beginning of a document with its own background, so that it reads on light and on dark pages.
pub(super) fn open(out: &mut String, width: i64, height: i64, title: &str, defs: &str) {
    // Writing to a String can't fail.
    let _ = write!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="14" role="img">
<title>{}</title>
<defs>{defs}</defs>
<rect width="{width}" height="{height}" fill="#ffffff"/>
"##,
        escaped(title),
    );
}

/// How wide letters of one width are at this size, with a little room.
pub(super) fn mono_width(text: &str, size: i64) -> i64 {
    // All of the fonts named have letters of 0.60 em or a little more.
    (pixels(columns(text), 62 * size) + 99) / 100
}

/// How wide our own words are in the proportional font, with room.
pub(super) fn word_width(text: &str, size: i64) -> i64 {
    (pixels(columns(text), 62 * size) + 99) / 100
}

/// The same in bold.
pub(super) fn bold_width(text: &str, size: i64) -> i64 {
    (pixels(columns(text), 71 * size) + 99) / 100
}

pub(super) fn pixels(columns: usize, each: i64) -> i64 {
    i64::try_from(columns)
        .unwrap_or(i64::MAX / 4096)
        .saturating_mul(each)
}

/// The text in at most so many columns.
pub(super) fn cut(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut taken = 0;
    for c in text.chars() {
        taken += columns(c.encode_utf8(&mut [0; 4]));
        if taken + 1 > most {
            break;
        }
        short.push(c);
    }
    short.push('…');
    short
}

/// The text in lines of at most so many columns, broken at spaces where it can be.
pub(super) fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let mut word = word;
        if !line.is_empty() {
            if columns(&line) + 1 + columns(word) <= most {
                line.push(' ');
                line.push_str(word);
                continue;
            }
            lines.push(std::mem::take(&mut line));
        }
        // A word longer than a line is broken anywhere.
        while columns(word) > most {
            let mut end = word.len();
            let mut taken = 0;
            for (at, c) in word.char_indices() {
                taken += columns(c.encode_utf8(&mut [0; 4]));
                if taken > most && at > 0 {
                    end = at;
                    break;
                }
            }
            if end == word.len() {
                break;
            }
            lines.push(word[..end].to_owned());
            word = &word[end..];
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// The text as XML. What XML can't hold at all is replaced, not only control characters.
pub(super) fn escaped(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, c| {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
                c if c.is_control() => out.push('\u{fffd}'),
                c => out.push(c),
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces_and_words_only_where_they_must_be() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrapped("倉庫倉庫", 3), ["倉", "庫", "倉", "庫"]);
        assert_eq!(wrapped("倉", 1), ["倉"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn what_is_cut_ends_in_dots_and_keeps_to_its_columns() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("倉庫倉庫", 6), "倉庫…");
    }
}

//! Long texts in lines that fit.

use unicode_width::UnicodeWidthStr as _;

use crate::output::{Output, one_line};

/// The columns that a text takes where nobody says how many there are.
const USUAL: usize = 100;

/// A text from a store in lines of the terminal's width, each after the same indent. Where no terminal
/// reads, it stays one line.
pub(crate) fn wrapped(out: &Output, indent: usize, text: &str) -> String {
    let blanks = " ".repeat(indent);
    let text = one_line(text);
    let Some(width) = out.width() else {
        return format!("{blanks}{text}");
    };
    let room = width.min(USUAL).saturating_sub(indent).max(20);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if columns(line) + 1 + columns(word) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    let indented: Vec<String> = lines.iter().map(|line| format!("{blanks}{line}")).collect();
    indented.join("\n")
}

/// A line that keeps its own indent, with what doesn't fit below the column `told_at` of it.
pub(crate) fn hanging(out: &Output, indent: usize, told_at: usize, line: &str) -> String {
    let (blanks, own) = (" ".repeat(indent), line.len() - line.trim_start().len());
    let Some((label, told)) = line.split_at_checked(told_at).filter(|_| told_at > own) else {
        return wrapped(out, indent + own, line);
    };
    let told = wrapped(out, indent + told_at, told);
    let below = indent + told_at;
    format!("{blanks}{label}{}", told.get(below..).unwrap_or_default())
}

/// How many columns a text takes.
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

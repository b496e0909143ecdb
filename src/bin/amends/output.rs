//! The one place that writes: text for people, JSON for programs.
//!
//! Results go to the standard output, everything else to the standard error. Text that comes from a store
//! may hold anything, so control characters are taken out before a terminal sees them, and from what is said
//! about addresses their passwords.

use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Row, Table};
use serde::Serialize;
use serde_json::json;

use crate::args::{Colour, Global};
use crate::error::CliError;
use crate::host;
use crate::secret::hidden;

/// A colour with a meaning; nothing is told by it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hue {
    Plain,
    /// What matters less.
    Dim,
    /// A heading.
    Bold,
    /// Good.
    Green,
    /// Bad.
    Red,
    /// Needs somebody.
    Yellow,
    /// Under way.
    Cyan,
    /// Backwards.
    Magenta,
}

impl Hue {
    fn code(self) -> Option<&'static str> {
        match self {
            Hue::Plain => None,
            Hue::Dim => Some("2"),
            Hue::Bold => Some("1"),
            Hue::Green => Some("32"),
            Hue::Red => Some("31"),
            Hue::Yellow => Some("33"),
            Hue::Cyan => Some("36"),
            Hue::Magenta => Some("35"),
        }
    }

    fn of_cell(self) -> Option<Color> {
        match self {
            Hue::Plain | Hue::Bold => None,
            Hue::Dim => Some(Color::DarkGrey),
            Hue::Green => Some(Color::DarkGreen),
            Hue::Red => Some(Color::DarkRed),
            Hue::Yellow => Some(Color::DarkYellow),
            Hue::Cyan => Some(Color::DarkCyan),
            Hue::Magenta => Some(Color::DarkMagenta),
        }
    }
}

/// Where output goes, and in which form.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    colour: bool,
    /// Nothing where no terminal reads: then lines are as long as they are, for `grep` and its like.
    width: Option<u16>,
}

// What writes is a method, also where the form of the output doesn't matter to it: so nothing is written
// elsewhere.
#[allow(clippy::unused_self)]
impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        let terminal = io::stdout().is_terminal();
        let colour = match global.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()),
        };
        let said = env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        let width = said
            .or_else(|| Table::new().width())
            .filter(|&width| width >= 20);
        Output {
            json: global.json,
            colour,
            width,
        }
    }

    /// Whether programs read it.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether the screen can be drawn again: a terminal shows it, and a person reads it.
    pub(crate) fn is_live(&self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    /// How many columns there are, where that matters.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width.map(usize::from)
    }

    /// How many runs fit on the screen, below the headings.
    pub(crate) fn height(&self) -> usize {
        let lines = host::terminal_lines().unwrap_or(24);
        usize::from(lines).saturating_sub(2).max(1)
    }

    /// A line for people.
    pub(crate) fn line(&self, text: impl Display) -> Result<(), CliError> {
        writeln!(io::stdout().lock(), "{text}")?;
        Ok(())
    }

    /// A text that ends as it ends: a picture, or a file that somebody redirects.
    pub(crate) fn text(&self, text: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// The one JSON document of a subcommand.
    pub(crate) fn document(&self, document: &impl Serialize) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, document).map_err(written)?;
        writeln!(out)?;
        Ok(())
    }

    /// One JSON line of a list.
    pub(crate) fn record(&self, record: &impl Serialize) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, record).map_err(written)?;
        writeln!(out)?;
        out.flush()?;
        Ok(())
    }

    /// A word aside, for people only: it goes where it doesn't disturb a pipe.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.json {
            // Nobody can be told where even this fails.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// How the program failed.
    pub(crate) fn error(&self, error: &CliError) {
        let mut err = io::stderr().lock();
        // Nobody can be told where even this fails.
        let _ = if self.json {
            let exit = error.exit();
            let form = json!({ "error": {
                "code": exit.word(),
                "exit": exit as u8,
                "message": hidden(error.message()),
                "hints": error.hints(),
            }});
            writeln!(err, "{form}")
        } else {
            let hints = error.hints().iter().map(|hint| format!("\n  {hint}"));
            let text = hidden(error.message()) + &hints.collect::<String>();
            writeln!(err, "{} {}", self.paint_error("amends:"), readable(&text))
        };
    }

    fn paint_error(&self, text: &str) -> String {
        if self.colour && io::stderr().is_terminal() {
            format!("\u{1b}[31m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// A text in a hue, where colours are used.
    pub(crate) fn paint(&self, hue: Hue, text: impl Display) -> String {
        match hue.code() {
            Some(code) if self.colour => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            _ => text.to_string(),
        }
    }

    /// An empty table: no lines, columns two blanks apart, as wide as the terminal at most.
    pub(crate) fn table(&self, headings: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(comfy_table::TableStyle::new());
        if let Some(width) = self.width {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(width);
        }
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_truncation_indicator("…");
        let headings: Vec<Cell> = headings
            .iter()
            .map(|heading| self.cell(Hue::Dim, heading))
            .collect();
        table.set_header(Row::from(headings));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table
    }

    /// A cell of a table, in a hue where colours are used. Its text is cut where it doesn't fit.
    pub(crate) fn cell(&self, hue: Hue, text: impl Display) -> Cell {
        // A blank that doesn't break keeps the text in one line, of which as much is shown as fits.
        let text = one_line(&text.to_string()).replace(' ', UNBROKEN);
        let cell = Cell::new(text);
        match hue.of_cell() {
            Some(colour) if self.colour => cell.fg(colour),
            _ => cell,
        }
    }

    /// Adds a row, of which each cell takes one line.
    pub(crate) fn row(&self, table: &mut Table, cells: Vec<Cell>) {
        let mut row = Row::from(cells);
        row.max_height(1);
        table.add_row(row);
    }

    /// Writes a table.
    pub(crate) fn show(&self, table: &Table) -> Result<(), CliError> {
        self.text(&lines(table))
    }
}

/// A blank at which no line is broken.
const UNBROKEN: &str = "\u{a0}";

/// A table as text.
pub(crate) fn lines(table: &Table) -> String {
    let lines = table
        .lines()
        .map(|line| format!("{}\n", line.replace(UNBROKEN, " ").trim_end()));
    lines.collect()
}

/// Keeps columns as wide as what they hold: what a thing is called and how it stands are not cut.
pub(crate) fn keep_whole(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

fn written(error: serde_json::Error) -> CliError {
    io::Error::from(error).into()
}

/// A text from a store, harmless for a terminal: control characters would command it.
pub(crate) fn readable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => c,
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// A text from a store in one line.
pub(crate) fn one_line(text: &str) -> String {
    let words = text.split(char::is_control).filter(|part| !part.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_holds_does_not_command_the_terminal() {
        assert_eq!(readable("a\u{1b}[2Jb\nc\r"), "a\u{fffd}[2Jb\nc\u{fffd}");
        assert_eq!(one_line("a\r\n\u{1b}[2Jb"), "a [2Jb");
    }
}

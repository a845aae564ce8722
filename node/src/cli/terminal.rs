//! What people see: lines, tables, and one line that changes in place.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};

use super::exit::Outcome;

/// Writes a line to stdout. A reader that has gone away is no failure: it has seen what it wanted.
pub(crate) fn print(line: &str) -> Outcome {
    let mut out = stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Lays rows out in columns; numbers stand to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let right = |column: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(column)).peekable();
        cells.peek().is_some() && cells.all(|cell| cell == "-" || cell.bytes().all(|b| b.is_ascii_digit()))
    };
    let rights: Vec<bool> = (0..head.len()).map(right).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for ((cell, &width), &right) in cells.zip(&widths).zip(&rights) {
            let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if right {
                (gap.as_str(), "")
            } else {
                ("", gap.as_str())
            };
            line.push_str(before);
            line.push_str(cell);
            line.push_str(after);
            line.push_str("  ");
        }
        line.truncate(line.trim_end().len());
        line
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Says how far something is, on stderr: in place on a terminal, else as lines.
pub(crate) struct Progress {
    in_place: bool,
    /// Characters of the line that stands there.
    shown: usize,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            in_place: stderr().is_terminal(),
            shown: 0,
        }
    }

    /// Whether updates cost nothing but a changed line.
    pub(crate) fn is_live(&self) -> bool {
        self.in_place
    }

    /// Shows a state that the next one replaces.
    pub(crate) fn update(&mut self, text: &str) {
        if self.in_place {
            self.erase();
            eprint!("{text}");
            self.shown = text.chars().count();
        } else {
            eprintln!("{text}");
        }
    }

    /// Writes a line that stays.
    pub(crate) fn line(&mut self, text: &str) {
        self.erase();
        eprintln!("{text}");
    }

    fn erase(&mut self) {
        if self.shown > 0 {
            eprint!("\r{}\r", " ".repeat(self.shown));
            self.shown = 0;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.erase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_numbers_to_the_right_and_end_without_blanks() {
        let rows = vec![vec!["1".into(), "up".into()], vec!["10".into(), "down".into()]];
        assert_eq!(
            table(&["NODE", "STATE"], &rows),
            "NODE  STATE\n   1  up\n  10  down"
        );
        assert_eq!(table(&["NODE", "STATE"], &[]), "NODE  STATE");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}

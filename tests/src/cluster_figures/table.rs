//! Tables in Markdown, and figures in them.

use std::fmt;

use roundhouse_tests::bench::{median, thousands};

/// A table under a heading, with lines of text below it.
#[derive(Debug)]
pub(crate) struct Table {
    heading: &'static str,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn new(heading: &'static str, titles: &[&str]) -> Self {
        Self { heading, rows: vec![titles.iter().map(|title| (*title).to_owned()).collect()], notes: Vec::new() }
    }

    /// Adds a row; the table's titles say how many cells it has.
    pub(crate) fn row(&mut self, name: impl Into<String>, figures: impl IntoIterator<Item = String>) {
        let mut row = vec![name.into()];
        row.extend(figures);
        row.resize(self.rows[0].len(), String::new());
        self.rows.push(row);
    }

    /// Adds a line of text below the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, page: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..self.rows[0].len()).map(|column| width(column).max(3)).collect();
        writeln!(page, "\n### {}\n", self.heading)?;
        for (at, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(page, "| {cell:<width$} ")?,
                    _ => write!(page, "| {cell:>width$} ")?,
                }
            }
            writeln!(page, "|")?;
            if at == 0 {
                let rules = widths.iter().enumerate().map(|(column, width)| match column {
                    0 => format!("| {} ", "-".repeat(*width)),
                    _ => format!("| {}: ", "-".repeat(width - 1)),
                });
                writeln!(page, "{}|", rules.collect::<String>())?;
            }
        }
        self.notes.iter().try_for_each(|note| write!(page, "\n{note}\n"))
    }
}

/// The median of the rounds' figures, and their range if there are several.
pub(crate) fn ranged(figures: &[f64], decimals: usize) -> String {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let middle = thousands(median(figures.to_vec()), decimals);
    match figures.len() {
        1 => middle,
        _ => format!("{middle} ({}–{})", thousands(least, decimals), thousands(most, decimals)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_markdown_with_aligned_columns() {
        let mut table = Table::new("Heads", &["server", "n"]);
        table.row("a", ["1,000".to_owned()]);
        table.note("Below.");
        let expected = "\n### Heads\n\n| server |     n |\n| ------ | ----: |\n| a      | 1,000 |\n\nBelow.\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn figures_have_thousands_and_range() {
        assert_eq!(thousands(1_234_567.25, 1), "1,234,567.2");
        assert_eq!(ranged(&[1.0, 3.0, 2.0], 0), "2 (1–3)");
        assert_eq!(ranged(&[999.9], 0), "1,000");
    }
}

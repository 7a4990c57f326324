//! How results look: a table for people, plain lines for `cut`, JSON for `jq`.

use crate::failure::Failure;
use crate::text::escaped;
use clap::ValueEnum;
use serde_json::Value;
use std::io::{self, IsTerminal, Write};

/// Widest column of a table, in characters; what is longer is cut and marked. JSON and plain output cut nothing.
const COLUMN_WIDTH_MAX: usize = 64;

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns with a header, for people
    Table,
    /// Values separated by tabs, one result a line, without a header
    Plain,
    /// One JSON object a line
    Json,
}

/// Where results go, and in which form.
pub(crate) struct Output {
    pub(crate) format: Format,
    is_colourful: bool,
}

/// Results of one kind: the same in every form.
pub(crate) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<(Vec<String>, Value)>,
    /// Rows that follow others have no header again.
    is_headless: bool,
}

impl Table {
    /// An empty table with these columns.
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), is_headless: false }
    }

    /// The same without a header, for rows that follow others.
    pub(crate) fn headless(self) -> Self {
        Self { is_headless: true, ..self }
    }

    /// Adds a result: one cell for each column, and everything known of it as JSON.
    pub(crate) fn add(&mut self, cells: Vec<String>, json: Value) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push((cells, json));
    }
}

impl Output {
    /// The form that was asked for, or else the one that suits the reader.
    pub(crate) fn new(format: Option<Format>) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let suitable = if is_terminal { Format::Table } else { Format::Plain };
        let is_colourful = is_terminal && std::env::var_os("NO_COLOR").is_none();
        Self { format: format.unwrap_or(suitable), is_colourful }
    }

    /// Prints results.
    pub(crate) fn print(&self, table: &Table) -> Result<(), Failure> {
        let mut text = Vec::new();
        match self.format {
            Format::Table => write_table(&mut text, table, self.is_colourful)?,
            Format::Plain => {
                for (cells, _) in &table.rows {
                    let cells: Vec<_> = cells.iter().map(|cell| escaped(cell)).collect();
                    writeln!(text, "{}", cells.join("\t"))?;
                }
            }
            Format::Json => {
                for (_, json) in &table.rows {
                    writeln!(text, "{json}")?;
                }
            }
        }
        self.write(&text)
    }

    /// Prints a single result: a sentence for people, an object for `jq`.
    pub(crate) fn say(&self, sentence: &str, json: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Plain => self.write(format!("{}\n", escaped(sentence)).as_bytes()),
            Format::Json => self.write(format!("{json}\n").as_bytes()),
        }
    }

    /// Writes bytes as they are. Returns when they are out.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()?;
        Ok(())
    }
}

fn write_table(out: &mut Vec<u8>, table: &Table, is_colourful: bool) -> io::Result<()> {
    let rows: Vec<Vec<String>> =
        table.rows.iter().map(|(cells, _)| cells.iter().map(|cell| shortened(cell)).collect()).collect();
    let header: Vec<String> = table.columns.iter().copied().map(str::to_owned).collect();
    let width = |column: usize| {
        std::iter::once(&header).chain(&rows).map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    for (position, row) in std::iter::once(&header).chain(&rows).enumerate() {
        if position == 0 && table.is_headless {
            continue;
        }
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let line = cells.join("  ");
        let line = line.trim_end();
        if position == 0 && is_colourful {
            writeln!(out, "\x1b[1m{line}\x1b[0m")?;
        } else {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn shortened(cell: &str) -> String {
    let cell = escaped(cell);
    if cell.chars().count() <= COLUMN_WIDTH_MAX {
        return cell;
    }
    cell.chars().take(COLUMN_WIDTH_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn drawn(rows: &[[&str; 2]]) -> String {
        let mut table = Table::new(&["NAME", "N"]);
        for row in rows {
            table.add(row.iter().map(|cell| (*cell).to_owned()).collect(), json!({}));
        }
        let mut out = Vec::new();
        write_table(&mut out, &table, false).expect("a vector takes everything");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(drawn(&[["größe", "1"], ["a", "22"]]), "NAME   N\ngröße  1\na      22\n");
        assert_eq!(drawn(&[]), "NAME  N\n");
    }

    #[test]
    fn rows_that_follow_others_have_no_header_and_its_widths() {
        let mut table = Table::new(&["NAME", "N"]).headless();
        table.add(vec!["a".into(), "1".into()], json!({}));
        let mut out = Vec::new();
        write_table(&mut out, &table, false).expect("a vector takes everything");
        assert_eq!(String::from_utf8(out).expect("text"), "a     1\n");
    }

    #[test]
    fn what_is_too_wide_is_cut_and_what_is_dangerous_escaped() {
        let long = "x".repeat(100);
        let table = drawn(&[[&long, "\x1b"]]);
        assert!(table.ends_with("x…  \\u{1b}\n"), "{table}");
    }
}

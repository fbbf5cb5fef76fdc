//! Figures of servers, as Markdown and as JSON.

use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Write};
use std::fs;
use std::io;
use std::path::Path;

/// A run: the machine, the day and the command, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// The machine, the day and the command.
    pub run: String,
    /// The results, in the order in which they came.
    pub tables: Vec<Table>,
}

/// Servers under one load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Table {
    /// Its heading.
    pub name: String,
    /// The load, in a sentence.
    pub what: String,
    /// The heading of the rows.
    pub subject: String,
    /// The heading of the rows' cases; empty if there is one only.
    pub case: String,
    /// The headings of the figures.
    pub columns: Vec<String>,
    /// The servers, ours first.
    pub rows: Vec<Row>,
    /// Servers that are missing, and why.
    pub notes: Vec<String>,
}

/// The figures of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub server: String,
    /// The difference to other rows of the server.
    pub case: String,
    /// One for each column.
    pub cells: Vec<Cell>,
    /// Reservations.
    pub remarks: Vec<String>,
    /// More than a table has room for, such as the system calls by name.
    pub details: String,
}

/// A figure, and how many digits of it are shown behind the point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Cell {
    /// There is none.
    Empty,
    /// A measurement that is there once.
    Number(f64, usize),
    /// A count, which does not depend on the machine.
    Count(f64, usize),
    /// The quartiles of many measurements.
    Quartiles([f64; 3], usize),
}

impl Cell {
    /// Returns a figure that may be missing.
    pub fn number(value: Option<f64>, digits: usize) -> Cell {
        value.map_or(Cell::Empty, |value| Cell::Number(value, digits))
    }

    /// Returns a count that may be missing.
    pub fn count(value: Option<f64>, digits: usize) -> Cell {
        value.map_or(Cell::Empty, |value| Cell::Count(value, digits))
    }

    /// Returns quartiles that may be missing.
    pub fn quartiles(value: Option<[f64; 3]>, digits: usize) -> Cell {
        value.map_or(Cell::Empty, |value| Cell::Quartiles(value, digits))
    }

    /// Returns the figure, or the median.
    pub fn value(&self) -> Option<f64> {
        match self {
            Cell::Empty => None,
            Cell::Number(value, _) | Cell::Count(value, _) | Cell::Quartiles([_, value, _], _) => Some(*value),
        }
    }
}

impl Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Empty => Ok(()),
            Cell::Number(value, digits) | Cell::Count(value, digits) => write!(f, "{value:.digits$}"),
            Cell::Quartiles([low, median, high], digits) if low == high => write!(f, "{median:.digits$}"),
            Cell::Quartiles([low, median, high], digits) => {
                write!(f, "{median:.digits$} ({low:.digits$} to {high:.digits$})")
            }
        }
    }
}

impl Row {
    /// Makes a row of a cell for each column.
    pub fn new(server: impl Into<String>, cells: Vec<Cell>) -> Row {
        Row { server: server.into(), case: String::new(), cells, remarks: Vec::new(), details: String::new() }
    }

    /// The same, for a case of several.
    pub fn case(self, case: impl Into<String>) -> Row {
        Row { case: case.into(), ..self }
    }
}

impl Table {
    /// The heading of the rows of most tables.
    pub const SERVER: &str = "server";

    /// Makes a table without rows.
    pub fn new(name: impl Into<String>, what: impl Into<String>, columns: &[&str]) -> Table {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        let subject = Table::SERVER.to_owned();
        Table { name: name.into(), what: what.into(), subject, columns, ..Table::default() }
    }

    /// The same, of something else than servers.
    pub fn about(self, subject: &str) -> Table {
        Table { subject: subject.to_owned(), ..self }
    }

    /// Returns it without the columns that are empty.
    pub(crate) fn without_empty_columns(&self) -> Table {
        let has = |n: &usize| self.rows.iter().any(|row| row.cells.get(*n).is_some_and(|cell| *cell != Cell::Empty));
        let shown: Vec<usize> = (0..self.columns.len()).filter(has).collect();
        let mut table = self.clone();
        table.columns = shown.iter().map(|n| self.columns[*n].clone()).collect();
        for row in &mut table.rows {
            row.cells = shown.iter().filter_map(|n| row.cells.get(*n).cloned()).collect();
        }
        table
    }

    /// Writes it in Markdown.
    pub fn markdown(&self) -> String {
        self.without_empty_columns().write()
    }

    fn write(&self) -> String {
        let mut text = format!("\n### {}\n\n{}\n", self.name, self.what);
        if !self.rows.is_empty() {
            let case = if self.case.is_empty() { String::new() } else { format!("| {} ", self.case) };
            let rule = if self.case.is_empty() { "" } else { "| --- " };
            // A string takes everything.
            let _ = writeln!(text, "\n{case}| {} | {} | |", self.subject, self.columns.join(" | "));
            let _ = writeln!(text, "{rule}| --- | {}--- |", "--: | ".repeat(self.columns.len()));
        }
        for row in &self.rows {
            let case = if self.case.is_empty() { String::new() } else { format!("| {} ", row.case) };
            let cells: Vec<String> = row.cells.iter().map(Cell::to_string).collect();
            let _ = writeln!(text, "{case}| {} | {} | {} |", row.server, cells.join(" | "), row.remarks.join(", "));
        }
        self.notes.iter().for_each(|note| text.push_str(&format!("\n{note}\n")));
        text
    }
}

impl Results {
    /// Writes them in Markdown.
    pub fn markdown(&self) -> String {
        self.tables.iter().fold(format!("{}\n", self.run), |text, table| text + &table.markdown())
    }

    /// Writes them to a file, in JSON.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        fs::write(path, format!("{}\n", serde_json::to_string_pretty(self)?))
    }

    /// Reads what [`save`](Self::save) has written.
    ///
    /// # Errors
    /// A text that names the file.
    pub fn load(path: &Path) -> Result<Results, String> {
        let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}; --save writes such files", path.display()))
    }
}

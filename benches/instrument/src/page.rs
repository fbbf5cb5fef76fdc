//! One HTML file of results: tables with bars, filters by scenario and server, charts, flame graphs. It loads nothing.

use crate::perf::Profile;
use crate::table::{Cell, Row, Table};
use data_encoding::BASE64;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A page that is being written.
#[derive(Debug)]
pub struct Page {
    title: String,
    run: String,
    body: String,
    servers: BTreeSet<String>,
}

impl Page {
    /// Begins a page about a run.
    pub fn new(title: &str, run: &str) -> Page {
        Page { title: title.to_owned(), run: run.to_owned(), body: String::new(), servers: BTreeSet::new() }
    }

    /// Adds a table. The bars of a column are as long as its figures, of which the longest fills a cell.
    pub fn table(&mut self, table: &Table) {
        let name = escape(&table.name);
        let _ =
            writeln!(self.body, "<section data-scenario=\"{name}\">\n<h2>{name}</h2>\n<p>{}</p>", prose(&table.what));
        if !table.rows.is_empty() {
            self.rows(&table.without_empty_columns());
        }
        for note in &table.notes {
            let _ = writeln!(self.body, "<p class=note>{}</p>", prose(note));
        }
        self.body.push_str("</section>\n");
    }

    fn rows(&mut self, table: &Table) {
        let case = if table.case.is_empty() { String::new() } else { format!("<th>{}", escape(&table.case)) };
        let columns: String = table.columns.iter().map(|name| format!("<th class=number>{}", escape(name))).collect();
        let _ = writeln!(self.body, "<div class=wide><table>\n<tr>{case}<th>{}{columns}<th>", escape(&table.subject));
        for row in &table.rows {
            let server = escape(&row.server);
            let case = if table.case.is_empty() { String::new() } else { format!("<td>{}", escape(&row.case)) };
            let cells = row.cells.iter().enumerate().map(|(n, cell)| cell_html(cell, longest(&table.rows, n)));
            let (cells, remarks) = (cells.collect::<String>(), remarks(row));
            // Servers can be chosen.
            let key = if table.subject == Table::SERVER { format!(" data-server=\"{server}\"") } else { String::new() };
            let _ = writeln!(self.body, "<tr{key}>{case}<th scope=row>{server}{cells}<td>{remarks}");
            self.servers.extend((!key.is_empty()).then(|| row.server.clone()));
        }
        self.body.push_str("</table></div>\n");
    }

    /// Adds a chart, which is an SVG with a caption of its own.
    pub fn chart(&mut self, svg: &str) {
        let _ = writeln!(self.body, "<figure class=chart>{svg}</figure>");
    }

    /// Adds the profile of a server: its time by system call, of which a request takes so many each, its own code by
    /// function, and a flame graph. `cpu` is the processor time of a request in microseconds.
    ///
    /// # Errors
    /// A text: there is nothing to draw.
    pub fn profile(&mut self, name: &str, profile: &Profile, calls: &[(String, f64)], cpu: f64) -> Result<(), String> {
        self.table(&by_call(name, profile, calls, cpu));
        self.table(&own_code(name, profile));
        self.flame_graph(&format!("{name}, where its time goes"), &profile.flame_graph(name)?);
        Ok(())
    }

    /// Adds a flame graph, in a frame of its own, as its script is made for a whole document.
    fn flame_graph(&mut self, heading: &str, svg: &str) {
        let (heading, data) = (escape(heading), BASE64.encode(svg.as_bytes()));
        let height = svg.split("height=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("600");
        let _ = writeln!(
            self.body,
            "<section data-scenario=\"{heading}\"><h2>{heading}</h2>\n<iframe title=\"{heading}\" \
             src=\"data:image/svg+xml;base64,{data}\" height=\"{height}\"></iframe></section>"
        );
    }

    /// Writes it to a file.
    ///
    /// # Errors
    /// The system's.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let (title, run) = (escape(&self.title), prose(&self.run));
        let page = format!(
            "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n\
             <meta name=viewport content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n<header><h1>{title}</h1>\n<p>{run}</p></header>\n{}<main>\n{}</main>\n\
             <script>\n{SCRIPT}</script>\n",
            self.filters(),
            self.body
        );
        fs::write(path, page)
    }

    /// Returns the form that chooses scenarios and servers, if there is a choice.
    fn filters(&self) -> String {
        if self.servers.len() < 3 {
            return String::new();
        }
        let boxes = self.servers.iter().map(|server| {
            let server = escape(server);
            format!("<label><input type=checkbox checked value=\"{server}\"> {server}</label>\n")
        });
        format!(
            "<form>\n<label>Scenarios that contain <input type=search name=scenario></label>\n\
             <fieldset><legend>Servers</legend>\n{}</fieldset>\n</form>\n",
            boxes.collect::<String>()
        )
    }
}

fn by_call(server: &str, profile: &Profile, calls: &[(String, f64)], cpu: f64) -> Table {
    let what = format!(
        "{:.1} s of processor time, sampled by the clock; the calls are counted by strace. The time of a call is that of \
         the kernel within it, with the interrupts that come meanwhile.",
        profile.time().as_secs_f64()
    );
    let columns = ["% of the time", "us a request", "calls a request", "us a call"];
    let mut table = Table::new(format!("{server}, by system call"), what, &columns).about("system call");
    let shares = profile.by_call().into_iter().filter(|(_, share)| *share >= 0.001);
    table.rows = shares
        .map(|(name, share)| {
            let count = calls.iter().find(|(other, _)| *other == name).map(|(_, count)| *count);
            let time = Some(share * cpu).filter(|time| time.is_finite());
            let each = time.zip(count).map(|(time, count)| time / count);
            let cells = [Some(share * 100.0), time, count, each].map(|value| Cell::number(value, 2));
            Row::new(name, cells.to_vec())
        })
        .collect();
    table
}

fn own_code(server: &str, profile: &Profile) -> Table {
    let own = profile.by_own_function();
    let all: f64 = own.iter().map(|(_, share)| share).sum();
    let what = format!("{:.1} % of the samples are of the process itself, not of the kernel.", all * 100.0);
    let name = format!("{server}, own code by function");
    let mut table = Table::new(name, what, &["% of the time"]).about("function");
    let rows = own.into_iter().take(20).map(|(name, share)| Row::new(name, vec![Cell::Number(share * 100.0, 2)]));
    table.rows = rows.collect();
    table
}

/// Returns the longest figure of a column.
fn longest(rows: &[Row], n: usize) -> f64 {
    rows.iter().filter_map(|row| row.cells.get(n)?.value()).fold(0.0, f64::max)
}

fn cell_html(cell: &Cell, longest: f64) -> String {
    let Some(value) = cell.value().filter(|value| value.is_finite() && longest > 0.0) else {
        return "<td class=number>".to_owned();
    };
    let spread = match cell {
        Cell::Quartiles([low, _, high], digits) if low < high => {
            format!("<small>{low:.digits$} to {high:.digits$}</small>")
        }
        _ => String::new(),
    };
    let middle = match cell {
        Cell::Quartiles([_, median, _], digits) => format!("{median:.digits$}"),
        other => other.to_string(),
    };
    format!("<td class=number style=\"--part:{:.3}\">{middle}{spread}", (value / longest).max(0.0))
}

fn remarks(row: &Row) -> String {
    let remarks = escape(&row.remarks.join(", "));
    match row.details.is_empty() {
        true => remarks,
        false => format!("{remarks}<details><summary>calls</summary>{}</details>", escape(&row.details)),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Escapes a text whose code stands in backticks.
fn prose(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(n, part)| if n % 2 == 1 { format!("<code>{}</code>", escape(part)) } else { escape(part) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost otherwise: a page that shows other figures than the run had, or that a name of a server breaks.
    #[test]
    fn a_page_has_the_figures() {
        let mut table = Table::new("a <flood>", "by `wrk`", &["CPU us", "times"]);
        table.rows = vec![
            Row::new("ours & theirs", vec![Cell::Number(12.5, 1), Cell::Quartiles([0.5, 0.6, 0.7], 2)]),
            Row::new("base", vec![Cell::Number(25.0, 1), Cell::Empty]),
        ];
        let mut page = Page::new("floods", "today");
        page.table(&table);
        let file = tempfile::NamedTempFile::new().unwrap();
        page.save(file.path()).unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        for part in [
            "data-scenario=\"a &lt;flood&gt;\"",
            "<code>wrk</code>",
            "ours &amp; theirs<td class=number style=\"--part:0.500\">12.5",
            "0.60<small>0.50 to 0.70</small>",
            "data-server=\"base\"",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("http"), "it loads nothing");
    }
}

//! The results of a run as tables: for people, for programs, and for a page.

use crate::interference::Interference;
use crate::run::{Found, Row};
use crate::scenario::Scenario;
use crate::servers::Kind;
use instrument::{Cell, Page, Results, Table};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use test_support::machine::Placement;

/// The results so far.
pub(crate) struct Report {
    pub(crate) scenarios: Vec<(Scenario, Found)>,
    pub(crate) interference: Vec<Interference>,
    /// How many parked clients take how many bytes each.
    pub(crate) parked: Vec<(usize, u64)>,
    /// The machine, the day and the command.
    run: String,
}

impl Report {
    pub(crate) fn new() -> Report {
        let run = instrument::run("floods");
        Report { scenarios: Vec::new(), interference: Vec::new(), parked: Vec::new(), run }
    }

    /// Writes the tables under `target/floods`; returns where.
    pub(crate) fn save(&self) -> io::Result<PathBuf> {
        let (folder, results) = (folder()?, self.results());
        // Figures of another run would be taken for this one's.
        for name in ["index.html", "cost.svg", "latency.svg", "growth.svg", "idle.svg"] {
            let _ = fs::remove_file(folder.join(name));
        }
        results.save(&folder.join("results.json"))?;
        fs::write(folder.join("table.md"), results.markdown())?;
        Ok(folder)
    }

    /// Writes the page of all results, with the charts in `folder`.
    pub(crate) fn save_page(&self, folder: &Path, differences: Option<&Table>) -> io::Result<()> {
        let results = self.results();
        let mut page = Page::new("Connection floods", &results.run);
        for chart in ["cost.svg", "latency.svg", "growth.svg", "idle.svg"] {
            fs::read_to_string(folder.join(chart)).iter().for_each(|svg| page.chart(svg));
        }
        differences.into_iter().chain(&results.tables).for_each(|table| page.table(table));
        page.save(&folder.join("index.html"))
    }

    pub(crate) fn results(&self) -> Results {
        let mut tables: Vec<Table> = self.scenarios.iter().map(|(scenario, found)| table(scenario, found)).collect();
        if !self.interference.is_empty() {
            tables.push(self.interference());
        }
        if !self.parked.is_empty() {
            let mut table = Table::new("memory", "Pops that wait on an empty stack.", &["bytes resident each"]);
            let row = |(clients, bytes): &(usize, u64)| {
                instrument::Row::new(Kind::Pollstack.name(), vec![Cell::Count(*bytes as f64, 0)])
                    .case(clients.to_string())
            };
            table.case = "parked clients".to_owned();
            table.rows = self.parked.iter().map(row).collect();
            tables.push(table);
        }
        Results { run: self.run.clone(), tables }
    }

    fn interference(&self) -> Table {
        let columns = ["p50 us, quiet", "beside them", "times", "p99, quiet", "beside them", "times"];
        let what = "The latency of some clients, without others and beside them, in rounds in turn.";
        let mut table = Table::new("interference", what, &columns);
        table.case = "beside".to_owned();
        for one in &self.interference {
            let cells = [50.0, 99.0].map(|percentile| one.percentile(percentile)).map(|[quiet, beside, times]| {
                [Cell::Number(quiet, 0), Cell::Number(beside, 0), Cell::Number(times, 2)]
            });
            let mut row = instrument::Row::new(Kind::Pollstack.name(), cells.concat()).case(one.name.clone());
            row.remarks.push(format!("{} probes each{}", one.probes(), one.crowd_in_words()));
            row.remarks.push(one.slowest_in_words());
            let void = one.void.moved();
            row.remarks.extend((!void.is_empty()).then(|| format!("VOID: {void}")));
            table.rows.push(row);
        }
        table
    }
}

/// Returns the folder of all results.
pub(crate) fn folder() -> io::Result<PathBuf> {
    instrument::folder(env!("CARGO_TARGET_TMPDIR"), "floods")
}

/// Returns the table of a scenario.
pub(crate) fn table(scenario: &Scenario, found: &Found) -> Table {
    let unit = format!("{}/s", scenario.load.unit());
    let times = scenario.base.map_or_else(String::new, |base| format!("times {}", base.name()));
    let columns = [
        &unit,
        "p50 us",
        "p99",
        "p99.9",
        "max",
        "CPU us, a core each",
        &times,
        "CPU us, at its limit",
        &times,
        "calls",
        "MiB",
    ];
    let mut table = Table::new(scenario.name.clone(), format!("{}.", scenario.what), &columns);
    for (n, row) in found.rows.iter().enumerate() {
        let again = found.rows[..n].iter().any(|other| other.entry == row.entry);
        table.rows.push(line(row, if again { instrument::AGAIN } else { "" }));
    }
    table.notes.extend(found.failed.iter().map(|why| format!("FAILED: {why}.")));
    table.notes.extend(found.absent.iter().map(|why| format!("Left out: {why}.")));
    table
}

fn line(row: &Row, again: &str) -> instrument::Row {
    let apart = row.half(Placement::Apart);
    // At the limit, latency would be how long the clients look away.
    let at =
        |percentile| Cell::number(apart.map(|half| half.tally.latency.value_at_percentile(percentile) as f64 / 1e3), 0);
    let rate = Cell::number(apart.map(|half| half.rate), 0);
    let mut cells = vec![rate, at(50.0), at(99.0), at(99.9), at(100.0)];
    for placement in [Placement::Apart, Placement::Limit] {
        let half = row.half(placement);
        cells.push(Cell::number(half.map(|half| half.cpu[1]), 2));
        cells.push(Cell::quartiles(half.and_then(|half| half.ratio), 3));
    }
    cells.push(Cell::count(row.calls.as_ref().map(|(calls, _)| *calls), 2));
    cells.push(Cell::Number(row.resident as f64 / 1048576.0, 1));
    let mut line = instrument::Row::new(format!("{}{again}", row.entry.name()), cells);
    line.remarks = remarks(row);
    line.details = row.calls.as_ref().map(|(_, calls)| calls.clone()).unwrap_or_default();
    line
}

/// The reservations about a row.
fn remarks(row: &Row) -> Vec<String> {
    let mut remarks: Vec<String> = row.each.iter().map(|bytes| format!("{bytes} bytes for each idle one")).collect();
    // The clients are slow then, not the server.
    let apart = row.half(Placement::Apart).filter(|half| half.clients_busy > 0.9 && !half.keeps_pace);
    remarks.extend(apart.map(|half| format!("clients {:.0} % busy", half.clients_busy * 100.0)));
    let void = row.halves.iter().map(|half| half.void.moved()).filter(|moved| !moved.is_empty());
    remarks.extend(void.map(|moved| format!("VOID: {moved}")));
    remarks
}

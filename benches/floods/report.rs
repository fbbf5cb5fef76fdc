//! The results of a run: a table for people, JSON for programs, and charts.

use crate::interference::Interference;
use crate::run::{Found, Half, Row};
use crate::scenario::Scenario;
use crate::servers::Kind;
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;
use test_support::machine::{self, Placement};

/// The results so far.
pub(crate) struct Report {
    pub(crate) scenarios: Vec<(Scenario, Found)>,
    pub(crate) interference: Vec<Interference>,
    /// How many parked clients take how many bytes each.
    pub(crate) parked: Vec<(usize, u64)>,
    command: String,
}

impl Report {
    pub(crate) fn new(command: String) -> Report {
        Report { scenarios: Vec::new(), interference: Vec::new(), parked: Vec::new(), command }
    }

    /// Writes everything under `target/floods`; returns where.
    pub(crate) fn save(&self) -> io::Result<PathBuf> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../floods");
        let _ = fs::remove_dir_all(&folder); // figures of another run would be taken for this one's
        fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        fs::write(folder.join("results.json"), format!("{:#}\n", self.json()))?;
        fs::write(folder.join("table.md"), self.table())?;
        Ok(folder)
    }

    fn head(&self) -> String {
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        format!("{}; {}; `{}`", machine::describe(), &now[..10], self.command)
    }

    /// Returns the tables, in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}\n", self.head());
        for (scenario, Found { rows, absent, failed, .. }) in &self.scenarios {
            let unit = scenario.load.unit();
            let base = scenario.base.map_or("", Kind::name);
            let _ = write!(
                text,
                "\n### {}\n\n{}.\n\n\
                 | server | {unit}/s | p50 us | p99 | p99.9 | max | CPU us, a core each | times {base} \
                 | CPU us, at its limit | times {base} | calls | MiB | |\n\
                 | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --- |\n",
                scenario.name, scenario.what,
            );
            for (n, row) in rows.iter().enumerate() {
                let again = rows[..n].iter().any(|other| other.entry == row.entry);
                text.push_str(&line(row, if again { ", again" } else { "" }));
            }
            failed.iter().for_each(|why| text.push_str(&format!("\nFAILED: {why}.\n")));
            absent.iter().for_each(|why| text.push_str(&format!("\nLeft out: {why}.\n")));
        }
        self.add_interference(&mut text);
        for (clients, bytes) in &self.parked {
            let _ = writeln!(text, "\n{clients} parked clients: {bytes} bytes resident each.");
        }
        text
    }

    fn add_interference(&self, text: &mut String) {
        if !self.interference.is_empty() {
            text.push_str("\n### What some feel of others\n\n| | p50 us, quiet | beside them | times | p99, quiet | beside them | times |\n");
            text.push_str("| --- | --: | --: | --: | --: | --: | --: |\n");
        }
        for interference in &self.interference {
            let [p50, p99] = [50.0, 99.0].map(|p| interference.percentile(p));
            let void = interference.void.moved();
            let void = if void.is_empty() { void } else { format!("; VOID: {void}") };
            let who = format!(
                "{} ({} probes each{}{void})",
                interference.name,
                interference.probes(),
                interference.crowd_in_words()
            );
            let _ = writeln!(
                text,
                "| {who} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.2} |",
                p50[0], p50[1], p50[2], p99[0], p99[1], p99[2],
            );
        }
    }

    fn json(&self) -> Value {
        let scenario = |(scenario, Found { rows, absent, failed, .. }): &(Scenario, Found)| {
            json!({
                "name": scenario.name,
                "what": scenario.what,
                "unit": scenario.load.unit(),
                "servers": rows.iter().map(record).collect::<Vec<Value>>(),
                "left_out": absent,
                "failed": failed,
            })
        };
        let interference = |interference: &Interference| {
            let at = |p| {
                let [quiet, beside, times] = interference.percentile(p);
                json!({ "quiet_us": quiet, "beside_us": beside, "times": times })
            };
            json!({ "name": interference.name, "p50": at(50.0), "p95": at(95.0), "p99": at(99.0) })
        };
        json!({
            "run": self.head(),
            "scenarios": self.scenarios.iter().map(scenario).collect::<Vec<Value>>(),
            "interference": self.interference.iter().map(interference).collect::<Vec<Value>>(),
            "parked_bytes": self.parked.iter().map(|(n, bytes)| json!({ "clients": n, "each": bytes })).collect::<Vec<_>>(),
        })
    }
}

fn micro(nanoseconds: u64) -> String {
    format!("{:.0}", nanoseconds as f64 / 1e3)
}

fn line(row: &Row, again: &str) -> String {
    let mut line = format!("| {}{again} ", row.entry.name());
    // At the limit, latency would be how long the clients look away.
    match row.half(Placement::Apart) {
        Some(half) => {
            let at = |p| micro(half.tally.latency.value_at_percentile(p));
            let max = micro(half.tally.latency.max());
            let _ = write!(line, "| {:.0} | {} | {} | {} | {max} ", half.rate, at(50.0), at(99.0), at(99.9));
        }
        None => line.push_str("| | | | | "),
    }
    for placement in [Placement::Apart, Placement::Limit] {
        let half = row.half(placement);
        let cpu = half.map(|half| format!("{:.2}", half.cpu[1])).unwrap_or_default();
        let ratio = half.and_then(|half| half.ratio);
        let ratio = ratio.map(|[low, median, high]| format!("{median:.3} ({low:.3} to {high:.3})"));
        let _ = write!(line, "| {cpu} | {} ", ratio.unwrap_or_default());
    }
    let calls = row.calls.as_ref().map(|(calls, _)| format!("{calls:.2}")).unwrap_or_default();
    let mebibytes = row.resident as f64 / 1048576.0;
    let _ = writeln!(line, "| {calls} | {mebibytes:.1} | {} |", remarks(row).join(", "));
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

fn record(row: &Row) -> Value {
    json!({
        "server": row.entry.kind.name(),
        "idle": row.entry.idle,
        "runs": row.halves.iter().map(half).collect::<Vec<Value>>(),
        "calls": row.calls.as_ref().map(|(calls, _)| calls),
        "calls_by_name": row.calls.as_ref().map(|(_, list)| list),
        "resident_bytes": row.resident,
        "bytes_each": row.each,
    })
}

fn half(half: &Half) -> Value {
    let at = |p| half.tally.latency.value_at_percentile(p);
    json!({
        "placement": half.placement.name(),
        "requests": half.tally.requests(),
        "served": half.tally.served,
        "busy": half.tally.busy,
        "evicted": half.tally.evicted,
        "errors": half.tally.errors,
        "per_second": half.rate,
        "latency_ns": { "p50": at(50.0), "p99": at(99.0), "p99.9": at(99.9), "max": half.tally.latency.max() },
        "cpu_us": half.cpu,
        "ratio": half.ratio,
        "clients_busy": half.clients_busy,
        "clients_keep_pace": half.keeps_pace,
        "void": half.void.moved(),
    })
}

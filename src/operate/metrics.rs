//! Counts in the text format of Prometheus (version 0.0.4).

use crate::stack::{StackService, WAITS};
use crate::stats::Stats;
use std::fmt::{Display, Write};
use std::time::Duration;

/// Returns all metrics. No label has values that clients choose.
pub(super) fn text(stack: &StackService, stats: Stats, uptime: Duration) -> String {
    let (counts, (pushes, pops)) = (stack.counts(), stack.parked());
    let mut text = Text(String::new());
    text.family("requests_total", "counter", "Requests that came whole, by kind.");
    text.value("requests_total{kind=\"push\"}", counts.pushes);
    text.value("requests_total{kind=\"pop\"}", counts.pops);
    text.one("parked_total", "counter", "Requests that had to wait.", counts.parked);
    text.one("cancelled_total", "counter", "Requests whose client left while they waited.", counts.cancelled);
    text.one("undelivered_total", "counter", "Popped items that went back on top.", counts.undelivered);
    text.one("connections_total", "counter", "Connections that were admitted, of all listeners.", stats.opened);
    text.one(
        "rejected_total",
        "counter",
        "Connections that were turned away, as all places were taken.",
        stats.rejected,
    );
    text.one("evicted_total", "counter", "Connections that gave way to a newcomer.", stats.evicted);
    text.one(
        "failed_accepts_total",
        "counter",
        "Accepts that failed, for lack of descriptors mostly.",
        stats.failed_accepts,
    );
    text.one("items", "gauge", "Items on the stack.", stack.items());
    text.one("capacity_items", "gauge", "Items that there may be.", stack.capacity());
    text.family("parked", "gauge", "Requests that wait, by kind.");
    text.value("parked{kind=\"push\"}", pushes);
    text.value("parked{kind=\"pop\"}", pops);
    text.one("open_connections", "gauge", "Connections that are open, of all listeners.", stats.open);
    text.one("lingering_connections", "gauge", "Closed connections whose clients have not ended.", stats.lingering);
    text.one("uptime_seconds", "gauge", "Seconds since the start.", uptime.as_secs());
    text.family(
        "wait_seconds",
        "histogram",
        "From the coming of a client to its answer, of requests that had to wait.",
    );
    let mut sum = 0;
    for (bound, count) in
        WAITS.iter().map(|bound| bound.as_secs_f64().to_string()).chain(["+Inf".to_owned()]).zip(counts.waits)
    {
        sum += count;
        text.value(&format!("wait_seconds_bucket{{le=\"{bound}\"}}"), sum);
    }
    text.value("wait_seconds_sum", counts.waited.as_secs_f64());
    text.value("wait_seconds_count", sum);
    text.0
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // A string takes everything.
        let _ = write!(self.0, "# HELP pollstack_{name} {help}\n# TYPE pollstack_{name} {kind}\n");
    }

    fn value(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "pollstack_{name} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.value(name, value);
    }
}

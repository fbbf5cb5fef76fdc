//! Counts in the text format of Prometheus (version 0.0.4).

use crate::stack::{Histogram, Shares, StackService};
use crate::stats::Stats;
use std::fmt::{Display, Write};
use std::time::Duration;

/// Metrics that are being written. No label has values that clients choose.
#[derive(Debug)]
pub struct Text {
    prefix: &'static str,
    text: String,
}

/// The connection to the engine of a [shared](StackService::share) stack, as its owner tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineState {
    /// How often it was ready.
    pub connects: u64,
    /// How often it failed.
    pub failures: u64,
    /// Why the engine does not answer now.
    pub trouble: Option<String>,
}

impl EngineState {
    /// Adds its counts.
    pub fn metrics(&self, text: &mut Text) {
        text.one("engine_up", "gauge", "Whether the engine answers.", u8::from(self.trouble.is_none()));
        text.one("engine_connects_total", "counter", "Connections to the engine that were made.", self.connects);
        text.one("engine_failures_total", "counter", "Connections to the engine that failed.", self.failures);
    }
}

/// Adds the counts of a stack.
pub(super) fn of_stack(text: &mut Text, stack: &StackService) {
    let (counts, (pushes, pops)) = (stack.counts(), stack.parked());
    text.family("requests_total", "counter", "Requests that came whole, by kind.");
    text.value("requests_total{kind=\"push\"}", counts.pushes);
    text.value("requests_total{kind=\"pop\"}", counts.pops);
    text.one("parked_total", "counter", "Requests that had to wait.", counts.parked);
    text.one("cancelled_total", "counter", "Requests whose client left while they waited.", counts.cancelled);
    text.one("undelivered_total", "counter", "Popped items that went back on top.", counts.undelivered);
    text.one("items", "gauge", "Items on the stack.", stack.items());
    text.one("capacity_items", "gauge", "Items that there may be.", stack.capacity());
    text.one("storing", "gauge", "Pushes on the stack that wait for the disk.", stack.storing());
    let trouble = u8::from(stack.trouble().is_some());
    text.one("data_trouble", "gauge", "Whether the data file cannot be written.", trouble);
    text.family("parked", "gauge", "Requests that wait, by kind.");
    text.value("parked{kind=\"push\"}", pushes);
    text.value("parked{kind=\"pop\"}", pops);
    let served = "From the coming of a client to its answer, of all requests; 0 within one turn of the loop.";
    let mut times = counts.service_times;
    times.counts[0] += counts.at_once;
    text.histogram("service_seconds", served, &times);
    text.histogram("wait_seconds", "The same, of requests that had to wait.", &counts.waits);
}

/// Adds the counts of an edge and its engine.
pub(super) fn of_engine(text: &mut Text, engine: &EngineState, shares: &Shares) {
    engine.metrics(text);
    text.one("engine_batches_total", "counter", "Batches that the engine has answered.", shares.batches);
    text.one("engine_requests_total", "counter", "Requests in them.", shares.asks);
    text.one("engine_retries_total", "counter", "Batches that were sent again.", shares.retries);
    let expired = "How often the engine has taken this edge for dead.";
    text.one("engine_expired_total", "counter", expired, shares.expired);
    text.histogram("engine_seconds", "From a batch to its answer.", &shares.latency);
}

impl Text {
    /// The media type.
    pub(super) const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// An empty text. The names of all metrics begin with `prefix`.
    pub(super) fn new(prefix: &'static str) -> Text {
        Text { prefix, text: String::new() }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Adds a histogram of times.
    pub fn histogram(&mut self, name: &str, help: &str, times: &Histogram) {
        self.family(name, "histogram", help);
        let bounds = Histogram::BOUNDS.iter().map(|bound| bound.as_secs_f64().to_string());
        let mut sum = 0;
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(times.counts) {
            sum += count;
            self.value(&format!("{name}_bucket{{le=\"{bound}\"}}"), sum);
        }
        self.value(&format!("{name}_sum"), times.sum.as_secs_f64());
        self.value(&format!("{name}_count"), sum);
    }

    /// Adds the connections that are open, by the listener that has admitted them.
    pub(super) fn by_listener(&mut self, counts: [(&str, usize); 2]) {
        self.family("listener_connections", "gauge", "Connections that are open, by listener.");
        for (name, count) in counts {
            self.value(&format!("listener_connections{{listener=\"{name}\"}}"), count);
        }
    }

    /// Adds the counts of a loop.
    pub(super) fn of_loop(&mut self, stats: Stats) {
        self.one("connections_total", "counter", "Connections that were admitted, of all listeners.", stats.opened);
        let full = "Connections that were rejected, as all places were taken.";
        self.one("rejected_total", "counter", full, stats.rejected);
        self.one("evicted_total", "counter", "Connections that gave way to a newcomer.", stats.evicted);
        let failed = "Accepts that failed, for lack of descriptors mostly.";
        self.one("failed_accepts_total", "counter", failed, stats.failed_accepts);
        self.one("received_bytes_total", "counter", "Bytes read from connections.", stats.received);
        self.one("sent_bytes_total", "counter", "Bytes of output that the kernel has taken.", stats.sent);
        self.one("open_connections", "gauge", "Connections that are open, of all listeners.", stats.open);
        let lingering = "Closed connections whose clients have not ended.";
        self.one("lingering_connections", "gauge", lingering, stats.lingering);
    }

    pub(super) fn of_uptime(&mut self, uptime: Duration) {
        self.one("uptime_seconds", "gauge", "Seconds since the start.", uptime.as_secs());
    }

    /// Adds the values of another loop of the same server, whose text has the same lines.
    pub(super) fn add(&mut self, other: &str) {
        let number = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok()).unwrap_or(0.0);
        let sum = |(own, other): (&str, &str)| match own.rsplit_once(' ').filter(|_| !own.starts_with('#')) {
            Some((name, _)) => format!("{name} {}\n", number(own) + number(other)),
            None => format!("{own}\n"),
        };
        self.text = self.text.lines().zip(other.lines()).map(sum).collect();
    }

    /// Begins a metric: its name without the prefix, its type and its meaning.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let prefix = self.prefix;
        // A string takes everything.
        let _ = write!(self.text, "# HELP {prefix}_{name} {help}\n# TYPE {prefix}_{name} {kind}\n");
    }

    /// Adds a value of it; `name` may have labels.
    pub fn value(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.text, "{}_{name} {value}", self.prefix);
    }

    /// Adds a metric with one value.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.value(name, value);
    }
}

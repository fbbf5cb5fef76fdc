//! Where the processor time of a process goes, by samples of its stack.

use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options};
use inferno::flamegraph;
use std::collections::BTreeMap;
use std::io::BufReader;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::NamedTempFile;

/// Samples for a second of processor time.
const FREQUENCY: &str = "4999";

/// A `perf record` of a process.
#[derive(Debug)]
pub struct Recording {
    perf: Child,
    data: NamedTempFile,
}

impl Recording {
    /// Records a process from here on. The software clock is sampled, as virtual machines often have no counters.
    ///
    /// # Errors
    /// A text: there is no perf, or it may not do that.
    pub fn start(pid: u32) -> Result<Recording, String> {
        let data = NamedTempFile::new().map_err(|error| error.to_string())?;
        let mut perf = Command::new("perf");
        perf.args(["record", "--quiet", "-e", "cpu-clock", "-F", FREQUENCY, "-g", "-p", &pid.to_string(), "-o"]);
        let perf = perf.arg(data.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut perf = perf.map_err(|error| format!("perf cannot be run: {error}"))?;
        // It says nothing when it has begun; if it may not, it ends at once.
        std::thread::sleep(Duration::from_millis(300));
        match perf.try_wait() {
            Ok(None) => Ok(Recording { perf, data }),
            _ => Err("perf cannot record; see /proc/sys/kernel/perf_event_paranoid".to_owned()),
        }
    }

    /// Ends the recording, and reads it.
    ///
    /// # Errors
    /// A text: perf says nothing that can be read.
    pub fn stop(mut self) -> Result<Profile, String> {
        let _ = Command::new("kill").args(["-INT", &self.perf.id().to_string()]).status();
        let _ = self.perf.wait();
        let mut script = Command::new("perf");
        script.args(["script", "-i"]).arg(self.data.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut script = script.spawn().map_err(|error| error.to_string())?;
        let output = script.stdout.take().ok_or("perf script has no output")?;
        let mut options = Options::default();
        options.annotate_kernel = true;
        let mut folded = Vec::new();
        let collapsed = Folder::from(options).collapse(BufReader::new(output), &mut folded);
        let _ = script.wait();
        collapsed.map_err(|error| format!("perf script cannot be read: {error}"))?;
        Ok(Profile::read(&String::from_utf8_lossy(&folded)))
    }
}

/// The time of samples by their stacks, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// The functions from the outermost to the innermost, those of the kernel marked with `_[k]`.
    stacks: BTreeMap<Vec<String>, u64>,
}

impl Profile {
    /// Reads a line of functions and a number for each stack.
    fn read(folded: &str) -> Profile {
        let stack = |line: &str| {
            let (stack, count) = line.rsplit_once(' ')?;
            Some((stack.split(';').map(str::to_owned).collect(), count.parse().ok()?))
        };
        Profile { stacks: folded.lines().filter_map(stack).collect() }
    }

    /// Returns the processor time of all samples.
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.weight())
    }

    fn weight(&self) -> u64 {
        self.stacks.values().sum()
    }

    /// Returns the share of each system call, the most expensive first; of the kernel beside calls, such as
    /// interrupts and page faults; and of the process itself.
    pub fn by_call(&self) -> Vec<(String, f64)> {
        self.shares(|stack| match stack.iter().find_map(|name| system_call(name)) {
            Some(call) => call.to_owned(),
            None if stack.last().is_some_and(|name| name.ends_with(KERNEL)) => "interrupts and faults".to_owned(),
            None => "the process itself".to_owned(),
        })
    }

    /// Returns the share of each function of the process, without what it calls, the most expensive first.
    pub fn by_own_function(&self) -> Vec<(String, f64)> {
        let all = self.shares(|stack| match stack.last() {
            Some(name) if !name.ends_with(KERNEL) => name.clone(),
            _ => String::new(),
        });
        all.into_iter().filter(|(name, _)| !name.is_empty()).collect()
    }

    fn shares(&self, name: impl Fn(&[String]) -> String) -> Vec<(String, f64)> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        self.stacks.iter().for_each(|(stack, count)| *counts.entry(name(stack)).or_default() += count);
        let all = self.weight().max(1) as f64;
        let mut shares: Vec<_> = counts.into_iter().map(|(name, count)| (name, count as f64 / all)).collect();
        shares.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        shares
    }

    /// Draws it: a box for each function, as wide as its share, on the function that has called it.
    ///
    /// # Errors
    /// A text: there is nothing to draw.
    pub fn flame_graph(&self, title: &str) -> Result<String, String> {
        let lines: Vec<String> =
            self.stacks.iter().map(|(stack, count)| format!("{} {count}", stack.join(";"))).collect();
        let mut options = flamegraph::Options::default();
        options.title = title.to_owned();
        options.colors = flamegraph::Palette::Multi(flamegraph::color::MultiPalette::Rust);
        options.min_width = 0.1;
        let mut svg = Vec::new();
        flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
            .map_err(|error| format!("the flame graph cannot be drawn: {error}"))?;
        String::from_utf8(svg).map_err(|error| error.to_string())
    }
}

/// The mark of a function of the kernel.
const KERNEL: &str = "_[k]";

/// Returns the system call whose function in the kernel that is.
fn system_call(name: &str) -> Option<&str> {
    let name = name.strip_suffix(KERNEL)?;
    ["__x64_sys_", "__arm64_sys_"].iter().find_map(|prefix| name.strip_prefix(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost otherwise: the time of a call under another name, and an optimisation of the wrong one.
    #[test]
    fn time_is_told_by_system_call() {
        let profile = Profile::read(
            "p;main;send;__x64_sys_sendto_[k];tcp_sendmsg_[k] 30\np;main;send;__x64_sys_sendto_[k] 20\n\
             p;main;turn 40\np;main;turn;asm_sysvec_timer_[k] 10\n",
        );
        let calls = [("sendto", 0.5), ("the process itself", 0.4), ("interrupts and faults", 0.1)];
        assert_eq!(profile.by_call(), calls.map(|(name, share)| (name.to_owned(), share)));
        assert_eq!(profile.by_own_function(), [("turn".to_owned(), 0.4)]);
        assert!(profile.flame_graph("a title").unwrap().contains("tcp_sendmsg"));
    }
}

//! Running a loop until a signal: the first one drains it, the second one ends the process at once. Other
//! signals are handed over.

use crate::event_loop::EventLoop;
use crate::net::{Handle, OnMio, SIGNALS};
use crate::service::Service;
use mio::event::Event;
use signal_hook::consts::SIGXFSZ;
use signal_hook::flag;
use signal_hook_mio::v1_0::Signals;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// Has a write beyond the file size limit of the process (`ulimit -f`) fail, rather than end the process.
pub fn survive_file_size_limit() {
    let _ = flag::register(SIGXFSZ, Arc::default()); // it cannot fail for a signal that exists
}

/// Returns the signals that end a server that reads nothing again on SIGHUP: SIGTERM, SIGINT, and SIGHUP, which
/// comes when the terminal is closed. That is left out if the process was started with it ignored.
pub fn terminating() -> Vec<i32> {
    let hangup = (!ignores_hangup()).then_some(SIGHUP);
    [SIGTERM, SIGINT].into_iter().chain(hangup).collect()
}

/// Returns whether the process was started with SIGHUP ignored, as by `nohup`.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}

/// Signals that stop a loop. From [`new`](StopSignals::new) on they do not end the process any
/// more.
///
/// They arrive as events of the loop's own poll. There is no thread, and a signal handler does no
/// more than write to a pipe, or exit.
///
/// ```no_run
/// # fn serve<S: pollstack::Service>(mut event_loop: pollstack::EventLoop<S>) -> std::io::Result<()> {
/// use pollstack::signals::{SIGINT, SIGTERM, StopSignals};
/// use std::time::Duration;
///
/// let signals = StopSignals::new(&event_loop, &[SIGINT, SIGTERM])?;
/// println!("ready");
/// signals.run(&mut event_loop, Duration::from_secs(5))
/// # }
/// ```
///
/// With other signals, and other event sources in the same poll:
///
/// ```no_run
/// # fn serve<S: pollstack::Service>(mut event_loop: pollstack::EventLoop<S>) -> std::io::Result<()> {
/// # fn reload<S: pollstack::Service>(_: &mut pollstack::EventLoop<S>) {}
/// use pollstack::signals::{SIGHUP, SIGINT, SIGTERM, StopSignals};
/// use std::time::Duration;
///
/// let signals = StopSignals::new(&event_loop, &[SIGINT, SIGTERM])?.others(&[SIGHUP])?;
/// let on_signal = |event_loop: &mut _, _signal| reload(event_loop);
/// let on_event = |_: &mut _, event: &pollstack::mio::event::Event| println!("{event:?} is of a source of ours");
/// signals.run_with(&mut event_loop, Duration::from_secs(5), on_signal, on_event)
/// # }
/// ```
pub struct StopSignals {
    signals: Signals,
    /// Those that do not stop the loop.
    others: Vec<i32>,
    /// The loops on other threads that stop with this one.
    handles: Vec<Handle>,
}

impl fmt::Debug for StopSignals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopSignals").finish_non_exhaustive()
    }
}

impl StopSignals {
    /// Takes over `signals`. Call it before the server says that it is ready, so that a signal that
    /// comes right then drains it, too.
    ///
    /// # Errors
    /// The system's, if the signals cannot be taken over; `InvalidInput` for a loop that is
    /// [embedded](EventLoop::embedded): its poll has an owner, who takes the signals over.
    pub fn new<S: Service, N: OnMio>(event_loop: &EventLoop<S, N>, signals: &[i32]) -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        for &signal in signals {
            // In this order, so that the first signal does not exit.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stopping))?;
            flag::register(signal, Arc::clone(&stopping))?;
        }
        let mut signals = Signals::new(signals)?;
        event_loop.net.mio().register_signals(&mut signals)?;
        Ok(StopSignals { signals, others: Vec::new(), handles: Vec::new() })
    }

    /// Takes over `signals`, too. They do not stop the loop; [`run_with`](Self::run_with) hands them over.
    ///
    /// # Errors
    /// The system's, if the signals cannot be taken over.
    pub fn others(mut self, signals: &[i32]) -> io::Result<Self> {
        signals.iter().try_for_each(|signal| self.signals.add_signal(*signal))?;
        self.others.extend(signals);
        Ok(self)
    }

    /// Stops the loops of `handles` with this one, within the same grace period: those of other threads.
    ///
    /// ```no_run
    /// # use pollstack::{EventLoop, net::Handle, signals::{SIGTERM, StopSignals}, stack::StackService};
    /// # fn run(mut first: EventLoop<StackService>, others: Vec<Handle>) -> std::io::Result<()> {
    /// let signals = StopSignals::new(&first, &[SIGTERM])?.stopping(others);
    /// signals.run(&mut first, std::time::Duration::from_secs(5))
    /// # }
    /// ```
    pub fn stopping(mut self, handles: impl IntoIterator<Item = Handle>) -> Self {
        self.handles.extend(handles);
        self
    }

    /// Runs the loop until a signal arrives, then gives its connections the time `grace` to end.
    ///
    /// If another signal arrives before they have, the process exits at once, even if the service does
    /// not return. The exit status is 128 plus the number of the signal, as a shell reports a process
    /// that a signal has killed.
    ///
    /// # Errors
    /// As [`EventLoop::run`].
    pub fn run<S: Service, N: OnMio>(self, event_loop: &mut EventLoop<S, N>, grace: Duration) -> io::Result<()> {
        self.run_with(event_loop, grace, |_, _| {}, |_, _| {})
    }

    /// Runs the loop as [`run`](Self::run) does. The [other](Self::others) signals are handed to `on_signal`,
    /// and the events of other sources in the loop's poll to `on_event`, as by
    /// [`EventLoop::run_with`].
    ///
    /// # Errors
    /// As [`EventLoop::run`].
    pub fn run_with<S: Service, N: OnMio>(
        mut self,
        event_loop: &mut EventLoop<S, N>,
        grace: Duration,
        mut on_signal: impl FnMut(&mut EventLoop<S, N>, i32),
        mut on_event: impl FnMut(&mut EventLoop<S, N>, &Event),
    ) -> io::Result<()> {
        event_loop.run_with(|event_loop, event| {
            if event.token() != SIGNALS {
                return on_event(event_loop, event);
            }
            for signal in self.signals.pending() {
                if self.others.contains(&signal) {
                    on_signal(event_loop, signal);
                } else {
                    log::info!("signal {signal}: stopping within {grace:?}");
                    event_loop.stop(grace);
                    for handle in &self.handles {
                        let _ = handle.stop(grace); // a loop that has ended need not be told
                    }
                }
            }
        })
    }
}

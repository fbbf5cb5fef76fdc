//! Running a loop until a signal: the first one drains it, the second one ends the process at once.

use crate::event_loop::EventLoop;
use crate::net::Mio;
use crate::service::Service;
use signal_hook::flag;
use signal_hook_mio::v1_0::Signals;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

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
pub struct StopSignals(Signals);

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
    /// The system's, if the signals cannot be taken over.
    pub fn new<S: Service>(event_loop: &EventLoop<S, Mio>, signals: &[i32]) -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        for &signal in signals {
            // In this order, so that the first signal does not exit.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stopping))?;
            flag::register(signal, Arc::clone(&stopping))?;
        }
        let mut signals = Signals::new(signals)?;
        event_loop.net.register_signals(&mut signals)?;
        Ok(StopSignals(signals))
    }

    /// Runs the loop until a signal arrives, then gives its connections the time `grace` to end.
    ///
    /// If another signal arrives before they have, the process exits at once, even if the service does
    /// not return. The exit status is 128 plus the number of the signal, as a shell reports a process
    /// that a signal has killed.
    ///
    /// # Errors
    /// As [`EventLoop::run`].
    pub fn run<S: Service>(mut self, event_loop: &mut EventLoop<S, Mio>, grace: Duration) -> io::Result<()> {
        event_loop.run_with(|event_loop, _| {
            for signal in self.0.pending() {
                log::info!("signal {signal}: stopping within {grace:?}");
                event_loop.stop(grace);
            }
        })
    }
}

//! Stopping a loop as a server is expected to: at the first signal gracefully, at the second now.

use crate::event_loop::EventLoop;
use crate::net::Mio;
use crate::service::Service;
use signal_hook_mio::v1_0::Signals;
use std::io;
use std::process;
use std::time::Duration;

pub use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// The token of the signals, from those left to sources beside the loop.
const SIGNALS: usize = 0;

/// Runs a loop until one of `signals` arrives, then gives its connections the period `grace` to
/// come to an end. If another arrives before that, the process exits at once, with status 128 and
/// the number of the signal, as a shell reports a process that a signal has killed.
///
/// The signals come through the loop's own poll, as any event: no thread, and nothing that runs
/// inside a signal handler but a write to a pipe.
///
/// ```no_run
/// # fn serve<S: pollstack::Service>(mut event_loop: pollstack::EventLoop<S>) -> std::io::Result<()> {
/// use pollstack::signals::{self, SIGINT, SIGTERM};
/// use std::time::Duration;
///
/// signals::run(&mut event_loop, &[SIGINT, SIGTERM], Duration::from_secs(5))
/// # }
/// ```
///
/// # Errors
/// As [`EventLoop::run`], and the system's if the signals cannot be taken over.
pub fn run<S: Service>(event_loop: &mut EventLoop<S, Mio>, signals: &[i32], grace: Duration) -> io::Result<()> {
    let mut signals = Signals::new(signals)?;
    event_loop.register(&mut signals, SIGNALS)?;
    let mut stopping = false;
    event_loop.run_with(|event_loop, _| {
        for signal in signals.pending() {
            if stopping {
                log::warn!("signal {signal} while stopping: exiting at once");
                process::exit(128 + signal);
            }
            log::info!("signal {signal}: stopping within {grace:?}");
            stopping = true;
            event_loop.stop(grace);
        }
    })
}

//! Signals: two that stop the server, and one that has it read its configuration again.

use pollstack::EventLoop;
use pollstack::Service;
use pollstack::net::Mio;
use pollstack::signals::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook_mio::v1_0::Signals;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The token of the signals, from those left to sources beside the loop.
const SIGNALS: usize = 0;

/// Takes over the signals. To be called before the server says that it is ready.
pub(crate) fn take<S: Service>(server: &EventLoop<S, Mio>) -> io::Result<Signals> {
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the first time this does nothing, and the second ends the process.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stopping))?;
        flag::register(signal, Arc::clone(&stopping))?;
    }
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    server.register(&mut signals, SIGNALS)?;
    Ok(signals)
}

/// Runs the loop until a signal stops it, and calls `reload` when one asks for that.
pub(crate) fn run<S: Service>(
    mut signals: Signals,
    server: &mut EventLoop<S, Mio>,
    grace: Duration,
    mut reload: impl FnMut(&mut EventLoop<S, Mio>),
) -> io::Result<()> {
    server.run_with(|server, _| {
        for signal in signals.pending() {
            match signal {
                SIGHUP => reload(server),
                _ => {
                    log::info!("signal {signal}: stopping within {grace:?}");
                    server.stop(grace);
                }
            }
        }
    })
}

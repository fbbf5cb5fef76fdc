//! Lines for a stream whose reader may be slow, or gone: a thread of its own writes them.
//!
//! A write to a full pipe blocks. On the loop's thread it would stop every client of the server, so standard
//! output and standard error are written here.

use crate::net::Handle;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that wait for the stream: some thousand lines, in addition to what a pipe holds.
pub const WAITING_BYTES: usize = 256 * 1024;

/// How long the thread waits before it offers a stream that takes nothing the same bytes again. A pipe that
/// another process has made non-blocking says so instead of blocking.
const RETRY: Duration = Duration::from_millis(50);

/// Writes lines to a stream, on a thread of its own. Clones write to the same stream.
///
/// ```
/// use pollstack::writer::Writer;
/// use std::time::Duration;
///
/// let writer = Writer::new("results", std::io::sink())?;
/// assert!(writer.try_write(b"one line\n"));
/// assert!(writer.flush(Duration::from_secs(5)));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Writer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread is writing.
    busy: bool,
    /// Lines that found no room, since the last report of them.
    dropped: u64,
    /// The last write failed.
    failed: Option<ErrorKind>,
    /// Woken when there is room again.
    starved: Option<Handle>,
}

impl Writer {
    /// Starts a thread called `name` that writes to `stream`.
    ///
    /// # Errors
    /// The system's, if it has no room for a thread.
    pub fn new(name: &str, stream: impl Write + Send + 'static) -> io::Result<Writer> {
        let shared = Arc::new(Shared::default());
        let writer = Writer { shared: Arc::clone(&shared) };
        let work = move || shared.work(stream);
        thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(writer)
    }

    /// Writes `lines` soon, all of them or none. Returns whether there is room for them.
    pub fn try_write(&self, lines: &[u8]) -> bool {
        let mut state = self.shared.lock();
        let fits = state.waiting.is_empty() || state.waiting.len() + lines.len() <= WAITING_BYTES;
        if fits {
            state.waiting.extend_from_slice(lines);
            self.shared.changed.notify_all();
        }
        fits
    }

    /// Writes a line soon. One that finds no room is dropped and counted, and the count is written when
    /// there is room again.
    pub fn write_or_drop(&self, line: &[u8]) {
        if !self.try_write(line) {
            self.shared.lock().dropped += 1;
        }
    }

    /// Wakes the loop of `handle` when what waits now has been written, once: for a caller of
    /// [`try_write`](Self::try_write) that has found no room.
    pub fn wake_when_written(&self, handle: Handle) {
        let mut state = self.shared.lock();
        state.starved = Some(handle);
        self.shared.changed.notify_all();
    }

    /// Returns the error of the last write, if it failed. Its lines are lost.
    pub fn error(&self) -> Option<ErrorKind> {
        self.shared.lock().failed
    }

    /// Waits until all lines have been written, at most `patience`. Returns whether they have been.
    pub fn flush(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut state = self.shared.lock();
        while state.busy || !state.waiting.is_empty() || state.dropped > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Never fails, and never blocks: a line that finds no room is dropped and counted. Made for a logger, which
/// writes a line at a time.
impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_or_drop(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: writes what waits, for as long as the process lives.
    fn work(&self, mut stream: impl Write) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() && state.dropped == 0 && state.starved.is_none() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            batch.clear();
            std::mem::swap(&mut batch, &mut state.waiting);
            match std::mem::take(&mut state.dropped) {
                0 => {}
                1 => batch.extend_from_slice(b"(a line was dropped here: nothing read them)\n"),
                lines => batch.extend(format!("({lines} lines were dropped here: nothing read them)\n").bytes()),
            }
            state.busy = true;
            drop(state);
            let result = write_all(&mut stream, &batch);
            let mut state = self.lock();
            state.busy = false;
            state.failed = result.err().map(|error| error.kind());
            if let Some(handle) = state.starved.take() {
                let _ = handle.wake(); // a loop that has ended needs no room
            }
            self.changed.notify_all();
        }
    }
}

/// Writes all of `bytes`, and waits where a stream that does not block takes nothing.
fn write_all(stream: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const TEST_TIMEOUT: Duration = Duration::from_secs(30);

    /// A stream whose every write waits for leave.
    struct Gate {
        leave: Receiver<io::Result<()>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.leave.recv().unwrap_or(Ok(()))?;
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (Writer, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
        let ((open, leave), (written, seen)) = (channel(), channel());
        (Writer::new("gate", Gate { leave, written }).unwrap(), open, seen)
    }

    /// Lost otherwise: a server that goes on while nothing reads its log, and the count of the lines that
    /// nothing will read.
    #[test]
    fn a_full_stream_drops_lines_and_counts_them() {
        let (writer, open, seen) = gate();
        writer.write_or_drop(b"first\n");
        while !writer.shared.lock().busy {
            thread::yield_now(); // until the thread waits for leave
        }
        let line = [b'x'; 1024];
        (0..WAITING_BYTES / 1024 + 3).for_each(|_| writer.write_or_drop(&line));
        assert!(!writer.flush(Duration::ZERO), "and it says that it is not done");
        open.send(Ok(())).unwrap();
        assert_eq!(seen.recv().unwrap(), b"first\n");
        drop(open);
        assert!(writer.flush(TEST_TIMEOUT));
        let rest: Vec<u8> = seen.try_iter().flatten().collect();
        assert_eq!(rest.len(), WAITING_BYTES + b"(3 lines were dropped here: nothing read them)\n".len());
        assert!(rest.ends_with(b"x(3 lines were dropped here: nothing read them)\n"));
    }

    /// Lost otherwise: a stream that was full once, or whose disk was; and that its owner hears of it.
    #[test]
    fn an_error_loses_a_write_and_not_the_stream() {
        let (writer, open, seen) = gate();
        open.send(Err(ErrorKind::StorageFull.into())).unwrap();
        assert!(writer.try_write(b"lost\n") && writer.flush(TEST_TIMEOUT));
        assert_eq!(writer.error(), Some(ErrorKind::StorageFull));
        open.send(Err(ErrorKind::WouldBlock.into())).unwrap();
        drop(open);
        assert!(writer.try_write(b"kept\n") && writer.flush(TEST_TIMEOUT));
        assert_eq!(seen.recv().unwrap(), b"kept\n");
        assert_eq!(writer.error(), None);
    }
}

//! Lines for a stream whose reader may be slow, or gone.
//!
//! A write to a full pipe blocks. On the loop's thread it would stop every client of the server, so standard
//! output and standard error are written here: at once if they take it without blocking, else by a thread.
//!
//! The thread begins with the first line that has to wait. A process with a second thread pays for it in every
//! system call: glibc makes each of them a cancellation point then, which is 180 instructions a request.

use crate::net::Handle;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that wait for the stream: some thousand lines, in addition to what a pipe holds.
pub const WAITING_BYTES: usize = 256 * 1024;

/// How long the thread waits before it offers a stream that takes nothing the same bytes again.
const RETRY: Duration = Duration::from_millis(50);

/// Writes lines to a stream, and never blocks. Clones write to the same stream.
///
/// ```
/// use pollstack::writer::Writer;
/// use std::time::Duration;
///
/// let writer = Writer::blocking("results", std::io::sink());
/// assert!(writer.try_write(b"one line\n"));
/// assert!(writer.flush(Duration::from_secs(5)));
/// ```
#[derive(Clone, Debug)]
pub struct Writer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The name of the thread.
    name: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The stream, until the thread has it.
    stream: Option<Box<dyn Write + Send>>,
    /// A write to the stream returns at once.
    direct: bool,
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

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("waiting", &self.waiting.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Writes to a stream that may block, on a thread called `name`, which begins with the first line.
    pub fn blocking(name: &str, stream: impl Write + Send + 'static) -> Writer {
        Writer::new(name, stream, false)
    }

    /// Writes to a stream that never blocks, but says `WouldBlock`. The thread begins when it first does.
    pub fn nonblocking(name: &str, stream: impl Write + Send + 'static) -> Writer {
        Writer::new(name, stream, true)
    }

    fn new(name: &str, stream: impl Write + Send + 'static, direct: bool) -> Writer {
        let state = Mutex::new(State { stream: Some(Box::new(stream)), direct, ..State::default() });
        Writer { shared: Arc::new(Shared { name: name.to_owned(), state, changed: Condvar::new() }) }
    }

    /// Writes `lines` soon, all of them or none. Returns whether there is room for them.
    pub fn try_write(&self, mut lines: &[u8]) -> bool {
        let mut state = self.shared.lock();
        if state.direct && state.waiting.is_empty() {
            lines = state.write_now(lines);
        }
        let fits = state.waiting.is_empty() || state.waiting.len() + lines.len() <= WAITING_BYTES;
        if fits && !lines.is_empty() {
            state.waiting.extend_from_slice(lines);
            self.start_or_notify(&mut state);
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
        self.start_or_notify(&mut state);
    }

    /// Returns the error of the last write, if it failed. Its lines are lost.
    pub fn error(&self) -> Option<ErrorKind> {
        self.shared.lock().failed
    }

    /// Waits until all lines have been written, at most `timeout`. Returns whether they have been.
    pub fn flush(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
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

    /// Leaves what waits to the thread, which begins if there is none. If the system has no room for one, the
    /// next line tries again.
    fn start_or_notify(&self, state: &mut State) {
        let Some(stream) = state.stream.take() else { return self.shared.changed.notify_all() };
        state.direct = false;
        let (shared, handed) = (Arc::clone(&self.shared), Arc::new(Mutex::new(Some(stream))));
        let taken = Arc::clone(&handed);
        let work = move || {
            let stream = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            stream.into_iter().for_each(|stream| shared.work(stream));
        };
        if thread::Builder::new().name(self.shared.name.clone()).spawn(work).is_err() {
            state.stream = handed.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

impl State {
    /// Writes what the stream takes at once. Returns the rest.
    fn write_now<'a>(&mut self, mut lines: &'a [u8]) -> &'a [u8] {
        let Some(stream) = &mut self.stream else { return lines };
        while !lines.is_empty() {
            match stream.write(lines) {
                Ok(n @ 1..) => lines = lines.get(n..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return lines,
                failed => {
                    self.failed = Some(failed.map_or_else(|error| error.kind(), |_| ErrorKind::WriteZero));
                    return &[];
                }
            }
        }
        self.failed = None;
        lines
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
    fn work(&self, mut stream: Box<dyn Write + Send>) {
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
        (Writer::blocking("gate", Gate { leave, written }), open, seen)
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

    /// Lost otherwise: 180 instructions a request, to a thread that nothing needs; or lines, when one is needed.
    #[test]
    fn the_thread_begins_when_a_line_has_to_wait() {
        let ((open, leave), (written, seen)) = (channel(), channel());
        let writer = Writer::nonblocking("gate", Gate { leave, written });
        let is_direct = || writer.shared.lock().stream.is_some();
        open.send(Ok(())).unwrap();
        assert!(writer.try_write(b"now\n") && is_direct());
        assert_eq!(seen.try_recv().unwrap(), b"now\n", "on this thread");
        open.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
        assert!(writer.try_write(b"lost\n") && is_direct());
        assert_eq!(writer.error(), Some(ErrorKind::BrokenPipe));
        open.send(Err(ErrorKind::WouldBlock.into())).unwrap();
        assert!(writer.try_write(b"later\n") && !is_direct());
        drop(open);
        assert!(writer.flush(TEST_TIMEOUT));
        assert_eq!((seen.recv().unwrap(), writer.error()), (b"later\n".to_vec(), None));
    }
}

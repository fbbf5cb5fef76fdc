//! A stack in a file: an acknowledged push survives the process, and the machine.
//!
//! The items are in a [redb](https://docs.rs/redb) database. A thread of its own commits the batches of the
//! stack, one after the other; the loop never waits for it. While one commit runs, the next batch
//! fills, so many pushes share a write to the disk.
//!
//! A crash at any instant leaves the last commit: every push that was answered is on the stack, or was
//! popped. An item whose client had it, and whose removal was not committed yet, is there again.

mod backend;
mod file;

pub use self::file::{DataFile, Kept};

use crate::net::Handle;
use crate::stack::{Batch, Finished, Journal, Trouble};
use std::fmt;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How soon a commit that has failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// When what changes is on the disk, and whether pushes are answered before. There are no other ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// A push is answered when it is on the disk.
    Always,
    /// Pushes are answered at once, and committed this often. A crash can cost those of the last interval.
    Every(Duration),
    /// Pushes are answered at once and written soon. The system brings them to the disk when it likes: a crash
    /// of the process costs a moment's, a power cut can cost the whole file.
    Never,
}

impl FromStr for SyncPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<SyncPolicy, String> {
        match text {
            "always" => Ok(SyncPolicy::Always),
            "never" => Ok(SyncPolicy::Never),
            time => match humantime::parse_duration(time) {
                Ok(Duration::ZERO) => Ok(SyncPolicy::Always),
                Ok(time) => Ok(SyncPolicy::Every(time)),
                Err(_) => Err("write always, never, or a time as 100ms".to_owned()),
            },
        }
    }
}

impl fmt::Display for SyncPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncPolicy::Always => f.write_str("always"),
            SyncPolicy::Every(time) => write!(f, "{}", humantime::format_duration(*time)),
            SyncPolicy::Never => f.write_str("never"),
        }
    }
}

/// The journal of a stack in a file. Dropping it ends its thread.
#[derive(Debug)]
pub struct Durable {
    sync: SyncPolicy,
    handle: Handle,
    /// `None` once the thread is to end.
    batches: Option<Sender<Batch>>,
    results: Receiver<Finished>,
    /// The thread does not wait any more once this is dropped.
    hurry: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Durable {
    /// Starts the thread that writes `file`, and that wakes the loop of `handle`.
    pub fn start(file: DataFile, handle: Handle) -> Durable {
        let sync = file.sync;
        let (batches, to_write) = channel();
        let (written, results) = channel();
        let (hurry, hurried) = channel();
        let waker = handle.clone();
        let thread = thread::spawn(move || {
            Writer { file, pause: None, hurried }.run(&to_write, |finished| {
                let _ = written.send(finished);
                wake(&waker);
            });
        });
        Durable { sync, handle, batches: Some(batches), results, hurry: Some(hurry), thread: Some(thread) }
    }
}

fn wake(handle: &Handle) {
    if let Err(error) = handle.wake() {
        log::error!("cannot wake the loop: {error}");
    }
}

/// Returns what is told if the thread has ended by itself.
fn lost() -> Finished {
    let trouble = Trouble { reason: "its thread has failed".to_owned(), is_final: true };
    Finished { batch: Batch::default(), result: Err(trouble) }
}

impl Journal for Durable {
    fn commit(&mut self, batch: Batch) {
        let sent = self.batches.as_ref().map(|batches| batches.send(batch));
        if !matches!(sent, Some(Ok(()))) {
            log::error!("the thread that writes the data has failed");
            self.wake();
        }
    }

    fn finished(&mut self) -> Option<Finished> {
        match self.results.try_recv() {
            Ok(finished) => Some(finished),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(lost()),
        }
    }

    fn wait(&mut self) -> Option<Finished> {
        self.hurry = None;
        Some(self.results.recv().unwrap_or_else(|_| lost()))
    }

    fn wake(&self) {
        wake(&self.handle);
    }

    fn answers_wait(&self) -> bool {
        self.sync == SyncPolicy::Always
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.batches = None;
        self.hurry = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread.
struct Writer {
    file: DataFile,
    /// When the next commit may begin.
    pause: Option<Instant>,
    /// Disconnected when there is no time for a pause.
    hurried: Receiver<()>,
}

impl Writer {
    fn run(mut self, batches: &Receiver<Batch>, tell: impl Fn(Finished)) {
        for batch in batches {
            if let Some(time) = self.pause.and_then(|until| until.checked_duration_since(Instant::now())) {
                let _ = self.hurried.recv_timeout(time);
            }
            let result = self.file.commit(&batch);
            let pause = match (&result, self.file.sync) {
                (Err(_), _) => Some(RETRY),
                (Ok(()), SyncPolicy::Every(time)) => Some(time),
                (Ok(()), _) => None,
            };
            self.pause = pause.and_then(|pause| Instant::now().checked_add(pause));
            tell(Finished { batch, result });
        }
    }
}

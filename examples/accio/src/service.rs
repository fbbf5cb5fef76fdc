//! The Accio service: a handshake of two commands and two confirmations, then a file, to its end.
//!
//! ```text
//! server: accio\r\n
//! client: confirm-accio\r\n
//! server: accio\r\n
//! client: confirm-accio-again\r\n\r\n, the file, FIN
//! ```

use super::upload::{Folder, Received, Upload};
use pollstack::operate::{Metrics, Text};
use pollstack::{Closed, ConnId, Context, EofAction, ListenerId, Service};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::time::Duration;

const ACCIO: &[u8] = b"accio\r\n";
const CONFIRM: &[u8] = b"confirm-accio\r\n";
const CONFIRM_AGAIN: &[u8] = b"confirm-accio-again\r\n\r\n";

/// Results that wait at most, beside those of clients that were greeted. Only clients that leave before they are
/// greeted can add more, and they have sent nothing.
const MAX_WAITING: usize = 1000;

/// Where the results go, a line each.
pub trait Results {
    /// Takes a line, or has the loop [woken](pollstack::Service::on_wake) when there is room for it.
    fn try_line(&mut self, line: &str) -> bool;
}

/// For tests: takes everything.
impl Results for Vec<u8> {
    fn try_line(&mut self, line: &str) -> bool {
        self.extend(line.bytes().chain([b'\n']));
        true
    }
}

/// A receiver of files.
pub struct Accio<R> {
    /// How long a client may be silent.
    timeout: Duration,
    /// Where files are saved, if they are.
    folder: Option<Folder>,
    /// Whether they are digested.
    digest: bool,
    /// The place for results.
    pub results: R,
    /// Results that found no room.
    waiting: VecDeque<String>,
    /// The clients that are greeted when these have.
    held: BTreeSet<ConnId>,
    /// The clients that have not begun with their file.
    greeted: BTreeSet<ConnId>,
    /// The last file could not be saved, and it has been said why.
    failing: bool,
    /// How many files have come whole, and how many have not.
    received: u64,
    errors: u64,
}

/// One connection.
pub struct Client {
    stage: Stage,
    /// The part of the confirmation that is still to come.
    expected: &'static [u8],
    /// Absent if there is nowhere to save it.
    upload: Option<Upload>,
}

enum Stage {
    Greeted,
    GreetedAgain,
    Sending,
    Complete,
}

impl<R: Results> Accio<R> {
    /// A server that gives up clients after `timeout` without a byte, and tells `results` of what it has
    /// received.
    pub fn new(timeout: Duration, folder: Option<Folder>, digest: bool, results: R) -> Self {
        let (held, greeted) = (BTreeSet::new(), BTreeSet::new());
        let (waiting, failing, received, errors) = (VecDeque::new(), false, 0, 0);
        Accio { timeout, folder, digest, results, waiting, held, greeted, failing, received, errors }
    }

    fn greet(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let _ = cx.send(id, ACCIO);
        cx.set_deadline(id, cx.now().checked_add(self.timeout));
        self.greeted.insert(id);
    }

    /// Reports a result, behind those that wait. While one waits, no client is greeted.
    fn report(&mut self, line: String, was_greeted: bool) {
        if self.waiting.is_empty() && self.results.try_line(&line) {
            return;
        }
        if was_greeted || self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(line);
        }
    }

    /// Takes what has come of a confirmation: nothing but that may come.
    fn confirm(&mut self, cx: &mut Context<'_>, id: ConnId, client: &mut Client, input: &[u8]) -> usize {
        let (part, rest) = client.expected.split_at(input.len().min(client.expected.len()));
        if !input.starts_with(part) {
            log::debug!("{id} has not confirmed, but sent {}", input[..part.len()].escape_ascii());
            cx.abort(id);
        }
        client.expected = rest;
        if rest.is_empty() {
            self.advance(cx, id, client);
        }
        part.len()
    }

    fn advance(&mut self, cx: &mut Context<'_>, id: ConnId, client: &mut Client) {
        match client.stage {
            Stage::Greeted => {
                let _ = cx.send(id, ACCIO); // it is given up if it does not answer
                client.expected = CONFIRM_AGAIN;
                client.stage = Stage::GreetedAgain;
            }
            Stage::GreetedAgain => {
                self.greeted.remove(&id);
                client.stage = Stage::Sending;
            }
            Stage::Sending | Stage::Complete => {}
        }
    }

    /// Takes what has come of a file.
    fn receive(&mut self, cx: &mut Context<'_>, id: ConnId, client: &mut Client, input: &[u8]) -> usize {
        let written = client.upload.as_mut().map_or(Ok(()), |upload| upload.write(input));
        if let Err(error) = written {
            self.complain(id, &error);
            cx.abort(id);
        }
        input.len()
    }

    /// Says why a file cannot be saved; only once for files in a row that cannot.
    fn complain(&mut self, id: ConnId, error: &io::Error) {
        let level = if self.failing { log::Level::Debug } else { log::Level::Error };
        log::log!(level, "{id}: its file cannot be saved: {error}");
        self.failing = true;
    }

    /// Ends a connection's file. Returns it if it is whole.
    fn conclude(&mut self, id: ConnId, client: Client) -> Option<Received> {
        let upload = client.upload?;
        let result = match client.stage {
            Stage::Complete => upload.finish(self.folder.as_mut()).map(Some),
            Stage::Greeted | Stage::GreetedAgain | Stage::Sending => upload.fail(self.folder.as_mut()).map(|()| None),
        };
        match result {
            Ok(received) => {
                self.failing &= received.is_none();
                received
            }
            Err(error) => {
                self.complain(id, &error);
                None
            }
        }
    }
}

impl<R: Results> Metrics for Accio<R> {
    fn metrics(&self, text: &mut Text) {
        text.family("files_total", "counter", "Clients that have gone, by result.");
        text.value("files_total{result=\"received\"}", self.received);
        text.value("files_total{result=\"error\"}", self.errors);
        text.one("waiting_results", "gauge", "Results that wait for their reader.", self.waiting.len());
    }
}

impl<R: Results> Service for Accio<R> {
    type Conn = Client;

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) -> Client {
        let upload = Upload::new(self.folder.as_mut(), self.digest);
        match &upload {
            Ok(_) if self.waiting.is_empty() => self.greet(cx, id),
            Ok(_) => drop(self.held.insert(id)),
            Err(error) => {
                self.complain(id, error);
                cx.abort(id);
            }
        }
        Client { stage: Stage::Greeted, expected: CONFIRM, upload: upload.ok() }
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, client: &mut Client, input: &[u8]) -> usize {
        if self.held.contains(&id) {
            cx.pause(id); // it speaks before it is greeted
            return 0;
        }
        cx.set_deadline(id, cx.now().checked_add(self.timeout));
        match client.stage {
            Stage::Greeted | Stage::GreetedAgain => self.confirm(cx, id, client, input),
            Stage::Sending | Stage::Complete => self.receive(cx, id, client, input),
        }
    }

    /// The end of the stream is the end of the file, if that has begun.
    fn on_eof(&mut self, _: &mut Context<'_>, _: ConnId, client: &mut Client) -> EofAction {
        if let Stage::Sending = client.stage {
            client.stage = Stage::Complete;
        }
        EofAction::Finish
    }

    fn on_close(&mut self, _: &mut Context<'_>, id: ConnId, client: Client, closed: Closed) {
        self.greeted.remove(&id);
        let was_greeted = !self.held.remove(&id);
        log::debug!("{id}: {:?}", closed.reason);
        let received = self.conclude(id, client);
        *(if received.is_some() { &mut self.received } else { &mut self.errors }) += 1;
        let line = received.map_or_else(|| "ERROR".to_owned(), |received| received.to_string());
        self.report(line, was_greeted);
    }

    /// There may be room for results again.
    fn on_wake(&mut self, cx: &mut Context<'_>) {
        while let Some(line) = self.waiting.front() {
            if !self.results.try_line(line) {
                return;
            }
            self.waiting.pop_front();
        }
        for id in std::mem::take(&mut self.held) {
            self.greet(cx, id);
            cx.resume(id);
        }
    }

    /// Files that have begun may still come to their end.
    fn on_shutdown(&mut self, cx: &mut Context<'_>) {
        self.greeted.iter().chain(&self.held).for_each(|id| cx.abort(*id));
    }
}

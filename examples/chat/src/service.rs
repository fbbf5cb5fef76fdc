//! The chat service: who is logged in, what is on its way to whom, and what is still to be answered.

use super::protocol::{
    self, BAD_DEST_USER, BAD_RQST_BODY, BAD_RQST_HDR, BUSY, Front, IN_USE, MAX_DELIVERY, MAX_LINE, MAX_NAME, MAX_REPLY,
    SEND_OK,
};
use pollstack::operate::{Metrics, Text};
use pollstack::queue::{Place, Queue};
use pollstack::{Closed, ConnId, ConnMap, Context, EofAction, Limits, ListenerId, SendError, Service};
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::rc::Rc;
use std::time::Duration;

/// How many requests of a client may wait for their answer, which comes in the order of the
/// requests: as many `SEND`s go out in one write.
const MAX_UNANSWERED: usize = 64;

/// The room in a client's output that is left to the answers that it may be owed.
const ANSWERS: usize = MAX_UNANSWERED * MAX_REPLY;

/// Users who send each other messages.
pub struct Chat {
    max_users: usize,
    max_strangers: usize,
    /// How long a client may take to log in, and to take something of what waits for it.
    timeout: Duration,
    /// The bytes that a client's empty output can hold.
    room: usize,
    /// The users who are logged in, and their places in the order of their logins.
    users: BTreeMap<Rc<[u8]>, (ConnId, Place)>,
    logins: Queue<Rc<[u8]>>,
    /// All users that are connected.
    clients: ConnMap<Client>,
    /// Those that have not logged in yet, in the order in which they came.
    strangers: Queue<ConnId>,
    /// How many messages have been delivered.
    delivered: u64,
}

#[derive(Default)]
struct Client {
    /// Its place among the strangers, until it logs in or leaves.
    stranger: Option<Place>,
    /// Its name, from its login on.
    name: Option<Rc<[u8]>>,
    /// It has made its last request, and goes when it has been answered.
    leaving: bool,
    /// The answers that are still to come, in order.
    unanswered: VecDeque<Answer>,
    /// How many requests have been answered, and so the number of the first that has not.
    answered: u64,
    /// How many bytes have been sent to it.
    sent: u64,
    /// The messages that are on their way to it, in order.
    deliveries: VecDeque<Delivery>,
    /// Those whose next message is for it, and has no room yet.
    held_back: VecDeque<ConnId>,
}

#[derive(Clone, Copy)]
enum Answer {
    Known(&'static [u8]),
    /// Its message is on its way.
    Open,
}

/// A message that is not yet the kernel's.
struct Delivery {
    /// How many bytes have been sent to the recipient with its last one.
    end: u64,
    sender: ConnId,
    /// The number of the sender's request.
    number: u64,
}

/// The request has to wait for something; it will be offered again.
struct Deferred;

impl Chat {
    /// A server for at most `max_users` users, and as many clients as [`conns`](Self::conns) says. Of clients that
    /// have not logged in there are at most `max_strangers`: the oldest gives way to the one too many.
    pub fn new(max_users: usize, max_strangers: usize, timeout: Duration) -> Chat {
        let list = b"LIST-OK \n".len() + max_users.saturating_mul(MAX_NAME + 1);
        Chat {
            max_users,
            max_strangers,
            timeout,
            room: ANSWERS + list.max(2 * MAX_DELIVERY),
            users: BTreeMap::new(),
            logins: Queue::new(),
            clients: ConnMap::new(),
            strangers: Queue::new(),
            delivered: 0,
        }
    }

    /// Returns how many connections there may be: users, strangers, and the one that makes a stranger give way.
    pub fn conns(&self) -> usize {
        self.max_users.saturating_add(self.max_strangers).saturating_add(1)
    }

    /// Returns the limits that the loop needs for it: a line has to fit the input, a message or the list
    /// of all users the output.
    pub fn limits(&self, limits: Limits) -> Limits {
        limits.input(MAX_LINE + 2).output(self.room)
    }

    /// Returns whether a client may ask for more: there is room for its answer, and the messages to it have
    /// gone out. Those wait for all its output to go, so it must not go on adding to that itself.
    fn may_ask(&self, cx: &Context<'_>, id: ConnId) -> bool {
        let client = &self.clients[id];
        client.unanswered.len() < MAX_UNANSWERED && client.deliveries.is_empty() && cx.send_capacity(id) >= ANSWERS
    }

    /// Does what a line asks for.
    fn request(&mut self, cx: &mut Context<'_>, id: ConnId, line: &[u8]) -> Result<(), Deferred> {
        let client = &self.clients[id];
        let (header, body) = protocol::cut(line);
        let answer = match (header, &client.name) {
            (b"HELLO-FROM", None) => return self.log_in(cx, id, body),
            (_, None) => return self.reject(cx, id, BAD_RQST_HDR),
            (b"LIST", Some(_)) if body.is_empty() => return self.list(cx, id),
            (b"LIST", Some(_)) => Answer::Known(BAD_RQST_BODY),
            (b"SEND", Some(sender)) => self.deliver(cx, id, Rc::clone(sender), body)?,
            (_, Some(_)) => Answer::Known(BAD_RQST_HDR),
        };
        self.client(id).unanswered.push_back(answer);
        self.answer(cx, id);
        Ok(())
    }

    fn log_in(&mut self, cx: &mut Context<'_>, id: ConnId, name: &[u8]) -> Result<(), Deferred> {
        if !protocol::is_name(name) {
            return self.reject(cx, id, BAD_RQST_BODY);
        }
        if self.users.contains_key(name) {
            return self.reject(cx, id, IN_USE);
        }
        if self.users.len() >= self.max_users {
            return self.reject(cx, id, BUSY);
        }
        self.say(cx, id, &[b"HELLO ", name, b"\n"], 0).map_err(|_| Deferred)?;
        let name: Rc<[u8]> = name.into();
        log::debug!("{id} is {}", name.escape_ascii());
        let place = self.logins.push_back(Rc::clone(&name));
        self.users.insert(Rc::clone(&name), (id, place));
        self.client(id).name = Some(name);
        self.know(id);
        Ok(())
    }

    /// Counts a client no longer as a stranger.
    fn know(&mut self, id: ConnId) {
        if let Some(place) = self.client(id).stranger.take() {
            self.strangers.remove(place);
        }
    }

    fn list(&mut self, cx: &mut Context<'_>, id: ConnId) -> Result<(), Deferred> {
        if !self.clients[id].unanswered.is_empty() {
            return Err(Deferred);
        }
        let names: Vec<&[u8]> = self.logins.iter().map(|name| &name[..]).collect();
        self.say(cx, id, &[b"LIST-OK ", &names.join(&b','), b"\n"], 0).map_err(|_| Deferred)
    }

    /// Puts a message on its way, if its recipient has room for it beside the answers that it may
    /// be owed.
    fn deliver(&mut self, cx: &mut Context<'_>, id: ConnId, sender: Rc<[u8]>, body: &[u8]) -> Result<Answer, Deferred> {
        let (name, text) = protocol::cut(body);
        if name.is_empty() || text.is_empty() {
            return Ok(Answer::Known(BAD_RQST_BODY));
        }
        let Some(&(to, _)) = self.users.get(name) else { return Ok(Answer::Known(BAD_DEST_USER)) };
        let message = [b"DELIVERY ", &sender[..], b" ", text, b"\n"];
        match self.say(cx, to, &message, ANSWERS) {
            Ok(()) => {
                let client = &self.clients[id];
                let number = client.answered + client.unanswered.len() as u64;
                let recipient = self.client(to);
                recipient.deliveries.push_back(Delivery { end: recipient.sent, sender: id, number });
                Ok(Answer::Open)
            }
            Err(SendError::Gone) => Ok(Answer::Known(BAD_DEST_USER)),
            Err(SendError::Full | SendError::TooLarge) => {
                let held_back = &mut self.client(to).held_back;
                if !held_back.contains(&id) {
                    held_back.push_back(id);
                }
                Err(Deferred)
            }
        }
    }

    /// Says the last word to a client, and lets it go.
    fn reject(&mut self, cx: &mut Context<'_>, id: ConnId, word: &'static [u8]) -> Result<(), Deferred> {
        self.client(id).unanswered.push_back(Answer::Known(word));
        self.leave(cx, id);
        Ok(())
    }

    /// Logs a client out. It stays until it has been answered.
    fn leave(&mut self, cx: &mut Context<'_>, id: ConnId) {
        self.client(id).leaving = true;
        self.log_out(id);
        self.know(id);
        self.answer(cx, id);
    }

    /// Gives a client's name free, if it has one that is not free already.
    fn log_out(&mut self, id: ConnId) {
        let Some(name) = self.client(id).name.clone() else { return };
        if self.users.get(&name).is_some_and(|(user, _)| *user == id) {
            if let Some((_, place)) = self.users.remove(&name) {
                self.logins.remove(place);
            }
        }
    }

    /// Answers a client's requests up to the first whose outcome is open. There is room for that:
    /// messages have left it. When the answers have gone out, it can ask for more.
    fn answer(&mut self, cx: &mut Context<'_>, id: ConnId) {
        while let Some(&Answer::Known(answer)) = self.client(id).unanswered.front() {
            let client = self.client(id);
            client.unanswered.pop_front();
            client.answered += 1;
            let _ = self.say(cx, id, &[answer], 0);
        }
        let client = self.client(id);
        if client.leaving && client.unanswered.is_empty() {
            cx.finish_lingering(id);
        }
    }

    /// Sends `parts` to a client, if `spare` bytes of room are left then.
    fn say(&mut self, cx: &mut Context<'_>, id: ConnId, parts: &[&[u8]], spare: usize) -> Result<(), SendError> {
        let (room, len) = (cx.send_capacity(id), parts.iter().map(|part| part.len()).sum::<usize>());
        if !cx.is_open(id) {
            return Err(SendError::Gone);
        }
        if room < len + spare {
            return Err(SendError::Full);
        }
        if room == self.room {
            // Nothing waited for it; from now on something does.
            cx.set_deadline(id, cx.now().checked_add(self.timeout));
        }
        self.client(id).sent += len as u64;
        parts.iter().try_for_each(|part| cx.send(id, part))
    }

    /// Tells senders what has become of their messages to a client, of which the kernel has taken
    /// the first `taken` bytes that were ever sent to it, and will take no more of these.
    fn settle(&mut self, cx: &mut Context<'_>, deliveries: VecDeque<Delivery>, taken: u64) {
        for Delivery { end, sender, number } in deliveries {
            let Some(client) = self.clients.get_mut(sender) else { continue };
            let answer = if end <= taken { SEND_OK } else { BAD_DEST_USER };
            self.delivered += u64::from(end <= taken);
            client.unanswered[(number - client.answered) as usize] = Answer::Known(answer);
            self.answer(cx, sender);
        }
    }

    fn client(&mut self, id: ConnId) -> &mut Client {
        &mut self.clients[id] // a client is there from on_open to on_close, and users are clients
    }
}

impl Metrics for Chat {
    fn metrics(&self, text: &mut Text) {
        text.one("users", "gauge", "Users who are logged in.", self.users.len());
        text.one("strangers", "gauge", "Clients that have not logged in.", self.strangers.len());
        text.one("delivered_total", "counter", "Messages that were delivered.", self.delivered);
    }
}

impl Service for Chat {
    /// How far the first line has been searched for its end.
    type Conn = usize;

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) -> usize {
        if self.strangers.len() >= self.max_strangers {
            if let Some(&oldest) = self.strangers.front() {
                let _ = self.reject(cx, oldest, BUSY);
            }
        }
        let stranger = Some(self.strangers.push_back(id));
        self.clients.insert(id, Client { stranger, ..Client::default() });
        cx.set_deadline(id, cx.now().checked_add(self.timeout));
        0
    }

    /// Takes a line at a time. One that has to wait stays where it is, and nothing is read behind
    /// it: so the client is held back, too.
    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, searched: &mut usize, input: &[u8]) -> usize {
        if self.clients[id].leaving {
            return input.len();
        }
        let (result, len) = match protocol::front(input, searched) {
            Front::Part => return 0,
            _ if !self.may_ask(cx, id) => (Err(Deferred), 0),
            Front::Line(line, len) => (self.request(cx, id, line), len),
            Front::TooLong => (self.reject(cx, id, BAD_RQST_BODY), input.len()),
        };
        match result {
            Ok(()) => {
                *searched = 0;
                len
            }
            Err(Deferred) => {
                cx.pause(id);
                0
            }
        }
    }

    /// A client that hangs up is logged out, once all that it has sent before is dealt with. It may
    /// still read the answers to that.
    fn on_eof(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut usize) -> EofAction {
        self.leave(cx, id);
        EofAction::Keep
    }

    /// A client has hung up. If what it has sent before waits for a recipient that does not read, that stays
    /// to be dealt with, but the name is free.
    fn on_early_eof(&mut self, _: &mut Context<'_>, id: ConnId, _: &mut usize) {
        if self.clients.iter().any(|(_, client)| client.held_back.contains(&id)) {
            self.log_out(id);
        }
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut usize) {
        cx.set_deadline(id, None);
        let client = self.client(id);
        let (deliveries, mut held_back) = (mem::take(&mut client.deliveries), mem::take(&mut client.held_back));
        let taken = client.sent;
        // They go on in this order. The first may fill the room again: so it is the last this time.
        held_back.rotate_left(held_back.len().min(1));
        held_back.iter().for_each(|id| cx.resume(*id));
        self.settle(cx, deliveries, taken);
        cx.resume(id);
    }

    /// Time is up for a client that has not logged in, or has taken nothing of what waits for it.
    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut usize) {
        match cx.last_write(id).and_then(|at| at.checked_add(self.timeout)) {
            Some(deadline) if deadline > cx.now() => cx.set_deadline(id, Some(deadline)),
            _ => cx.abort(id),
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, _: usize, closed: Closed) {
        self.log_out(id);
        self.know(id);
        let Some(client) = self.clients.remove(id) else { return };
        self.settle(cx, client.deliveries, client.sent - closed.unsent);
        client.held_back.iter().for_each(|id| cx.resume(*id));
        self.clients.iter_mut().for_each(|(_, client)| client.held_back.retain(|held| *held != id));
    }

    /// A client that is rejected has sent a request, and waits for the answer.
    fn is_request_complete(&self, _: ListenerId, input: &[u8]) -> bool {
        input.ends_with(b"\n")
    }

    fn on_shutdown(&mut self, cx: &mut Context<'_>) {
        let clients: Vec<ConnId> = self.clients.iter().map(|(id, _)| id).collect();
        clients.into_iter().for_each(|id| self.leave(cx, id));
    }
}

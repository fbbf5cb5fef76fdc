//! The application as a node of several, which share their channels in an engine.

use super::hub::{self, Hub, Published};
use super::limits::PUBLISH_TIME;
use super::name::Name;
use super::poll;
use super::publish;
use super::reader::{Author, How, Reader, Stage, Subscriber, Transport};
use super::remote::{News, Remote};
use super::router::{Failure, busy};
use super::service::Pubsub;
use super::sse;
use super::websocket::text_frame;
use pollstack::engine::{EngagedHandler, Link, LinkEvent};
use pollstack::http::{ExchangeId, Responder};
use std::time::Instant;

/// A channel cannot be read, nor be published to.
const BROKEN: &str = "Another program's value is in the place of this channel.";

impl Pubsub {
    /// Shares the channels of an engine, with other nodes.
    pub fn share(&mut self) {
        self.hub = Hub::copy(self.config.hub);
        self.remote = Some(Remote::new(self.config.hub.history.messages));
    }

    /// Returns whether the channels are those of an engine.
    pub(crate) fn is_shared(&self) -> bool {
        self.remote.is_some()
    }

    /// Returns whether a reader of a channel that has the message `after` has to wait until the engine has been asked.
    pub(crate) fn must_wait(&self, name: &Name, after: Option<&str>) -> bool {
        let is_here = |remote: &Remote<_>| remote.is_live(name) && self.hub.has(name.as_str());
        self.remote.as_ref().is_some_and(|remote| !is_here(remote) || self.is_ahead(name, after))
    }

    /// Returns whether a reader has more than this node: it comes from one that has heard more of the engine; or the
    /// engine has lost what it has.
    fn is_ahead(&self, name: &Name, after: Option<&str>) -> bool {
        let after = after.and_then(|after| after.parse::<u64>().ok());
        after.zip(self.hub.next(name.as_str())).is_some_and(|(after, next)| after >= next)
    }

    pub(crate) fn wait(&mut self, http: &mut Responder<'_>, id: ExchangeId, reader: Reader) {
        let most = self.config.hub.channels.saturating_mul(2); // those that are kept, and as many that are read
        match &mut self.remote {
            Some(remote) if remote.channels() < most => remote.want(&reader.name),
            _ => return self.reject_reader(http, id, reader.stage(), hub::Busy::Channels.into()),
        }
        let deadline = match reader.stage() {
            Stage::Open => self.next_heartbeat(http.now()),
            Stage::Unanswered(_) => http.now().checked_add(PUBLISH_TIME),
        };
        http.set_deadline(id, deadline);
        self.readers.insert(id, reader);
    }

    /// Goes on with the readers of a channel, which can be read now, or not.
    fn go_on(&mut self, http: &mut Responder<'_>, name: &Name, read: Result<(), fn() -> Failure>) {
        let here = self.readers.iter().filter(|(_, reader)| reader.name == *name).map(|(id, _)| *id);
        for id in here.collect::<Vec<_>>() {
            let Some(mut reader) = self.readers.remove(&id) else { continue };
            let is_ahead = !reader.is_checked && self.is_ahead(name, reader.after.as_deref());
            if let Some(remote) = self.remote.as_mut().filter(|_| is_ahead && read.is_ok()) {
                // The engine may have been asked before this reader came.
                remote.want(name);
                reader.is_checked = true;
                self.readers.insert(id, reader);
                continue;
            }
            let stage = reader.stage();
            http.set_deadline(id, None);
            let done = read.map_err(|why| why()).and_then(|()| (self.read)(self, http, id, reader));
            if let Err(why) = done {
                self.reject_reader(http, id, stage, why);
            }
        }
    }

    /// Ends the subscribers of a channel that cannot be read any more.
    fn end_channel(&mut self, http: &mut Responder<'_>, name: &Name, why: &'static str) {
        for Subscriber { id, transport } in self.hub.remove(name.as_str()) {
            self.sessions.remove(&id);
            let stage = if let Transport::Poll(origin) = transport { Stage::Unanswered(origin) } else { Stage::Open };
            self.reject_reader(http, id, stage, busy(why));
        }
    }

    /// Ends a reader that cannot be served.
    pub(crate) fn reject_reader(&self, http: &mut Responder<'_>, id: ExchangeId, stage: Stage, why: Failure) {
        match stage {
            Stage::Unanswered(origin) => self.reject(http, id, origin, why),
            Stage::Open => http.finish(id), // it comes back
        }
    }

    /// Publishes a message: here, or in the engine, which says later what has become of it.
    pub(crate) fn put(&mut self, name: &Name, text: &str, author: Author) -> Result<Option<Published>, hub::Busy> {
        match &mut self.remote {
            None => self.hub.publish(name.as_str(), text).map(Some),
            Some(remote) => {
                remote.publish(name, text, author);
                Ok(None)
            }
        }
    }

    /// The deadline of a reader that waits for the engine has passed. Streams go on waiting.
    pub(crate) fn has_waited(&mut self, http: &mut Responder<'_>, id: ExchangeId, next: Option<Instant>) {
        match self.readers.get(&id).map(|reader| &reader.how) {
            Some(How::Events) if http.send(id, sse::HEARTBEAT).is_ok() => http.set_deadline(id, next),
            Some(How::Socket(_)) => http.set_deadline(id, next),
            _ => {
                if let Some(reader) = self.readers.remove(&id) {
                    self.reject_reader(http, id, reader.stage(), busy("The engine does not answer."));
                }
            }
        }
    }

    /// Looks whether another message like the last one of the engine would be too much for its readers: the engine waits
    /// then, as publishers do.
    pub(crate) fn look_behind(&mut self, http: &Responder<'_>) {
        if let Some((name, len)) = self.behind.take() {
            if !self.gives(http, &name, len) {
                self.behind = Some((name, len));
            }
        }
    }

    /// Tells a publisher that the engine has published its message, or has no room for it.
    fn published(&self, http: &mut Responder<'_>, name: &Name, author: Author, message: u64) {
        match message {
            0 => self.not_published(http, author, busy("The engine has no room for messages.")),
            _ if author.is_socket => {}
            message => {
                let published = Published { id: message, subscribers: self.hub.subscribers(name.as_str()) };
                publish::reply(http, author.id, published, self.guard.headers(author.origin));
            }
        }
    }

    fn not_published(&self, http: &mut Responder<'_>, Author { id, origin, is_socket }: Author, why: Failure) {
        match is_socket {
            true => drop(http.send(id, &text_frame(poll::error(&why).as_bytes()))),
            false => self.reject(http, id, origin, why),
        }
    }
}

impl EngagedHandler for Pubsub {
    fn on_link(&mut self, http: &mut Responder<'_>, link: &mut Link, event: LinkEvent) {
        let Some(remote) = &mut self.remote else { return };
        if matches!(event, LinkEvent::Ready) {
            let (hub, readers) = (&self.hub, &self.readers);
            remote.retain(|name| hub.has(name.as_str()) || readers.values().any(|reader| reader.name == *name));
        }
        for news in remote.hear(http.now(), link, &mut self.hub, event) {
            match news {
                News::Published(name, author, id) => self.published(http, &name, author, id),
                News::Unknown(author) => {
                    self.not_published(http, author, busy("The engine went away; the message may be published."));
                }
                News::Rejected(author) => self.not_published(http, author, busy(BROKEN)),
                News::Live(name) => self.go_on(http, &name, Ok(())),
                News::Full(name) => self.go_on(http, &name, Err(|| hub::Busy::Channels.into())),
                News::Broken(name) => {
                    self.end_channel(http, &name, BROKEN);
                    self.go_on(http, &name, Err(|| busy(BROKEN)));
                }
                News::Wrong => link.give_up("its answer is not that of our script"),
                News::Message(name, len) => self.behind = Some((name, len)),
                News::More => {}
            }
        }
        self.publish_waiting(http);
        self.work(http);
    }

    fn settle(&mut self, http: &mut Responder<'_>, link: &mut Link) -> bool {
        if let Some(remote) = &mut self.remote {
            remote.settle(http.now(), link, &mut self.hub);
        }
        if self.engine.as_ref() != Some(link.state()) {
            self.engine = Some(link.state().clone());
        }
        !self.stopping || self.remote.as_ref().is_some_and(Remote::is_publishing)
    }

    fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    fn timer(&self) -> Option<Instant> {
        self.timer
    }
}

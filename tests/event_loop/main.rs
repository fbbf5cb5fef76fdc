//! The loop's own promises, in situations that a real kernel hardly ever produces. The network is
//! in memory and the clock is moved by hand, so every test is the same each time.
#![cfg(unix)]

mod accepting;
mod closing;
mod connecting;
mod deadlines;
mod embedding;
mod hot_path;
mod reading;
mod sending;
mod stack;
mod stopping;

use pollstack::net::{Interest, Peer, Ready, Source};
use pollstack::sim::{Client, Event, Sim, Stream, World};
use pollstack::stack::{StackService, wire};
use pollstack::{
    CloseReason, Closed, ConnId, Context, EofAction, EventLoop, Limits, ListenerConfig, ListenerId, Overload,
    SendError, Service,
};
use std::io::ErrorKind;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

type OnData = Box<dyn FnMut(&mut Context<'_>, ConnId, &[u8]) -> usize>;
type Then = Box<dyn FnMut(&mut Context<'_>, ConnId)>;

/// A service that writes down what it is told, and does as the test says.
struct Probe {
    log: Vec<String>,
    ids: Vec<ConnId>,
    on_data: OnData,
    on_drain: Then,
    on_deadline: Then,
    on_wake: Box<dyn FnMut(&mut Context<'_>)>,
    on_timer: Box<dyn FnMut(&mut Context<'_>)>,
    on_eof: EofAction,
    deadline: Option<Duration>,
    /// Whether clients are let in, and which connection gives way to one too many.
    welcome: bool,
    way: Option<ConnId>,
}

impl Probe {
    fn new(on_data: impl FnMut(&mut Context<'_>, ConnId, &[u8]) -> usize + 'static) -> Probe {
        Probe {
            log: Vec::new(),
            ids: Vec::new(),
            on_data: Box::new(on_data),
            on_drain: Box::new(|_, _| {}),
            on_deadline: Box::new(|cx, id| cx.abort(id)),
            on_wake: Box::new(|_| {}),
            on_timer: Box::new(|_| {}),
            on_eof: EofAction::Finish,
            deadline: None,
            welcome: true,
            way: None,
        }
    }

    /// Takes everything and answers nothing.
    fn silent() -> Probe {
        Probe::new(|_, _, input| input.len())
    }

    /// Takes so many bytes at the most, and wants no more for now.
    fn pausing(most: usize) -> Probe {
        Probe::new(move |cx, id, input| {
            cx.pause(id);
            input.len().min(most)
        })
    }

    fn echo() -> Probe {
        let mut probe = Probe::new(|cx, id, input| {
            let fits = input.len().min(cx.send_capacity(id));
            cx.send(id, &input[..fits]).unwrap();
            fits
        });
        probe.on_drain = Box::new(|cx, id| cx.resume(id));
        probe
    }

    /// Answers with one byte, and is done.
    fn once() -> Probe {
        Probe::new(|cx, id, input| {
            cx.send(id, b".").unwrap();
            cx.finish(id);
            input.len()
        })
    }
}

impl Service for Probe {
    type Conn = ();

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) {
        self.log.push(format!("{id} open"));
        self.ids.push(id);
        if let Some(after) = self.deadline {
            cx.set_deadline(id, Some(cx.now() + after));
        }
    }

    fn on_connect(&mut self, _: &mut Context<'_>, id: ConnId, (): &mut ()) {
        self.log.push(format!("{id} connect"));
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        self.log.push("wake".to_owned());
        (self.on_wake)(cx);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>) {
        self.log.push("timer".to_owned());
        (self.on_timer)(cx);
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, (): &mut (), input: &[u8]) -> usize {
        let taken = (self.on_data)(cx, id, input);
        self.log.push(format!("{id} data {} of {}", taken, input.len()));
        taken
    }

    fn on_eof(&mut self, _: &mut Context<'_>, id: ConnId, (): &mut ()) -> EofAction {
        self.log.push(format!("{id} eof"));
        self.on_eof
    }

    fn on_early_eof(&mut self, _: &mut Context<'_>, id: ConnId, (): &mut ()) {
        self.log.push(format!("{id} early eof"));
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, (): &mut ()) {
        self.log.push(format!("{id} drain"));
        (self.on_drain)(cx, id);
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId, (): &mut ()) {
        self.log.push(format!("{id} deadline"));
        (self.on_deadline)(cx, id);
    }

    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, (): (), closed: Closed) {
        assert!(!cx.is_open(id), "a closed connection is gone");
        let cause = match closed.reason {
            CloseReason::Failed(error) => format!("{:?}", error.kind()),
            cause => format!("{cause:?}"),
        };
        self.log.push(format!("{id} close {cause} unsent {}", closed.unsent));
    }

    fn is_request_complete(&self, _: ListenerId, input: &[u8]) -> bool {
        input == b"x"
    }

    fn is_welcome(&self, _: ListenerId, _: &Peer) -> bool {
        self.welcome
    }

    fn make_way(&mut self, _: ListenerId) -> Option<ConnId> {
        self.way
    }

    fn on_shutdown(&mut self, _: &mut Context<'_>) {
        self.log.push("shutdown".to_owned());
    }
}

fn serve(world: &World, probe: Probe) -> EventLoop<Probe, Sim> {
    world.take_calls(); // from here on they are recorded
    world.serve(probe, Limits::default(), listener(1000, Overload::Defer))
}

fn listener(max: usize, overload: Overload) -> ListenerConfig {
    ListenerConfig::new("127.0.0.1:1".parse().unwrap()).max_conns(max).overload(overload)
}

/// The log, without the lines about data.
fn news(event_loop: &EventLoop<Probe, Sim>) -> Vec<&str> {
    event_loop.service().log.iter().map(String::as_str).filter(|line| !line.contains("data")).collect()
}

fn busy() -> Overload {
    Overload::Reject(b"busy".into())
}

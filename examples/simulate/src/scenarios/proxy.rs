//! A service that passes on between pairs of connections, one of which it makes: every byte, both ends, in
//! every order.

use super::chaos::count;
use super::report::{Check, Report, require};
use fastrand::Rng;
use pollstack::net::Address;
use pollstack::sim::{Client, Faults, Sim, World};
use pollstack::{
    CloseReason, Closed, ConnId, ConnMap, Context, EofAction, EventLoop, Limits, ListenerConfig, ListenerId, Service,
};

pub(super) fn run(seed: u64, world: &World, report: &mut Report) -> Check {
    let mut random = Rng::with_seed(seed ^ 0x9807);
    if random.bool() {
        world.set_buffers(random.usize(1..200), random.usize(1..200));
        world.set_window(random.usize(1..200));
    }
    let unix = random.u8(..4) == 0;
    world.set_unix(unix);
    world.set_faults(Faults::random(seed));
    let limits = match random.u8(..3) {
        0 => Limits::default(),
        _ => Limits::default().input(random.usize(1..100)).output(random.usize(1..100)).turn(random.usize(1..5000)),
    };
    let outgoing = ListenerId::new();
    let mut server = EventLoop::with_net(world.net(), Passing { outgoing, called: ConnMap::new() }, limits);
    server.listen(ListenerConfig::new("127.0.0.1:1".parse()?).max_conns(PAIRS))?;
    server.listen(ListenerConfig::unbound().id(outgoing).max_conns(PAIRS))?;
    let mut scenario = Scenario { world: world.clone(), random, server, unix, pairs: Vec::new() };
    for _ in 0..scenario.random.usize(20..400) {
        scenario.act(report)?;
    }
    scenario.end(report)
}

/// How many pairs there may be in a world.
const PAIRS: usize = 8;

struct Passing {
    outgoing: ListenerId,
    called: ConnMap<ConnId>,
}

impl Service for Passing {
    /// The other connection of the pair.
    type Conn = ConnId;

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, listener: ListenerId) -> ConnId {
        if listener == self.outgoing {
            return self.called.remove(id).unwrap_or(id);
        }
        let called = cx.connect(self.outgoing, Address::Unix("far".into()));
        self.called.insert(called, id);
        called
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, other: &mut ConnId, input: &[u8]) -> usize {
        let fits = input.len().min(cx.send_capacity(*other));
        if fits < input.len() {
            cx.pause(id);
        }
        cx.send(*other, &input[..fits]).map_or(0, |()| fits)
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, _: ConnId, other: &mut ConnId) {
        cx.resume(*other);
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, _: ConnId, other: &mut ConnId) -> EofAction {
        cx.shutdown_write(*other);
        EofAction::Keep
    }

    fn on_close(&mut self, cx: &mut Context<'_>, _: ConnId, other: ConnId, closed: Closed) {
        match closed.reason {
            CloseReason::Finished => cx.finish(other),
            _ => cx.reset(other),
        }
    }
}

/// A client, and the upstream that is called for it, which comes later.
struct Pair {
    sides: [Option<Client>; 2],
    /// How many bytes each has sent and read.
    sent: [u64; 2],
    read: [u64; 2],
    ended: [bool; 2],
    /// Which have reset.
    aborted: [bool; 2],
    /// Neither has reset.
    whole: bool,
    /// A reset of one side is one for the other.
    resets: bool,
}

impl Pair {
    /// A side reads at most `n` bytes: those that the other has sent, and no others.
    fn read(&mut self, side: usize, n: usize) -> Check {
        let Some(client) = &self.sides[side] else { return Ok(()) };
        let bytes = client.read_at_most(n);
        let right = bytes == count(self.read[side], bytes.len());
        self.read[side] += bytes.len() as u64;
        let right = right && self.read[side] <= self.sent[1 - side];
        require(right, || format!("client {} reads what the other side has not sent", client.number()))?;
        let cut = self.resets && !self.aborted[side] && client.has_ended() && self.read[side] < self.sent[1 - side];
        require(!cut, || format!("client {} takes a part for the whole", client.number()))
    }
}

struct Scenario {
    world: World,
    random: Rng,
    server: EventLoop<Passing, Sim>,
    /// Streams have no resets.
    unix: bool,
    pairs: Vec<Pair>,
}

impl Scenario {
    fn act(&mut self, report: &mut Report) -> Check {
        self.meet();
        match self.random.u8(..20) {
            0 if self.pairs.len() < PAIRS => {
                let sides = [Some(self.world.connect()), None];
                self.pairs.push(Pair {
                    sides,
                    sent: [0; 2],
                    read: [0; 2],
                    ended: [false; 2],
                    aborted: [false; 2],
                    whole: true,
                    resets: !self.unix,
                });
            }
            1..8 => {
                let n = self.random.usize(..200);
                self.any(|pair, side, client| {
                    if pair.whole && !pair.ended[side] {
                        client.send(&count(pair.sent[side], n));
                        pair.sent[side] += n as u64;
                    }
                });
            }
            8 => self.any(|pair, side, client| {
                pair.ended[side] = true;
                client.end();
            }),
            9 if self.random.u8(..4) == 0 => self.any(|pair, side, client| {
                (pair.whole, pair.aborted[side]) = (false, true);
                client.abort();
            }),
            10..13 => {
                let n = self.random.usize(1..300);
                return self.read_one(n);
            }
            _ => self.world.turn(&mut self.server),
        }
        report.listen(&self.world);
        Ok(())
    }

    /// Upstreams that are called answer, soon. Returns whether there were any. They are called in the order in which clients are accepted.
    fn meet(&mut self) -> bool {
        let mut met = false;
        while let Some(upstream) = self.world.next_outgoing() {
            met = true;
            let (calls, answering) = (self.random.usize(..20), upstream.clone());
            self.world.after(calls, move || answering.answer());
            if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.sides[1].is_none()) {
                pair.sides[1] = Some(upstream);
            }
        }
        met
    }

    fn any(&mut self, act: impl FnOnce(&mut Pair, usize, &Client)) {
        if self.pairs.is_empty() {
            return;
        }
        let (at, side) = (self.random.usize(..self.pairs.len()), self.random.usize(..2));
        let pair = &mut self.pairs[at];
        if let Some(client) = pair.sides[side].clone() {
            act(pair, side, &client);
        }
    }

    fn read_one(&mut self, n: usize) -> Check {
        let mut result = Ok(());
        self.any(|pair, side, _| result = pair.read(side, n));
        result
    }

    /// Has turns and reads everything, until nothing more comes.
    fn settle(&mut self, report: &mut Report) -> Check {
        loop {
            self.world.settle(&mut self.server);
            report.listen(&self.world);
            let before: u64 = self.pairs.iter().flat_map(|pair| pair.read).sum();
            self.pairs.iter_mut().try_for_each(|pair| pair.read(0, usize::MAX).and(pair.read(1, usize::MAX)))?;
            let after: u64 = self.pairs.iter().flat_map(|pair| pair.read).sum();
            if !self.meet() && before == after && !self.world.has_work(&mut self.server) {
                return Ok(());
            }
        }
    }

    /// Without faults, all that was sent has arrived, and its end.
    fn end(mut self, report: &mut Report) -> Check {
        self.world.set_faults(Faults::default());
        self.settle(report)?;
        for pair in self.pairs.iter().filter(|pair| pair.whole) {
            for side in 0..2 {
                let Some(client) = &pair.sides[side] else { return Err("an upstream is not called".into()) };
                let (read, sent, end) = (pair.read[side], pair.sent[1 - side], client.has_ended());
                require(read == sent, || format!("client {} has {read} of {sent} bytes", client.number()))?;
                let right = end == pair.ended[1 - side];
                require(right, || format!("client {} has an end: {end}, and should not", client.number()))?;
            }
        }
        for pair in &mut self.pairs {
            pair.ended = [true; 2];
            pair.sides.iter().flatten().for_each(Client::end);
        }
        self.settle(report)?;
        let open = self.server.stats().open;
        require(open == 0, || format!("{open} connections are left whose both sides have ended"))?;
        let reset = self.pairs.iter().filter(|pair| pair.whole).flat_map(|pair| pair.sides.iter().flatten());
        let reset = reset.filter(|client| client.was_reset()).map(Client::number).next();
        require(reset.is_none(), || format!("client {reset:?} is reset"))
    }
}

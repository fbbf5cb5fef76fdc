//! The service on a network in memory, whose clock is moved by hand.

use super::{ACCIO, CONFIRM, CONFIRM_AGAIN};
use crate::fake::{Fake, Wire, World};
use crate::service::Accio;
use pollstack::{EventLoop, Limits, Overload};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const NANOSECOND: Duration = Duration::from_nanos(1);

/// What the server has reported.
#[derive(Clone, Default)]
struct Results(Rc<RefCell<Vec<u8>>>);

impl io::Write for Results {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Results {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.borrow_mut())).unwrap()
    }
}

fn serve(clients: usize) -> (World, EventLoop<Accio<Results>, Fake>, Results) {
    let (world, results) = (World::new(), Results::default());
    let accio = Accio::new(TIMEOUT, None, false, results.clone());
    let server = world.serve(accio, Limits::default(), clients, Overload::Defer);
    (world, server, results)
}

/// Lost otherwise: the tenth second. It is counted from the last byte, in every phase.
#[test]
fn the_deadline_moves_with_every_byte() {
    let whole = [CONFIRM, CONFIRM_AGAIN, b"file"].concat();
    for at in 0..=whole.len() {
        let (world, mut server, results) = serve(1);
        let client = world.connect();
        world.settle(&mut server);
        for byte in &whole[..at] {
            world.pass(TIMEOUT - NANOSECOND);
            client.send(&[*byte]);
            world.turn(&mut server);
            world.settle(&mut server);
        }
        world.pass(TIMEOUT - NANOSECOND);
        world.turn(&mut server);
        assert!(!client.closed(), "{at} bytes, 10 s less a nanosecond");
        world.pass(NANOSECOND);
        world.turn(&mut server);
        assert!(client.closed(), "{at} bytes, 10 s");
        assert_eq!(results.take(), "ERROR\n");
        let next = world.send(&whole);
        next.fin();
        world.settle(&mut server);
        assert_eq!(results.take(), "4\n");
        assert_eq!(server.timeout(), None, "nothing is left to wait for");
    }
}

/// Lost otherwise: one client at a time. The others are left in the backlog, in their order.
#[test]
fn the_others_are_not_even_accepted() {
    let (world, mut server, results) = serve(1);
    let clients: Vec<Wire> = (0..11).map(|n| world.send(&[CONFIRM, CONFIRM_AGAIN, &vec![b'x'; n]].concat())).collect();
    for n in 0..clients.len() {
        world.settle(&mut server);
        assert_eq!(clients[n].received(), [ACCIO, ACCIO].concat());
        assert!(clients[n + 1..].iter().all(|client| !client.is_accepted()));
        clients[n].fin();
        world.settle(&mut server);
        assert_eq!(results.take(), format!("{n}\n"));
    }
}

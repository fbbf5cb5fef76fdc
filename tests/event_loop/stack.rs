//! The stack on the loop, when an answer cannot be delivered.

use super::*;

fn stack(world: &World, capacity: usize) -> EventLoop<StackService, Sim> {
    world.serve(StackService::new(capacity), Limits::default(), listener(100, Overload::Reject(wire::BUSY.into())))
}

/// Lost otherwise: an item whose response could not be sent.
#[test]
fn an_undelivered_item_goes_back_on_top_or_to_the_next() {
    let world = World::new(0);
    let mut server = stack(&world, 100);
    world.send(b"\x01a");
    world.send(b"\x01b");
    world.settle(&mut server);

    let unlucky = world.send(b"\x80");
    unlucky.set_room(1); // the header of the response, and no more
    world.settle(&mut server);
    assert_eq!(server.service().items(), 1, "b is on its way");
    unlucky.abort();
    world.settle(&mut server);
    assert_eq!(server.service().items(), 2, "b is back");
    let (first, second) = (world.send(b"\x80"), world.send(b"\x80"));
    world.settle(&mut server);
    assert_eq!((first.read(), second.read()), (b"\x01b".to_vec(), b"\x01a".to_vec()));

    let (dead, next) = (world.send(b"\x80"), world.send(b"\x80"));
    world.settle(&mut server);
    dead.set_room(0);
    world.send(b"\x01c");
    world.settle(&mut server);
    dead.abort();
    world.settle(&mut server);
    assert_eq!(next.read(), b"\x01c", "the next in line gets it");
}

/// Lost otherwise: the bound of the stack, when an item comes back to a place that was given away.
#[test]
fn a_parked_push_waits_until_the_popped_item_has_left() {
    let world = World::new(0);
    let mut server = stack(&world, 1);
    world.send(b"\x01a");
    let parked = world.send(b"\x01b");
    let slow = world.send(b"\x80");
    slow.set_room(0);
    world.settle(&mut server);
    assert_eq!(parked.read(), b"", "a may come back");
    slow.set_room(100);
    world.settle(&mut server);
    assert_eq!((slow.read(), parked.read()), (b"\x01a".to_vec(), b"\x00".to_vec()));
}

/// Lost otherwise: an item, if an embedder leaves too little room for a response.
#[test]
fn an_item_that_has_no_room_in_the_output_stays() {
    let world = World::new(0);
    let limits = Limits::default().output(2);
    let mut server = world.serve(StackService::new(10), limits, listener(10, Overload::Defer));
    world.send(b"\x05hello");
    let pops = [world.send(b"\x80"), world.send(b"\x80")];
    world.settle(&mut server);
    assert_eq!(server.service().items(), 1);
    assert!(pops.iter().all(Client::is_closed), "they are told, and do not wait");
}

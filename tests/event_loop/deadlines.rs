//! Deadlines: met under a flood, and never in vain.

use super::*;

/// Lost otherwise: a parked client's two seconds, which become thirty while others are busy.
#[test]
fn a_deadline_is_met_under_a_flood_of_newcomers() {
    let world = World::new(0);
    let mut probe = Probe::once();
    probe.deadline = Some(Duration::from_secs(2));
    let mut server = serve(&world, probe);
    let parked = world.connect();
    world.settle(&mut server);
    assert_eq!(server.timeout(), Some(Duration::from_secs(2)));
    (0..5_000).for_each(|_| drop(world.send(b"x")));
    world.turn(&mut server);
    world.advance(Duration::from_secs(2));
    world.turn(&mut server);
    assert!(parked.is_closed());
    assert!(world.waiting() > 4_000, "while most of the flood still waits");
    world.settle(&mut server);
    assert_eq!(server.timeout(), None, "no deadline is left behind");
}

/// Lost otherwise: rest. A deadline that has been moved or cleared does not wake the loop.
#[test]
fn a_moved_deadline_wakes_at_its_new_time_only() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    let (id, second) = (server.service().ids[0], Duration::from_secs(1));
    let mut set = |after: Option<Duration>| {
        server.call(|_, cx| cx.set_deadline(id, after.map(|after| cx.now() + after)));
        server.timeout()
    };
    assert_eq!(set(Some(second)), Some(second));
    assert_eq!(set(Some(second * 10)), Some(second * 10));
    assert_eq!(set(None), None);
    assert_eq!(set(Some(second * 3)), Some(second * 3));
    world.advance(second * 3 - Duration::from_nanos(1));
    world.turn(&mut server);
    assert!(!client.is_closed());
    world.advance(Duration::from_nanos(1));
    world.turn(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 deadline", "#1 close Aborted unsent 0"]);
}

/// Lost otherwise: every other deadline, to one that is always set to a time that has passed.
#[test]
fn a_deadline_in_the_past_starves_no_other() {
    let world = World::new(0);
    let mut probe = Probe::silent();
    probe.deadline = Some(Duration::from_secs(1));
    let mut server = serve(&world, probe);
    let clients: Vec<Client> = (0..5).map(|_| world.connect()).collect();
    world.settle(&mut server);
    let first = server.service().ids[0];
    server.call(|probe, _| {
        probe.on_deadline =
            Box::new(move |cx, id| if id == first { cx.set_deadline(id, Some(cx.now())) } else { cx.abort(id) });
    });
    world.advance(Duration::from_secs(1));
    world.turn(&mut server);
    assert!(clients[1..].iter().all(Client::is_closed), "the others fire in the same turn");
    let fired = |server: &EventLoop<Probe, Sim>| news(server).iter().filter(|line| **line == "#1 deadline").count();
    assert_eq!(fired(&server), 1);
    world.advance(Duration::from_millis(1));
    world.turn(&mut server);
    assert_eq!(fired(&server), 2, "and once a turn from then on");
}

/// Lost otherwise: peers that read slowly, taken for some that do not read. A kernel tells of room
/// only when there is much of it, so it is asked before a deadline passes.
#[test]
fn what_waits_is_offered_once_more_before_a_deadline_passes() {
    let (world, second) = (World::new(0), Duration::from_secs(1));
    let mut probe = Probe::silent();
    probe.on_deadline = Box::new(move |cx, id| {
        let passed = cx.last_write(id).is_none_or(|at| at + second <= cx.now());
        if passed { cx.abort(id) } else { cx.set_deadline(id, Some(cx.now() + second)) }
    });
    probe.on_drain = Box::new(|cx, id| cx.set_deadline(id, None));
    let mut server = serve(&world, probe);
    let (slow, dead, quick) = (world.connect(), world.connect(), world.connect());
    world.settle(&mut server);
    [&slow, &dead, &quick].iter().for_each(|client| client.set_room_silently(0));
    let ids = server.service().ids.clone();
    server.call(|_, cx| {
        for id in ids {
            cx.send(id, b"abc").unwrap();
            cx.set_deadline(id, Some(cx.now() + second));
        }
    });
    slow.set_room_silently(1);
    quick.set_room_silently(9);
    world.advance(second);
    world.turn(&mut server);
    assert_eq!((slow.read(), quick.read()), (b"a".to_vec(), b"abc".to_vec()));
    assert!(dead.is_closed() && !slow.is_closed());
    let told = news(&server);
    assert_eq!(told[3..], ["#1 deadline", "#2 deadline", "#2 close Aborted unsent 3", "#3 drain"]);
    slow.set_room_silently(1);
    world.advance(second);
    world.turn(&mut server);
    world.advance(second);
    world.turn(&mut server);
    assert_eq!(slow.read(), b"b");
    assert!(slow.is_closed() && !quick.is_closed());
}

/// Lost otherwise: clients that sent in time, after a pause of the host.
#[test]
fn input_that_came_before_a_deadline_is_served_before_it() {
    let (world, second) = (World::new(0), Duration::from_secs(1));
    let mut probe = Probe::once();
    probe.deadline = Some(second);
    let mut server = serve(&world, probe);
    let client = world.connect();
    world.settle(&mut server);
    world.turn_after(&mut server, || {
        client.send(b"x");
        world.advance(second);
    });
    assert_eq!(client.read(), b".");
    assert_eq!(news(&server), ["#1 open", "#1 close Finished unsent 0"]);
}

/// Lost otherwise: a limit to the time that an upload may take, if its client is quick enough to
/// send something in every turn, and the service sets the same deadline again each time.
#[test]
fn a_deadline_that_has_passed_is_not_put_off_by_setting_it_again() {
    let (world, second) = (World::new(0), Duration::from_secs(1));
    let mut until = None;
    let probe = Probe::new(move |cx, id, input| {
        cx.set_deadline(id, Some(*until.get_or_insert(cx.now() + second)));
        input.len()
    });
    let mut server = serve(&world, probe);
    let client = world.connect();
    for _ in 0..3 {
        client.send(b"x");
        world.settle(&mut server);
    }
    world.advance(second);
    client.send(b"x");
    world.turn(&mut server);
    assert!(client.is_closed());
}

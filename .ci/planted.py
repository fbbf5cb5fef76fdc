"""Plants faults in the loop and the services, and has the simulation find them, one after the other.

    python3 .ci/planted.py            all of them
    python3 .ci/planted.py edge pop   those whose names contain one of these
    python3 .ci/planted.py --check    none; checks only that every place is found once

Prints a table: the fault, the check that caught it, the seed (the first is 0), and the seconds it took. Fails if a fault is
not caught, or can no longer be planted. Works on a copy under target/planted.

All of them are compiled into one program: a function with faults begins with its faulty bodies, each behind a number, and
an environment variable chooses one. So the faults cost one build, and must not be in functions that return `impl Trait`.

A place is a function of a file and a piece of its code. In the piece, `$a` to `$z` stand for any name or
path (`self.limits.turn`), and white space for any white space or none; so a place survives
renames of variables and fields, and a new layout. The replacement may use the same `$a` to `$z`.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

SEEDS = "20000"

# name, server, file and function, the code that is replaced, the fault
FAULTS = [
    ("the newest is evicted", "stack", "src/listener.rs:decide", "$a.front()", "$a.iter().last()"),
    ("evicted at exactly the limit", "stack", "src/listener.rs:decide", "> *after", ">= *after"),
    ("evicted though there is room", "stack", "src/listener.rs:decide", "$a.len() < $b", "$a.len() + 1 < $b"),
    ("one too many is admitted", "stack", "src/listener.rs:decide", "$a.len() < $b", "$a.len() <= $b"),
    ("new clients come before ready ones", "stack", "src/event_loop.rs:turn",
     "$a.serve_ready();", "$a.admit_pending(); $a.serve_ready();"),
    ("lingering connections count as clients", "stack", "src/event_loop/serve.rs:start_lingering",
     "Seat::Admitted($a) => $b[$c].leave($a),", "Seat::Admitted(_) => {}"),
    ("no connection lingers", "stack", "src/event_loop/accept.rs:reject", "Ok(None) => false,", "Ok(None) => true,"),
    ("a connection lingers for ever", "stack", "src/connections.rs:seat_lingering",
     "$a.set($b, $c.checked_add($d));", ""),
    ("our half does not end before the close", "stack", "src/event_loop/serve.rs:shutdown_write",
     "$a.shutdown_write(&mut $b);", "{ let _ = &mut $b; Ok::<(), io::Error>(()) };"),
    ("bytes that were kept back and lost count as delivered", "stack", "src/connections.rs:remove",
     "$a.corked + $b.output()", "$b.output()"),
    ("much output is closed at once", "http", "src/connection.rs:closes_at_once", "&& $a <= BURST_BYTES", ""),
    ("a client that goes on sending is closed at once", "stack", "src/connection.rs:closes_at_once",
     "&& !$a.goes_on", ""),
    ("input is not looked for before a deadline fires", "accio", "src/event_loop.rs:fire_deadlines",
     "$a.look_again($b); $c.serve($b);", ""),
    ("a client that has left is served before its end is read", "stack", "src/connections.rs:queue_if_runnable",
     "push_front", "push_back"),
    ("the end behind a request is not looked for", "stack", "src/connection.rs:ignore_input",
     "$a.update_readiness(Ready { readable: true, ..Ready::default() });", ""),
    ("a full batch of events is taken for all", "stack", "src/event_loop.rs:batches",
     "1 + ($a.len() + $b.len()) / $c.max(1)", "1 + 0 * $c"),
    ("an urgent mark is taken for the end of the input", "stack", "src/connection.rs:has_read",
     "($a.urgent || !$b)", "!$b"),
    ("a passed descriptor is taken for the end of the input", "stack", "src/event_loop/serve.rs:receive",
     "&& !$a.reads_stop_short(&$b)", ""),
    ("a stop does not wait for descriptors", "chaos", "src/event_loop/shutdown.rs:advance_stop",
     "$a.has_connections_to_accept()", "($a.exhausted_until.is_none() && $a.has_connections_to_accept())"),
    ("a connection of another listener gives way", "chaos", "src/event_loop/accept.rs:ask_to_make_way",
     "&& $a.listener == $b", ""),
    ("a connection that is still to be made gives way", "chaos", "src/event_loop/accept.rs:ask_to_make_way",
     "$a.is_admitted() &&", ""),
    ("a connection gives way and no client comes in", "chaos", "src/event_loop/accept.rs:ask_to_make_way",
     "$a.evict($b.key()); } $c", "$a.evict($b.key()); } false"),
    ("a push is answered before its commit", "durable", "src/stack/store.rs:decide_and_write",
     "$a.journal.answers_wait() || $a.trouble.is_some()", "false"),
    ("a batch that failed is joined in the wrong order", "durable", "src/stack/store.rs:hear",
     "for gone in batch.append(std::mem::take(&mut $a.filling)) {",
     "let earlier = std::mem::replace(&mut batch, std::mem::take(&mut $a.filling)); for gone in batch.append(earlier) {"),
    ("a batch that failed is forgotten", "durable", "src/stack/store.rs:hear", "$a.filling = $b;", ""),
    ("an item leaves the disk before its response is the kernel's", "durable", "src/stack/store.rs:decide_and_write",
     "else { return Some($a) };", "else { if let Decision::Popped(_, key) = &$a { journaled.remove(*key); } return Some($a) };"),
    ("a failed commit is taken for a good one", "durable", "src/stack/store.rs:hear", "match $a {", "let _ = $a; match Ok::<(), Trouble>(()) {"),
    ("the wake of the journal is lost", "durable", "src/stack/store.rs:wake", "$a.journal.wake();", ""),
    ("an item that comes back keeps its number", "durable", "src/stack/store.rs:put_above",
     "$a.numbers[$b] < $c", "$a.numbers[$b] < $c || true"),
    ("the push of a client that has gone is told to another", "durable", "src/stack/store.rs:cancel_push",
     "$a.storing.retain(|_, $b| *$b != $c);", ""),
    ("a push whose item was popped in its batch is not told", "durable", "src/stack/store.rs:remove",
     "$a.stored.extend($a.storing.remove(&$b));", ""),
    ("a stop does not wait for the disk", "durable", "src/stack/store.rs:close", "for _ in 0..3 {", "for _ in 0..0 {"),
    ("an answer that came late is told", "shared", "src/stack/shared.rs:hear", "match $a < FRESH {", "match true || $a < FRESH {"),
    ("a batch that was lost is not sent again", "shared", "src/stack/shared.rs:again", "let $a = $b.as_mut()?;",
     "let $a = $b.as_mut().filter(|_| false)?;"),
    ("a request that has left is not cancelled", "shared", "src/stack/shared.rs:cancel", "None => $a.push_back(Ask::Cancel($b)),",
     "None => { let _ = $b; }"),
    ("an item that did not arrive counts as delivered", "shared", "src/stack/shared.rs:settle",
     "if $a { Ask::Delivered($b) }", "if $a || true { Ask::Delivered($b) }"),
    ("the end of an item in flight is not told", "shared", "src/stack/shared.rs:settle", "$a.push_back(if $b {", "drop(if $b {"),
    ("requests are asked for twice", "shared", "src/stack/shared.rs:next_batch", "$a.drain(..$b).collect()",
     "$a.iter().take($b).cloned().collect()"),
    ("an edge is silent while it has nothing to ask", "shared", "src/stack/shared.rs:wants_to_speak",
     "$a.due().is_none_or(|$b| $b <= $c)", "{ let _ = $c; $a.due().is_none() }"),
    ("an edge does not ask for what waits for it", "shared", "src/stack/shared.rs:call", "$a.is_called = true;", ""),
    ("the clients of an edge that has expired wait for ever", "shared", "src/stack/service.rs:expire",
     "$a.release_parked($b);", ""),
    ("a hole is not filled", "rooms", "examples/pubsub/src/remote.rs:message",
     "$a.read($b, $c, &$d, $e); return None;", "{ let _ = ($b, &$c); return None; }"),
    ("a new link is not listened to", "rooms", "examples/pubsub/src/remote.rs:settle",
     "$a.send_unanswered(&[\"SSUBSCRIBE\", &key($b, &$c, \"\")]);", ""),
    ("channels are not read again over a new link", "rooms", "examples/pubsub/src/remote.rs:hear",
     "$a.wanted = $b.keys().cloned().collect();", ""),
    ("the stamp of a message is forgotten", "rooms", "examples/pubsub/src/remote.rs:append",
     "$a.last = Some($b);", "let _ = ($a, $b);"),
    ("a message is sent to the engine twice", "rooms", "examples/pubsub/src/node.rs:put",
     "$a.publish($b, $c, $d);", "$a.publish($b, $c, $d); $a.publish($b, $c, $d);"),
    ("readers of an empty channel are not told of a gap", "rooms", "examples/pubsub/src/channel.rs:jump",
     "&& $a == $b {", "{"),
    ("a node that is behind tells its readers of a gap", "rooms", "examples/pubsub/src/node.rs:must_wait",
     "|| $a.is_ahead($b, $c)", ""),
    ("an answer is looked for where the one before ended", "rooms", "src/engine/resp.rs:read",
     "*self = Reader::default();", ""),
    ("what a lost link has left is read on", "rooms", "src/engine/link.rs:connect",
     "$a.reader = Reader::default();", ""),
    ("readers that wait are forgotten with the link", "rooms", "examples/pubsub/src/node.rs:on_link",
     "|| $a.values().any(|$b| $b.name == *$c)", ""),
    ("an item of HTTP that has not left is gone", "operate", "src/operate/service.rs:on_close",
     "Some($a) if $b => $c.settle($d, $a),", "Some($a) => { let _ = $b; $c.settle($d, $a) }"),
    ("an item of HTTP that has left goes back", "operate", "src/operate/service.rs:on_close",
     "Some($a) if $b => $c.settle($d, $a),", "Some($a) if false && $b => $c.settle($d, $a),"),
    ("a late request of HTTP is answered and not cancelled", "operate", "src/operate/service.rs:late",
     "$a.cancel($b, $c);", ""),
    ("a client of HTTP that has gone is not cancelled", "operate", "src/operate/service.rs:hear",
     "$a.cancel($b, $c);", ""),
    ("an answered guest is cancelled", "operate", "src/operate/service.rs:answer_next",
     "$a.remove(&$b); let $c", "let $c"),
    ("a cut answer ends like a whole one", "stack", "src/event_loop/serve.rs:close", "$a.reset($b)", "$a.close($b)"),
    ("an interrupted call is not repeated", "stack", "src/event_loop/serve.rs:receive",
     "Err($a) if $b.kind() == Interrupted => {}", ""),
    ("the write edge is lost", "stack", "src/net.rs:bitor_assign", "$a.writable |= $b.writable;", ""),
    ("the end behind data is lost", "stack", "src/net.rs:bitor_assign", "$a.read_closed |= $b.read_closed;", ""),
    ("a short write is not watched", "stack", "src/event_loop/serve.rs:flush",
     "$a.watch($b, Interest::ReadWrite)?,", "{ let _ = $b; }"),
    ("an event about one connection is told to another", "chaos", "src/arena.rs:get_mut",
     ".filter(|$a| $b == $c)", ""),
    ("accepting ends when the system runs out", "stack", "src/event_loop/accept.rs:accept_connections",
     "if $a.is_some_and(|$b| $b <= $c) { $a = None; }", ""),
    ("one accept an event", "stack", "src/event_loop/accept.rs:accept_from",
     "from.lost = 0; $a.count_pending();", "from.ready = false; $a.count_pending();"),
    ("a new client is not watched", "stack", "src/event_loop/accept.rs:open",
     "= $a.watch($b.key(), Interest::Read)", "= Ok::<(), io::Error>(())"),
    ("a deadline is skipped while others are busy", "chaos", "src/event_loop.rs:turn",
     "$a.fire_deadlines();", "if self.connections.runnable() == 0 { $a.fire_deadlines(); }"),
    ("a budget that is used up loses the turn", "chaos", "src/connections.rs:end_service",
     "$a.queue_if_runnable($b);", ""),
    ("input is offered twice", "chat", "src/event_loop/serve.rs:offer", "$a.drain(..$b);", "$a.drain(..$b / 2);"),
    ("input goes on while paused", "chaos", "src/connection.rs:next_step",
     "&& !$a.paused && !$b.is_empty()", "&& !$b.is_empty()"),
    ("a paused connection is closed for a full input", "chaos", "src/connection.rs:next_step",
     "Phase::Open if $a.paused && !$b.is_empty() =>", "Phase::Open if $a.paused && $b.is_empty() =>"),
    ("the end of a paused connection is not told", "chaos", "src/connection.rs:next_step",
     "($a.input_end == InputEnd::Read).then_some(Step::AnnounceEnd)", "None"),
    ("a FIN overtakes the output", "chaos", "src/event_loop/serve.rs:end_output", "&& $a.output().is_none()", ""),
    ("our half does not end alone", "chaos", "src/connection.rs:shutdown_write",
     "$a.output_end = OutputEnd::Asked;", ""),
    ("a connection whose halves have ended stays", "chaos", "src/event_loop/serve.rs:end_output",
     "if $a.connections[$b].is_over() {", "if false {"),
    ("a connection that is being made is read", "chaos", "src/connections.rs:connect",
     "$a.begin_connecting();", "$a.connecting = true;"),
    ("any event is an answer", "chaos", "src/event_loop/serve.rs:check_connecting",
     "match $a.check_connecting(&mut $b) {", "match Ok::<(), io::Error>(()) {"),
    ("the end that comes with an answer is not looked for", "proxy", "src/connection.rs:has_connected",
     "read_closed: true,", ""),
    ("a part is passed on as the whole", "proxy", "src/event_loop/serve.rs:close", "0 if !$a =>", "0 =>"),
    ("an interrupted look is not repeated", "proxy", "src/event_loop/serve.rs:check_connecting",
     "Err($a) if $b.kind() == Interrupted => {}", ""),
    ("a resume does not offer what a proxy holds", "proxy", "src/context.rs:resume", "$a.reoffer = true;", ""),
    ("a finish does not wait for the answer", "chaos", "src/event_loop/serve.rs:conclude",
     "if $a.connecting { return;", "if false { return;"),
    ("a connection that is still to be made is listed", "chaos", "src/connection.rs:is_admitted",
     "matches!($a.seat, Seat::Admitted(_))", "$a.is_known()"),
    ("a connection that has been shut down is not listed", "chaos", "src/connection.rs:is_admitted",
     "matches!($a.seat, Seat::Admitted(_))", "matches!($a.seat, Seat::Admitted(_)) && $a.can_be_sent_to()"),
    ("more connect than may", "chaos", "src/event_loop/connect.rs:begin_connecting", "!$a.has_place() ||", ""),
    ("a connection that could not be made is forgotten", "chaos", "src/event_loop/connect.rs:make_connection",
     "return $a.tell_closed($b, $c, Closed::new(CloseReason::Failed($d), $e));", "let _ = ($c, $d, $e); return;"),
    ("a wake is lost while others are busy", "chaos", "src/event_loop.rs:turn",
     "$a.tell_woken();", "if self.connections.runnable() == 0 { $a.tell_woken(); }"),
    ("the timer is skipped while others are busy", "chaos", "src/event_loop.rs:turn",
     "$a.fire_timer();", "if self.connections.runnable() == 0 { $a.fire_timer(); }"),
    ("the timer goes off again", "chaos", "src/event_loop.rs:fire_timer", "$a.timer = None;", ""),
    ("resume does not offer the rest", "chat", "src/context.rs:resume", "$a.reoffer = true;", ""),
    ("a drain is told after the end", "chaos", "src/event_loop/serve.rs:settle_one",
     "Phase::Finishing if $a.output().is_none() => $b.conclude($c),",
     "Phase::Finishing if $a.output().is_none() => {"
     " if emptied { $b.call_back($c, |service, cx, id, conn| service.on_drain(cx, id, conn)); } $b.conclude($c) }"),
    ("an aborted connection can be sent to", "chaos", "src/connection.rs:can_be_sent_to",
     "$a.phase == Phase::Open", "matches!($a.phase, Phase::Open | Phase::Aborted)"),
    ("the item of an undelivered pop is dropped", "stack", "src/stack/service.rs:end",
     "self.counts.undelivered += 1; $b.undelivered($c);", "$b.delivered($c);"),
    ("the item of an undelivered pop goes to the bottom", "stack", "src/stack/lifo.rs:undelivered",
     "$a.push($b);", "$a.insert(0, $b);"),
    ("a popped item leaves its room at once", "stack", "src/stack/lifo.rs:decide", "$a.len() + $b < $c", "$a.len() < $c"),
    ("a pop before the push that waits for its room", "stack", "src/stack/service.rs:end",
     "} $a.decide($b);", "} let _ = $b;"),
    ("a push is stored for a client that has gone", "stack", "src/stack/store.rs:cancel_push",
     "if $a.cancel($b) => drop($c.remove($d)),", "if false && $a.cancel($b) => drop($c.remove($d)),"),
    ("a FIN does not cancel", "stack", "src/stack/service.rs:on_eof", "EofAction::Abort", "EofAction::Keep"),
    ("the connection that was ready last is served first", "stack", "src/connections.rs:next_runnable",
     "pop_front", "pop_back"),
    ("popped items are kept", "stack", "src/stack/store.rs:delivered",
     "$a.delivered(); $b.remove($c);", "$a.delivered(); let _ = $c;"),
    ("more input is kept than may be", "chaos", "src/connection.rs:next_step", "Step::Read($a - $b.len())", "Step::Read($a)"),
    ("kernels are not asked for room", "chat", "src/connections.rs:look_again",
     "let $a = $b.is_some();", "let $a = false;"),
    ("a drain does not clear the deadline", "chat", "examples/chat/src/service.rs:on_drain", "$a.set_deadline($b, None);", ""),
    ("the client that parked last is served first", "stack", "src/queue.rs:pop_front", "$a.front", "$a.back"),
    ("SEND-OK comes early", "chat", "examples/chat/src/service.rs:settle", "if $a <= $b {", "if $a <= $b + 5 {"),
    ("SEND-OK comes for all", "chat", "examples/chat/src/service.rs:settle", "if $a <= $b {", "if $b > 0 {"),
    ("an answer overtakes", "chat", "examples/chat/src/service.rs:list",
     "if !$a[$b].unanswered.is_empty() { return Err($c); }", ""),
    ("the held back are forgotten", "chat", "examples/chat/src/service.rs:on_drain",
     "$a.iter().for_each(|$b| $c.resume(*$b));", ""),
    ("a slow reader is taken for a dead one", "chat", "examples/chat/src/service.rs:on_deadline",
     "Some($a) if $a > $b.now() => $b.set_deadline($c, Some($a)),", ""),
    ("the silent are waited for", "accio", "examples/accio/src/service.rs:greet",
     "$a.set_deadline($b, $a.now().checked_add($c));", ""),
    ("a byte gives no more time", "accio", "examples/accio/src/service.rs:on_data",
     "$a.set_deadline($b, $a.now().checked_add($c));", "let _ = &$a;"),
    ("a part passes for the file", "accio", "examples/accio/src/service.rs:conclude",
     "Stage::GreetedAgain | Stage::Sending => $a.fail($b.as_mut())",
     "Stage::GreetedAgain if false => Ok(None), Stage::Sending => $a.finish($b.as_mut()).map(Some), _ => $a.fail($b.as_mut())"),
    ("a deadline that has passed is put off", "http", "src/context.rs:set_deadline", "$a.max($b.min($c))", "$a.max($b)"),
    ("framing is taken for a body", "http", "src/http/service.rs:body",
     "Ok(Some($a + $b.data($c, $d, $e)))",
     "Ok(match $b.data($c, $d, $e) { 0 => None, taken => Some($a + taken) })"),
    ("a collected body is collected again", "http", "src/http/upload.rs:data",
     "$a.extend_from_slice($b); $c.take($b.len());", "$a.extend_from_slice($b); $c.take($b.len().min(20));"),
    ("the rest of a response begins at its front", "http", "src/http/connection.rs:sent_rest", "*$a += $b;", ""),
    ("HEAD has content", "http", "src/http/response.rs:is_bodiless",
     "|| $a.connection().is_some_and(Connection::is_head_only)", ""),
    ("a pipelining client is forgotten", "http", "src/http/exchange.rs:complete", "Next::Resume => $a.resume($b.id()),", "Next::Resume => {}"),
    ("half a request has all the time", "http", "src/http/service.rs:on_deadline", "=> $a.reject($b, $c, SLOW, b\"\"),", "=> {}"),
    ("an exchange whose client is gone stays", "http", "src/http/service.rs:on_close", "$a.end($b, Outcome::Aborted);", ""),
    ("close_notify is left out", "tls", "src/tls.rs:end", "session.tls.send_close_notify();", "let _ = session;"),
    ("a FIN does not wait for close_notify", "tls", "src/tls.rs:end", "$a.flush($b, true)?; $c.shutdown_write",
     "let _ = $a.flush($b, true); $c.shutdown_write"),
    ("an end does not wait for the handshake", "tls", "src/tls.rs:end", "$a.shake_hands($b)?;", ""),
    ("a session that is full loses what comes", "tls", "src/tls.rs:decrypt", "$a.rest = $b.to_vec();", ""),
    ("a session that is full is given more", "tls", "src/tls.rs:decrypt", "|| $a.plaintext_bytes_to_read() > PLAINTEXT", ""),
    ("a record is encrypted again after an interruption", "tls", "src/tls.rs:send",
     "Err($a) if $b.kind() == ErrorKind::Interrupted && $c > 0 => {}", ""),
    ("a record is encrypted again when there is room", "tls", "src/tls.rs:send", "if $a.accepted == 0 {", "{"),
    ("ciphertext of a session does not wait for room", "tls", "src/tls.rs:read",
     "Err($a) if $b.kind() == ErrorKind::WouldBlock => $c.wait_for_room($d)?,",
     "Err(error) if error.kind() == ErrorKind::WouldBlock => {}"),
    ("room that a read has used is not told again", "tls", "src/tls.rs:read", "Ok(()) if $a => $b.look_again($c)?,", ""),
    ("the last record of a turn is not read", "tls", "src/tls.rs:read", "0..=RECORDS", "0..RECORDS"),
    ("a connection goes out in clear", "tls", "src/tls.rs:connect", "session.map(|$a| Session::new($b.into()))",
     "session.map(|tls| Session::new(tls.into())).filter(|_| false)"),
    ("plain HTTP is known by four bytes only", "tls", "src/tls.rs:speaks_http", "$a.first().is_some_and(u8::is_ascii_uppercase)",
     "bytes.len() >= 4 && bytes[0].is_ascii_uppercase()"),
    ("two at a time", "accio", "src/listener.rs:has_place", "$a.len() + $b < $c", "$a.len() + $b <= $c"),
]

# The scripts in the engine, and the tests that have a real engine beside their models
SCRIPTS = {
    "script": ("src/engine/stack.lua", "engine"),
    "channel": ("examples/pubsub/src/channel.lua", "channels"),
}

# name, script, the text of it that is replaced, the fault
SCRIPT_FAULTS = [
    ("an edge whose lease is over is answered", "script", "not (lives and (", "not ((lives or true) and ("),
    ("a batch that is sent again is applied again", "script", "if lives and applied == number then", "if false then"),
    ("an old batch is applied", "script", "(applied == number or applied == number - 1)", "applied"),
    ("answers for other edges are lost", "script", "keep(who, all_answers(who))", "keep(who, {})"),
    ("answers that do not fit are lost", "script", "keep(edge, rest)", "keep(edge, {})"),
    ("the items of a dead edge are lost", "script", "put_back(land(entry[2]))", "land(entry[2])"),
    ("the items of a dead edge come back in another order", "script", "one[1] > other[1]", "one[1] < other[1]"),
    ("the requests of a dead edge stay", "script", "if is_its(request) then", "if false then"),
    ("pops are in order within an edge only", "script", "call('ZADD', pops, seq, request)", "call('ZADD', pops, ARGV[n + 1], request)"),
    ("pushes are in order within an edge only", "script", "call('ZADD', pushes, seq, request)", "call('ZADD', pushes, ARGV[n + 1], request)"),
    ("items in flight leave room", "script", "depth + in_flight < capacity", "depth < capacity"),
    ("a cancelled pop keeps its item", "script", "put_back(land(request))\n    end", "land(request)\n    end"),
    ("an id is given twice", "channel", "'next', show(next_id + 1)", "'next', show(next_id)"),
    ("one message too many is kept", "channel", "'MAXLEN', keep", "'MAXLEN', keep + 1"),
    ("nodes are not told of a message", "channel", "    call('SPUBLISH', channel, entry .. ' ' .. text)\n", ""),
    ("a page leaves out its first message", "channel", "math.max(from, first)", "math.max(from, first) + 1"),
    ("a page has no end", "channel", "if bytes <= 0 then", "if false then"),
    ("the end of a channel is not told", "channel", "local result = { first, next_id }", "local result = { first, first }"),
    ("a channel with messages is kept for an hour", "channel", "    call('PEXPIRE', meta, LIFE)\n", ""),
    ("a message whose id was given again is not noticed", "channel", "before[1][1] ~= id", "before[1][1] == id"),
    ("lost ids are given again", "channel", "local is_lost = from > next_id", "local is_lost = false"),
    ("the history of a former life is read", "channel", "math.max(from, first)", "from"),
    ("a broken channel is an error of the engine", "channel", "return redis.error_reply('CHANNEL ' .. result.err)", "return result"),
]

root = pathlib.Path(__file__).resolve().parent.parent
work = root / "target" / "planted"


class Workshop:
    """A copy of the project, in which all faults are planted, and asleep: `PLANTED=7` wakes one."""

    def __init__(self):
        self.tree, self.built = work / "tree", work / "build"
        # Most of the time is the compiler's. The copy has code that cannot be reached.
        self.env = dict(os.environ, CARGO_TARGET_DIR=str(self.built), CARGO_PROFILE_RELEASE_LTO="off",
                        CARGO_PROFILE_RELEASE_CODEGEN_UNITS="16", RUSTFLAGS="-A warnings",
                        PROPTEST_MAX_SHRINK_ITERS="0")
        shutil.rmtree(self.tree, ignore_errors=True)
        # With new times: cargo must not take what an earlier run has planted for up to date.
        shutil.copytree(root, self.tree, ignore=shutil.ignore_patterns("target", ".git", "corpus"),
                        copy_function=shutil.copy)

    def plant(self, faults):
        """Plants faults, each under its number, and builds."""
        functions = {}
        for number, (name, _, place, old, new) in enumerate(faults):
            file, (begin, body, end), (start, stop), fault = find(name, place, old, new)
            functions.setdefault((file, begin), (body, end, []))[2].append((number, start, stop, fault))
        for file in {file for file, _ in functions}:
            source = (root / file).read_text()
            guard = ("crate" if file.startswith("src/") else "pollstack") + "::planted::is"
            # From the end, so that the places before stay where they are.
            for (_, _), (body, end, planted) in sorted((one for one in functions.items() if one[0][0] == file), reverse=True):
                faulty = ["if %s(%d) { return {%s}; }" % (guard, number, source[body:start] + fault + source[stop:end])
                          for number, start, stop, fault in planted]
                source = source[:body] + "\n".join(faulty) + source[body:]
            (self.tree / file).write_text(source)
        with (self.tree / "src/lib.rs").open("a") as lib:
            lib.write(AWAKE)
        # The simulation, and the tests of the scripts.
        for what in (["build", "--bins"], ["test", "--no-run", "--tests"]):
            code, text = self.run("cargo", what[0], "--quiet", "--locked", "--release", "-p", "simulate", *what[1:])
            if code != 0:
                sys.exit(f"a fault does not compile\n{text}")

    def run(self, *command, **more):
        result = subprocess.run(command, cwd=self.tree, env=dict(self.env, **more), capture_output=True, text=True,
                                errors="replace")
        return result.returncode, result.stdout + result.stderr

    def wake(self, number, server):
        """Wakes a fault. Returns how it was caught, and the seed; None if it was not."""
        code, text = self.run("timeout", "300", str(self.built / "release/simulate"), "--server", server,
                              "--seeds", SEEDS, "--threads", "1", PLANTED=str(number))
        if code == 0:
            return None
        found = re.findall(rf"^{server}: seed (\d+): (.*)", text, re.MULTILINE)
        seed, message = found[-1] if found else ("?", (text.strip().splitlines() or [f"exit status {code}"])[-1])
        return message, seed

    def run_script(self, number, fault):
        """Runs a script with a fault beside its model. Returns the same."""
        path = self.tree / f"fault{number}.lua"
        path.write_text(plant_in_script(*fault))
        code, text = self.run("cargo", "test", "--quiet", "--locked", "--release", "-p", "simulate",
                              "--test", SCRIPTS[fault[1]][1],
                              ENGINE_SCRIPT=str(path), ENGINE="required", RUST_BACKTRACE="0")
        found = re.search(r"(left: .*)", text)
        return (found[1] if found else text.strip().splitlines()[-1], "") if code != 0 else None


AWAKE = """
#[doc(hidden)]
#[allow(missing_docs)]
pub mod planted {
    use std::sync::LazyLock;

    static AWAKE: LazyLock<Option<u32>> = LazyLock::new(|| std::env::var("PLANTED").ok()?.parse().ok());

    pub fn is(number: u32) -> bool {
        *AWAKE == Some(number)
    }
}
"""


def pattern(code):
    """Returns the regular expression of a piece of code with `$a` to `$z` in it."""
    names, parts = set(), []
    for token in re.findall(r"\$[a-z]|\w+|\s+|.", code):
        if token.startswith("$") and len(token) == 2:
            parts.append(f"(?P={token[1]})" if token[1] in names else rf"(?P<{token[1]}>[\w.]+)")
            names.add(token[1])
        elif token.isspace():
            parts.append(r"\s*")
        else:
            parts.append(re.escape(token) + (r"\b" if token[-1:].isalnum() else ""))
    return re.compile("".join(parts))


def functions(source, name):
    """Returns where the functions of that name begin, where their bodies do, and where these end."""
    for match in re.finditer(rf"^( *)(pub(\([a-z]+\))? )?fn (?P<name>{name})\b.*?^\1}}", source, re.MULTILINE | re.DOTALL):
        begin, end = match.span()
        # The body begins behind the parameters, which may have braces of their own.
        depth, at = 1, source.index("(", match.end("name")) + 1
        while depth > 0:
            depth += {"(": 1, ")": -1}.get(source[at], 0)
            at += 1
        yield begin, source.index("{", at) + 1, end - 1


def find(name, place, old, new):
    """Returns the file of a place, its function, the part that is replaced, and the fault."""
    file, _, inside = place.partition(":")
    source = (root / file).read_text()
    found = [(span, match) for span in functions(source, inside)
             for match in pattern(old).finditer(source[span[1]:span[2]])]
    if len(found) != 1:
        raise LookupError(f"{name}: `{old}` stands {len(found)} times in {place}")
    (begin, body, end), match = found[0]
    if "impl " in source[begin:body].partition("->")[2]:
        raise LookupError(f"{name}: {place} returns a type without a name, so it cannot return from two places")
    fault = re.sub(r"\$([a-z])", lambda variable: match[variable[1]], new)
    return file, (begin, body, end), (body + match.start(), body + match.end()), fault


def plant_in_script(name, script, old, new):
    file, _ = SCRIPTS[script]
    source = (root / file).read_text()
    if source.count(old) != 1:
        raise LookupError(f"{name}: `{old}` stands {source.count(old)} times in {file}")
    return source.replace(old, new)


def check():
    lost = []
    for fault in FAULTS + SCRIPT_FAULTS:
        try:
            plant_in_script(*fault) if fault in SCRIPT_FAULTS else find(fault[0], *fault[2:])
        except (LookupError, OSError) as error:
            lost.append(str(error))
    table = (root / "doc/testing.md").read_text()
    lost += [f"{name} has no row in doc/testing.md" for name, *_ in FAULTS + SCRIPT_FAULTS if f"\n| {name} |" not in table]
    if lost:
        sys.exit("\n".join(lost))
    print(f"{len(FAULTS) + len(SCRIPT_FAULTS)} places are found")


def main():
    wanted = sys.argv[1:]
    check()
    if wanted == ["--check"]:
        return
    workshop = Workshop()
    workshop.plant(FAULTS)
    lost = []
    print("| planted | in | caught by | seed | s |\n| --- | --- | --- | --: | --: |", flush=True)

    def attempt(numbered):
        number, fault = numbered
        name, server = fault[:2]
        start = time.monotonic()
        found = workshop.run_script(number, fault) if server in SCRIPTS else workshop.wake(number, server)
        message, seed = found or ("**nothing**", "")
        message = re.sub(r"\s+", " ", message).replace("|", "/")[:100]
        print(f"| {name} | {server} | {message} | {seed} | {time.monotonic() - start:.0f} |", flush=True)
        if not found:
            lost.append(f"not caught: {name}")

    all_faults = [one for faults in (FAULTS, SCRIPT_FAULTS) for one in enumerate(faults)
                  if not wanted or any(word in one[1][0] for word in wanted)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(attempt, all_faults))
    if lost:
        sys.exit("\n".join(lost))


main()

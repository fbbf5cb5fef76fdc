"""Plants faults in the loop and the services, one at a time, and has the simulation find them.

    python3 .ci/planted.py            all of them
    python3 .ci/planted.py edge pop   those whose names contain one of these

Prints a table: what was planted, which check caught it, and in which seed (the first is 0). Fails
if one is not caught, or can no longer be planted. Works on a copy under target/planted.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

SEEDS = "20000"

# name, server, file, what stands there, what is planted
FAULTS = [
    ("the newest is evicted", "stack", "src/admission.rs",
     "match (&self.overload, self.admitted.front()) {", "match (&self.overload, self.admitted.iter().last()) {"),
    ("evicted at exactly the limit", "stack", "src/admission.rs",
     "now.saturating_duration_since(accepted_at) > *after", "now.saturating_duration_since(accepted_at) >= *after"),
    ("evicted though there is room", "stack", "src/admission.rs",
     "if self.admitted.len() < self.capacity {\n            return Verdict::Admit;",
     "if self.admitted.len() + 1 < self.capacity {\n            return Verdict::Admit;"),
    ("one too many is let in", "stack", "src/admission.rs",
     "if self.admitted.len() < self.capacity {\n            return Verdict::Admit;",
     "if self.admitted.len() <= self.capacity {\n            return Verdict::Admit;"),
    ("newcomers before those who are ready", "stack", "src/event_loop.rs",
     "        self.serve_ready();\n        self.fire_deadlines();\n        self.greet_newcomers();",
     "        self.greet_newcomers();\n        self.serve_ready();\n        self.fire_deadlines();"),
    ("those who linger count as clients", "stack", "src/event_loop/serve.rs",
     "Seat::Admitted(place) => self.admissions[connection.listener].leave(place),\n            Seat::None => {}\n        }\n        let place",
     "Seat::Admitted(_) | Seat::None => {}\n        }\n        let place"),
    ("nobody lingers", "stack", "src/event_loop/accept.rs",
     "            Ok(None) => false,\n", "            Ok(None) => true,\n"),
    ("those who linger stay for ever", "stack", "src/connections.rs",
     "self.deadlines.set(key, self.now.checked_add(self.limits.linger_time));", ""),
    ("our half does not end before the close", "stack", "src/event_loop/serve.rs",
     "match self.net.shut(&mut end.stream) {", "match Ok::<(), io::Error>(()) {"),
    ("what was kept back and lost is called delivered", "stack", "src/connections.rs",
     "connection.corked + connection.output()", "connection.output()"),
    ("much output is closed at once", "http", "src/connection.rs", " && self.sent <= BURST_BYTES", ""),
    ("one that goes on sending is closed at once", "stack", "src/connection.rs", "&& !self.goes_on ", ""),
    ("what has come is not looked at before a deadline", "accio", "src/event_loop.rs",
     "            self.table.look_again(key);\n            self.serve(key);\n", ""),
    ("a client that has left is served before its end is read", "stack", "src/connections.rs",
     "true => self.runnable.push_front(key)", "true => self.runnable.push_back(key)"),
    ("the end behind a request is not looked for", "stack", "src/connection.rs",
     "        self.ignored = true;\n        self.unread = true;", "        self.ignored = true;"),
    ("a full batch of events is taken for all", "stack", "src/event_loop.rs",
     "1 + (self.table.connections.len() + self.doors.len()) / events.max(1)", "1 + 0 * events"),
    ("an urgent mark is taken for the end of the input", "stack", "src/connection.rs",
     "(self.urgent || !short_means_drained)", "!short_means_drained"),
    ("a passed descriptor is taken for the end of the input", "stack", "src/event_loop/serve.rs",
     "N::SHORT_MEANS_DRAINED && !self.net.reads_stop_short(&end.stream)", "N::SHORT_MEANS_DRAINED"),
    ("a stop does not wait for descriptors", "chaos", "src/event_loop/shutdown.rs",
     "self.doors.iter().any(|door| self.has_place_for_more(door))", "self.doors.iter().any(|door| self.may_accept(door))"),
    ("a cut answer ends like a whole one", "stack", "src/event_loop/serve.rs",
     "_ => self.net.reset(end.stream),", "_ => self.net.close(end.stream),"),
    ("an interrupted call is not repeated", "stack", "src/event_loop/serve.rs",
     "                Err(error) if error.kind() == Interrupted => {}\n", ""),
    ("the write edge is lost", "stack", "src/connection.rs", "self.writable |= ready.writable;", ""),
    ("the end behind data is lost", "stack", "src/connection.rs", "self.fin |= ready.read_closed;", ""),
    ("a short write is not watched", "stack", "src/event_loop/serve.rs",
     "            self.watch(key, Interest::ReadWrite)?;", ""),
    ("an event about one is told to another", "chaos", "src/connection.rs",
     "self.serial == id.serial && self.phase != Phase::Lingering", "self.phase != Phase::Lingering"),
    ("accepting ends when the system runs out", "stack", "src/event_loop/accept.rs",
     "        if self.exhausted_until.is_some_and(|until| until <= self.table.now) {\n            self.exhausted_until = None;\n        }",
     ""),
    ("one accept an event", "stack", "src/event_loop/accept.rs",
     "                    door.lost = 0;\n                    self.next_door", "                    door.ready = false;\n                    self.next_door"),
    ("a newcomer is not watched", "stack", "src/event_loop/accept.rs",
     "if let Err(error) = self.watch(id.key, Interest::Read) {", "if let Err(error) = Ok::<(), io::Error>(()) {"),
    ("a deadline is skipped while others are busy", "chaos", "src/event_loop.rs",
     "        self.fire_deadlines();\n        self.greet", "        if self.table.runnable() == 0 {\n            self.fire_deadlines();\n        }\n        self.greet"),
    ("a budget that is used up loses the turn", "chaos", "src/connections.rs",
     "            connection.queued = began.queued;\n            self.queue_if_runnable(key);", "            connection.queued = began.queued;"),
    ("input is offered twice", "chat", "src/event_loop/serve.rs",
     "kept.drain(..taken);", "kept.drain(..taken / 2);"),
    ("input goes on while paused", "chaos", "src/connection.rs",
     "Phase::Open if self.doomed || self.paused => None,", "Phase::Open if self.doomed => None,"),
    ("resume does not offer what is left", "chat", "src/service.rs", "            connection.again = true;\n", ""),
    ("a drain is told after the end", "chaos", "src/event_loop/serve.rs",
     "Phase::Open if emptied =>", "_ if emptied =>"),
    ("an aborted connection can be sent to", "chaos", "src/connection.rs",
     "self.phase == Phase::Open && !self.doomed", "self.phase == Phase::Open"),
    ("the item of an undelivered pop is dropped", "stack", "src/stack/service.rs",
     "State::Popped(item) if closed.unsent > 0 => self.lifo.undelivered(item),",
     "State::Popped(item) if closed.unsent > 0 => {\n                self.lifo.delivered();\n                self.items.remove(item);\n            }"),
    ("the item of an undelivered pop goes to the bottom", "stack", "src/stack/lifo.rs",
     "        self.delivered();\n        self.items.push(item);", "        self.delivered();\n        self.items.insert(0, item);"),
    ("a popped item leaves its room at once", "stack", "src/stack/lifo.rs",
     "if self.items.len() + self.in_flight < self.capacity {", "if self.items.len() < self.capacity {"),
    ("a pop before the push that waits for its room", "stack", "src/stack/service.rs",
     "        self.decide(cx);\n    }\n\n    /// A client that is turned away", "    }\n\n    /// A client that is turned away"),
    ("a push is stored for a client that has gone", "stack", "src/stack/service.rs",
     "                self.lifo.cancel(ticket);\n                self.items.remove(item);", "                let _ = (ticket, item);"),
    ("a FIN does not cancel", "stack", "src/stack/service.rs",
     "        Eof::Abort\n", "        Eof::Keep\n"),
    ("who was ready last is served first", "stack", "src/connections.rs",
     "let key = self.runnable.pop_front()?;", "let key = self.runnable.pop_back()?;"),
    ("popped items are kept", "stack", "src/stack/service.rs",
     "                self.lifo.delivered();\n                self.items.remove(item);", "                self.lifo.delivered();"),
    ("more input is kept than may be", "chaos", "src/connection.rs",
     "Some(Step::Read(limits.input - self.input.len()))", "Some(Step::Read(limits.input))"),
    ("kernels are not asked for room", "chat", "src/connections.rs",
     "connection.writable |= connection.output.is_some();", ""),
    ("a drain does not clear the deadline", "chat", "examples/chat/src/service.rs",
     "        cx.set_deadline(id, None);\n", ""),
    ("who parked last is served first", "stack", "src/queue.rs",
     "self.front.map(|key| self.unlink(key))", "self.back.map(|key| self.unlink(key))"),
    ("SEND-OK comes early", "chat", "examples/chat/src/service.rs", "if end <= taken {", "if end <= taken + 5 {"),
    ("SEND-OK comes for all", "chat", "examples/chat/src/service.rs", "if end <= taken {", "if taken > 0 {"),
    ("an answer overtakes", "chat", "examples/chat/src/service.rs",
     "        if !self.clients[&id].unanswered.is_empty() {\n            return Err(Later);\n        }", ""),
    ("the held back are forgotten", "chat", "examples/chat/src/service.rs",
     "        held_back.iter().for_each(|id| cx.resume(*id));\n        self.settle", "        self.settle"),
    ("a slow reader is taken for a dead one", "chat", "examples/chat/src/service.rs",
     "Some(deadline) if deadline > cx.now() => cx.set_deadline(id, Some(deadline)),", ""),
    ("the silent are waited for", "accio", "examples/accio/src/service.rs",
     "                cx.set_deadline(id, cx.now().checked_add(self.timeout));\n", ""),
    ("a byte gives no more time", "accio", "examples/accio/src/service.rs",
     "        cx.set_deadline(id, cx.now().checked_add(self.timeout));\n        match", "        match"),
    ("a part passes for the file", "accio", "examples/accio/src/service.rs",
     "            Stage::Greeted | Stage::GreetedAgain | Stage::Sending => upload.fail().map(|()| None),",
     "            Stage::Sending => upload.finish().map(Some),\n            Stage::Greeted | Stage::GreetedAgain => upload.fail().map(|()| None),"),
    ("a deadline that has passed is put off", "http", "src/service.rs",
     "at.max(next_turn.min(before))", "at.max(next_turn)"),
    ("framing is taken for a body", "http", "src/http/service.rs",
     "return Some(passed + self.data(cx, key, data))", "return match self.data(cx, key, data) {\n                    0 => None,\n                    taken => Some(passed + taken),\n                }"),
    ("a collected body is collected again", "http", "src/http/upload.rs",
     "                collected.body.extend_from_slice(data);\n                decoder.take(data.len());",
     "                collected.body.extend_from_slice(data);\n                decoder.take(data.len().min(20));"),
    ("the rest of a reply begins at its front", "http", "src/http/exchanges.rs",
     "            *sent += n;\n", ""),
    ("HEAD has content", "http", "src/http/reply.rs",
     "self.status.is_bare() || self.connection().is_some_and(|connection| connection.head_only)", "self.status.is_bare()"),
    ("who pipelines is forgotten", "http", "src/http/exchanges.rs",
     "                false => cx.resume(connection.id),", "                false => {}"),
    ("half a request has all the time", "http", "src/http/service.rs",
     "Some(Late::Head | Late::Body) => self.core.refuse(cx, key, SLOW),", "Some(Late::Head | Late::Body) => {}"),
    ("an exchange whose client is gone stays", "http", "src/http/service.rs",
     "        self.core.end(conn.0, Outcome::Lost);\n", ""),
    ("two at a time", "accio", "src/admission.rs",
     "self.admitted.len() + self.expected < self.capacity ||", "self.admitted.len() + self.expected <= self.capacity ||"),
]

root = pathlib.Path(__file__).resolve().parent.parent
work = root / "target" / "planted"
tree = work / "tree"
env = dict(os.environ, CARGO_TARGET_DIR=str(work / "build"), CARGO_PROFILE_RELEASE_LTO="off",
           CARGO_PROFILE_RELEASE_CODEGEN_UNITS="16", CARGO_PROFILE_RELEASE_INCREMENTAL="true")


def run(*command):
    result = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, errors="replace")
    return result.returncode, result.stdout + result.stderr


def simulate(server):
    """The message of the first world that is wrong, and its seed; None if all are right."""
    code, text = run("timeout", "300", str(work / "build/release/simulate"),
                     "--server", server, "--seeds", SEEDS, "--threads", "1")
    if code == 0:
        return None
    found = re.findall(rf"^{server}: seed (\d+): (.*)", text, re.MULTILINE)
    return found[-1] if found else ("?", text.strip().splitlines()[-1] if text.strip() else f"exit status {code}")


def build():
    code, text = run("cargo", "build", "--quiet", "--locked", "--release", "-p", "simulate")
    if code != 0:
        sys.exit(text)


def main():
    wanted = sys.argv[1:]
    shutil.rmtree(tree, ignore_errors=True)
    # With new times: cargo must not take what an earlier run has planted for up to date.
    shutil.copytree(root, tree, ignore=shutil.ignore_patterns("target", ".git", "corpus"), copy_function=shutil.copy)
    missed = []
    print("| planted | in | caught by | seed |\n| --- | --- | --- | --- |", flush=True)
    for name, server, file, old, new in FAULTS:
        if wanted and not any(word in name for word in wanted):
            continue
        path = tree / file
        source = path.read_text()
        if source.count(old) != 1:
            sys.exit(f"{name}: what it replaces stands {source.count(old)} times in {file}")
        path.write_text(source.replace(old, new))
        build()
        found = simulate(server)
        path.write_text(source)
        seed, message = found or ("", "**nothing**")
        message = re.sub(r"\s+", " ", message).replace("|", "/")[:100]
        print(f"| {name} | {server} | {message} | {seed} |", flush=True)
        missed += [] if found else [name]
    if missed:
        sys.exit(f"not caught: {', '.join(missed)}")


main()

// The stack server on Node's `net`, one process, no packages.
//
// Maps and sets keep the order of insertion, so the first client of each is the oldest, and a
// client in the middle of a line leaves it without a search. Without `allowHalfOpen`, Node ends
// its side when the client has ended its own, which is what the protocol wants of a parked client;
// the response to a request that came with a FIN has been handed to the kernel by then. Nagle's
// algorithm does not hold back the only write of a connection, so `noDelay` would be one more
// system call for nothing.
//
// Left out: an item goes back on the stack if its response cannot be written; who is served is
// closed at once, so that a client that sent too much may read a reset behind its response.

import net from "node:net";

const CAPACITY = 100;
const STORED = Buffer.from([0x00]);
const BUSY = Buffer.from([0xff]);

const [address = "", limit = "100", age = "10"] = process.argv.slice(2);
const EVICT_AFTER = Number(age) * 1000; // milliseconds
const [, host, port] = address.match(/^\[?(.+?)\]?:(\d+)$/) ?? [];
if (!host) {
  console.error("usage: stack.mjs ADDRESS:PORT [MAX-CLIENTS [EVICT-AFTER-SECONDS]]");
  process.exit(2);
}
const maxClients = Number(limit);

const stack = [];
const clients = new Map(); // socket: since when
const pushes = new Map(); // socket: item
const pops = new Set(); // socket

function forget(socket) {
  clients.delete(socket);
  pushes.delete(socket);
  pops.delete(socket);
}

/** Closes when the response is out, also if the client does not. */
function answer(socket, response) {
  socket.write(response);
  socket.destroySoon();
}

function push(socket, item) {
  const [pop] = pops;
  if (pop) {
    pops.delete(pop);
    answer(pop, item);
  } else if (stack.length < CAPACITY) {
    stack.push(item);
  } else {
    pushes.set(socket, item);
    return;
  }
  answer(socket, STORED);
}

function pop(socket) {
  if (stack.length === 0) {
    pops.add(socket);
    return;
  }
  const item = stack.pop();
  const [waiting] = pushes;
  if (waiting) {
    pushes.delete(waiting[0]);
    stack.push(waiting[1]);
    answer(waiting[0], STORED);
  }
  answer(socket, item);
}

function admit() {
  if (clients.size < maxClients) return true;
  const [[oldest, since]] = clients;
  if (performance.now() - since <= EVICT_AFTER) return false;
  forget(oldest);
  oldest.destroy();
  return true;
}

function serve(socket) {
  socket.on("error", () => {}); // a reset; "close" follows
  if (!admit()) {
    socket.end(BUSY);
    socket.resume(); // the request has to be read, or the client would get a reset
    socket.setTimeout(1000, () => socket.destroy());
    return;
  }
  clients.set(socket, performance.now());
  let input = null; // the beginning of a request
  let complete = false;
  socket.on("data", (chunk) => {
    if (complete) return;
    input = input ? Buffer.concat([input, chunk]) : chunk;
    const header = input[0];
    complete = header === 0 || header >= 0x80 || input.length > header;
    if (!complete) return;
    if (header === 0) socket.destroy();
    else if (header >= 0x80) pop(socket);
    else push(socket, input.subarray(0, 1 + header));
    input = null;
  });
  socket.on("end", () => forget(socket));
  socket.on("close", () => forget(socket));
}

const server = net.createServer(serve);
server.listen({ host, port: Number(port), backlog: 4096 }, () => {
  const { address, port, family } = server.address();
  console.log(`listening on ${family === "IPv6" ? `[${address}]` : address}:${port}`);
});

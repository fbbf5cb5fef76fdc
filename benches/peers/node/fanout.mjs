// Server-sent events on Node's `http`, one process, no packages.
//
// What is published to a channel is written once, and then to everybody who is subscribed to it.
//
// Left out: everything else. There are no ids that anybody could resume from, no history, no limits
// and no heartbeats; who does not read has its messages queued without end.

import http from "node:http";

const [address = ""] = process.argv.slice(2);
const [, host, port] = address.match(/^\[?(.+?)\]?:(\d+)$/) ?? [];
if (!host) {
  console.error("usage: fanout.mjs ADDRESS:PORT");
  process.exit(2);
}

const channels = new Map(); // name: set of responses
let id = 0;

function subscribe(name, response) {
  if (!channels.has(name)) channels.set(name, new Set());
  const subscribers = channels.get(name);
  subscribers.add(response);
  response.on("close", () => subscribers.delete(response));
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  response.write(": hello\n\n");
}

function publish(name, message, response) {
  id += 1;
  const lines = message.split(/\r\n|\r|\n/).map((line) => `data: ${line}\n`);
  const event = Buffer.from(`id: ${id}\n${lines.join("")}\n`);
  const subscribers = channels.get(name) ?? new Set();
  for (const subscriber of subscribers) subscriber.write(event);
  const body = JSON.stringify({ id, subscribers: subscribers.size });
  response.writeHead(200, { "Content-Type": "application/json", "Content-Length": body.length });
  response.end(body);
}

const server = http.createServer((request, response) => {
  const [, name, events] = request.url.match(/^\/channels\/(\w+)(\/events)?$/) ?? [];
  if (name && events && request.method === "GET") {
    subscribe(name, response);
  } else if (name && !events && request.method === "POST") {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => publish(name, Buffer.concat(parts).toString(), response));
  } else {
    response.writeHead(404).end();
  }
});

server.keepAliveTimeout = 0;
server.listen({ host, port: Number(port), backlog: 4096 }, () => {
  const { address, port } = server.address();
  console.log(`listening on ${address}:${port}`);
});

"""The stack server on Twisted, with its epoll reactor and one thread.

OrderedDict gives and loses its oldest entry, and any other, in constant time: that is what the
clients and the two lines need. Twisted closes a connection whose client has ended its side, which
is what the protocol wants of a parked client; a response that is on its way goes out before.
Nagle's algorithm does not hold back the only write of a connection, so TCP_NODELAY would be one
more system call for nothing.

Left out: an item goes back on the stack if its response cannot be written; who is served is closed
at once, so that a client that sent too much may read a reset behind its response.
"""

import sys
from collections import OrderedDict
from time import monotonic

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor  # noqa: E402
from twisted.internet.protocol import Factory, Protocol  # noqa: E402

CAPACITY = 100
EVICT_AFTER = float(sys.argv[3]) if len(sys.argv) > 3 else 10.0
STORED = b"\x00"
BUSY = b"\xff"


class Client(Protocol):
    def __init__(self):
        self.input = b""
        self.complete = False
        self.since = monotonic()
        self.deadline = None  # of a client that is one too many

    def connectionMade(self):
        # The factory is asked here, not in buildProtocol, which could only close without a word.
        if self.factory.admit():
            self.factory.clients[self] = None
        else:
            self.complete = True
            self.transport.write(BUSY)
            # The request has to be read first, or the client would get a reset.
            self.transport.loseWriteConnection()
            self.deadline = reactor.callLater(1, self.transport.abortConnection)

    def dataReceived(self, data):
        if self.complete:
            return
        if self.input:
            data = self.input + data
        header = data[0]
        if 0 < header < 0x80 and len(data) <= header:
            self.input = data
            return
        self.complete = True
        if header == 0:
            self.transport.loseConnection()
        elif header >= 0x80:
            self.factory.pop(self)
        else:
            self.factory.push(self, data[: 1 + header])

    def answer(self, response):
        self.transport.write(response)
        self.transport.loseConnection()

    def connectionLost(self, reason):
        if self.deadline is None:
            self.factory.forget(self)
        elif self.deadline.active():
            self.deadline.cancel()


class Stack(Factory):
    protocol = Client
    noisy = False

    def __init__(self, max_clients):
        self.max_clients = max_clients
        self.stack = []
        self.clients = OrderedDict()
        self.pushes = OrderedDict()
        self.pops = OrderedDict()

    def admit(self):
        if len(self.clients) < self.max_clients:
            return True
        oldest = next(iter(self.clients))
        if monotonic() - oldest.since <= EVICT_AFTER:
            return False
        self.forget(oldest)
        oldest.complete = True
        oldest.transport.loseConnection()  # abortConnection would be a reset
        return True

    def forget(self, client):
        self.clients.pop(client, None)
        self.pushes.pop(client, None)
        self.pops.pop(client, None)

    def push(self, client, item):
        if self.pops:
            self.pops.popitem(last=False)[0].answer(item)
        elif len(self.stack) < CAPACITY:
            self.stack.append(item)
        else:
            self.pushes[client] = item
            return
        client.answer(STORED)

    def pop(self, client):
        if not self.stack:
            self.pops[client] = None
            return
        item = self.stack.pop()
        if self.pushes:
            waiting, pushed = self.pushes.popitem(last=False)
            self.stack.append(pushed)
            waiting.answer(STORED)
        client.answer(item)


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: stack.py ADDRESS:PORT [MAX-CLIENTS [EVICT-AFTER-SECONDS]]")
    host, _, port = sys.argv[1].rpartition(":")
    max_clients = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    listener = reactor.listenTCP(int(port), Stack(max_clients), backlog=4096, interface=host.strip("[]"))
    address = listener.getHost()
    host = f"[{address.host}]" if ":" in address.host else address.host
    reactor.callWhenRunning(print, f"listening on {host}:{address.port}", flush=True)
    reactor.run()


if __name__ == "__main__":
    main()

"""The HTTP face of the stack server against doc/openapi.yaml: schemathesis finds nothing.

The first argument is the schemathesis program.
"""

import socket
import subprocess
import sys
import threading

SERVER = ["target/release/pollstack", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--capacity", "1000000"]


def supply(address, over):
    """Pushes items, so that a pop does not wait for long."""
    while not over.wait(0.05):
        with socket.create_connection(address) as client:
            client.sendall(b"\x05hello")
            client.recv(1)


def main():
    over = threading.Event()
    with subprocess.Popen(SERVER, stdout=subprocess.PIPE, text=True) as server:
        stack, face = (server.stdout.readline().split()[-1] for _ in range(2))
        host, port = stack.rsplit(":", 1)
        supplier = threading.Thread(target=supply, args=((host, int(port)), over))
        supplier.start()
        try:
            command = [sys.argv[1], "--config-file", ".ci/schemathesis.toml", "run", "doc/openapi.yaml", "--url", f"http://{face}"]
            tried = subprocess.run([*command, "--max-examples", "60", "--request-timeout", "10"], check=False)
        finally:
            over.set()
            supplier.join()
            server.terminate()
    sys.exit(tried.returncode or server.returncode)


main()

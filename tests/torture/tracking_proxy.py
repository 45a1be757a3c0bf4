"""A proxy before a tracking server that loses requests and replies, cuts, delays and doubles them; by a seed."""

import http.client
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}
DELAY_S = 0.3
TIMEOUT_S = 3  # the client's, MLFLOW_HTTP_REQUEST_TIMEOUT
FAULTS = ("request lost", "reply lost", "reply cut", "reply late", "reply too late", "request twice", "server error")


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: "Proxy"

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        assert "Transfer-Encoding" not in self.headers
        fault = self.server.next_fault()
        if fault == "request lost":
            return self._hang_up()
        try:
            status, headers, content = self._forward(body)
            if fault == "request twice":
                status, headers, content = self._forward(body)
        except OSError:  # the server is away
            return self._hang_up()
        if fault == "reply lost":
            return self._hang_up()
        if fault in ("reply late", "reply too late"):
            time.sleep(DELAY_S if fault == "reply late" else TIMEOUT_S + 1)
        if fault == "server error":
            status, headers, content = 503, [], b""
        self._reply(status, headers, content, len(content) // 2 if fault == "reply cut" else len(content))
        return None

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            reply = connection.getresponse()
            return reply.status, reply.getheaders(), reply.read()
        finally:
            connection.close()

    def _reply(self, status: int, headers: list[tuple[str, str]], content: bytes, sent: int) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:sent])
        if sent < len(content):
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
    setattr(Handler, f"do_{method}", Handler._handle)


class Proxy(ThreadingHTTPServer):
    """Before the server at port `target`: of its requests one in `every` has a fault, `most` in all."""

    daemon_threads = True

    def __init__(self, target: int, draw: random.Random, *, every: int, most: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target, self.every, self.most, self.faults = target, every, most, 0
        self._draw, self._drawing = draw, threading.Lock()
        self.port = self.server_address[1]

    def next_fault(self) -> str | None:
        """Draw what happens to a request."""
        with self._drawing:
            if self.faults >= self.most or self._draw.randrange(self.every):
                return None
            self.faults += 1
            return self._draw.choice(FAULTS)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that has hung up."""


@contextmanager
def faulty(target: int, draw: random.Random, *, every: int, most: int) -> Iterator[Proxy]:
    """Run a proxy until the block ends."""
    proxy = Proxy(target, draw, every=every, most=most)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()

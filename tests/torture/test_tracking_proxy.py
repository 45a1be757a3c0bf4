"""The proxy does with a request what the name of its fault says."""

import http.client
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from torture import tracking_proxy
from torture.tracking_proxy import Proxy, faulty


class Server(HTTPServer):
    """Replies to each request with how many there were."""

    requests = 0


class Count(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests += 1
        content = f"request {self.server.requests}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Count) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def reply(proxy: Proxy) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    try:
        connection.request("POST", "/", b"body")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("fault", "expected", "requests"),
    [
        (None, (200, b"request 1"), 1),
        ("request twice", (200, b"request 2"), 2),
        ("reply late", (200, b"request 1"), 1),
        ("server error", (503, b""), 1),
    ],
)
def test_replies(
    server: Server, monkeypatch: pytest.MonkeyPatch, fault: str, expected: tuple[int, bytes], requests: int
) -> None:
    monkeypatch.setattr(tracking_proxy, "DELAY_S", 0.01)
    with faulty(server.server_port, random.Random(0), every=1, most=1) as proxy:
        monkeypatch.setattr(proxy, "next_fault", lambda: fault)
        assert reply(proxy) == expected
    assert server.requests == requests


@pytest.mark.parametrize(("fault", "requests"), [("request lost", 0), ("reply lost", 1), ("reply cut", 1)])
def test_no_reply(server: Server, monkeypatch: pytest.MonkeyPatch, fault: str, requests: int) -> None:
    with faulty(server.server_port, random.Random(0), every=1, most=1) as proxy:
        monkeypatch.setattr(proxy, "next_fault", lambda: fault)
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            reply(proxy)
    assert server.requests == requests


def test_the_faults_are_so_many_and_of_every_kind() -> None:
    proxy = Proxy(0, random.Random(0), every=2, most=50)
    drawn = [proxy.next_fault() for _ in range(200)]
    proxy.server_close()
    assert {fault for fault in drawn if fault} == set(tracking_proxy.FAULTS)
    assert sum(fault is not None for fault in drawn) == proxy.faults == 50

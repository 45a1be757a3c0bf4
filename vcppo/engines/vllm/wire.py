"""Protocol between a trainer and a vLLM server: typed messages over a socket, standard library only.

A message is 16 bytes (mark, length of the header, length of the body), a header in JSON, {"kind", "fields", "arrays"},
and a body of raw little-endian arrays in the order that the header lists them. Nothing that came from the network is
ever executed: no pickle. Whoever can reach the socket can use the server; keep it on a network that you trust.

    client                          server
    Hello(protocol)              -> Welcome(protocol, vllm)
    Open(model)                  -> Opened
    Load(file) or Piece..., Load -> Loaded           as often as there are shards
    Commit(weights)              -> Committed        from here on responses come from these weights
    Write(weights, stems, ...) -> Responses

Before its reply the server may send Busy any number of times, and instead of it Refused, with the reason.
"""

import dataclasses
import json
import socket
import struct
import typing
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

PROTOCOL = 2
MARK = b"vcp1"
PREFIX = struct.Struct("<4sIQ")  # mark, bytes of the header, bytes of the body
HEADER_LIMIT, BODY_LIMIT = 2**26, 2**36
PIECE = 2**24  # bytes of a file that go into one message

Dtype = Literal["float32", "bfloat16", "float16"]


class WireError(Exception):
    """The other end closed the connection, or sent what this end does not understand."""


@dataclass(frozen=True)
class ModelSpec:
    """The model that a generator is built for, and how; weights are given later."""

    config: str  # transformers' config.json, its architecture named
    dtype: Dtype
    max_length: int  # tokens of prompt and response together
    tensor_parallel: int
    memory_share: float | None  # of the device; None: see core.py
    max_sequences: int
    enforce_eager: bool | None  # None: on a CPU only
    prefix_caching: bool
    sleep: bool


@dataclass(frozen=True)
class Hello:
    """First message; every version of the protocol can read them."""

    protocol: int


@dataclass(frozen=True)
class Welcome:
    """The server's first message. `vllm` is the version installed, empty where there is none."""

    protocol: int
    vllm: str


@dataclass(frozen=True)
class Open:
    """Build this model, or reuse it if it is built already."""

    model: dict[str, Any]  # a ModelSpec


@dataclass(frozen=True)
class Opened:
    """The model is built."""


@dataclass(frozen=True)
class Piece:
    """Some bytes of a safetensors file, after those of the piece before."""

    data: "array[int]"  # B


@dataclass(frozen=True)
class Load:
    """Read weights from a file in the exchange folder, or, if `file` is empty, from the pieces sent."""

    file: str


@dataclass(frozen=True)
class Loaded:
    """Reply to Load: they are in the model."""


@dataclass(frozen=True)
class Commit:
    """All weights have been sent, under this name."""

    weights: str


@dataclass(frozen=True)
class Committed:
    """Reply to Commit: none was missing, and nothing cached is left of the ones before."""


@dataclass(frozen=True)
class Write:
    """Request for N responses, i after the first lengths[i] tokens of stem owners[i]; stem g has stem_lengths[g]."""

    weights: str
    temperature: float
    top_p: float
    stop: list[int]  # tokens that end a response
    stems: "array[int]"  # q
    stem_lengths: "array[int]"  # q [G]
    owners: "array[int]"  # q [N]
    lengths: "array[int]"  # q [N]
    limits: "array[int]"  # q [N] tokens of a response at most
    seeds: "array[int]"  # q [N]


@dataclass(frozen=True)
class Responses:
    """N responses, in order; response i has lengths[i] of the tokens."""

    tokens: "array[int]"  # q, end tokens included
    logprobs: "array[float]"  # f
    lengths: "array[int]"  # q [N]
    stopped: "array[int]"  # B [N] 1: the policy ended it; 0: it was cut at its limit
    prompt_tokens: int
    cached_tokens: int  # of them, whose keys and values were taken from the prefix cache


@dataclass(frozen=True)
class Busy:
    """The request is in progress."""


@dataclass(frozen=True)
class Refused:
    """The request is refused, for a reason in one line."""

    reason: str
    ended: bool = False  # and the server has ended


Message = (
    Hello | Welcome | Open | Opened | Piece | Load | Loaded | Commit | Committed | Write | Responses | Busy | Refused
)
KINDS: dict[str, Any] = {kind.__name__: kind for kind in typing.get_args(Message)}
ITEM_SIZES = {"B": 1, "q": 8, "f": 4}


def split(tokens: "Sequence[Any]", lengths: "Sequence[int]") -> list[list[Any]]:
    """Cut a flat sequence into rows.

    >>> split(array("q", [1, 2, 3]), [1, 2])
    [[1], [2, 3]]
    """
    rows, start = [], 0
    for length in lengths:
        rows.append(list(tokens[start : start + length]))
        start += length
    return rows


def error_line(error: BaseException) -> str:
    """Name of an error's class and its message, in one line of at most 400 characters."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}"[:400] if message else type(error).__name__


def send(connection: socket.socket, message: Message) -> None:
    """Send a whole message.

    Raises:
        WireError: the other end is gone.
    """
    fields: dict[str, Any] = {}
    arrays: dict[str, array[Any]] = {}
    for name in (f.name for f in dataclasses.fields(message)):
        value = getattr(message, name)
        (arrays if isinstance(value, array) else fields)[name] = value
    listed = [[name, x.typecode, len(x) * x.itemsize] for name, x in arrays.items()]
    header = json.dumps({"kind": type(message).__name__, "fields": fields, "arrays": listed}).encode()
    body = sum(len(x) * x.itemsize for x in arrays.values())
    try:
        connection.sendall(PREFIX.pack(MARK, len(header), body) + header)
        for x in arrays.values():
            connection.sendall(memoryview(x).cast("B") if len(x) else b"")
    except TimeoutError:
        raise
    except OSError as error:
        raise WireError(f"the connection broke ({error})") from None


def receive(connection: socket.socket) -> Message:
    """Receive the next message.

    Raises:
        WireError: the other end is gone, or what came is no message of this protocol.
        TimeoutError: the socket has a timeout, and nothing came for so long.
    """
    mark, header_size, body_size = PREFIX.unpack(_exactly(connection, PREFIX.size))
    if mark != MARK or header_size > HEADER_LIMIT or body_size > BODY_LIMIT:
        raise WireError("what replies is no vcppo engine server")
    try:
        header = json.loads(_exactly(connection, header_size))
        kind, values = KINDS[header["kind"]], dict(header["fields"])
        for name, code, size in header["arrays"]:
            if size % ITEM_SIZES[code] or size > body_size:
                raise WireError(f"{header['kind']}.{name}: {size} bytes of {code}")
            x = array(code)
            x.frombytes(_exactly(connection, size))
            values[name] = x
        message: Message = kind(**values)
    except (ValueError, KeyError, TypeError) as error:
        raise WireError(f"not understood: {type(error).__name__}: {error}") from None
    return message


def _exactly(connection: socket.socket, size: int) -> bytearray:
    """Receive exactly so many bytes."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            count = connection.recv_into(view)
        except TimeoutError:
            raise
        except OSError as error:
            raise WireError(f"the connection broke ({error})") from None
        if not count:
            raise WireError("the connection was closed")
        view = view[count:]
    return data


@dataclass(frozen=True)
class Address:
    """Address of a server: a socket file, or a host with a port."""

    file: str = ""
    host: str = ""
    port: int = 0

    def listen(self) -> socket.socket:
        """Open a socket that takes connections."""
        if self.file:
            server = socket.socket(socket.AF_UNIX)
            server.bind(self.file)
            server.listen()
            return server
        return socket.create_server((self.host, self.port))

    def connect(self, timeout_s: float) -> socket.socket:
        """Open a connection; OSError where nobody listens."""
        if self.file:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(timeout_s)
                connection.connect(self.file)
            except OSError:
                connection.close()
                raise
            return connection
        connection = socket.create_connection((self.host, self.port), timeout=timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Parse `host:port`; ValueError if it is not.

        >>> Address.parse("node3:7000") == Address(host="node3", port=7000)
        True
        """
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"{text!r}: expected host:port, a port below 65536")
        return cls(host=host.strip("[]"), port=int(port))

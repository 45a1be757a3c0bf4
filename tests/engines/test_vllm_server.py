"""vLLM in a process and a Python environment of its own, which VCPPO_VLLM_PYTHON names."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import tiny
from vllm_cases import CHECKS, FAMILIES, FREE, RAGGED, RANKS, assert_agrees, check_updates, engine_of, model

from vcppo.engines.base import Sampling
from vcppo.engines.vllm import host as live
from vcppo.engines.vllm.client import ServerClient
from vcppo.engines.vllm.host import close_hosts
from vcppo.errors import EngineError
from vcppo.settings.engine import VllmEngineSettings
from vcppo.stages.pipeline import run_stages
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.journal import read_journal

PYTHON = os.environ.get("VCPPO_VLLM_PYTHON")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(PYTHON is None, reason="VCPPO_VLLM_PYTHON names no Python with vLLM; see nox -s vllm"),
]


@pytest.fixture(scope="module")
def settings() -> Iterator[VllmEngineSettings]:
    """One server for all tests; it is given other models as they want them."""
    yield VllmEngineSettings(mode="server", python=PYTHON)
    close_hosts()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_update_arrives(settings: VllmEngineSettings, family: str) -> None:
    check_updates(settings, family)


@pytest.mark.parametrize("check", CHECKS)
def test_the_engine(settings: VllmEngineSettings, check: str) -> None:
    CHECKS[check](settings)


def test_models_of_other_shapes_take_turns_in_one_server(settings: VllmEngineSettings) -> None:
    policies = [model("qwen2", seed=1), model("llama", seed=1)]
    engines = [engine_of(settings, policy) for policy in policies]
    pid = server_pid()
    for policy, engine in zip(policies, engines, strict=True):
        assert_agrees(policy, RAGGED, engine.generate(RAGGED, FREE, seed=0), 1.0)
    assert server_pid() == pid


def server_pid() -> int:
    (host,) = live._hosts.values()
    assert isinstance(host, ServerClient)
    assert host._process is not None
    return host._process._process.pid


TRAINING = (
    "model.architecture=qwen2",
    "model.hidden_size=64",
    "model.heads=2",
    "model.kv_heads=2",
    "cold_start.learning_rate=0.003",
    "steps=3",
    "policy.minibatches=1",  # the ratio is then 1 wherever generator and trainer agree
    "evaluation.every=1",
    "engine.kind=vllm",
    "engine.mode=server",
)


def test_a_whole_run_generates_with_vllm_and_its_log_probabilities_are_the_trainers(tmp_path: Path) -> None:
    settings = tiny(*TRAINING, f"engine.python={PYTHON}")
    states = torch.get_rng_state()
    run_stages(settings, tmp_path)
    assert torch.equal(torch.get_rng_state(), states)
    assert len(live._hosts) == 1  # one server for all stages
    rl = StageFolder(tmp_path, addresses(settings)["rl"])
    values = [record["values"] for record in read_journal(rl.path / "journal.jsonl") if record["kind"] == "metrics"]
    ratios = [record["policy/ratio_max"] for record in values if "policy/ratio_max" in record]
    assert len(ratios) == 3
    assert all(abs(ratio - 1.0) < 1e-3 for ratio in ratios), ratios
    assert any("eval/digits/avg_at_1" in record for record in values)


def test_two_ranks_share_one_server_and_write_what_one_would(tmp_path: Path, settings: VllmEngineSettings) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    here = str(Path(__file__).parents[1])
    done = subprocess.run(
        [*launch, str(script), here, "server", "1", str(PYTHON)], capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = [line for line in done.stdout.splitlines() if line.startswith("written")]
    alone = engine_of(settings, model("qwen2", seed=1, tie_word_embeddings=True)).generate(RAGGED, FREE, seed=3)
    assert said[0] == f"written {[response.tokens for response in alone]}"
    assert len(said) == 2


def test_a_server_killed_while_it_writes_is_one_line_and_nothing_hangs(settings: VllmEngineSettings) -> None:
    engine = engine_of(settings, model(end=-1))
    pid = server_pid()
    threading.Timer(0.7, os.kill, (pid, signal.SIGKILL)).start()
    began = time.monotonic()
    with pytest.raises(EngineError) as caught:
        engine.generate([[2]] * 20000, Sampling(1.0, 1.0, 200), seed=0)  # some minutes' worth
    assert time.monotonic() - began < 30
    said = str(caught.value)
    assert said.startswith("the vLLM server ended (signal 9, SIGKILL, often for want of memory): ")
    assert "\n" not in said
    log = Path(said.rpartition("(see ")[2].removesuffix(")"))
    assert log.exists()
    log.unlink()
    assert not live._hosts  # the next engine starts anew


def test_weights_over_a_connection_arrive_too_and_a_model_that_vllm_cannot_hold_is_one_line(tmp_path: Path) -> None:
    """A server started by hand, as on another machine."""
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"127.0.0.1:{free.getsockname()[1]}"
    root = Path(live.__file__).resolve().parents[3]
    command = [str(PYTHON), "-m", "vcppo.engines.vllm.server", "--listen", url]
    with open(log, "wb") as file:
        server = subprocess.Popen(command, stderr=file, env={**os.environ, "PYTHONPATH": str(root)}, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while b"listening" not in log.read_bytes():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        policy = model("qwen2", tie_word_embeddings=True)
        engine = engine_of(VllmEngineSettings(mode="server", url=url), policy)
        assert_agrees(policy, RAGGED, engine.generate(RAGGED, FREE, seed=0), 1.0)
        with pytest.raises(EngineError) as caught:  # the embedded task's own model has heads of 16 numbers
            engine_of(engine.settings, model("llama", head_dim=16)).generate(RAGGED, FREE, seed=0)
        said = f"the vLLM server at engine.url = {url} refuses: RuntimeError: Unsupported CPU attention configuration"
        assert str(caught.value).startswith(said)
        assert "\n" not in str(caught.value)
        assert server.wait(30) == 1
        with pytest.raises(EngineError, match="nothing listens there"):
            engine.generate(RAGGED, FREE, seed=0)
    finally:
        server.kill()
        server.wait()
        close_hosts()

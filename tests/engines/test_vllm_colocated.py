"""vLLM in the process of the trainer; these run with the Python of an environment that has it."""

import importlib.util
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vllm_cases import CHECKS, FREE, RAGGED, RANKS, check_updates, engine_of, model

from vcppo.engines.vllm import host as live
from vcppo.engines.vllm.colocated import Colocated
from vcppo.engines.vllm.host import close_hosts
from vcppo.errors import EngineError
from vcppo.settings.engine import VllmEngineSettings

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not in this environment"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]


@pytest.fixture(scope="module")
def settings() -> Iterator[VllmEngineSettings]:
    yield VllmEngineSettings(mode="colocated")
    close_hosts()


@pytest.mark.parametrize("family", ["qwen2, tied", "qwen3, untied"])
def test_every_update_arrives(settings: VllmEngineSettings, family: str) -> None:
    check_updates(settings, family)


@pytest.mark.parametrize("check", ["seeds", "turns", "missing", "the same as torch"])
def test_the_engine(settings: VllmEngineSettings, check: str) -> None:
    CHECKS[check](settings)


def numpy_state() -> Any:
    state: Any = np.random.get_state()
    return state[1].copy()


def test_no_global_randomness_is_touched(settings: VllmEngineSettings) -> None:
    torch.rand(3)
    states = torch.get_rng_state(), numpy_state(), random.getstate()
    engine_of(settings, model("qwen2", seed=9)).generate(RAGGED, FREE, seed=0)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (numpy_state() == states[1]).all()
    assert random.getstate() == states[2]


class Sleeper:
    """Stands between the host and vLLM, and keeps what would be asleep on a GPU; there is nothing to sleep on a CPU."""

    def __init__(self, host: Colocated) -> None:
        self.awake = {"weights", "kv_cache"}
        self.said: list[str] = []
        core: Any = host._core
        load, step = core.load, core.step
        core.sleep = self.sleep
        core.wake = self.wake
        core.load = lambda weights: self.needs("weights") or load(weights)
        core.step = lambda: self.needs("weights", "kv_cache") or step()
        host._sleeps = True

    def sleep(self) -> None:
        self.awake.clear()
        self.said.append("sleep")

    def wake(self, what: str) -> None:
        self.awake.add(what)
        self.said.append(what)

    def needs(self, *what: str) -> None:
        assert self.awake >= set(what)


def test_between_calls_it_sleeps_and_wakes_for_what_it_needs(settings: VllmEngineSettings) -> None:
    policy = model("qwen2", seed=4)
    engine = engine_of(settings, policy)
    (host,) = live._hosts.values()
    assert isinstance(host, Colocated)
    sleeper = Sleeper(host)
    first = engine.generate(RAGGED, FREE, seed=0)
    assert sleeper.said == ["sleep"]
    assert engine.generate(RAGGED, FREE, seed=0) == first  # weights were given anew
    assert sleeper.said[1:] == ["weights", "kv_cache", "sleep"]
    engine.update_weights(policy)
    assert sleeper.said[4:] == ["weights"]  # the cache's memory is the trainer's until something is written
    engine.generate(RAGGED, FREE, seed=0)
    assert sleeper.said[5:] == ["kv_cache", "sleep"]
    close_hosts()


def test_a_model_that_vllm_cannot_hold_is_one_line(settings: VllmEngineSettings) -> None:
    with pytest.raises(EngineError) as caught:
        engine_of(settings, model("llama", head_dim=16)).generate(RAGGED, FREE, seed=0)
    assert str(caught.value).startswith("vLLM refuses: RuntimeError: Unsupported CPU attention configuration")
    assert "\n" not in str(caught.value)


def test_more_tensor_parallel_ranks_than_there_are_processes_are_refused() -> None:
    with pytest.raises(EngineError, match=r"engine.tensor_parallel = 2, colocated with a trainer of 1 processes"):
        engine_of(VllmEngineSettings(tensor_parallel=2), model())


def test_two_ranks_share_a_model(tmp_path: Path, settings: VllmEngineSettings) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    here = str(Path(__file__).parents[1])
    done = subprocess.run(
        [*launch, str(script), here, "colocated", "2", ""], capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = [line for line in done.stdout.splitlines() if line.startswith("written")]
    alone = engine_of(settings, model("qwen2", seed=1, tie_word_embeddings=True)).generate(RAGGED, FREE, seed=3)
    assert said[0] == f"written {[response.tokens for response in alone]}"
    assert len(said) == 2

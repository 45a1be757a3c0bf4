"""Memory of a pass by `vcppo plan`, against that of the real modules: counted on fake tensors, at real shapes."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vcppo.planning.memory_estimate import Network, forward_pass, gradients, held, resting, train
from vcppo.planning.shapes import KNOWN
from vcppo.settings.model import ComputeSettings, LoraSettings

pytestmark = [pytest.mark.e2e, pytest.mark.long]
TESTS = Path(__file__).resolve().parents[1]
CLOSE = 0.15  # of a measured peak
NARROW = {"dtype": "bfloat16"}
CHECKPOINTED = {"dtype": "bfloat16", "gradient_checkpointing": True}
# The two smallest whole, the others with fewer layers for time's sake: layers are alike.
CASES: list[dict[str, Any]] = [
    {"shapes": "qwen2.5-0.5b", "critic": False, "processes": 1, "tokens": 8192, "compute": CHECKPOINTED},
    {"shapes": "qwen2.5-1.5b", "critic": False, "processes": 1, "tokens": 16384, "compute": CHECKPOINTED},
    {"shapes": "qwen2.5-1.5b", "critic": True, "processes": 1, "tokens": 8192, "compute": NARROW, "layers": 6},
    {"shapes": "qwen2.5-0.5b", "critic": False, "processes": 1, "tokens": 2048, "compute": NARROW, "layers": 6},
    {"shapes": "qwen2.5-0.5b", "critic": False, "processes": 1, "tokens": 4096, "rows": 4, "layers": 4},
    {"shapes": "qwen2.5-7b", "critic": False, "processes": 8, "tokens": 8192, "compute": CHECKPOINTED, "layers": 4},
    {"shapes": "qwen3-8b", "critic": True, "processes": 8, "tokens": 4096, "compute": NARROW, "layers": 3},
    {"shapes": "llama-3.2-1b", "critic": False, "processes": 2, "tokens": 4096, "compute": NARROW, "layers": 3},
    {"shapes": "qwen2.5-1.5b", "critic": False, "processes": 1, "tokens": 8192, "compute": NARROW, "layers": 4,
     "lora": {"rank": 16}},
    {"shapes": "qwen2.5-0.5b", "critic": True, "processes": 1, "tokens": 4096, "rows": 4, "layers": 3,
     "compute": {**NARROW, "attention": "eager"}},
]  # fmt: skip
PROMPT = 64  # of measure_memory


@pytest.fixture(scope="module")
def measured() -> list[dict[str, float]]:
    """Memory of every case, counted on fake tensors in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "measure_memory.py")],
        input=json.dumps(CASES),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def network(case: dict[str, Any]) -> Network:
    shapes = KNOWN[case["shapes"]]
    shapes = dataclasses.replace(shapes, layers=case.get("layers", shapes.layers))
    compute, lora = ComputeSettings(**case.get("compute", {})), LoraSettings(**case.get("lora", {}))
    return Network(shapes, case["critic"], compute, lora, case["processes"])


def told(case: dict[str, Any]) -> str:
    return "-".join(str(value) for value in case.values() if not isinstance(value, dict)) + str(case.get("compute", ""))


@pytest.mark.parametrize("number", range(len(CASES)), ids=[told(case) for case in CASES])
def test_the_plan_of_a_pass_is_what_it_takes(number: int, measured: list[dict[str, float]]) -> None:
    case, found = CASES[number], measured[number]
    net, rows = network(case), case.get("rows", 1)
    inputs = (case["tokens"], case["tokens"] // rows, case["tokens"] - PROMPT * rows)
    own = held(net, learns=True)
    steady = own.weights + gradients(net).gradients
    assert own.weights == pytest.approx(found["weights"], rel=0.01)
    assert steady == pytest.approx(found["steady"], rel=0.01)
    assert own.total + gradients(net).total + resting(net).total == pytest.approx(found["stepped"], rel=0.01), (
        "with AdamW's moments"
    )
    assert steady + train(net, *inputs).total == pytest.approx(found["peak"], rel=CLOSE)
    assert train(net, *inputs).total == pytest.approx(found["peak"] - steady, rel=CLOSE), "what a pass adds"
    assert steady + forward_pass(net, *inputs).total == pytest.approx(found["read"], rel=CLOSE)


def test_no_logits_of_a_whole_batch_are_ever_alive(measured: list[dict[str, float]]) -> None:
    case, found = CASES[1], measured[1]
    vocabulary, hidden = KNOWN[case["shapes"]].vocabulary, KNOWN[case["shapes"]].hidden_size
    assert found["largest"] <= 1.001 * 4 * vocabulary * hidden, "the head's gradient is the largest tensor"
    assert found["largest"] < 4 * vocabulary * case["tokens"] / 10

"""A model of a million weights on text, whole: from cold start to evaluation, by one process and by two.

With vLLM as generator: tests/engines/test_vllm_sums.py.
"""

import shutil
from pathlib import Path

import pytest
from journals import metrics
from processes import torchrun
from sums import flags, prepare

from vcppo.settings.loading import load_settings
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.samples import SampleFolder
from vcppo.tasks import make_task

pytestmark = [pytest.mark.e2e, pytest.mark.long]


def test_a_model_learns_to_add_to_the_end_the_same_by_one_process_and_by_two(tmp_path: Path) -> None:
    """Two processes begin with the responses that one has sampled: a token that falls otherwise changes all after it.

    So they go through all stages, and two iterations are enough, at rates that do not depend on their number.
    """
    constant = ["policy.schedule=constant", "critic.schedule=constant", "policy.learning_rate=1.5e-4"]
    assignments = [*prepare(tmp_path), *constant]
    train = ("-m", "vcppo", "train", *flags(assignments), "--out")
    torchrun(1, *train, str(tmp_path / "1"))
    for stage in ("cold-start", "reward-model", "answers"):
        shutil.copytree(tmp_path / "1" / "cache" / stage, tmp_path / "2" / "cache" / stage)
    torchrun(2, *train, str(tmp_path / "2"), "--set", "steps=2")
    alone, shared = (metrics(tmp_path / count) for count in "12")
    lengths = [alone["rl", step, "rollout/length_tokens"] for step in range(8)]
    assert sum(lengths[-3:]) / 3 > lengths[0] + 1.5  # a second line has six tokens
    assert alone["rl", 4, "eval/sums/avg_at_2"] > alone["rl", 0, "eval/sums/avg_at_2"]
    for name, wanted in alone.items():
        if name[0] == "value-pretraining" or name[:2] == ("rl", 0):
            assert shared[name] == pytest.approx(wanted, rel=1e-5, abs=1e-5), name
    assert {name[0] for name in shared} == {name[0] for name in alone}

    settings = load_settings(assignments=assignments)
    folder = StageFolder(tmp_path / "1", addresses(settings)["evaluation"])
    kept, prompts = SampleFolder(folder.path / "samples", print), make_task(settings.task).held_out_prompts()
    stored = [kept.read(number, prompt, 8) for number, prompt in enumerate(prompts)]
    assert len(stored) == 30
    assert all(problem is not None and len(problem.samples) == 8 for problem in stored)

"""Tasks from outside from end to end: a fresh policy of the example, and reasoning-gym with a fresh and a given one."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny import ASSIGNMENTS

from vcppo.cli.main import main
from vcppo.models.distributed import together
from vcppo.settings.loading import Layer, build_settings, nest, parse_assignment
from vcppo.settings.run import RunSettings
from vcppo.stages.pipeline import StageUse, run_stages
from vcppo.store.journal import read_journal

REVERSING = ("task.name=examples.plugin_task.reversing:Reversing", "task.options.letters=3")
OPTIONS = (
    'dataset = "count_bits", config = {max_n = 15}, size = 100, held_out = 4, max_tokens = 200, template = "direct"'
)
GYM = (f"task.options={{{OPTIONS}}}", "method=grpo", "steps=2", "rollout.max_tokens=30", "evaluation.every=0")


def settings(*more: str) -> RunSettings:
    small = [text for text in ASSIGNMENTS if not text.startswith("task.")]
    layers = [Layer("tiny", nest(dict(map(parse_assignment, small)), "tiny"), shared=True)]
    return build_settings([*layers, Layer("--set", nest(dict(map(parse_assignment, more)), "--set"))])


def run(out: Path, *more: str) -> dict[str, StageUse]:
    with together():
        return run_stages(settings(*more), out)


def metrics(use: StageUse, name: str) -> list[float]:
    records = read_journal(use.folder.path / "journal.jsonl")
    return [record["values"][name] for record in records if name in record.get("values", {})]


@pytest.mark.e2e
def test_the_example_trains_and_its_credit_is_kept(tmp_path: Path) -> None:
    uses = run(tmp_path, *REVERSING)
    result = uses["evaluation"].folder.result
    assert result is not None
    assert result["eval/reversing/avg_at_2"] < result["eval/reversing/credit"] <= 1
    rewards, credit = (metrics(uses["rl"], f"rollout/{name}") for name in ("reward_mean", "credit"))
    assert rewards == pytest.approx([2 * share - 1 for share in credit], abs=1e-6)  # from -1, wrong, to 1, correct
    assert not any(use.ran for use in run(tmp_path, *REVERSING).values()), "the cache has it"
    assert all(use.ran for use in run(tmp_path, *REVERSING[:1], "task.options.letters=4").values())


@pytest.mark.e2e
def test_reasoning_gym_with_a_fresh_policy_and_with_a_given_one(tmp_path: Path) -> None:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: pip install 'vcppo[reasoning-gym]'")
    uses = run(tmp_path, "task.name=plugins:SpelledGym", *GYM, "cold_start.steps=80")
    fresh: Any = uses["evaluation"].folder.result
    assert "eval/count_bits/credit" in fresh
    policy = uses["rl"].folder.path / "policy"
    given = (f"model.path={policy}", "cold_start.steps=0")
    name = "task.name=vcppo.tasks.reasoning_gym:ReasoningGymTask"
    (rl,) = [use for stage, use in run(tmp_path, name, *GYM, *given).items() if stage == "rl"]
    assert len(metrics(rl, "rollout/credit")) == 2
    words = [word for text in ("task.name=plugins:SpelledGym", GYM[0], GYM[3]) for word in ("--set", text)]
    report = tmp_path / "report.json"
    done = CliRunner().invoke(main, ["evaluate", str(policy), *words, "--out", str(tmp_path), "--json", str(report)])
    assert done.exit_code == 0, done.output
    assert "credit" in json.loads(report.read_text())["metrics"]

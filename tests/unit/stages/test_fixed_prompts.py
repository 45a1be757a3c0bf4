"""Held-out responses have prompts that no critic learns from."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from tiny import tiny

from vcppo.errors import ConfigError
from vcppo.seeding import rng_for
from vcppo.settings.run import RunSettings
from vcppo.stages.context import StageContext
from vcppo.stages.shared import fixed_prompts as stage
from vcppo.store.cache import StageFolder, addresses
from vcppo.types import Prompt


def context(settings: RunSettings) -> StageContext:
    return StageContext(settings, StageFolder(Path("nowhere"), addresses(settings)["answers"]), {})


class Draws:
    """Problems 0 to `problems` - 1, drawn with replacement."""

    def __init__(self, problems: int) -> None:
        self.problems, self.rng, self.drawn = problems, torch.Generator().manual_seed(0), 0

    def __call__(self, count: int) -> list[Prompt]:
        self.drawn += count
        picks = torch.randint(self.problems, (count,), generator=self.rng).tolist()
        return [Prompt(str(i), f"what is {i}?", str(i)) for i in picks]


def texts(prompts: list[Prompt]) -> set[str]:
    return {prompt.text for prompt in prompts}


@pytest.mark.parametrize("problems", [2, 3, 50, 800, 1_000_000])
@pytest.mark.parametrize(("pool", "held_out"), [(2304, 384), (48, 32), (0, 384)])
def test_there_are_as_many_as_wanted_and_none_is_in_both(problems: int, pool: int, held_out: int) -> None:
    found = stage.split(Draws(problems), pool, held_out, seed=0)
    assert (len(found.pool), len(found.held_out)) == (pool, held_out)
    assert not texts(found.pool) & texts(found.held_out)


def test_the_share_of_problems_held_out_is_that_of_the_responses() -> None:
    """384 of 2688 are a seventh; 800 problems are all drawn, so about 114 of them are held out, not 300 or 1."""
    for pool in (2304, 0):
        held_out = texts(stage.split(Draws(800), pool, 384, seed=0).held_out)
        assert 95 < len(held_out) < 135
    draws = Draws(800)
    stage.split(draws, 2304, 384, seed=0)
    assert draws.drawn <= 2 * 2688


def test_problems_are_drawn_as_often_as_before_in_either_part() -> None:
    found = stage.split(Draws(20), 7000, 3000, seed=0)
    for part, size in ((found.pool, 7000), (found.held_out, 3000)):
        count = Counter(prompt.text for prompt in part)
        expected = size / len(count)
        assert all(abs(times - expected) < 6 * expected**0.5 for times in count.values())


def test_one_problem_cannot_be_in_one_part_only() -> None:
    with pytest.raises(ConfigError, match=r"the task has one training problem, .* pretrain.held_out_prompts = shared"):
        stage.split(Draws(1), 48, 32, seed=0)


def test_a_run_asks_for_the_same_prompts_again_and_another_seed_for_others() -> None:
    here, again, other = (context(tiny(*more)) for more in ((), (), ("seed=1",)))
    found = stage.fixed_prompts(here)
    assert (len(found.pool), len(found.held_out)) == (48, 32)
    assert not texts(found.pool) & texts(found.held_out)
    assert stage.fixed_prompts(again) == found
    assert stage.fixed_prompts(other) != found


def test_shared_prompts_are_drawn_as_they_always_were() -> None:
    here = context(tiny("pretrain.held_out_prompts=shared"))
    found = stage.fixed_prompts(here)
    rng = rng_for(here.settings.seed, "answers", "prompts")
    assert [*found.pool, *found.held_out] == here.task.training_prompts(80, rng)
    assert texts(found.pool) & texts(found.held_out)
    mean_score = ("critic.init=policy", "critic.initial_value=mean-score", "pretrain.steps=0")
    assert len(stage.fixed_prompts(context(tiny(*mean_score))).held_out) == 32


def test_prompts_to_learn_from_leave_out_those_held_out() -> None:
    here = context(tiny())
    rng = rng_for(here.settings.seed, "pretrain", 3)
    plain = here.task.training_prompts(12, rng)
    assert stage.training_prompts(here, 12, set(), "pretrain", 3) == plain
    without = texts(plain[:4])
    found = stage.training_prompts(here, 12, without, "pretrain", 3)
    assert len(found) == 12
    assert not texts(found) & without
    assert list(islice(found, 3)) == [p for p in plain if p.text not in without][:3]


def test_nothing_left_to_learn_from_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    here = context(tiny())
    every = texts(here.task.training_prompts(5000, torch.Generator().manual_seed(0)))
    monkeypatch.setattr(stage, "DRAWS", 5)
    with pytest.raises(ConfigError, match="no training problem beside the held-out ones"):
        stage.training_prompts(here, 12, every, "pretrain", 3)


def test_bases_have_other_problems() -> None:
    pools = [texts(stage.fixed_prompts(context(tiny(f"base_seed={base}", "seed=3"))).pool) for base in (0, 1, 2)]
    assert len(set(map(frozenset, pools))) == 3

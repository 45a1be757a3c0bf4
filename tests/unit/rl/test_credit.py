"""Partial credit: a share of the way from wrong to correct, wherever a verdict becomes a number; none, no change."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from vcppo.engines.base import Sampling
from vcppo.errors import DataError
from vcppo.rl.continuations import mean_scores
from vcppo.rl.metrics import rollout_metrics, samples_table
from vcppo.rl.rewards import Shaping, verdict_score, verdict_scores
from vcppo.rl.sampler import Sampler
from vcppo.settings.reward import RewardSettings
from vcppo.types import Generation, Judgement, Prompt, Rollout, Verdict, credit_of

PROMPT = Prompt("p", "p?", "7")


def rollout(verdict: Verdict = Verdict.WRONG, credit: float | None = None) -> Rollout:
    return Rollout(PROMPT, (1,), Generation((2, 3), (-0.5, -0.5), "stop"), "7", verdict, credit=credit)


def test_credit_is_the_share_of_the_way_from_wrong_to_correct() -> None:
    assert verdict_score(Verdict.WRONG, RewardSettings(), 0.25) == -0.5
    far = RewardSettings(wrong=-2.0, correct=2.0, unreadable=-7.0)
    assert [verdict_score(Verdict.WRONG, far, credit) for credit in (0.0, 0.75, 1.0)] == [-2.0, 1.0, 2.0]
    assert verdict_score(Verdict.UNREADABLE, far, 0.75) == 1.0, "whatever the verdict"
    assert [verdict_score(verdict, far) for verdict in Verdict] == [2.0, -2.0, -7.0]


@pytest.mark.parametrize("credit", [-0.1, 1.1, float("nan")])
def test_credit_that_is_no_share_is_refused(credit: float) -> None:
    with pytest.raises(DataError, match=r"^Judgement.credit = .*: expected a number in \[0, 1\]$"):
        verdict_score(Verdict.WRONG, RewardSettings(), credit)


def test_scores_of_a_batch_have_it() -> None:
    sampled = [rollout(), rollout(credit=0.75), rollout(Verdict.CORRECT)]
    assert verdict_scores(sampled, RewardSettings()).tolist() == [-1.0, 0.5, 1.0]


def test_metrics_and_samples_name_it_where_there_is_some() -> None:
    plain, some = [rollout(), rollout(Verdict.CORRECT)], [rollout(credit=0.75), rollout(Verdict.CORRECT)]
    without, metrics = (rollout_metrics(sampled, RewardSettings()) for sampled in (plain, some))
    assert metrics.keys() - without.keys() == {"rollout/credit"}
    assert (metrics["rollout/credit"], metrics["rollout/accuracy"], metrics["rollout/reward_mean"]) == (
        0.875,
        0.5,
        0.75,
    )
    assert samples_table(some)["credit"] == [0.75, 1.0]
    assert "credit" not in samples_table(plain)
    assert (credit_of(Verdict.UNREADABLE, None), credit_of(Verdict.CORRECT, None)) == (0.0, 1.0)


class HalfRight:
    """Task and engine in one: every continuation is one token, and half right."""

    def judge(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        return [Judgement(Verdict.WRONG, credit=0.5) for _ in texts]

    def branch(self, stems: Any, points: Sequence[Any], sampling: Sampling, *, seed: int) -> list[Generation]:
        return [Generation((4,), (-0.1,), "stop") for _ in points]

    def batch_decode(self, responses: Sequence[Sequence[int]], *, skip_special_tokens: bool) -> list[str]:
        return ["" for _ in responses]


def test_continuations_are_worth_theirs() -> None:
    half: Any = HalfRight()
    sampler = Sampler(half, half, half, Sampling(1.0, 1.0, 8))
    shaping = Shaping(RewardSettings(wrong=0.0, correct=4.0), limit=8)
    means = mean_scores([rollout()], [(0, 0), (0, 1)], 3, shaping, sampler=sampler, seed=0)
    assert means.scores == [2.0, 2.0]


def test_a_rollout_carries_it_from_the_judge() -> None:
    class Engine:
        def generate(self, prompts: Any, sampling: Any, *, seed: int, first: int) -> list[Generation]:
            return [replace(rollout().generation) for _ in prompts]

    half: Any = HalfRight()
    half.encode = lambda prompts, tokenizer: [(1,) for _ in prompts]
    engine: Any = Engine()
    (sampled,) = Sampler(half, half, engine, Sampling(1.0, 1.0, 8)).roll_out([PROMPT], seed=0)
    assert (sampled.verdict, sampled.note, sampled.credit) == (Verdict.WRONG, "", 0.5)
    assert torch.equal(verdict_scores([sampled], RewardSettings()), torch.zeros(1))

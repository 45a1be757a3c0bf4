"""What holds of every reading: identities, and that order, padding and units change nothing that they should not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vcppo.diagnosis.measures import measure_critic
from vcppo.diagnosis.responses import Reading
from vcppo.diagnosis.schema import CriticPart, Estimate
from vcppo.maths.critic_error import error_columns, error_parts
from vcppo.maths.critic_ranking import wins_within

quick = settings(max_examples=25, deadline=None, derandomize=True)


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    """2 to 6 prompts of 1 to 3 responses of 1 to 12 tokens, NaN beyond their ends; scores -1 and 1."""
    samples = draw(st.lists(st.integers(1, 3), min_size=2, max_size=6))
    problem = torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(samples))
    lengths = torch.tensor(draw(st.lists(st.integers(1, 12), min_size=len(problem), max_size=len(problem))))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    on = torch.arange(12) < lengths[:, None]
    scores = torch.randint(2, (len(problem),), generator=rng) * 2.0 - 1
    return Reading(
        critic="drawn",
        values=torch.where(on, torch.randn(on.shape, generator=rng), torch.nan),
        returns=torch.where(on, scores[:, None], torch.nan),
        response_mask=on,
        scores=scores,
        problem=problem,
        tokens=torch.randint(3, on.shape, generator=rng),
    )


def measured(reading: Reading) -> CriticPart:
    return measure_critic(reading, source="", layout=None, lambdas=(0.0, 0.9, 1.0), seed=0, resamples=40)


def numbers(part: CriticPart) -> list[float]:
    """Every number of the part, NaN for null, in order."""
    result: list[float] = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            for child in node.values():
                walk(child)
        elif isinstance(node, list | tuple):
            for child in node:
                walk(child)
        elif node is None:
            result.append(math.nan)
        elif isinstance(node, int | float):
            result.append(float(node))

    walk(part.model_dump())
    return result


def same(one: CriticPart, other: CriticPart) -> None:
    np.testing.assert_allclose(numbers(one), numbers(other), rtol=1e-7, atol=1e-9)


@quick
@given(readings(), st.integers(0, 2**31))
def test_the_order_of_responses_changes_nothing(reading: Reading, seed: int) -> None:
    """But which neighbours are compared where two responses are the same for a while."""
    order = torch.randperm(len(reading.scores), generator=torch.Generator().manual_seed(seed))
    mixed = Reading(
        critic=reading.critic,
        values=reading.values[order],
        returns=reading.returns[order],
        response_mask=reading.response_mask[order],
        scores=reading.scores[order],
        problem=reading.problem[order],
    )
    same(measured(replace(reading, tokens=None)), measured(mixed))


@quick
@given(readings(), st.integers(1, 9), st.sampled_from([0.0, 7.0, math.nan, math.inf]))
def test_padding_changes_nothing(reading: Reading, width: int, fill: float) -> None:
    def wider(x: torch.Tensor) -> torch.Tensor:
        filled = torch.where(reading.response_mask, x, fill)
        return torch.nn.functional.pad(filled, (0, width), value=fill)

    padded = replace(
        reading,
        values=wider(reading.values),
        returns=wider(reading.returns),
        response_mask=torch.nn.functional.pad(reading.response_mask, (0, width)),
        tokens=torch.nn.functional.pad(reading.tokens, (0, width), value=5) if reading.tokens is not None else None,
    )
    same(measured(reading), measured(padded))


@quick
@given(readings())
def test_names_of_prompts_change_nothing(reading: Reading) -> None:
    same(measured(reading), measured(replace(reading, problem=reading.problem * 1000 + 7)))


@quick
@given(readings(), st.floats(-100, 100))
def test_a_constant_added_moves_bias_and_intercept_alone(reading: Reading, offset: float) -> None:
    one, other = measured(reading), measured(replace(reading, values=reading.values + offset))
    assert one.regressor is not None
    assert other.regressor is not None
    assert other.regressor.bias.value == pytest.approx((one.regressor.bias.value or 0.0) + offset, abs=1e-4)
    if one.regressor.slope.value is not None and one.regressor.value_std and one.regressor.value_std > 0.05:
        assert other.regressor.slope.value == pytest.approx(one.regressor.slope.value, rel=1e-2, abs=1e-2)
        assert [at.within_prompts.value for at in one.ranker] == [at.within_prompts.value for at in other.ranker]


def total(*parts: Estimate) -> float:
    return sum(part.value if part.value is not None else math.nan for part in parts)


@quick
@given(readings())
def test_shares_sum_to_one_and_intervals_hold_no_nonsense(reading: Reading) -> None:
    part = measured(reading)
    regressor, reacts = part.regressor, part.reacts
    assert regressor is not None
    assert reacts is not None
    if regressor.share_rest.value is not None:
        assert total(regressor.share_offset, regressor.share_slope, regressor.share_rest) == pytest.approx(1)
        for share in (regressor.share_offset, regressor.share_slope, regressor.share_rest):
            assert -1e-9 <= (share.value or 0.0) <= 1 + 1e-9
    if reacts.neither.value is not None:
        assert total(reacts.position, reacts.prompt, reacts.neither) == pytest.approx(1)
    for at in part.ranker:
        for auc in (at.within_prompts, at.across_prompts):
            assert auc.value is None or 0 <= auc.value <= 1
            assert auc.low is None or auc.high is None or 0 <= auc.low <= auc.high <= 1 + 1e-12
    for at_lambda in part.lambdas:
        assert 0 <= (at_lambda.real_reward.value or 0.0) <= 1


@quick
@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=30), st.floats(-60, 60))
def test_the_split_is_the_mean_square_error(pairs: list[tuple[float, float]], shift: float) -> None:
    value, target = np.array(pairs, dtype=np.float64).T
    result = error_parts(np.stack(error_columns(value, target, shift)).sum(axis=1), shift)
    assert result.rmse**2 == pytest.approx(((value - target) ** 2).mean(), rel=1e-6, abs=1e-6)


@quick
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 2)), min_size=1, max_size=14))
def test_wins_are_those_of_a_loop(rows: list[tuple[int, bool, int]]) -> None:
    value, right, prompt = (np.array(column) for column in zip(*rows, strict=True))
    expected = np.zeros((3, 2))
    for i, j in np.ndindex(len(rows), len(rows)):
        if right[i] and not right[j] and prompt[i] == prompt[j]:
            expected[prompt[i]] += [float(value[i] > value[j]) + 0.5 * float(value[i] == value[j]), 1]
    assert wins_within(value.astype(np.float64), right, prompt, 3).tolist() == expected.tolist()

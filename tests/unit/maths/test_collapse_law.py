"""The law of the collapse against pencil, against GAE as training computes it, and against drawn responses."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vcppo.maths.advantages import gae
from vcppo.maths.collapse_law import (
    Chain,
    constant_gain,
    push_of_constant,
    push_of_error,
    true_push,
    turning_offset,
    turning_value,
)
from vcppo.maths.collapse_simulation import Race, simulate

LONG = Chain(30, 0.09)
LAMBDAS = (0.9, 0.95, 0.99, 1.0)


def drawn(chain: Chain, values: Callable[[Tensor, Tensor, Tensor], Tensor], gae_lambda: float, count: int) -> Tensor:
    """[count] sum over a drawn response's decisions of A_t d log pi / d logit, by the trainer's GAE.

    Args:
        values: of tokens [B, T], lines before the decision to stop [B, 1], and decisions past [B, T].
    """
    rng = np.random.default_rng(1)
    stops = torch.from_numpy(np.minimum(rng.geometric(chain.hazard, count), chain.lines))[:, None]
    lengths = chain.line_tokens * stops + chain.tokens_after_stop + 1
    tokens = torch.arange(chain.tokens(chain.lines)).expand(count, -1)
    mask = tokens < lengths
    whole = (stops == chain.lines) & torch.from_numpy(rng.random((count, 1)) < chain.right)
    rewards = torch.where(tokens == lengths - 1, torch.where(whole, 1.0, -1.0), 0.0).double()
    past = torch.clamp(tokens - 1, min=0) // chain.line_tokens
    advantages = gae(rewards, values(tokens, stops, past), mask, gamma=1.0, gae_lambda=gae_lambda)
    line, rest = tokens // chain.line_tokens, tokens % chain.line_tokens
    decides = (rest == 0) & (line >= 1) & (line <= stops) & (line < chain.lines)
    score = torch.where(line == stops, 1.0 - chain.hazard, -chain.hazard)
    return torch.where(decides, advantages * score, 0.0).sum(dim=1)


def exact(chain: Chain, error: Tensor | float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """V* with an error by position, from a state's chance to be right."""

    def values(tokens: Tensor, stops: Tensor, past: Tensor) -> Tensor:
        decided = tokens > chain.line_tokens * stops
        chance = chain.right * (1.0 - chain.hazard) ** (chain.lines - 1 - past).double()
        ended = torch.where(stops == chain.lines, chain.right, 0.0).double()
        return -1.0 + 2.0 * torch.where(decided, ended, chance) + error

    return values


def assert_mean(of: Tensor, wanted: float) -> None:
    error = float(of.std()) / math.sqrt(len(of))
    assert error < 0.02  # small enough to tell the cases apart
    assert abs(float(of.mean()) - wanted) < 4.0 * error


def test_by_pencil_two_lines_of_one_token_and_one_decision() -> None:
    """A stop is worth -1, going on 1, V* = 0 at h = 1/2; lambda 1/2: a stop is a token before the end, going on two."""
    chain = Chain(2, 0.5, line_tokens=1, tokens_after_stop=1)
    assert (chain.accuracy, chain.mean_tokens) == (0.5, 3.5)
    assert chain.mean_value == (0.5 * (0 + 0 - 1) + 0.5 * (0 + 0 + 1 + 1)) / 3.5
    assert true_push(chain) == -0.5  # A = -1 and 1, scores 1/2 and -1/2
    assert constant_gain(chain, 0.5) == 0.25 * 0.5 - 0.25 * 0.25
    assert constant_gain(chain, 1.0) == 0.0
    assert turning_offset(chain, 0.5) == -0.5 / 0.0625
    # A = (R - v) lambda^(tokens to come): a stop (-1 - v) / 2, going on (1 - v) / 4, at scores 1/2 and -1/2
    assert push_of_constant(chain, -3.0, 0.5) == 0.5 * (2.0 / 2 * 0.5) + 0.5 * (4.0 / 4 * -0.5)
    assert turning_value(chain, 0.5) == pytest.approx(-3.0)


def test_the_numbers_of_the_embedded_task() -> None:
    assert [round(constant_gain(LONG, gae_lambda), 3) for gae_lambda in LAMBDAS] == [0.471, 0.483, 0.229, 0.0]
    base = replace(LONG, right=0.9775)  # of the base that was measured first: true part -0.331
    assert round(true_push(base), 3) == -0.331
    turning = [turning_offset(base, gae_lambda) for gae_lambda in LAMBDAS]
    assert turning == pytest.approx([-0.70, -0.69, -1.45, -math.inf], abs=0.006)


@pytest.mark.parametrize("gae_lambda", LAMBDAS)
@pytest.mark.parametrize("chain", [LONG, Chain(12, 0.2, right=0.8), Chain(5, 0.3, line_tokens=2, tokens_after_stop=0)])
def test_drawn_responses_push_as_the_law_says(chain: Chain, gae_lambda: float) -> None:
    assert_mean(drawn(chain, exact(chain, 0.0), gae_lambda, 20_000), true_push(chain))
    shifted = drawn(chain, exact(chain, -1.5), gae_lambda, 40_000)
    assert_mean(shifted, true_push(chain) + 1.5 * constant_gain(chain, gae_lambda))
    constant = drawn(chain, lambda tokens, stops, past: torch.full(tokens.shape, -1.2).double(), gae_lambda, 40_000)
    assert_mean(constant, push_of_constant(chain, -1.2, gae_lambda))


@pytest.mark.parametrize("gae_lambda", LAMBDAS)
def test_an_error_by_position_pushes_as_the_law_says(gae_lambda: float) -> None:
    profile = np.interp(np.arange(LONG.tokens(LONG.lines)), [0, 15, 30], [2.1, 0.0, -1.2])
    got = drawn(LONG, exact(LONG, torch.from_numpy(profile)), gae_lambda, 40_000)
    assert_mean(got, push_of_error(LONG, profile, gae_lambda))
    assert push_of_error(LONG, -1.5, gae_lambda) == pytest.approx(
        true_push(LONG) + 1.5 * constant_gain(LONG, gae_lambda)
    )


def test_the_push_turns_where_it_is_said_to() -> None:
    for gae_lambda in LAMBDAS[:3]:
        assert push_of_error(LONG, turning_offset(LONG, gae_lambda), gae_lambda) == pytest.approx(0.0, abs=1e-12)
        assert push_of_constant(LONG, turning_value(LONG, gae_lambda), gae_lambda) == pytest.approx(0.0, abs=1e-12)


def test_the_mean_of_exact_values_over_tokens_is_what_drawn_responses_have() -> None:
    rng = np.random.default_rng(0)
    stops = torch.from_numpy(np.minimum(rng.geometric(LONG.hazard, 20_000), LONG.lines))[:, None]
    tokens = torch.arange(LONG.tokens(LONG.lines)).expand(len(stops), -1)
    mask = tokens < LONG.line_tokens * stops + LONG.tokens_after_stop + 1
    past = torch.clamp(tokens - 1, min=0) // LONG.line_tokens
    assert float(exact(LONG, 0.0)(tokens, stops, past)[mask].mean()) == pytest.approx(LONG.mean_value, abs=0.02)
    assert float(mask.sum(dim=1).double().mean()) == pytest.approx(LONG.mean_tokens, abs=0.5)


@pytest.mark.parametrize(("value", "gae_lambda", "grows"), [(-3.5, 0.95, False), (-0.5, 0.95, True), (-3.5, 1.0, True)])
def test_a_race_is_lost_far_below_the_threshold_and_won_above_it_or_at_lambda_one(
    value: float, gae_lambda: float, grows: bool
) -> None:
    ended = simulate(LONG, value, Race(20, gae_lambda), np.random.default_rng(0))
    assert ended.values[0] == value
    assert bool(ended.lengths[2] > ended.lengths[0]) is grows
    assert (ended.accuracy > 0.5) is grows
    assert grows or ended.accuracy < 0.01


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"lines": 1}, "lines = 1: expected a whole number, 2 or more"),
        ({"lines": -3}, "lines = -3: expected a whole number, 2 or more"),
        ({"lines": 30.5}, "lines = 30.5: expected a whole number, 2 or more"),
        ({"line_tokens": 0}, "line_tokens = 0: expected a whole number, 1 or more"),
        ({"tokens_after_stop": -1}, "tokens_after_stop = -1: expected a whole number, 0 or more"),
        ({"hazard": 9}, "hazard = 9: expected a chance, 0 or more and below 1"),
        ({"hazard": 1.0}, "hazard = 1.0: expected a chance, 0 or more and below 1"),
        ({"hazard": math.nan}, "hazard = nan: expected a chance, 0 or more and below 1"),
        ({"right": 0}, "right = 0: expected a chance, above 0 and at most 1"),
        ({"right": 97.75}, "right = 97.75: expected a chance, above 0 and at most 1"),
    ],
)
def test_a_chain_in_other_units_is_refused(numbers: dict[str, float], words: str) -> None:
    """Of 9 for 9 % the law would say that no offset makes it collapse."""
    with pytest.raises(ValueError, match=f"^Chain.{words}$"):
        replace(LONG, **numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize("gae_lambda", [95, -0.1, math.nan])
def test_a_lambda_in_other_units_is_refused(gae_lambda: float) -> None:
    said = rf"^gae_lambda = {gae_lambda}: expected a number in \[0, 1\]$"
    for law in (constant_gain, turning_offset, turning_value):
        with pytest.raises(ValueError, match=said):
            law(LONG, gae_lambda)
    for push in (push_of_constant, push_of_error):
        with pytest.raises(ValueError, match=said):
            push(LONG, -1.0, gae_lambda)


def test_the_ends_of_the_ranges_are_chains() -> None:
    assert turning_offset(Chain(2, 0.0), 0.95) == -math.inf
    assert constant_gain(Chain(np.int64(30), 0.09), 0.0) == 0.0  # type: ignore[arg-type]

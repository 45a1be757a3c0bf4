"""Responses whose true values are known, and critics of them that are wrong in one way each.

A gambler's ruin: a response is a fair walk of steps up and down from where its prompt starts it, right if it ends at
the upper end, wrong at the lower. So the chance of being right is the place over the height: V is exact at every token,
it moves with every token, and no response knows how long it will be.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from vcppo.diagnosis.responses import Reading

HEIGHT, LONGEST = 10, 600


def reading_of(
    prompts: int = 100,
    samples: int = 8,
    *,
    seed: int = 0,
    low: float = -1.0,
    high: float = 1.0,
    starts: tuple[int, ...] = (2, 3, 4, 5),
) -> Reading:
    """The perfect critic's reading: V exact. Scores low and high."""
    rng = np.random.default_rng(seed)
    start = np.repeat(rng.choice(starts, size=prompts), samples)
    steps = rng.choice([-1, 1], size=(len(start), LONGEST))
    after = start[:, None] + steps.cumsum(axis=1)
    ended = (after <= 0) | (after >= HEIGHT)
    length = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, LONGEST)
    live = np.arange(length.max()) < length[:, None]
    place = np.concatenate([start[:, None], after], axis=1)[:, : live.shape[1]]
    score = np.where(after[np.arange(len(start)), length - 1] >= HEIGHT, high, low)
    values = low + (high - low) * place / HEIGHT
    return Reading(
        critic="perfect",
        values=torch.from_numpy(np.where(live, values, np.nan)).float(),
        returns=torch.from_numpy(np.where(live, score[:, None], np.nan)).float(),
        response_mask=torch.from_numpy(live),
        scores=torch.from_numpy(score).float(),
        problem=torch.from_numpy(np.repeat(np.arange(prompts), samples)),
        tokens=torch.from_numpy(np.where(live, (steps[:, : live.shape[1]] + 1) // 2, -7)),
    )


def with_values(reading: Reading, values: np.ndarray, name: str) -> Reading:
    """The same responses by another critic; NaN beyond their ends."""
    live = reading.response_mask
    return replace(reading, critic=name, values=torch.where(live, torch.from_numpy(values).float(), torch.nan))


def _plain(reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    live = reading.response_mask.numpy()
    return np.where(live, reading.values.numpy(), 0.0).astype(np.float64), live


def constant(reading: Reading) -> Reading:
    """The mean return of all tokens."""
    values, live = _plain(reading)
    return with_values(reading, np.full_like(values, reading.returns.numpy()[live].mean()), "constant")


def too_low(reading: Reading) -> Reading:
    """Right but 2 too low."""
    return with_values(reading, _plain(reading)[0] - 2.0, "too low")


def ahead(reading: Reading) -> Reading:
    """V after the token instead of before it; after the last it knows the score."""
    values, live = _plain(reading)
    moved = np.roll(values, -1, axis=1)
    last = live.sum(axis=1) - 1
    moved[np.arange(len(last)), last] = reading.scores.numpy()
    return with_values(reading, moved, "one ahead")


def late(reading: Reading) -> Reading:
    """V before the token before this one; the first stays."""
    values, _ = _plain(reading)
    return with_values(reading, np.concatenate([values[:, :1], values[:, :-1]], axis=1), "one late")


def end_only(reading: Reading) -> Reading:
    """Right in the last tenth; before that 1 too low and noise."""
    values, live = _plain(reading)
    rng = np.random.default_rng(5)
    fraction = (np.arange(live.shape[1]) + 0.5) / live.sum(axis=1, keepdims=True)
    wrong = -1.3 + 0.5 * rng.standard_normal(values.shape)
    return with_values(reading, np.where(fraction >= 0.85, values, wrong), "end only")


def end_only_quiet(reading: Reading) -> Reading:
    """Right in the last tenth; before that 0 for every state."""
    values, live = _plain(reading)
    fraction = (np.arange(live.shape[1]) + 0.5) / live.sum(axis=1, keepdims=True)
    return with_values(reading, np.where(fraction >= 0.85, values, 0.0), "end only, 0 before")


def reward_model(reading: Reading) -> Reading:
    """Knows the outcome at the last three tokens, in logits; before that it takes every response for a wrong one."""
    values, live = _plain(reading)
    to_come = live.sum(axis=1, keepdims=True) - 1 - np.arange(live.shape[1])
    logit = -3.0 + 0.4 * np.random.default_rng(9).standard_normal((len(values), 1))
    return with_values(reading, np.where(to_come < 3, 2 * values, logit + 0 * values), "reward model")


def position_only(reading: Reading) -> Reading:
    """The mean return at each position, of ten times as many other responses."""
    other = reading_of(1000, 8, seed=10_001)
    values, live = _plain(other)
    n = np.maximum(live.sum(axis=0), 1)
    mean = (values.sum(axis=0) / n)[: reading.values.shape[1]]
    mean = np.pad(mean, (0, max(0, reading.values.shape[1] - len(mean))), mode="edge")
    return with_values(reading, np.broadcast_to(mean, reading.values.shape).copy(), "position only")


def shuffled(reading: Reading) -> Reading:
    """Values of other responses, each stretched by its last value where the other is shorter."""
    values, live = _plain(reading)
    order = np.random.default_rng(6).permutation(len(values))
    last = live.sum(axis=1) - 1
    columns = np.minimum(np.arange(values.shape[1]), last[order][:, None])
    return with_values(reading, values[order[:, None], columns], "shuffled")


def noise(reading: Reading) -> Reading:
    """As wide as the true values, about their mean."""
    values, live = _plain(reading)
    drawn = np.random.default_rng(7).standard_normal(values.shape)
    return with_values(reading, values[live].mean() + values[live].std() * drawn, "noise")


def probability(reading: Reading) -> Reading:
    """The chance of being right where scores are -1 and 1."""
    return with_values(reading, (_plain(reading)[0] + 1) / 2, "probability")


def other_rewards(reading: Reading) -> Reading:
    """Rewards that have nothing to do with the score: a bounded walk of the tokens' parities."""
    values, live = _plain(reading)
    tokens = np.where(live, reading.tokens.numpy(), 0) if reading.tokens is not None else np.zeros_like(values)
    swapped = tokens ^ np.roll(tokens, 1, axis=1)  # whether this token is another than the one before it
    swapped[:, 0] = 0
    seen = np.cumsum(swapped - 0.5 * (np.arange(values.shape[1]) > 0), axis=1)
    before = np.concatenate([np.zeros((len(values), 1)), seen[:, :-1]], axis=1)
    return with_values(reading, np.tanh(0.3 * before), "other rewards")


def opposite(reading: Reading) -> Reading:
    """Rewards of the opposite sign."""
    return with_values(reading, -_plain(reading)[0], "opposite")


def not_a_number(reading: Reading) -> Reading:
    """Right, but one token in fifty is NaN, and one value infinite."""
    values, _ = _plain(reading)
    values[np.random.default_rng(8).random(values.shape) < 0.02] = np.nan
    values[0, 0] = np.inf
    return with_values(reading, values, "not a number")


PLANTED: dict[str, Callable[[Reading], Reading]] = {
    "constant": constant,
    "too low": too_low,
    "one ahead": ahead,
    "one late": late,
    "end only": end_only,
    "end only, 0 before": end_only_quiet,
    "reward model": reward_model,
    "position only": position_only,
    "shuffled": shuffled,
    "noise": noise,
    "probability": probability,
    "other rewards": other_rewards,
    "opposite": opposite,
    "not a number": not_a_number,
}

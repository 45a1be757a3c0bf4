"""Before the first step: where the gradient that a run will begin with points, and what its critic says by then.

The measures are those of `vcppo diagnose`, of the run's own critic at its own lambda_actor, on responses of the policy
that RL starts from: does the policy gradient agree with that of the score, does it lengthen responses, and how much
does an update of this size gain of what Monte-Carlo returns with a baseline gain. Nothing is trained.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vcppo.maths.advantages import monte_carlo_returns
from vcppo.maths.alignment import Alignments, Floats, Resampled
from vcppo.maths.alignment_surrogate import later_length_gradients, products_of
from vcppo.maths.diagnostics import root_mean_square
from vcppo.maths.shaping import DebiasedMoments
from vcppo.rl.advantages import actor_advantages, trained_tokens
from vcppo.rl.alignment import baseline_of, chunk_products, chunks_of, truth_advantages
from vcppo.rl.continuations import step_values
from vcppo.rl.costs import Costs
from vcppo.rl.metrics import value_metrics
from vcppo.rl.models import Models
from vcppo.rl.policy_gradients import PolicyGradients
from vcppo.rl.reading import read_outputs
from vcppo.rl.rewards import Shaping, place_rewards, place_scores, returns_known, verdict_scores
from vcppo.rl.sampler import Sampler, collate
from vcppo.rl.selection import choose
from vcppo.seeding import rng_for, seed_for
from vcppo.settings.fixed import GRADIENT_BYTES, GRADIENT_CHUNKS, GRADIENT_RESAMPLES
from vcppo.settings.run import RunSettings
from vcppo.types import Rollout, RolloutBatch

OWN, REWARD, LENGTH = 0, 1, 2  # the gradients that are compared
NEAR_END = 0.1  # the last so much of a response, its last token at least

Metrics = dict[str, float]


def forecast_metrics(
    models: Models, rollouts: Sequence[Rollout], *, sampler: Sampler, shaping: Shaping, settings: RunSettings
) -> Metrics:
    """Measure what the first iteration would do, on more responses than it has; every process calls it alike.

    Args:
        models: as RL starts with them; nothing of them is changed.
        rollouts: of the policy, in groups of `rollout.samples_per_prompt` to a prompt.
        sampler: of its responses. shaping: of scores, when RL begins.
    Returns:
        `forecast/accuracy` and `forecast/length_tokens` of the responses. `forecast/reward_cosine` and
        `forecast/length_cosine`, preconditioned, `forecast/plain_reward_cosine` without that, all NaN where they cannot
        be told from noise; `forecast/gain_share` of an iteration's responses, in units of Monte-Carlo's, and
        `forecast/score_z`, that gain in standard errors; `forecast/surrogate_reward_cosine`, made without the policy;
        `_low` and `_high` are 95 % intervals. With a critic `forecast/value_bias`, `forecast/explained_variance` and
        `forecast/end_error`, root mean square over the last tenth of a response, in units of reward.
    """
    plain = collate(rollouts, verdict_scores(rollouts, settings.reward))
    shaping = shaping.updated(plain, returns_known(plain, settings))
    batch = dataclasses.replace(plain, scores=shaping.of(plain))
    rows = choose(batch, settings, rng_for(settings.run_seed, "forecast", "select")).flatten().sort().values
    steps = None
    if settings.samples_continuations:
        seed = seed_for(settings.run_seed, "forecast", "continuations")
        steps = step_values(rollouts, batch.scores, shaping, settings.vine, sampler=sampler, seed=seed)
    outputs = read_outputs(
        models,
        rollouts,
        batch,
        rows,
        steps,
        value_moments=DebiasedMoments(1.0),
        sampler=sampler,
        settings=settings,
        step=0,
        costs=Costs(),
    )
    rewards = place_rewards(batch, outputs, settings)
    raw = actor_advantages(batch, rewards, outputs, rows, settings).raw
    own = torch.where(trained_tokens(batch, rows), raw, 0.0)
    metrics = {
        "forecast/responses": float(len(rollouts)),
        "forecast/accuracy": float(batch.correct.float().mean()),
        "forecast/length_tokens": float(batch.lengths.float().mean()),
    }
    known = rows[returns_known(batch, settings)[rows]]
    if outputs.values is not None and len(known):
        metrics |= critic_forecast(outputs.values[known], rewards.monte_carlo[known], batch.response_mask[known])
    return metrics | gradient_forecast(models, plain, own, settings)


def critic_forecast(values: Tensor, returns: Tensor, response_mask: Tensor) -> Metrics:
    """Metrics of values, [B, T], against Monte-Carlo returns: `value_bias`, `explained_variance`, `end_error`."""
    lengths = response_mask.sum(dim=1, keepdim=True)
    columns = torch.arange(response_mask.shape[1])
    near_end = response_mask & (((columns + 0.5) / lengths > 1 - NEAR_END) | (columns == lengths - 1))
    measured = value_metrics(values, returns, response_mask)
    return {
        **{f"forecast/{name}": measured[f"value/{name}"] for name in ("value_bias", "explained_variance")},
        "forecast/end_error": root_mean_square(values - returns, near_end),
    }


def gradient_forecast(models: Models, batch: RolloutBatch, own: Tensor, settings: RunSettings) -> Metrics:
    """Measure where the policy gradient of these advantages points.

    Four backward passes over the batch, one of them for second moments.

    Args:
        batch: scores as the verifier has them. own: [B, T] advantages, 0 where nothing is trained on.
    Returns:
        Nothing where all scores are equal, or responses are to fewer than two prompts.
    """
    chunk = chunks_of(batch.group, GRADIENT_CHUNKS)
    count = int(chunk.max()) + 1
    if count < 2 or bool((batch.scores == batch.scores[0]).all()):
        return {}
    returns = monte_carlo_returns(place_scores(batch), batch.response_mask, gamma=1.0)
    truth = truth_advantages(returns, batch.response_mask, batch.group, chunk, baseline=baseline_of(batch.group))
    kinds = torch.cat([own[None], truth])
    groups = [(chunk == number).nonzero()[:, 0] for number in range(count)]
    gradients = PolicyGradients(
        models.policy,
        batch,
        temperature=settings.rollout.temperature,
        max_tokens=settings.micro_batch_tokens,
        held=3 * len(kinds) * count,  # plain, preconditioned, and one of the two once more when multiplied
        memory=GRADIENT_BYTES,
    )
    gradients.precondition(groups)
    plain, scaled = [], []
    for group in groups:
        of_plain, of_scaled = gradients.of(group, kinds)
        assert of_scaled is not None
        plain.append(of_plain)
        scaled.append(of_scaled)
    sizes = np.array([len(group) for group in groups])

    def compared(products: Floats) -> Alignments:
        return Alignments(products, sizes, rng=np.random.default_rng(0), resamples=GRADIENT_RESAMPLES)

    whole = compared(chunk_products(gradients, scaled))
    surrogate = later_length_gradients(kinds.double().numpy(), batch.response_mask.numpy(), chunk.numpy())
    size = settings.responses_per_iteration
    gain, share = whole.gain(OWN, REWARD, batch=size), whole.relative_gain(OWN, REWARD, REWARD, batch=size)
    return {
        **_cosines(whole, ""),
        **_cosines(compared(chunk_products(gradients, plain)), "plain_"),
        **_cosines(compared(products_of(surrogate)), "surrogate_"),
        **_number("gain_share", share if whole.product(REWARD, REWARD).is_positive else None),
        **_number("reward_ceiling", whole.halves(REWARD)),
        "forecast/score_z": gain.value / gain.error if gain.error > 0 else 0.0,
    }


def _cosines(result: Alignments, method: str) -> Metrics:
    """Cosines with the gradients of score and of length, where both lengths can be told from noise."""
    is_clear = {kind: result.product(kind, kind).is_positive for kind in (OWN, REWARD, LENGTH)}
    return {
        name: value
        for target, of in ((REWARD, "reward"), (LENGTH, "length"))
        for name, value in _number(
            f"{method}{of}_cosine", result.cosine(OWN, target) if is_clear[OWN] and is_clear[target] else None
        ).items()
    }


def _number(name: str, result: Resampled | None) -> Metrics:
    """A number with both ends of its interval; NaN where there is none."""
    value, low, high = (
        (float("nan"),) * 3 if result is None else (result.value, result.interval.low, result.interval.high)
    )
    return {f"forecast/{name}": value, f"forecast/{name}_low": low, f"forecast/{name}_high": high}

"""Does the policy gradient that a critic makes point uphill: readings and a policy in, `Alignment` parts out.

All critics and all lambdas are measured in one pass over the responses, beside the Monte-Carlo gradient and that of
length: V kinds of advantages cost V + 1 backward passes, the last one for second moments. Each chunk's gradients can be
kept in a folder, so that a run that was stopped goes on where it was.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.diagnosis.gradient_passes import GradientSettings, Progress, products_of_chunks
from vcppo.diagnosis.gradient_sample import drawn
from vcppo.diagnosis.responses import Reading
from vcppo.diagnosis.schema import Alignment, Estimate
from vcppo.errors import ShapeError
from vcppo.maths.advantages import gae
from vcppo.maths.alignment import Alignments, Floats, Resampled
from vcppo.maths.alignment_surrogate import later_length_gradients, products_of
from vcppo.rl.alignment import baseline_of, chunks_of, padded_to, shares_prompts, truth_advantages
from vcppo.settings.fixed import GRADIENT_CHUNKS, GRADIENT_RESAMPLES
from vcppo.types import TokenBatch

Method = Literal["gradient", "preconditioned", "surrogate"]
REWARD, LENGTH = 0, 1  # numbers of the directions that others are compared with
FEWEST = 16  # responses


@dataclass(frozen=True)
class CriticAlignment:
    """Alignments of one critic's gradients, and its best λ."""

    alignments: tuple[Alignment, ...]  # of each lambda, plain and preconditioned
    best_lambda: float | None  # None where no lambda can be told to go uphill
    lambdas_as_good: tuple[float, ...]  # those that cannot be told from the best one, itself included
    why: str | None = None  # if nothing could be measured
    notes: tuple[str, ...] = ()


def measure_alignments(
    readings: Sequence[Reading],
    lambdas: Sequence[float],
    policy: PreTrainedModel,
    batch: TokenBatch,
    settings: GradientSettings,
    progress: Progress = lambda done, of: None,
) -> list[CriticAlignment]:
    """Measure each critic at each lambda; every process calls it alike.

    Responses of which a critic has a value that is not finite are left out for all of them.

    Args:
        readings: of the same responses, at least one; their masks are the batch's. policy: prepared.
        settings: of more responses than its `responses`, those to prompts drawn at random are measured, and a note
            says so.
    Raises:
        ShapeError: a reading has other responses than the batch.
    """
    for reading in readings:
        if reading.response_mask.sum(dim=1).tolist() != batch.lengths.tolist():
            raise ShapeError(
                f"critic {reading.critic}: values of {len(reading.values)} responses of other lengths than the "
                "policy's; expected one value a token, read with the policy's tokenizer"
            )
    known = _comparable(readings, settings.chunks, settings.responses, settings.seed)
    if isinstance(known, str):
        return [CriticAlignment((), None, (), known)] * len(readings)
    part = batch.take(known.rows)
    kinds = padded_to(part, torch.stack(list(_kinds(readings, lambdas, known))))
    chunk = known.chunk
    groups = [(chunk == number).nonzero()[:, 0] for number in range(int(chunk.max()) + 1)]
    plain, scaled, passes = products_of_chunks(policy, part, kinds, groups, settings, progress)
    counts = np.array([len(group) for group in groups])
    products: dict[Method, Floats] = {"gradient": plain, "preconditioned": scaled}
    by_method = {
        method: Alignments(x, counts, rng=np.random.default_rng(settings.seed), resamples=GRADIENT_RESAMPLES)
        for method, x in products.items()
    }
    return _parts(by_method, len(readings), lambdas, settings.batch_size, known, passes)


def surrogate_alignments(
    readings: Sequence[Reading],
    lambdas: Sequence[float],
    *,
    batch_size: int,
    chunks: int = GRADIENT_CHUNKS,
    seed: int = 0,
) -> list[CriticAlignment]:
    """The same with no policy, from values, returns and lengths alone (vcppo/maths/alignment_surrogate.py).

    It sees what goes through the length of responses, and chooses no lambda. Where that cannot be told, cosines are
    null, with the reason that the policy is needed. Changes are in units of its own: their sign alone means something.
    """
    known = _comparable(readings, chunks)
    if isinstance(known, str):
        return [CriticAlignment((), None, (), known)] * len(readings)
    kinds = (kind.double().numpy() for kind in _kinds(readings, lambdas, known))
    gradients = later_length_gradients(kinds, known.response_mask.numpy(), known.chunk.numpy())
    counts, rng = np.bincount(known.chunk.numpy()), np.random.default_rng(seed)
    result = Alignments(products_of(gradients), counts, rng=rng, resamples=GRADIENT_RESAMPLES)
    return _parts({"surrogate": result}, len(readings), lambdas, batch_size, known, 0)


@dataclass(frozen=True)
class _Comparable:
    """The responses that all critics have finite values of, and how they are compared."""

    rows: Tensor  # [K] of the readings
    response_mask: Tensor  # [K, T]
    chunk: Tensor  # [K]
    baseline: str
    notes: tuple[str, ...]
    unit: float  # of the score: what one right response in place of a wrong one adds


def _comparable(
    readings: Sequence[Reading], chunks: int, responses: int | None = None, seed: int = 0
) -> _Comparable | str:
    """Find them, no more than `responses`; or why nothing can be measured."""
    finite = [(reading.values.isfinite() | ~reading.response_mask).all(dim=1) for reading in readings]
    rows = (torch.stack(finite).all(dim=0) & readings[0].response_mask.any(dim=1)).nonzero()[:, 0]
    measurable = len(rows)
    if responses is not None and responses < measurable:
        rows = rows[drawn(readings[0].problem[rows], responses, seed)]
    problem, scores = readings[0].problem[rows], readings[0].scores[rows]
    if why := _cannot(scores):
        return why
    mask, chunk = readings[0].response_mask[rows], chunks_of(problem, chunks)
    notes = []
    if len(rows) < measurable:
        notes.append(
            f"gradients: of {len(rows):,} of {measurable:,} responses, those to {len(problem.unique()):,} prompts "
            "drawn at random; intervals are of these, and narrower with more"
        )
    if left_out := len(finite[0]) - measurable:
        notes.append(f"gradients: {left_out} responses with a value that is not finite, or empty, are left out")
    if shares_prompts(problem):
        few = len(problem.unique())
        notes.append(f"gradients: {few} prompts are few, so intervals are over responses to these prompts")
    return _Comparable(rows, mask, chunk, baseline_of(problem), tuple(notes), _unit(scores))


def _kinds(readings: Sequence[Reading], lambdas: Sequence[float], known: _Comparable) -> Iterator[Tensor]:
    """V times [K, T] advantages: Monte-Carlo returns, length, then every critic at every lambda."""
    rows, mask, problem = known.rows, known.response_mask, readings[0].problem[known.rows]
    yield from truth_advantages(readings[0].returns[rows], mask, problem, known.chunk, baseline=known.baseline)
    for reading in readings:
        values, returns = reading.values[rows], reading.returns[rows]
        yield from (advantages_of(returns, values, mask, gae_lambda) for gae_lambda in lambdas)


def _parts(
    found_by: Mapping[Method, Alignments],
    critics: int,
    lambdas: Sequence[float],
    batch_size: int,
    known: _Comparable,
    passes: int,
) -> list[CriticAlignment]:
    """Return the part of each critic; its best λ is that of the last method."""
    parts, (*_, judge) = [], found_by.values()
    for critic in range(critics):
        first = 2 + critic * len(lambdas)
        numbers = list(range(first, first + len(lambdas)))
        alignments = [
            _alignment(result, method, number, gae_lambda, batch_size, known, passes)
            for method, result in found_by.items()
            for number, gae_lambda in zip(numbers, lambdas, strict=True)
        ]
        best, alike = judge.best(numbers, REWARD, batch=batch_size)
        if "surrogate" not in found_by and judge.gain(best, REWARD, batch=batch_size).is_positive:
            as_good = tuple(lambdas[number - first] for number in alike)
            parts.append(CriticAlignment(tuple(alignments), lambdas[best - first], as_good, notes=known.notes))
        else:
            parts.append(CriticAlignment(tuple(alignments), None, (), notes=known.notes))
    return parts


def advantages_of(returns: Tensor, values: Tensor, response_mask: Tensor, gae_lambda: float) -> Tensor:
    """[B, T] advantages of a reading, gamma 1; rewards are the differences of Monte-Carlo returns."""
    selected = torch.where(response_mask, returns, 0.0)
    rewards = selected - torch.nn.functional.pad(selected[:, 1:], (0, 1))
    return gae(rewards, values, response_mask, gamma=1.0, gae_lambda=gae_lambda)


def _cannot(scores: Tensor) -> str | None:
    """Return the reason why nothing can be measured, or None."""
    if len(scores) < FEWEST:
        return f"{len(scores)} responses with finite values; expected {FEWEST} or more"
    if float(scores.min()) == float(scores.max()):
        return f"all scores are {float(scores[0]):g}: no gradient raises or lowers them; expected right and wrong ones"
    return None


def _unit(scores: Tensor) -> float:
    """Score of a right response less that of a wrong one; 1 where scores have more than two values."""
    values = scores.unique()
    return float(values[1] - values[0]) if len(values) == 2 else 1.0


def _alignment(
    result: Alignments,
    method: Method,
    number: int,
    gae_lambda: float,
    batch_size: int,
    known: _Comparable,
    passes: int,
) -> Alignment:
    """The report's part of one lambda."""
    ceiling = result.halves(REWARD)
    reward, length = result.product(REWARD, REWARD), result.product(LENGTH, LENGTH)
    own = result.product(number, number)
    blind = _too_noisy(result, own, reward, length, number, ceiling)
    if method == "surrogate":
        blind = {
            name: why and f"{why}; what does not go through length needs the policy" for name, why in blind.items()
        }
    unit = known.unit
    return Alignment.model_validate(
        {
            "gae_lambda": gae_lambda,
            "method": method,
            "with_reward": estimate(result.cosine(number, REWARD), why=blind["reward"]),
            "with_length": estimate(result.cosine(number, LENGTH), why=blind["length"]),
            "reward_ceiling": estimate(ceiling),
            "accuracy_change": estimate(result.change(number, REWARD), 1 / unit, why=blind["own"]),
            "length_change": estimate(result.change(number, LENGTH), why=blind["own"]),
            "noise": estimate(result.signal_to_noise(number, batch=batch_size)),
            "batch_size": batch_size,
            "batch_accuracy_change": estimate(result.gain(number, REWARD, batch=batch_size), 1 / unit),
            "batch_length_change": estimate(result.gain(number, LENGTH, batch=batch_size)),
            "against_monte_carlo": estimate(
                result.relative_gain(number, REWARD, REWARD, batch=batch_size), why=blind["truth"]
            ),
            "baseline": known.baseline,
            "backward_passes": passes,
        }
    )


def _too_noisy(
    result: Alignments, own: Resampled, reward: Resampled, length: Resampled, number: int, ceiling: Resampled
) -> dict[str, str | None]:
    """Say why a cosine with the gradient of reward or length, or a change along this one, cannot be told; or None."""

    def needs(name: str, of: int, square: Resampled) -> str | None:
        if square.is_positive:
            return None
        enough = result.responses_needed(of)
        more = "it gives no sign of itself in these" if enough is None else f"about {enough} would be needed"
        return f"{name} cannot be told from noise with these responses; {more}"

    of_truth = needs(f"the Monte-Carlo gradient (halves have a cosine of {ceiling.value:.2f})", REWARD, reward)
    of_length = needs("the gradient of length", LENGTH, length)
    of_own = needs("the expected gradient of these advantages", number, own)
    return {"own": of_own, "truth": of_truth, "reward": of_truth or of_own, "length": of_length or of_own}


def estimate(result: Resampled, factor: float = 1.0, *, why: str | None = None) -> Estimate:
    """A resampled number with its interval; none with a reason."""
    interval = result.interval
    if why is not None or not np.isfinite(result.value):
        return Estimate(value=None, why=why or "it is not defined for these responses")
    return Estimate(value=factor * result.value, low=factor * interval.low, high=factor * interval.high)
